//! The certificate: given and reloaded when it changes, or self-signed once and kept. TLS 1.3 only.

mod validity;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use data_encoding::HEXLOWER;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};

use crate::clock::UnixMs;
use crate::config;
use crate::files;

const MAX_PEM: u64 = 256 * 1024;

/// The certificate in use, and where it comes from.
#[derive(Debug)]
pub struct Certificate {
    given: Option<(PathBuf, PathBuf)>,
    current: RwLock<Arc<CertifiedKey>>,
    /// Shared with the state that the API shows.
    fingerprint: Arc<Mutex<Option<String>>>,
    content: Mutex<[u8; 32]>,
}

impl Certificate {
    /// Loads the configured certificate, or the self-signed one kept in `state_dir`, made at the first start.
    ///
    /// # Errors
    /// In plain words what is wrong with the files.
    pub fn load(config: &config::Tls, state_dir: &Path) -> Result<Self, String> {
        let given = config.cert_file.clone().zip(config.key_file.clone());
        let pem = match &given {
            Some((cert, key)) => Pem::read(cert, key)?,
            None => self_signed(state_dir, &config.server_names).map_err(|e| format!("state_dir: {e}"))?,
        };
        let made = |e| format!("state_dir: {e}; remove the file to have another made, with another fingerprint");
        let (key, fingerprint) = pem.certified().map_err(|e| if given.is_some() { e } else { made(e) })?;
        Ok(Self {
            given,
            current: RwLock::new(Arc::new(key)),
            fingerprint: Arc::new(Mutex::new(Some(fingerprint))),
            content: Mutex::new(pem.digest()),
        })
    }

    /// Lower-case hex SHA-256 of the certificate, kept up to date.
    pub fn fingerprint(&self) -> Arc<Mutex<Option<String>>> {
        self.fingerprint.clone()
    }

    /// The files to watch, if the certificate was given.
    pub fn files(&self) -> Option<&(PathBuf, PathBuf)> {
        self.given.as_ref()
    }

    /// Reads given files anew if their content changed. A bad new certificate leaves the old one in force.
    ///
    /// # Errors
    /// In plain words what is wrong with the new files.
    pub fn reload(&self) -> Result<(), String> {
        let Some((cert, key)) = &self.given else { return Ok(()) };
        let pem = Pem::read(cert, key)?;
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if *content == pem.digest() {
            return Ok(());
        }
        let (key, fingerprint) = pem.certified()?;
        tracing::info!(certificate_sha256 = fingerprint, "certificate reloaded");
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
        *self.fingerprint.lock().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint);
        *content = pem.digest();
        Ok(())
    }

    /// Host names the certificate is for.
    pub fn names(&self) -> Vec<String> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(leaf) = current.cert.first() else { return Vec::new() };
        webpki::EndEntityCert::try_from(leaf)
            .map(|cert| cert.valid_dns_names().map(str::to_ascii_lowercase).collect())
            .unwrap_or_default()
    }

    /// From when until when the certificate is valid.
    pub fn validity(&self) -> Option<(UnixMs, UnixMs)> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        validity::of(current.cert.first()?)
    }

    /// The server's side of TLS with this certificate.
    ///
    /// # Errors
    /// Never with the provider named here.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Resumption saves next to nothing with ECDSA; without tickets nothing outlives a connection.
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

#[derive(Debug)]
struct Resolver(Arc<Certificate>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// A chain and its key as text, and how errors name them.
struct Pem {
    chain: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
    name: String,
    key_name: String,
}

impl Pem {
    fn read(cert: &Path, key: &Path) -> Result<Self, String> {
        let chain = files::read_bounded(cert, MAX_PEM).map_err(|e| format!("tls.cert_file: {e}"))?;
        let private = files::read_bounded(key, MAX_PEM).map_err(|e| format!("tls.key_file: {e}"))?;
        Ok(Self {
            chain,
            key: private.into(),
            name: format!("tls.cert_file: {}", cert.display()),
            key_name: format!("tls.key_file: {}", key.display()),
        })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(&self.chain).chain_update(&*self.key).finalize().into()
    }

    fn certified(&self) -> Result<(CertifiedKey, String), String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.chain)
            .collect::<Result<_, _>>()
            .map_err(|e| format!("{}: no PEM certificates: {e}", self.name))?;
        let leaf = chain.first().ok_or_else(|| format!("{}: holds no certificate", self.name))?;
        let fingerprint = HEXLOWER.encode(&Sha256::digest(leaf));
        let key =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| format!("{}: no PEM key: {e}", self.key_name))?;
        let certified = CertifiedKey::from_der(chain, key, &provider::default_provider())
            .map_err(|e| format!("{}: certificate and key do not fit: {e}", self.name))?;
        Ok((certified, fingerprint))
    }
}

