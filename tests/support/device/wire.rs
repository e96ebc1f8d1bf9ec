//! The gateway's WebSocket protocol as a client speaks it: challenge, connect, requests and answers.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::HeaderValue},
};

use super::Identity;

/// For each single answer of the gateway; generous, because a throttled one takes seconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// Headers that decide where the gateway thinks a client is.
#[derive(Debug, Default)]
pub(super) struct Headers {
    pub(super) origin: Option<String>,
    pub(super) forwarded_for: Option<String>,
}

/// What a client says about itself when it connects.
#[derive(Debug)]
pub(super) struct Hello<'a> {
    pub(super) client: Value,
    pub(super) role: &'a str,
    pub(super) scopes: &'a [String],
    pub(super) caps: &'a [String],
    pub(super) commands: &'a [String],
    pub(super) token: &'a str,
}

#[derive(Debug)]
pub(super) enum Answer {
    Ok(Value),
    Error(Value),
}

#[derive(Debug)]
pub(super) enum OpenError {
    /// The upgrade was refused with this HTTP status.
    Http(u16),
    Other(anyhow::Error),
}

/// One WebSocket connection to a gateway.
#[derive(Debug)]
pub(super) struct Connection {
    stream: WebSocketStream<TcpStream>,
    next_id: u64,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr, headers: &Headers) -> Result<Self, OpenError> {
        let other = |error: anyhow::Error| OpenError::Other(error);
        let mut request = format!("ws://{address}/").into_client_request().map_err(|error| other(error.into()))?;
        for (name, value) in [("origin", &headers.origin), ("x-forwarded-for", &headers.forwarded_for)] {
            if let Some(value) = value {
                let value = HeaderValue::from_str(value).map_err(|error| other(error.into()))?;
                request.headers_mut().insert(name, value);
            }
        }
        let handshake = async {
            let tcp = TcpStream::connect(address).await.map_err(|error| other(error.into()))?;
            tcp.set_nodelay(true).map_err(|error| other(error.into()))?;
            match client_async(request, tcp).await {
                Ok((stream, _)) => Ok(Self { stream, next_id: 0 }),
                Err(Error::Http(response)) => Err(OpenError::Http(response.status().as_u16())),
                Err(error) => Err(other(error.into())),
            }
        };
        let late = |_| other(anyhow::anyhow!("no WebSocket within {ANSWER_DEADLINE:?}"));
        timeout(ANSWER_DEADLINE, handshake).await.map_err(late)?
    }

    /// Answers the gateway's challenge as `identity`.
    pub(super) async fn connect(&mut self, identity: &Identity, hello: &Hello<'_>) -> anyhow::Result<Answer> {
        let challenge = self.next_frame().await?;
        let nonce = challenge["payload"]["nonce"].as_str().context("no challenge")?;
        let mut params = json!({
            "minProtocol": 3,
            "maxProtocol": 4,
            "client": hello.client,
            "role": hello.role,
            "scopes": hello.scopes,
            "auth": { "token": hello.token },
            "device": identity.sign(&hello.client, hello.role, hello.scopes, hello.token, nonce),
        });
        for (name, values) in [("caps", hello.caps), ("commands", hello.commands)] {
            if !values.is_empty() {
                params[name] = json!(values);
            }
        }
        self.request("connect", params, |_| {}).await
    }

    /// Sends one request and waits for its answer; events that come in between go to `on_event`.
    pub(super) async fn request(
        &mut self,
        method: &str,
        params: Value,
        mut on_event: impl FnMut(Value),
    ) -> anyhow::Result<Answer> {
        self.next_id += 1;
        let id = format!("r{}", self.next_id);
        let frame = json!({ "type": "req", "id": id, "method": method, "params": params });
        timeout(ANSWER_DEADLINE, self.stream.send(Message::text(frame.to_string()))).await??;
        loop {
            let mut frame = self.next_frame().await.with_context(|| format!("no answer to {method}"))?;
            if frame["type"] == "event" {
                on_event(frame);
            } else if frame["id"] == id.as_str() {
                let ok = frame["ok"] == true;
                return Ok(if ok { Answer::Ok(frame["payload"].take()) } else { Answer::Error(frame["error"].take()) });
            }
        }
    }

    pub(super) async fn next_frame(&mut self) -> anyhow::Result<Value> {
        let next = async {
            loop {
                match self.stream.next().await.context("the gateway ended the connection")?? {
                    Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                    Message::Close(close) => bail!("the gateway closed the connection: {close:?}"),
                    _ => {}
                }
            }
        };
        timeout(ANSWER_DEADLINE, next).await.context("the gateway is silent")?
    }

    /// The close frame that follows a refusal.
    pub(super) async fn closed(&mut self) -> Option<(u16, String)> {
        timeout(Duration::from_secs(5), self.drain()).await.ok().flatten()
    }

    /// Reads until the connection ends.
    pub(super) async fn drain(&mut self) -> Option<(u16, String)> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Close(close))) => {
                    return close.map(|close| (close.code.into(), close.reason.to_string()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// Whether something at `address` greets a WebSocket as a gateway does.
pub async fn greets(address: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(address, &Headers::default()).await else { return false };
    matches!(connection.next_frame().await, Ok(frame) if frame["event"] == "connect.challenge")
}
