//! A registry, or a receiver of webhooks, that does what a test tells it: answers, refuses, hangs, drips, or sends what no registry would.
//!
//! It speaks TLS with a certificate of its own authority, takes one request a connection, and keeps every message.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::fake::codec::sha256_hex;

/// What the registry does with a message it has read.
#[derive(Debug, Clone)]
pub enum Does {
    /// Takes it, and asks for the next one after so many seconds.
    Takes { next_s: u64 },
    /// Answers 200 with this text; `{boot_id}` and `{seq}` are the message's.
    Says(String),
    /// Writes these bytes instead of an HTTP answer, and closes.
    Writes(Vec<u8>),
    /// Writes a head, and then a body of this length, as fast as it is read.
    Pours { head: String, bytes: u64 },
    /// Writes a good answer, one byte in this time.
    Drips(Duration),
    /// Says nothing, and keeps the connection.
    Hangs,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub at: Instant,
    pub path: String,
    pub head: String,
    pub text: String,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub fn has_reason(&self, reason: &str) -> bool {
        self.json()["reason"].as_array().is_some_and(|all| all.iter().any(|r| r == reason))
    }
}

#[derive(Debug)]
struct Shared {
    does: Mutex<Does>,
    received: watch::Sender<Vec<Received>>,
    accepted: watch::Sender<usize>,
}

/// A running registry; dropping it ends it and its connections.
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
    ca: PathBuf,
    leaf_sha256: String,
    _dir: TempDir,
}

impl Registry {
    /// Takes everything, and asks for the next one in five minutes.
    pub async fn start() -> anyhow::Result<Self> {
        let (config, ca, leaf) = certificates()?;
        // Readable for the daemon's own user.
        let dir = tempfile::Builder::new().prefix("registry-").tempdir()?;
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, ca)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            does: Mutex::new(Does::Takes { next_s: 300 }),
            received: watch::Sender::default(),
            accepted: watch::Sender::default(),
        });
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), shared.clone()));
        Ok(Self { shared, address, task, ca: path, leaf_sha256: sha256_hex(&leaf), _dir: dir })
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    pub fn ca_file(&self) -> &Path {
        &self.ca
    }

    pub fn leaf_sha256(&self) -> &str {
        &self.leaf_sha256
    }

    /// The keys of a sidecar that trusts this registry, as the rest of their variables' names.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("REGISTRY_URL", self.url()),
            ("REGISTRY_TENANT", "tenant-7".to_owned()),
            ("REGISTRY_CA_FILE", self.ca.display().to_string()),
            ("REGISTRY_ALLOW_PRIVATE", "true".to_owned()),
        ]
    }

    pub fn does(&self, does: Does) {
        *self.shared.does.lock().unwrap_or_else(PoisonError::into_inner) = does;
    }

    /// All messages so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.borrow().clone()
    }

    /// TCP connections so far.
    pub fn accepted(&self) -> usize {
        *self.shared.accepted.borrow()
    }

    /// Waits for a message like this among those after the first `seen`.
    pub async fn wait(
        &self,
        seen: usize,
        wanted: impl Fn(&Received) -> bool,
        limit: Duration,
    ) -> anyhow::Result<Received> {
        let mut received = self.shared.received.subscribe();
        let find = |all: &Vec<Received>| all.iter().skip(seen).find(|message| wanted(message)).cloned();
        let found = timeout(limit, received.wait_for(|all| find(all).is_some())).await;
        match found {
            Ok(Ok(all)) => find(&all).context("just found"),
            _ => bail!("no such message within {limit:?}; all: {:#?}", texts(&self.received())),
        }
    }

    /// Waits until so many connections were accepted.
    pub async fn wait_accepted(&self, count: usize, limit: Duration) -> anyhow::Result<()> {
        let mut accepted = self.shared.accepted.subscribe();
        let waited = timeout(limit, accepted.wait_for(|now| *now >= count)).await;
        waited.map(|_| ()).with_context(|| format!("{} of {count} connections", self.accepted()))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn texts(all: &[Received]) -> Vec<&str> {
    all.iter().map(|message| message.text.as_str()).collect()
}

/// A certificate for these names, and the authority that vouches for it; both in PEM form.
#[derive(Debug)]
pub struct Issued {
    pub ca: String,
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

pub fn issue(names: &[&str]) -> anyhow::Result<Issued> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(vec![])?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    Ok(Issued { ca: pem, certificate, key })
}

fn certificates() -> anyhow::Result<(ServerConfig, String, Vec<u8>)> {
    let Issued { ca, certificate, key } = issue(&["localhost", "127.0.0.1"])?;
    let der = certificate.der().clone();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![der.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    Ok((config, ca, der.to_vec()))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.accepted.send_modify(|count| *count += 1);
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            // A client that goes away is what some tests are about.
            let _ = serve(stream, acceptor, &shared).await;
        });
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: &Shared) -> anyhow::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let message = read(&mut stream).await?;
    let parsed: Value = serde_json::from_str(&message.text).unwrap_or_default();
    shared.received.send_modify(|all| all.push(message));
    let does = shared.does.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match does {
        Does::Takes { next_s } => stream.write_all(&good(&parsed, next_s)).await?,
        Does::Says(text) => {
            let text = text.replace("{boot_id}", parsed["boot_id"].as_str().unwrap_or_default());
            let text = text.replace("{seq}", &parsed["seq"].to_string());
            stream.write_all(&http(&text)).await?;
        }
        Does::Writes(bytes) => stream.write_all(&bytes).await?,
        Does::Pours { head, bytes } => {
            stream.write_all(head.as_bytes()).await?;
            let chunk = vec![b' '; 64 * 1024];
            for _ in 0..bytes / chunk.len() as u64 {
                stream.write_all(&chunk).await?;
            }
        }
        Does::Drips(pause) => {
            for byte in good(&parsed, 300) {
                stream.write_all(&[byte]).await?;
                stream.flush().await?;
                sleep(pause).await;
            }
        }
        Does::Hangs => std::future::pending::<()>().await,
    }
    stream.shutdown().await?;
    Ok(())
}

/// The answer of a registry that took this.
fn good(message: &Value, next_s: u64) -> Vec<u8> {
    let last = message["events"].as_array().and_then(|all| all.last()).map_or(0, |e| e["seq"].as_u64().unwrap_or(0));
    let ack = json!({"boot_id": message["boot_id"], "seq": message["seq"], "events": last});
    http(&json!({"ack": ack, "next_s": next_s}).to_string())
}

fn http(text: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: ";
    format!("{head}{}\r\n\r\n{text}", text.len()).into_bytes()
}

async fn read(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> anyhow::Result<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > 64 * 1024 {
            bail!("no request");
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut message = Received { at: Instant::now(), path, head, text: String::new() };
    let length: usize = message.header("content-length").unwrap_or("0").parse()?;
    while bytes.len() < end + 4 + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            bail!("the request broke off");
        }
    }
    message.text = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec())?;
    Ok(message)
}
