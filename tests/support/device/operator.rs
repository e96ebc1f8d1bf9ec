//! A raw operator client on loopback: the reference for what a bare RPC costs, and someone else who approves.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    Identity,
    wire::{Answer, Connection, Headers, Hello},
};

const SCOPES: [&str; 5] =
    ["operator.admin", "operator.pairing", "operator.read", "operator.write", "operator.approvals"];

/// The gateway's own `error` object.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{code}: {message}")]
pub struct RpcError {
    pub code: String,
    pub message: String,
    pub details: Value,
}

/// A connected operator with every scope.
#[derive(Debug)]
pub struct Operator {
    connection: Connection,
    events: VecDeque<Value>,
    /// The gateway's answer to the connect request.
    pub hello: Value,
    pub identity: Identity,
}

impl Operator {
    pub async fn connect(port: u16, token: &str) -> anyhow::Result<Self> {
        Self::connect_with_scopes(port, token, &SCOPES).await
    }

    pub async fn connect_with_scopes(port: u16, token: &str, scopes: &[&str]) -> anyhow::Result<Self> {
        let identity = Identity::generate();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let mut connection = match Connection::open(address, &Headers::default()).await {
            Ok(connection) => connection,
            Err(error) => bail!("no WebSocket to the gateway: {error:?}"),
        };
        let scopes: Vec<String> = scopes.iter().map(|&scope| scope.to_owned()).collect();
        let hello = Hello {
            client: json!({ "id": "gateway-client", "mode": "backend", "version": "0.1.0", "platform": "linux" }),
            role: "operator",
            scopes: &scopes,
            caps: &[],
            commands: &[],
            token,
        };
        match connection.connect(&identity, &hello).await? {
            Answer::Ok(hello) => Ok(Self { connection, events: VecDeque::new(), hello, identity }),
            Answer::Error(error) => bail!("the gateway refused the operator: {error}"),
        }
    }

    /// One RPC on the open connection. The gateway's own errors come back as [`RpcError`].
    pub async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        let events = &mut self.events;
        match self.connection.request(method, params, |event| events.push_back(event)).await? {
            Answer::Ok(payload) => Ok(payload),
            Answer::Error(mut error) => Err(RpcError {
                code: error["code"].as_str().unwrap_or_default().to_owned(),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
                details: error["details"].take(),
            }
            .into()),
        }
    }

    pub async fn pending(&mut self) -> anyhow::Result<Vec<Value>> {
        self.list("pending").await
    }

    pub async fn paired(&mut self) -> anyhow::Result<Vec<Value>> {
        self.list("paired").await
    }

    /// The paired record of one device, if there is one.
    pub async fn paired_device(&mut self, device_id: &str) -> anyhow::Result<Option<Value>> {
        Ok(self.paired().await?.into_iter().find(|device| device["deviceId"] == device_id))
    }

    pub async fn approve(&mut self, request_id: &str) -> anyhow::Result<Value> {
        self.call("device.pair.approve", json!({ "requestId": request_id })).await
    }

    pub async fn reject(&mut self, request_id: &str) -> anyhow::Result<Value> {
        self.call("device.pair.reject", json!({ "requestId": request_id })).await
    }

    /// The payload of the next event of this name, whether it came already or is yet to come.
    pub async fn wait_event(&mut self, name: &str, deadline: Duration) -> anyhow::Result<Value> {
        let end = Instant::now() + deadline;
        loop {
            while let Some(mut event) = self.events.pop_front() {
                if event["event"] == name {
                    return Ok(event["payload"].take());
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            let frame = timeout(left, self.connection.next_frame()).await;
            let frame = frame.with_context(|| format!("no event {name} within {deadline:?}"))??;
            if frame["type"] == "event" {
                self.events.push_back(frame);
            }
        }
    }

    async fn list(&mut self, which: &str) -> anyhow::Result<Vec<Value>> {
        let mut list = self.call("device.pair.list", json!({})).await?;
        match list[which].take() {
            Value::Array(entries) => Ok(entries),
            other => bail!("device.pair.list answered {which}: {other}"),
        }
    }
}
