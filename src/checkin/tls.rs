//! TLS to the registry: whom it trusts, and how the HTTP client gets it.
//!
//! Nothing in the environment changes whom we trust: not `SSL_CERT_FILE`, not a proxy variable, not a key log.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};
use sha2::{Digest, Sha256};
use ureq::unversioned::transport::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::files;

/// Where systems keep the certificates of public authorities; the first that exists counts.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];
const MAX_BUNDLE: u64 = 4 * 1024 * 1024;
/// A message fits into one write.
const BUFFER: usize = 16 * 1024;

/// Whom to believe to be the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The public authorities the system knows.
    System,
    /// The authorities in this PEM file.
    Authorities(PathBuf),
    /// Exactly the certificate with this SHA-256.
    Pin([u8; 32]),
}

/// The client's side of TLS. `key` is that of the configuration which names authorities.
///
/// # Errors
/// In plain words what is wrong with the certificates to trust.
pub fn client_config(trust: &Trust, key: &str) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    let builder = match trust {
        Trust::System => {
            let path = BUNDLES.iter().map(Path::new).find(|path| files::exists(path));
            let path = path.ok_or_else(|| format!("this system has no bundle of public authorities; set {key}"))?;
            builder.with_root_certificates(roots(path)?)
        }
        Trust::Authorities(path) => builder.with_root_certificates(roots(path).map_err(|e| format!("{key}: {e}"))?),
        Trust::Pin(sha256) => {
            let verifier = Arc::new(Pinned { sha256: *sha256, provider });
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let pem = files::read_bounded(path, MAX_BUNDLE).map_err(|e| e.to_string())?;
    let mut store = RootCertStore::empty();
    // A bundle may hold some that this build cannot read; they just are not trusted.
    store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if store.is_empty() { Err(format!("{}: holds no certificate in PEM form", path.display())) } else { Ok(store) }
}

/// Trusts one certificate, whatever name it is for, and still demands proof of its key.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if <[u8; 32]>::from(Sha256::digest(shown)) == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("it shows another certificate than registry.pin_sha256 says".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Puts TLS over the client's TCP connection.
pub(super) struct Wrap {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl<In: Transport> Connector<In> for Wrap {
    type Out = Tls;

    fn connect(&self, details: &ConnectionDetails, tcp: Option<In>) -> Result<Option<Tls>, ureq::Error> {
        let tcp = tcp.ok_or(ureq::Error::ConnectionFailed)?;
        let mut connection = ClientConnection::new(self.config.clone(), self.name.clone()).map_err(failed)?;
        let mut socket = TransportAdapter::new(tcp.boxed(), details.current_time.clone());
        // What the TCP connection took is gone.
        let mut timeout = details.timeout;
        if let (Duration::Exact(all), Instant::Exact(began), Instant::Exact(now)) =
            (timeout.after, details.now, (details.current_time)())
        {
            timeout.after = Duration::Exact(all.saturating_sub(now.saturating_duration_since(began)));
        }
        socket.set_timeout(timeout);
        connection.complete_io(&mut socket)?;
        let stream = StreamOwned { conn: connection, sock: socket };
        Ok(Some(Tls { buffers: LazyBuffers::new(BUFFER, BUFFER), stream }))
    }
}

fn failed(e: rustls::Error) -> ureq::Error {
    ureq::Error::Other(e.into())
}

impl fmt::Debug for Wrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wrap")
    }
}

/// A connection inside TLS.
pub(super) struct Tls {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for Tls {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
