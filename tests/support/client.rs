//! A small HTTP/1.1 client for tests: TLS 1.3 with the certificate pinned, plain TCP, or a UNIX socket.

mod events;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use openclaw_sidecar::checkin::tls::{Trust, client_config};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

#[allow(unused_imports, reason = "not every binary names an event")]
pub use events::{Event, EventStream};

/// No single answer takes longer in a test.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

#[derive(Debug, Clone)]
enum Target {
    Tls(SocketAddr, Arc<ClientConfig>),
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Clones share idle connections.
#[derive(Debug, Clone)]
pub struct Client {
    target: Target,
    token: Option<String>,
    idle: Arc<Mutex<Vec<SendRequest<Full<Bytes>>>>>,
}

impl Client {
    pub fn tls(address: SocketAddr, certificate: &CertificateDer<'_>, token: Option<&str>) -> Self {
        let config = client_config(&Trust::Pin(Sha256::digest(certificate).into()), "").expect("a pin needs no file");
        Self::to(Target::Tls(address, config), token)
    }

    pub fn tcp(address: SocketAddr, token: Option<&str>) -> Self {
        Self::to(Target::Tcp(address), token)
    }

    pub fn unix(path: &Path, token: Option<&str>) -> Self {
        Self::to(Target::Unix(path.to_owned()), token)
    }

    fn to(target: Target, token: Option<&str>) -> Self {
        Self { target, token: token.map(String::from), idle: Arc::default() }
    }

    /// The same place as somebody else; shares no connection.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self::to(self.target.clone(), token)
    }

    /// The next request opens a new connection.
    pub fn forget_connections(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SendRequest<Full<Bytes>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn open(&self) -> anyhow::Result<Box<dyn Io>> {
        let connect = async {
            Ok::<Box<dyn Io>, anyhow::Error>(match &self.target {
                Target::Tcp(address) => Box::new(tcp(*address).await?),
                Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Target::Tls(address, config) => {
                    let name = ServerName::from(address.ip());
                    let connector = TlsConnector::from(config.clone());
                    Box::new(connector.connect(name, tcp(*address).await?).await?)
                }
            })
        };
        timeout(Duration::from_secs(20), connect).await.context("connecting takes too long")?
    }

    async fn sender(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.open().await?)).await?;
        // Its end is seen by the request that uses it.
        tokio::spawn(async move { connection.await.ok() });
        Ok(sender)
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Reply> {
        self.request("GET", path, &[], None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Reply> {
        let body = Some(body.to_string().into_bytes());
        self.request("POST", path, &[("content-type", "application/json")], body).await
    }

    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Reply> {
        let work = async {
            let (response, sender) = self.send(method, path, headers, body.unwrap_or_default()).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            self.lock().push(sender);
            Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        timeout(ANSWER_LIMIT, work).await.with_context(|| format!("{method} {path}: no answer"))?
    }

    /// On a kept connection if one is still good.
    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> anyhow::Result<(Response<Incoming>, SendRequest<Full<Bytes>>)> {
        let body = Bytes::from(body);
        loop {
            let kept = self.lock().pop();
            let was_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.sender().await?,
            };
            let request = self.build(method, path, headers, body.clone())?;
            match sender.send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                // The server closed it while it was idle; the request never left.
                Err(error) if was_kept && (error.is_canceled() || error.is_closed()) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn build(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let given = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        let mut request = Request::builder().method(method).uri(path);
        if !given("host") {
            request = request.header("host", self.host());
        }
        if let Some(token) = self.token.as_ref().filter(|_| !given("authorization")) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Ok(request.body(Full::new(body))?)
    }

    fn host(&self) -> String {
        match &self.target {
            Target::Tls(address, _) | Target::Tcp(address) => address.to_string(),
            Target::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Writes `bytes` on a fresh connection and reads until the server closes or `limit` is over.
    pub async fn raw(&self, bytes: &[u8], limit: Duration) -> anyhow::Result<Vec<u8>> {
        let mut io = self.open().await?;
        let mut answer = Vec::new();
        let talk = async {
            // A server that has seen enough may close before it read everything.
            let _ = io.write_all(bytes).await;
            let _ = io.flush().await;
            let _ = io.read_to_end(&mut answer).await;
        };
        // At the limit, what came so far is the answer.
        let _ = timeout(limit, talk).await;
        Ok(answer)
    }

    /// Opens a stream of server-sent events.
    pub async fn events(&self, path: &str, last_event_id: Option<&str>) -> anyhow::Result<EventStream> {
        let last: Vec<_> = last_event_id.map(|id| ("last-event-id", id)).into_iter().collect();
        self.events_with(path, &last).await
    }

    /// The same, with headers of the caller's choice.
    pub async fn events_with(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<EventStream> {
        let headers = [&[("accept", "text/event-stream")], headers].concat();
        let open = self.send("GET", path, &headers, Vec::new());
        let (response, sender) = timeout(ANSWER_LIMIT, open).await.context("no answer to the event stream")??;
        if response.status() != 200 {
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            bail!("GET {path}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(EventStream::new(response, sender))
    }

    /// Reads `path` until `wanted`, sleeping on the long poll of `/v1/state` in between.
    pub async fn wait_until(
        &self,
        path: &str,
        wanted: impl Fn(&Value) -> bool,
        deadline: Duration,
    ) -> anyhow::Result<Value> {
        let end = Instant::now() + deadline;
        loop {
            let generation = self.generation().await;
            let last = self.get(path).await;
            let value = last.as_ref().ok().and_then(|reply| serde_json::from_slice::<Value>(&reply.body).ok());
            if let Some(value) = value.filter(|value| wanted(value)) {
                return Ok(value);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = last.map_or_else(|error| format!("{error:#}"), |reply| reply.text());
                bail!("{path} did not become what was wanted within {deadline:?}; last: {last}");
            }
            match generation {
                Some(generation) => {
                    let seconds = left.as_secs().clamp(1, 5);
                    let poll = format!("/v1/state?wait_gen={generation}&timeout_s={seconds}");
                    // Whatever it says, the next round reads `path` again.
                    let _ = timeout(left, self.get(&poll)).await;
                }
                None => sleep(Duration::from_millis(50).min(left)).await,
            }
        }
    }

    async fn generation(&self) -> Option<u64> {
        let reply = self.get("/v1/state").await.ok().filter(|reply| reply.status == 200)?;
        serde_json::from_slice::<Value>(&reply.body).ok()?["generation"].as_u64()
    }
}

async fn tcp(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, which has to be JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The `code` of a problem document.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
