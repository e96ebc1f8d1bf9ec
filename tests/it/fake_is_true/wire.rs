//! A client that says exactly what a test tells it to, right or wrong.

use std::time::Duration;

use anyhow::{Context, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::fake::Fake;
use crate::support::fake::codec::{base64url, device_id};

const LIMIT: Duration = Duration::from_secs(10);

/// What came from the gateway.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Frame(Value),
    Close(u16, String),
    /// The connection ended without a close frame.
    Gone,
}

pub(super) struct Key(Ed25519KeyPair);

impl Key {
    pub(super) fn new() -> Self {
        Self(Ed25519KeyPair::generate().expect("a key pair"))
    }

    pub(super) fn device_id(&self) -> String {
        device_id(self.0.public_key().as_ref())
    }

    /// The `device` of these connect parameters. `form` is `v2` or `v3`; the text is spelled out here on purpose, so
    /// that it does not come from the code it tests.
    pub(super) fn sign(&self, params: &Value, form: &str, signed_at: u64, nonce: &str) -> Value {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let scopes: Vec<String> = params["scopes"].as_array().into_iter().flatten().map(text).collect();
        let (client, auth) = (&params["client"], &params["auth"]);
        let token = if auth["token"].is_null() { &auth["deviceToken"] } else { &auth["token"] };
        let mut signed = format!(
            "{form}|{}|{}|{}|{}|{}|{signed_at}|{}|{nonce}",
            self.device_id(),
            text(&client["id"]),
            text(&client["mode"]),
            text(&params["role"]),
            scopes.join(","),
            text(token),
        );
        if form == "v3" {
            signed.push_str(&format!("|{}|", text(&client["platform"]).to_lowercase()));
        }
        json!({"id": self.device_id(), "publicKey": base64url(self.0.public_key().as_ref()),
            "signature": base64url(self.0.sign(signed.as_bytes()).as_ref()), "signedAt": signed_at, "nonce": nonce})
    }
}

pub(super) struct Wire {
    socket: WebSocketStream<TcpStream>,
    pub(super) nonce: String,
    pub(super) ts: u64,
    next_id: u64,
    pub(super) events: Vec<Value>,
}

impl Wire {
    /// Opens a connection and reads the challenge.
    pub(super) async fn open(fake: &Fake, headers: &[(&'static str, &str)]) -> anyhow::Result<Self> {
        let mut request = format!("ws://127.0.0.1:{}/", fake.port()).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value)?);
        }
        let stream = TcpStream::connect(("127.0.0.1", fake.port())).await?;
        stream.set_nodelay(true)?;
        let (socket, _) = timeout(LIMIT, client_async(request, stream)).await??;
        let mut wire = Self { socket, nonce: String::new(), ts: 0, next_id: 0, events: Vec::new() };
        let Seen::Frame(challenge) = wire.see().await? else { bail!("no challenge") };
        wire.nonce = challenge["payload"]["nonce"].as_str().context("a nonce")?.to_owned();
        wire.ts = challenge["payload"]["ts"].as_u64().context("a time")?;
        Ok(wire)
    }

    pub(super) async fn see(&mut self) -> anyhow::Result<Seen> {
        let next = async {
            loop {
                match self.socket.next().await {
                    None | Some(Err(_)) => return Ok(Seen::Gone),
                    Some(Ok(Message::Text(text))) => return Ok(Seen::Frame(serde_json::from_str(&text)?)),
                    Some(Ok(Message::Close(close))) => {
                        let close = close.context("a close frame with a code")?;
                        return Ok(Seen::Close(close.code.into(), close.reason.to_string()));
                    }
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(LIMIT, next).await.context("nothing more came")?
    }

    pub(super) async fn send(&mut self, text: String) -> anyhow::Result<()> {
        Ok(timeout(LIMIT, self.socket.send(Message::Text(text.into()))).await??)
    }

    /// Sends a request and returns what answers it; events on the way are kept.
    pub(super) async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.next_id += 1;
        let id = format!("c{}", self.next_id);
        self.send(json!({"type": "req", "id": id, "method": method, "params": params}).to_string()).await?;
        loop {
            match self.see().await? {
                Seen::Frame(frame) if frame["id"] == id.as_str() => return Ok(frame),
                Seen::Frame(frame) => self.events.push(frame),
                end => bail!("{method}: {end:?} instead of an answer"),
            }
        }
    }

    /// Connects as a local operator with an identity of its own.
    pub(super) async fn operator(fake: &Fake) -> anyhow::Result<Self> {
        let mut wire = Self::open(fake, &[]).await?;
        let params = wire.signed(&Key::new(), operator(&fake.token()), "v2");
        let answer = wire.call("connect", params).await?;
        anyhow::ensure!(answer["ok"] == true, "refused: {answer}");
        Ok(wire)
    }

    /// `params` with a fresh signature over this connection's challenge.
    pub(super) fn signed(&self, key: &Key, mut params: Value, form: &str) -> Value {
        params["device"] = key.sign(&params, form, self.ts, &self.nonce);
        params
    }

    /// The next event of that name.
    pub(super) async fn event(&mut self, name: &str) -> anyhow::Result<Value> {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return Ok(self.events.remove(at));
            }
            match self.see().await? {
                Seen::Frame(frame) => self.events.push(frame),
                end => bail!("{end:?} instead of {name}"),
            }
        }
    }

    /// How the connection ends.
    pub(super) async fn end(&mut self) -> anyhow::Result<Seen> {
        loop {
            match self.see().await? {
                Seen::Frame(frame) => self.events.push(frame),
                end => return Ok(end),
            }
        }
    }
}

/// The handshake that works on every version.
pub(super) fn operator(token: &str) -> Value {
    json!({"minProtocol": 3, "maxProtocol": 4,
        "client": {"id": "gateway-client", "mode": "backend", "version": "0.1.0", "platform": "linux"},
        "role": "operator",
        "scopes": ["operator.admin", "operator.pairing", "operator.read", "operator.write", "operator.approvals"],
        "auth": {"token": token}})
}

/// What a remote Control UI sends.
pub(super) fn browser(token: &str, scopes: &[&str]) -> Value {
    json!({"minProtocol": 3, "maxProtocol": 4,
        "client": {"id": "openclaw-control-ui", "mode": "webchat", "version": "2026.9.6", "platform": "MacIntel"},
        "role": "operator", "scopes": scopes, "auth": {"token": token}})
}

/// Headers that make a connection remote.
pub(super) const REMOTE: [(&str, &str); 2] = [("x-forwarded-for", "203.0.113.9"), ("origin", "https://acme.example")];
