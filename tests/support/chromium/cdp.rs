//! The least of the Chrome DevTools Protocol: commands and their answers over one WebSocket.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config, tungstenite::Message};

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Cdp {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_id: u64,
}

impl Cdp {
    pub(super) async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let connected = timeout(DEADLINE, connect_async_with_config(endpoint, None, true)).await;
        let (stream, _) = connected.context("DevTools do not answer")??;
        Ok(Self { stream, next_id: 0 })
    }

    /// One command, to the browser itself or to a page's session; events are skipped.
    pub(super) async fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> anyhow::Result<Value> {
        self.next_id += 1;
        let mut command = json!({ "id": self.next_id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = json!(session);
        }
        let answer = async {
            self.stream.send(Message::text(command.to_string())).await?;
            loop {
                let message = self.stream.next().await.context("the browser went away")??;
                let Message::Text(text) = message else { continue };
                let mut answer: Value = serde_json::from_str(&text)?;
                if answer["id"] == command["id"] {
                    if !answer["error"].is_null() {
                        bail!("{method}: {}", answer["error"]);
                    }
                    return Ok(answer["result"].take());
                }
            }
        };
        timeout(DEADLINE, answer).await.with_context(|| format!("{method}: no answer"))?
    }
}
