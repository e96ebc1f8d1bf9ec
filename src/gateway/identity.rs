//! The sidecar's own device identity towards the gateway: an Ed25519 key, and the signature of a handshake.

use std::io;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};

use crate::files;

/// An Ed25519 key pair and the names that follow from it.
#[derive(Debug)]
pub struct Identity {
    keys: Ed25519KeyPair,
    /// Lower-case hex SHA-256 of the raw public key: how the gateway names a device.
    pub device_id: String,
    /// The raw public key in base64url without padding.
    pub public_key: String,
}

impl Identity {
    /// Reads the key kept at `path` (PKCS#8, mode 0600), or makes one at the first start.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds no such key; it is never silently replaced.
    pub fn load_or_create(path: &Path) -> io::Result<Self> {
        if path.exists() {
            let kept = files::read_bounded(path, 4096)?;
            return Self::from_pkcs8(&kept).ok_or_else(|| {
                let what = "holds no Ed25519 key; restore it, or remove it to make a new identity";
                io::Error::other(format!("{}: {what}", path.display()))
            });
        }
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(io::Error::other)?;
        files::replace(path, made.as_ref(), 0o600)?;
        Self::from_pkcs8(made.as_ref()).ok_or_else(|| io::Error::other("a new Ed25519 key could not be used"))
    }

    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let keys = Ed25519KeyPair::from_pkcs8(der).ok()?;
        let raw = keys.public_key().as_ref();
        let device_id = HEXLOWER.encode(&Sha256::digest(raw));
        let public_key = BASE64URL_NOPAD.encode(raw);
        Some(Self { keys, device_id, public_key })
    }

    /// The signature over a handshake's text, base64url without padding.
    pub fn sign(&self, text: &str) -> String {
        BASE64URL_NOPAD.encode(self.keys.sign(text.as_bytes()).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_key_is_private_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.pk8");
        let first = Identity::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let second = Identity::load_or_create(&path).unwrap();
        assert_eq!(first.device_id, second.device_id);
        assert_eq!(first.sign("v2|x"), second.sign("v2|x"));
    }

    #[test]
    fn a_damaged_key_is_reported_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.pk8");
        std::fs::write(&path, "garbage").unwrap();
        let error = Identity::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("identity.pk8") && error.contains("remove it"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "garbage");
    }
}
