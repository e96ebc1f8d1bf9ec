//! Secrets at rest: the file `secrets.json`, and the vault whose keys come from the machine secret.
//!
//! Every value is sealed by itself (AES-256-GCM, a random nonce) and bound to its name, so that a copied file is worth
//! nothing without the machine secret and no value can be passed off as another's. What is shown instead of a value is
//! its fingerprint, made with a key of its own.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hkdf, hmac, rand};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::clock::UnixMs;
use crate::secret::Secret;
use crate::{files, json};

/// The form of the file, and part of what every value is bound to.
const VERSION: u32 = 1;
const MOST: usize = 128;
/// Certificates fit; the kernel takes 128 KiB for one variable.
const LONGEST_VALUE: usize = 32 * 1024;
/// All values at their longest in base64, and what is around them.
const LONGEST_FILE: u64 = 8 * 1024 * 1024;

/// Seals and opens secrets with keys derived from the machine secret. `Debug` of the keys names only algorithms.
#[derive(Debug)]
pub struct Vault {
    sealing: LessSafeKey,
    fingerprints: hmac::Key,
}

impl Vault {
    /// Derives the keys.
    ///
    /// # Errors
    /// The machine secret is too short, or not of printable characters.
    pub fn new(machine_secret: &Secret) -> Result<Self, String> {
        let root = root(machine_secret)?;
        let derived = || -> Result<Self, Unspecified> {
            let sealing = UnboundKey::from(root.expand(&[b"secrets: sealing"], &AES_256_GCM)?);
            let fingerprints = hmac::Key::from(root.expand(&[b"secrets: fingerprints"], hmac::HMAC_SHA256)?);
            Ok(Self { sealing: LessSafeKey::new(sealing), fingerprints })
        };
        derived().map_err(|_| NO_KEYS.to_owned())
    }

    fn seal(&self, name: &str, value: &Secret) -> Result<String, Unspecified> {
        let mut random = [0; NONCE_LEN];
        rand::fill(&mut random)?;
        let nonce = Nonce::assume_unique_for_key(random);
        let mut body = Zeroizing::new(value.expose().as_bytes().to_vec());
        // The tag apart: appended, it could move the value and leave a copy behind.
        let tag = self.sealing.seal_in_place_separate_tag(nonce, bound_to(name), &mut body)?;
        Ok(BASE64URL_NOPAD.encode(&[&random, body.as_slice(), tag.as_ref()].concat()))
    }

    fn open(&self, name: &str, sealed: &str) -> Option<Secret> {
        let mut bytes = Zeroizing::new(BASE64URL_NOPAD.decode(sealed.as_bytes()).ok()?);
        let (nonce, body) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let value = self.sealing.open_in_place(nonce, bound_to(name), body).ok()?;
        Some(Secret::new(std::str::from_utf8(value).ok()?.to_owned()))
    }

    fn fingerprint(&self, value: &Secret) -> String {
        HEXLOWER.encode(&hmac::sign(&self.fingerprints, value.expose().as_bytes()).as_ref()[..8])
    }
}

/// 32 bytes of the machine's secret for the purpose that `label` names; other labels give unrelated ones.
///
/// # Errors
/// The machine secret is too short, or not of printable characters.
pub fn derive(machine_secret: &Secret, label: &[u8]) -> Result<Zeroizing<[u8; 32]>, String> {
    let mut key = Zeroizing::new([0; 32]);
    let root = root(machine_secret)?;
    let filled = root.expand(&[label], hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut *key));
    filled.map(|()| key).map_err(|_| NO_KEYS.to_owned())
}

fn root(machine_secret: &Secret) -> Result<hkdf::Prk, String> {
    let text = machine_secret.expose();
    if text.len() < 32 || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let needed = "must be at least 32 printable characters without spaces";
        return Err(format!("machine.secret: {needed}; make one with: openssl rand -hex 32"));
    }
    Ok(hkdf::Salt::new(hkdf::HKDF_SHA256, b"openclaw-sidecar").extract(text.as_bytes()))
}

const NO_KEYS: &str = "machine.secret: no keys can be derived from it";

fn bound_to(name: &str) -> Aad<Vec<u8>> {
    Aad::from(format!("openclaw-sidecar secrets.json {VERSION} {name}").into_bytes())
}

/// What is shown of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SecretInfo {
    /// The variable's name in the gateway's environment.
    pub name: String,
    /// When it was last set.
    pub set_at: UnixMs,
    /// Tells whether two values are the same, and nothing else.
    pub fingerprint: String,
    /// When the value stops working, where the caller said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMs>,
}

