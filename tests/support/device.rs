//! Scripted clients of a gateway: a remote browser or node that wants in, and an operator already inside.
//!
//! They speak the gateway's WebSocket protocol themselves, independent of the code under test, to a real gateway
//! or to the fake. A client is remote when it comes through a forwarding header, as behind a reverse proxy.

mod identity;
mod operator;
mod wire;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

pub use identity::{Identity, random_token};
#[allow(unused_imports, reason = "not every binary needs an operator")]
pub use operator::{Operator, RpcError};
pub use wire::greets;
use wire::{Answer, Connection, Headers, Hello};

/// The page a scripted browser was loaded from; it must differ from the gateway's own address.
pub const ORIGIN: &str = "https://acme.example";
/// The address it seems to come from (a documentation range: it belongs to nobody).
pub const REMOTE_ADDRESS: &str = "203.0.113.9";
/// What the Control UI asks for.
pub const BROWSER_SCOPES: [&str; 5] =
    ["operator.admin", "operator.approvals", "operator.pairing", "operator.read", "operator.write"];

const RETRY: Duration = Duration::from_millis(100);

/// How one attempt to connect ended.
#[derive(Debug, Clone)]
pub enum Attempt {
    /// In; the session is held open until `disconnect` or drop.
    Connected { device_token: Option<String>, hello: Value },
    /// A request waits for approval; `reason` is absent on 2026.2.9.
    PairingRequired { request_id: String, reason: Option<String> },
    /// `code` is the most precise one the gateway gave; `close` the WebSocket close that followed.
    Refused { code: String, message: String, close: Option<(u16, String)> },
}

impl Attempt {
    /// The request id of an attempt that is expected to wait for approval.
    pub fn request_id(&self) -> anyhow::Result<&str> {
        match self {
            Self::PairingRequired { request_id, .. } => Ok(request_id),
            other => bail!("expected a pending request, got {other:?}"),
        }
    }
}

/// A remote browser (or node) with its own key.
#[derive(Debug)]
pub struct RemoteDevice {
    pub identity: Identity,
    pub client_id: String,
    pub client_mode: String,
    pub role: String,
    pub scopes: Vec<String>,
    pub platform: String,
    pub display_name: Option<String>,
    pub caps: Vec<String>,
    pub commands: Vec<String>,
    /// Shared token or device token.
    pub token: String,
    /// Absent for clients that are no web page.
    pub origin: Option<String>,
    /// `X-Forwarded-For`; without it the gateway takes the client for a local one.
    pub forwarded_for: Option<String>,
    address: SocketAddr,
    session: Option<Session>,
}

impl RemoteDevice {
    /// A browser on the Control UI that asks for full access.
    pub fn browser(port: u16, token: &str) -> Self {
        Self {
            identity: Identity::generate(),
            client_id: "openclaw-control-ui".to_owned(),
            client_mode: "webchat".to_owned(),
            role: "operator".to_owned(),
            scopes: BROWSER_SCOPES.map(str::to_owned).to_vec(),
            platform: "MacIntel".to_owned(),
            display_name: Some("Chrome on Mac".to_owned()),
            caps: Vec::new(),
            commands: Vec::new(),
            token: token.to_owned(),
            origin: Some(ORIGIN.to_owned()),
            forwarded_for: Some(REMOTE_ADDRESS.to_owned()),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            session: None,
        }
    }

    /// A node that offers to run commands. Newer gateways approve it in two steps: the device, then its commands.
    pub fn node(port: u16, token: &str) -> Self {
        Self {
            client_id: "node-host".to_owned(),
            client_mode: "node".to_owned(),
            role: "node".to_owned(),
            scopes: Vec::new(),
            platform: "linux".to_owned(),
            display_name: Some("Lab node".to_owned()),
            caps: vec!["system".to_owned()],
            commands: vec!["system.run".to_owned()],
            origin: None,
            ..Self::browser(port, token)
        }
    }

    #[must_use]
    pub fn with_scopes(mut self, scopes: &[&str]) -> Self {
        self.scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        self
    }

    #[must_use]
    pub fn with_platform(mut self, platform: &str) -> Self {
        platform.clone_into(&mut self.platform);
        self
    }

