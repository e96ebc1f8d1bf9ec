//! HTTP/1.1 as bytes on one plain connection: what a well-behaved client library would refuse to send.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer as far as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The `code` of a problem document; empty for answers without one.
    pub fn code(&self) -> String {
        let value: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        value["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Splits what a server sent into answers; what is no answer is an error.
pub fn answers(mut bytes: &[u8]) -> anyhow::Result<Vec<Answer>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (answer, used) = first(bytes)?.with_context(|| format!("cut short: {}", String::from_utf8_lossy(bytes)))?;
        found.push(answer);
        bytes = &bytes[used..];
    }
    Ok(found)
}

/// The first whole answer and its length, if it is there.
fn first(bytes: &[u8]) -> anyhow::Result<Option<(Answer, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let mut words = head.split(' ');
    if !matches!(words.next(), Some("HTTP/1.1" | "HTTP/1.0")) {
        bail!("no HTTP answer: {head:?}");
    }
    let status = words.next().context("a status")?.parse()?;
    let length = header(&head, "content-length").map_or(Ok(0), str::parse::<usize>)?;
    let start = end + 4;
    let Some(body) = bytes.get(start..start + length) else { return Ok(None) };
    let body = String::from_utf8(body.to_vec())?;
    Ok(Some((Answer { status, head, body }, start + length)))
}

/// A header of a head, by its lower-case name.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

/// One open connection without TLS.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = timeout(Duration::from_secs(10), TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(timeout(Duration::from_secs(10), self.stream.write_all(bytes)).await??)
    }

    /// The next answer; `None` when the server closed instead.
    pub async fn answer(&mut self, limit: Duration) -> anyhow::Result<Option<Answer>> {
        let wait = async {
            loop {
                if let Some((answer, used)) = first(&self.read)? {
                    self.read.drain(..used);
                    return Ok(Some(answer));
                }
                let mut chunk = [0; 16 * 1024];
                match self.stream.read(&mut chunk).await {
                    Ok(0) | Err(_) => return Ok(None),
                    Ok(length) => self.read.extend_from_slice(&chunk[..length]),
                }
            }
        };
        timeout(limit, wait).await.with_context(|| format!("neither an answer nor a close within {limit:?}"))?
    }

    /// A GET on this very connection.
    pub async fn get(&mut self, path: &str, token: &str, limit: Duration) -> anyhow::Result<Option<Answer>> {
        let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        // A connection that the server closed answers nothing, which the caller sees.
        let _ = self.send(text.as_bytes()).await;
        self.answer(limit).await
    }

    /// Reads until `text` came, which may be in the middle of an answer without end.
    pub async fn read_until(&mut self, text: &str, limit: Duration) -> anyhow::Result<()> {
        let wait = async {
            while !String::from_utf8_lossy(&self.read).contains(text) {
                let mut chunk = [0; 16 * 1024];
                match self.stream.read(&mut chunk).await? {
                    0 => bail!("closed after {:?}", String::from_utf8_lossy(&self.read)),
                    length => self.read.extend_from_slice(&chunk[..length]),
                }
            }
            Ok(())
        };
        timeout(limit, wait).await.with_context(|| format!("no {text:?} within {limit:?}"))?
    }

    /// Whether the server closes, with nothing more said, within `limit`.
    pub async fn closes(&mut self, limit: Duration) -> bool {
        matches!(self.answer(limit).await, Ok(None))
    }
}