/// The sealed secrets of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    version: u32,
    secrets: BTreeMap<String, Kept>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Nonce, ciphertext and tag, base64url.
    sealed: String,
    #[serde(deserialize_with = "moment")]
    set_at: UnixMs,
    fingerprint: String,
    #[serde(default, deserialize_with = "maybe_moment", skip_serializing_if = "Option::is_none")]
    expires_at: Option<UnixMs>,
}

impl Default for Store {
    fn default() -> Self {
        Self { version: VERSION, secrets: BTreeMap::new() }
    }
}

impl Store {
    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.secrets.is_empty()
    }

    /// Reads the file at `path`; none is an empty store.
    ///
    /// # Errors
    /// The file cannot be read or understood, and what to do. There is no store then that could be saved over it.
    pub fn load(path: &Path) -> Result<Self, String> {
        // `seed` reads it as root in a directory of the sidecar: no link is followed.
        let content = match files::read_owned_text(path, LONGEST_FILE, None) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.map_err(|e| format!("{e}; {REMEDY}"))?,
        };
        Self::parse(content.as_bytes()).map_err(|what| format!("{}: {what}; {REMEDY}", path.display()))
    }

    fn parse(content: &[u8]) -> Result<Self, String> {
        let store: Self = json::parse(content)?;
        if store.version != VERSION {
            return Err(format!("is of version {}, not {VERSION}", store.version));
        }
        if store.secrets.len() > MOST {
            return Err(format!("holds more than {MOST} secrets"));
        }
        store.secrets.keys().try_for_each(|name| check_name(name))?;
        Ok(store)
    }

    /// Writes the file, durably.
    ///
    /// # Errors
    /// Any error of the file system; the old file is untouched then.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        files::replace(path, &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// Seals `value` under `name`, instead of what was there.
    ///
    /// # Errors
    /// What is wrong with the name or the value (never quoting the value), or there are too many.
    pub fn set(&mut self, vault: &Vault, name: &str, value: &Secret, expires_at: Option<UnixMs>) -> Result<(), String> {
        check_name(name)?;
        let length = value.expose().len();
        if length == 0 || length > LONGEST_VALUE || value.expose().contains('\0') {
            return Err(format!("value: must be 1 to {LONGEST_VALUE} bytes without NUL"));
        }
        if self.secrets.len() >= MOST && !self.secrets.contains_key(name) {
            return Err(format!("there are {MOST} secrets already; remove one first"));
        }
        let sealed = vault.seal(name, value).map_err(|_| "value: could not be sealed".to_owned())?;
        let entry = Kept { sealed, set_at: UnixMs::now(), fingerprint: vault.fingerprint(value), expires_at };
        self.secrets.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Removes a secret; false when there was none of that name.
    pub fn remove(&mut self, name: &str) -> bool {
        self.secrets.remove(name).is_some()
    }

    /// What is shown of the secrets, by name.
    pub fn list(&self) -> Vec<SecretInfo> {
        let info = |(name, kept): (&String, &Kept)| SecretInfo {
            name: name.clone(),
            set_at: kept.set_at,
            fingerprint: kept.fingerprint.clone(),
            expires_at: kept.expires_at,
        };
        self.secrets.iter().map(info).collect()
    }

    /// All values by name.
    ///
    /// # Errors
    /// The names that cannot be opened, and what to do.
    pub fn open_all(&self, vault: &Vault) -> Result<BTreeMap<String, Secret>, String> {
        let (mut opened, mut closed) = (BTreeMap::new(), Vec::new());
        for (name, kept) in &self.secrets {
            match vault.open(name, &kept.sealed) {
                Some(value) => drop(opened.insert(name.clone(), value)),
                None => closed.push(name.as_str()),
            }
        }
        if closed.is_empty() {
            return Ok(opened);
        }
        let why = "sealed under another machine secret, or changed on disk";
        let remedy = "set machine.secret to the one they were sealed under, or PUT /v1/secrets/NAME again";
        Err(format!("secrets that cannot be opened: {} ({why}); {remedy}", closed.join(", ")))
    }
}

const REMEDY: &str = "restore the file from a backup, or remove it and set every secret again";

/// Whether `name` may be a variable of the gateway's environment that the control plane sets.
///
/// # Errors
/// Why it may not.
pub fn check_name(name: &str) -> Result<(), String> {
    let form = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 128 || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(form) {
        return Err("name: must be 1 to 128 of A-Z, 0-9 and _, not beginning with a digit".to_owned());
    }
    if super::document::is_reserved(name) {
        return Err(format!("name: {name} is set by the sidecar or changes how programs start; take another"));
    }
    Ok(())
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixMs, D::Error> {
    let text = String::deserialize(deserializer)?;
    UnixMs::parse(&text).ok_or_else(|| serde::de::Error::custom("must be a time such as 2026-11-20T00:00:00Z"))
}

fn maybe_moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixMs>, D::Error> {
    moment(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