    pub fn device_id(&self) -> &str {
        self.identity.device_id()
    }

    /// Tries once to connect. An earlier session stays open beside it until the new one stands.
    pub async fn attempt(&mut self) -> anyhow::Result<Attempt> {
        let headers = Headers { origin: self.origin.clone(), forwarded_for: self.forwarded_for.clone() };
        let mut connection = match Connection::open(self.address, &headers).await {
            Ok(connection) => connection,
            Err(wire::OpenError::Http(status)) => {
                return Ok(Attempt::Refused { code: format!("HTTP_{status}"), message: String::new(), close: None });
            }
            Err(wire::OpenError::Other(error)) => return Err(error),
        };
        match connection.connect(&self.identity, &self.hello()).await? {
            Answer::Ok(hello) => {
                let device_token = hello["auth"]["deviceToken"].as_str().map(str::to_owned);
                self.session = Some(Session::hold(connection));
                Ok(Attempt::Connected { device_token, hello })
            }
            Answer::Error(error) => Ok(refusal(&error, connection.closed().await)),
        }
    }

    /// Retries like a browser that waits for approval, until it is in. Returns its device token.
    pub async fn connect_when_approved(&mut self, deadline: Duration) -> anyhow::Result<Option<String>> {
        let end = Instant::now() + deadline;
        loop {
            let last = match self.attempt().await {
                Ok(Attempt::Connected { device_token, .. }) => return Ok(device_token),
                Ok(Attempt::Refused { code, message, .. }) if code != "UNAVAILABLE" => {
                    bail!("refused instead of connected: {code} {message}")
                }
                Ok(waiting) => format!("{waiting:?}"),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > end {
                bail!("not connected after {deadline:?}; the last attempt: {last}");
            }
            sleep(RETRY).await;
        }
    }

    /// Asks for more than it was approved for: connects again with `extra` scopes added.
    pub async fn upgrade(&mut self, extra: &[&str]) -> anyhow::Result<Attempt> {
        for &scope in extra {
            if !self.scopes.iter().any(|held| held == scope) {
                self.scopes.push(scope.to_owned());
            }
        }
        self.attempt().await
    }

    pub fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.end.borrow().is_none())
    }

    pub fn disconnect(&mut self) {
        self.session = None;
    }

    /// Waits until the gateway ends the open session; returns the close code and reason.
    pub async fn wait_closed(&mut self, deadline: Duration) -> anyhow::Result<(u16, String)> {
        let session = self.session.as_mut().context("no open session")?;
        let end = timeout(deadline, session.end.wait_for(Option::is_some)).await.context("still connected")??;
        end.clone().context("no close")
    }

    fn hello(&self) -> Hello<'_> {
        let mut client = json!({
            "id": self.client_id, "mode": self.client_mode, "version": "2026.9.6", "platform": self.platform,
        });
        if let Some(name) = &self.display_name {
            client["displayName"] = json!(name);
        }
        Hello {
            client,
            role: &self.role,
            scopes: &self.scopes,
            caps: &self.caps,
            commands: &self.commands,
            token: &self.token,
        }
    }
}

fn refusal(error: &Value, close: Option<(u16, String)>) -> Attempt {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let details = &error["details"];
    if let Some(request_id) = text(&details["requestId"]) {
        return Attempt::PairingRequired { request_id, reason: text(&details["reason"]) };
    }
    Attempt::Refused {
        code: text(&details["code"]).or_else(|| text(&error["code"])).unwrap_or_default(),
        message: text(&error["message"]).unwrap_or_default(),
        close,
    }
}

/// An open session: a task reads what the gateway sends (and so answers its pings) until either side ends it.
#[derive(Debug)]
struct Session {
    task: JoinHandle<()>,
    end: watch::Receiver<Option<(u16, String)>>,
}

impl Session {
    fn hold(mut connection: Connection) -> Self {
        let (ended, end) = watch::channel(None);
        let task = tokio::spawn(async move {
            // 1006 is what WebSocket libraries call an end without a close frame.
            let close = connection.drain().await.unwrap_or((1006, String::new()));
            ended.send_replace(Some(close));
        });
        Self { task, end }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}
