//! What proves to the registry which machine this is.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::desired::secrets;
use crate::files;
use crate::secret::Secret;

/// What every derived credential begins with, so that it is recognised where it must not be.
pub const PREFIX: &str = "ocr_";

/// A bearer credential for the registry. Nothing prints it but the request that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential(Secret);

impl Credential {
    /// The one that is configured, or else the one derived from the machine's secret.
    ///
    /// # Errors
    /// In plain words why there is none; no value is quoted.
    pub fn find(config: &Config) -> Result<Self, String> {
        let registry = &config.registry;
        if let Some(given) = &registry.credential {
            return Self::given(given.expose(), "registry.credential");
        }
        if let Some(file) = &registry.credential_file {
            let text = files::read_text(file, 4096).map_err(|e| format!("registry.credential_file: {e}"))?;
            return Self::given(text.trim(), "registry.credential_file");
        }
        let machine = config.machine.find()?.ok_or(
            "registry.url: there is no credential; set machine.secret, from which one is derived, or registry.credential",
        )?;
        Self::derive(&machine)
    }

    fn given(text: &str, key: &str) -> Result<Self, String> {
        if !(16..=512).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("{key}: must be 16 to 512 printable characters without spaces"));
        }
        Ok(Self(Secret::new(text.to_owned())))
    }

    /// The credential of the machine with this secret.
    ///
    /// # Errors
    /// The machine's secret cannot be used.
    pub fn derive(machine_secret: &Secret) -> Result<Self, String> {
        let key = secrets::derive(machine_secret, b"registry: credential")?;
        Ok(Self(Secret::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&*key)))))
    }

    /// Lower-case hex SHA-256, by which the registry knows it.
    pub fn sha256(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.0.expose().as_bytes()))
    }

    /// The header's value that carries it.
    pub(super) fn bearer(&self) -> Secret {
        Secret::new(format!("Bearer {}", self.0.expose()))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_every_time_and_another_one_elsewhere() {
        let of = |letter: &str| Credential::derive(&Secret::new(letter.repeat(32))).unwrap();
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a").sha256(), of("b").sha256());
        assert!(of("a").0.expose().starts_with(PREFIX) && of("a").0.expose().len() == 47);
        // Computed with another implementation of HKDF-SHA-256: a change would lock every machine out.
        assert_eq!(of("a").sha256(), KNOWN);
    }

    const KNOWN: &str = "aeb41a15b48849ff98886de39c799349f9f0022bd2358ee59a91c69a6063f599";

    #[test]
    fn nothing_prints_it() {
        let credential = Credential::derive(&Secret::new("a".repeat(32))).unwrap();
        let shown = format!("{credential:?} {:?}", credential.bearer());
        assert_eq!(shown, "Credential Secret");
    }

    #[test]
    fn a_given_one_comes_first_and_is_checked() {
        let mut config = Config::default();
        assert!(Credential::find(&config).unwrap_err().contains("machine.secret"));
        config.machine.secret = Some(Secret::new("a".repeat(32)));
        assert_eq!(Credential::find(&config).unwrap().sha256(), KNOWN);
        config.registry.credential = Some(Secret::new("given by the platform".to_owned()));
        let fault = Credential::find(&config).unwrap_err();
        assert!(fault.starts_with("registry.credential:") && !fault.contains("given"), "{fault}");
        config.registry.credential = Some(Secret::new("given-by-the-platform".to_owned()));
        assert_eq!(Credential::find(&config).unwrap().0.expose(), "given-by-the-platform");
    }
}
