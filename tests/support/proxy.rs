//! A reverse proxy as a hosted tenant has one: it tells the gateway where a visitor really comes from.
//!
//! It works on bytes: one request head is read and rewritten, everything after it passes through untouched, so
//! WebSockets and chunked bodies need no special care. Plain requests get `Connection: close`, which leaves one
//! head for each connection.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{Duration, timeout},
};

use super::device::REMOTE_ADDRESS;

const HEAD_LIMIT: usize = 64 * 1024;
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// A bound but not yet serving proxy: the gateway must know the proxy's port, the proxy the gateway's.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    port: u16,
}

/// A serving proxy; dropping it ends it and its connections.
#[derive(Debug)]
pub struct RunningProxy {
    port: u16,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn bind() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// The origin browsers will send; `localhost` counts as a secure context, where pages may make keys.
    pub fn origin(&self) -> String {
        origin(self.port)
    }

    /// Passes everything on to `gateway`, as from [`REMOTE_ADDRESS`].
    pub fn serve(self, gateway: SocketAddr) -> RunningProxy {
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = self.listener.accept().await {
                connections.spawn(async move {
                    // A browser drops connections as it likes; only what reaches the page matters.
                    let _ = pass(client, gateway).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        RunningProxy { port: self.port, task }
    }
}

impl RunningProxy {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn origin(&self) -> String {
        origin(self.port)
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn origin(port: u16) -> String {
    format!("http://localhost:{port}")
}

async fn pass(mut client: TcpStream, gateway: SocketAddr) -> anyhow::Result<()> {
    let (head, rest) = timeout(HEAD_DEADLINE, read_head(&mut client)).await??;
    let mut upstream = TcpStream::connect(gateway).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    upstream.write_all(rewrite(&head)?.as_bytes()).await?;
    upstream.write_all(&rest).await?;
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

/// Reads up to the empty line; returns the head and whatever of the body came with it.
async fn read_head(client: &mut TcpStream) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((bytes, rest));
        }
        if bytes.len() > HEAD_LIMIT || client.read_buf(&mut bytes).await? == 0 {
            bail!("no request head");
        }
    }
}

/// Adds the visitor's address in place of what the visitor claims, and asks plain requests to end the connection.
fn rewrite(head: &[u8]) -> anyhow::Result<String> {
    let head = std::str::from_utf8(head).context("a head that is not text")?;
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let mut out = format!("{}\r\n", lines.next().context("an empty head")?);
    let headers: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(':')).collect();
    let upgrade = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        let claimed = lower.starts_with("x-forwarded-") || lower == "forwarded" || lower == "x-real-ip";
        if !claimed && (upgrade || lower != "connection") {
            out.push_str(&format!("{name}:{value}\r\n"));
        }
    }
    if !upgrade {
        out.push_str("Connection: close\r\n");
    }
    out.push_str(&format!("X-Forwarded-For: {REMOTE_ADDRESS}\r\n\r\n"));
    Ok(out)
}
