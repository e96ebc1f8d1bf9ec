//! The CLI's side of the local socket.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::config::Config;

const MAX_REPLY: usize = 16 * 1024 * 1024;
/// Longer than any call may take on the daemon's side.
const DEADLINE: Duration = Duration::from_secs(150);

/// A connection to the daemon on this machine, made anew for each call.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

/// What the daemon answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Client {
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let socket = config.listen.unix.clone().ok_or("listen.unix is off, so the CLI cannot reach the daemon")?;
        Ok(Self { socket })
    }

    pub(super) fn get(&self, path: &str) -> Result<Reply, String> {
        self.call(Method::GET, path, Vec::new())
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Reply, String> {
        self.call(Method::POST, path, body.to_string().into_bytes())
    }

    fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Reply, String> {
        let runtime = super::runtime().map_err(|_| "no runtime".to_owned())?;
        // The timer needs the runtime around it.
        let called =
            runtime.block_on(async { tokio::time::timeout(DEADLINE, self.exchange(method, path, body)).await });
        called.unwrap_or_else(|_| Err("the daemon did not answer".to_owned()))
    }

    async fn exchange(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Reply, String> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| {
            format!("{}: {e}; is the daemon running, and are you root or its user?", self.socket.display())
        })?;
        let failed = |e: hyper::Error| format!("{}: {e}; are you root or its user?", self.socket.display());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let serving = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| e.to_string())?;
        let reply = sender.send_request(request).await.map_err(failed)?;
        let status = reply.status().as_u16();
        let bytes = Limited::new(reply.into_body(), MAX_REPLY).collect().await.map_err(|e| e.to_string())?.to_bytes();
        serving.abort();
        let body = serde_json::from_slice(&bytes).map_err(|e| format!("the daemon's answer is unreadable: {e}"))?;
        Ok(Reply { status, body })
    }
}