/// The kept self-signed certificate, made anew when there is none or when it lacks a name that is served now.
///
/// `tls.pem` holds key and certificate in one file, so that no crash can part them; `tls.crt` is a copy for callers.
fn self_signed(state_dir: &Path, names: &[String]) -> Result<Pem, String> {
    let path = state_dir.join("tls.pem");
    let text = match files::read_text(&path, MAX_PEM) {
        Ok(text) if covers(&text, names) => text,
        Ok(_) => {
            tracing::warn!("tls.server_names has a new name: a new certificate is made, with another fingerprint");
            make(names, &path)?
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(names, &path)?,
        Err(e) => return Err(e.to_string()),
    };
    let certificate = text.find("-----BEGIN CERTIFICATE").map_or("", |at| &text[at..]);
    files::replace(&state_dir.join("tls.crt"), certificate.as_bytes(), 0o644).map_err(|e| e.to_string())?;
    let bytes = text.into_bytes();
    let name = path.display().to_string();
    Ok(Pem { chain: bytes.clone(), key: bytes.into(), key_name: name.clone(), name })
}

fn covers(text: &str, names: &[String]) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(text.as_bytes()) else { return true };
    let Ok(parsed) = webpki::EndEntityCert::try_from(&certificate) else { return true };
    let known: Vec<&str> = parsed.valid_dns_names().collect();
    names.iter().all(|name| known.contains(&name.as_str()))
}

fn make(names: &[String], path: &Path) -> Result<String, String> {
    let failed = |e: rcgen::Error| format!("no certificate could be made: {e}");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut all: Vec<String> = vec!["localhost".to_owned()];
    all.extend(names.iter().cloned());
    let mut params = CertificateParams::new(all).map_err(failed)?;
    for address in [std::net::IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()] {
        params.subject_alt_names.push(SanType::IpAddress(address));
    }
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "openclaw-sidecar");
    let certificate = params.self_signed(&key).map_err(failed)?;
    let text = format!("{}{}", key.serialize_pem(), certificate.pem());
    files::replace(path, text.as_bytes(), 0o600).map_err(|e| e.to_string())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(names: &[&str]) -> config::Tls {
        config::Tls { cert_file: None, key_file: None, server_names: names.iter().map(|n| (*n).to_owned()).collect() }
    }

    fn fingerprint(certificate: &Certificate) -> String {
        certificate.fingerprint.lock().unwrap().clone().unwrap()
    }

    #[test]
    fn the_self_signed_certificate_stays_until_a_name_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let first = Certificate::load(&tls(&[]), dir.path()).unwrap();
        let second = Certificate::load(&tls(&[]), dir.path()).unwrap();
        assert_eq!(fingerprint(&first), fingerprint(&second));
        let third = Certificate::load(&tls(&["tenant-7.internal"]), dir.path()).unwrap();
        assert_ne!(fingerprint(&first), fingerprint(&third));
        assert_eq!(third.names(), ["localhost", "tenant-7.internal"]);
        let copy = std::fs::read_to_string(dir.path().join("tls.crt")).unwrap();
        assert!(copy.starts_with("-----BEGIN CERTIFICATE") && !copy.contains("PRIVATE KEY"));
    }

    #[test]
    fn a_given_certificate_is_reloaded_and_a_bad_one_changes_nothing() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Certificate::load(&tls(&[]), dir.path()).unwrap();
        let (cert, key) = (dir.path().join("tls.crt"), dir.path().join("tls.pem"));
        let given = config::Tls { cert_file: Some(cert.clone()), key_file: Some(key.clone()), server_names: vec![] };
        let certificate = Certificate::load(&given, Path::new("/nonexistent")).unwrap();
        let before = fingerprint(&certificate);

        std::fs::write(&cert, "garbage").unwrap();
        assert!(certificate.reload().unwrap_err().contains("tls.crt"));
        assert_eq!(fingerprint(&certificate), before);

        Certificate::load(&tls(&[]), other.path()).unwrap();
        std::fs::copy(other.path().join("tls.crt"), &cert).unwrap();
        assert!(certificate.reload().unwrap_err().contains("do not fit"));
        std::fs::copy(other.path().join("tls.pem"), &key).unwrap();
        certificate.reload().unwrap();
        assert_ne!(fingerprint(&certificate), before);
    }
}
