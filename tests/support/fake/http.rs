//! The first bytes of a connection: WebSocket upgrade or one of the health paths, on the same port as the gateway's.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::handshake::Peer;
use super::version::Version;

#[derive(Debug)]
pub struct Head {
    pub path: String,
    headers: Vec<(String, String)>,
    length: usize,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn wants_websocket(&self) -> bool {
        self.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    }

    /// Any forwarding header makes a loopback connection somebody else's; 2026.2.9 also looks at `Host`.
    pub fn peer(&self, version: Version) -> Peer {
        let forwards = |name: &str| name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-");
        let forwarded = self.headers.iter().any(|(name, _)| forwards(name));
        let host = self.header("host").unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let foreign_host = version == Version::V2026_2_9 && !["127.0.0.1", "localhost", "[::1]"].contains(&host);
        let first_hop = self.header("x-forwarded-for").and_then(|list| list.split(',').next());
        Peer {
            local: !forwarded && !foreign_host,
            remote_ip: first_hop.map(|ip| ip.trim().to_owned()),
            origin: self.header("origin").map(String::from),
        }
    }
}

/// Reads the request head without taking it from the socket, so that the WebSocket library can parse it itself.
pub async fn peek_head(stream: &TcpStream, limit: Duration) -> anyhow::Result<Head> {
    let peek = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let seen = stream.peek(&mut buffer).await?;
            if seen == 0 {
                bail!("closed before a request");
            }
            if let Some(end) = buffer[..seen].windows(4).position(|four| four == b"\r\n\r\n") {
                return parse(&buffer[..end + 4]);
            }
            // Peeking returns at once while the same bytes wait, so this must not spin.
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(limit, peek).await.context("no request head in time")?
}

fn parse(bytes: &[u8]) -> anyhow::Result<Head> {
    let text = std::str::from_utf8(bytes)?;
    let mut lines = text.split("\r\n");
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).context("a request line")?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Head { path: path.to_owned(), headers, length: bytes.len() })
}

/// Answers a plain request and closes.
pub async fn answer(mut stream: TcpStream, head: &Head, version: Version, starting: bool) -> anyhow::Result<()> {
    let mut taken = vec![0; head.length];
    stream.read_exact(&mut taken).await?;
    let (status, body) = match probe(version, &head.path, starting) {
        Some((status, body)) => (status, (body.to_string(), "application/json; charset=utf-8")),
        None => (200, ("<!doctype html><title>OpenClaw Control</title>".to_owned(), "text/html; charset=utf-8")),
    };
    let (body, kind) = body;
    let reason = if status == 200 { "OK" } else { "Service Unavailable" };
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

/// 2026.2.9 has no probes: every path is the Control UI.
fn probe(version: Version, path: &str, starting: bool) -> Option<(u16, Value)> {
    if version == Version::V2026_2_9 {
        return None;
    }
    let failing: &[&str] = if starting { &["startup-sidecars"] } else { &[] };
    let status = if starting { 503 } else { 200 };
    match path {
        "/health" | "/healthz" => Some((200, json!({"ok": true, "status": "live"}))),
        "/ready" | "/readyz" => Some((status, json!({"ready": !starting, "failing": failing, "uptimeMs": 1000}))),
        "/startup" | "/startupz" if version >= Version::V2026_9_6 => {
            let state = if starting { "starting" } else { "started" };
            Some((status, json!({"ok": !starting, "status": state, "version": version.name(), "uptimeMs": 1000})))
        }
        _ => None,
    }
}
