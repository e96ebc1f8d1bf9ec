//! When a gateway counts as serving.

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::super::device;

/// `/readyz` with the expected JSON; where that path answers with a web page (2026.2.9), the WebSocket greeting.
pub(super) async fn is_ready(address: SocketAddr) -> bool {
    let Ok((head, body)) = http_get(address, "/readyz").await else { return false };
    match serde_json::from_str::<Value>(&body) {
        Ok(answer) => answer["ready"] == true,
        Err(_) if head.to_ascii_lowercase().contains("text/html") => device::greets(address).await,
        Err(_) => false,
    }
}

/// One plain GET; returns head and body as text.
async fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<(String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    Ok((head.to_owned(), body.to_owned()))
}
