//! The client of the gateway: one long-lived connection owned by one task, a cheap handle for everybody else.
//!
//! ```text
//! handle.call(method) -> [queue] -> connection task <-> ws://127.0.0.1
//!        <- reply, or why not        |-> link (watch: down because…, or up with this session)
//!                                    '-> notices (events of the gateway, bounded)
//! ```

pub mod connection;
pub mod diagnosis;
pub mod frames;
pub mod identity;
pub mod listener;
pub mod pairing;
pub mod records;
pub mod secret;

mod refusal;
mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::state::{Kind, Pending};
use frames::RpcError;

/// Calls waiting to be sent; more than this many callers at once are told that the gateway is unreachable.
const CALL_QUEUE: usize = 64;

/// The methods of the gateway we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named after the method it stands for")]
pub enum Method {
    DeviceList,
    DeviceApprove,
    DeviceReject,
    DeviceRemove,
    DeviceRename,
    NodeList,
    NodeApprove,
    NodeReject,
    NodeRemove,
    NodeRename,
    ChannelList,
    ChannelApprove,
    ChannelDismiss,
    Presence,
    SuspendPrepare,
    ChannelStatus,
    LogsTail,
}

impl Method {
    const ALL: [Self; 17] = [
        Self::DeviceList,
        Self::DeviceApprove,
        Self::DeviceReject,
        Self::DeviceRemove,
        Self::DeviceRename,
        Self::NodeList,
        Self::NodeApprove,
        Self::NodeReject,
        Self::NodeRemove,
        Self::NodeRename,
        Self::ChannelList,
        Self::ChannelApprove,
        Self::ChannelDismiss,
        Self::Presence,
        Self::SuspendPrepare,
        Self::ChannelStatus,
        Self::LogsTail,
    ];

    /// The method's name on the wire; also the name of the capability.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeviceList => "device.pair.list",
            Self::DeviceApprove => "device.pair.approve",
            Self::DeviceReject => "device.pair.reject",
            Self::DeviceRemove => "device.pair.remove",
            Self::DeviceRename => "device.pair.rename",
            Self::NodeList => "node.pair.list",
            Self::NodeApprove => "node.pair.approve",
            Self::NodeReject => "node.pair.reject",
            Self::NodeRemove => "node.pair.remove",
            Self::NodeRename => "node.rename",
            Self::ChannelList => "channels.pairing.list",
            Self::ChannelApprove => "channels.pairing.approve",
            Self::ChannelDismiss => "channels.pairing.dismiss",
            Self::Presence => "system-presence",
            Self::SuspendPrepare => "gateway.suspend.prepare",
            Self::ChannelStatus => "channels.status",
            Self::LogsTail => "logs.tail",
        }
    }
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Down {
    /// Not tried yet, or dialling.
    Connecting,
    /// Nothing listens at the address.
    Stopped,
    /// It says that it starts or restarts.
    Starting,
    /// It accepts connections but does not speak.
    Mute,
    /// The connection broke; the text says how.
    Lost(String),
    /// It refuses us.
    Unauthorized(Refusal),
}

/// Why the gateway refuses us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// E.g. `AUTH_TOKEN_MISMATCH`, or `no_token` when we found none to send.
    pub code: String,
    /// What happened, for people.
    pub summary: String,
    /// What to do about it.
    pub remedy: String,
    /// What shows it, by name.
    pub evidence: Vec<(&'static str, String)>,
}

/// The connection's state.
#[derive(Clone, Debug)]
pub enum Link {
    /// No session, because of this.
    Down(Down),
    /// A session with full authority.
    Up(Arc<Session>),
}

/// One authenticated connection.
#[derive(Debug)]
pub struct Session {
    /// Counts sessions of this process, from 1.
    pub number: u64,
    /// The gateway's version; `dev` on 2026.2.9 from npm.
    pub version: String,
    /// Protocol number in use.
    pub protocol: u32,
    /// Changes with every restart of the gateway; absent on old versions.
    pub boot_id: Option<String>,
    /// How it says that it authenticates, e.g. `token` or `none`; empty where it does not say.
    pub auth_mode: String,
    /// What the gateway can do: announced, or learnt from its answers (some methods are not announced).
    known: Mutex<HashMap<Method, bool>>,
}

impl Session {
    fn lacks(&self, method: Method) -> bool {
        self.known().get(&method) == Some(&false)
    }

    fn learn(&self, method: Method, works: bool) {
        self.known().insert(method, works);
    }

    /// Whether `method` was announced or has worked.
    pub fn offers(&self, method: Method) -> bool {
        self.known().get(&method) == Some(&true)
    }

    /// Names of all methods of ours that work here, in a fixed order.
    pub fn capabilities(&self) -> Vec<&'static str> {
        Method::ALL.iter().filter(|m| self.offers(**m)).map(|m| m.name()).collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Method, bool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the connection tells without being asked.
#[derive(Debug)]
pub enum Notice {
    /// A request was raised.
    Requested(Box<Pending>),
    /// A request was resolved: its kind, id, and whether it was approved.
    Resolved(Kind, String, bool),
    /// Ids of the devices that are connected now.
    Presence(HashSet<String>),
    /// Something about pairing changed that the event does not spell out.
    Changed,
    /// Some events were lost: look again.
    Gap,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// It was not sent: there is no session.
    Down(Down),
    /// It was not sent: this gateway has no such method.
    Unsupported,
    /// It was sent, and the connection broke before the answer: it may have taken effect.
    Lost,
    /// It was sent, and no answer came in time: it may still take effect.
    TimedOut,
    /// The gateway answered with an error.
    Rejected(RpcError),
    /// The gateway answered something we cannot read.
    Malformed(String),
}

#[derive(Debug)]
struct Call {
    method: Method,
    params: serde_json::Value,
    reply: oneshot::Sender<Result<String, CallError>>,
}

/// Numbers about the connection, for metrics and state.
#[derive(Debug, Default)]
pub struct Stats {
    /// Sessions opened.
    pub connects: AtomicU64,
    /// Calls answered without error.
    pub calls_ok: AtomicU64,
    /// Calls without such an answer.
    pub calls_failed: AtomicU64,
    /// Frames that could not be read.
    pub malformed_frames: AtomicU64,
    /// Microseconds the last answered call took.
    pub last_rpc_us: AtomicU64,
    last_ok: Mutex<Option<Instant>>,
}

impl Stats {
    fn count(&self, started: Instant, ok: bool) {
        if ok {
            self.calls_ok.fetch_add(1, Ordering::Relaxed);
            let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.last_rpc_us.store(took, Ordering::Relaxed);
            *self.last_ok.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        } else {
            self.calls_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Time since the last answered call; `None` before the first.
    pub fn since_last_ok(&self) -> Option<Duration> {
        self.last_ok.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}

/// Handle to the connection; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gateway {
    calls: mpsc::Sender<Call>,
    link: watch::Receiver<Link>,
    stats: Arc<Stats>,
    device_id: Arc<str>,
    redial: Arc<tokio::sync::Notify>,
}

impl Gateway {
    /// Gives the session up and opens another one: after a suspension the old one is only believed to be there.
    pub fn redial(&self) {
        self.redial.notify_one();
    }

    /// The connection's state now.
    pub fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// A receiver that is told of every change of the connection's state.
    pub fn watch(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// The connection's numbers.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Our own device, which appears in no list.
    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    /// The session, waiting for one until `deadline`. A refusal is final at once: waiting does not change it.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn session(&self, deadline: Instant) -> Result<Arc<Session>, Down> {
        let mut link = self.link.clone();
        loop {
            let down = match &*link.borrow_and_update() {
                Link::Up(session) => return Ok(session.clone()),
                Link::Down(down) => down.clone(),
            };
            if matches!(down, Down::Unauthorized(_)) {
                return Err(down);
            }
            match tokio::time::timeout_at(deadline, link.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(down),
            }
        }
    }

    /// Calls `method` on the session there is, and parses the answer.
    ///
    /// # Errors
    /// See [`CallError`]; after `Lost` and `TimedOut` the effect is unknown.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        params: serde_json::Value,
        deadline: Instant,
    ) -> Result<T, CallError> {
        let session = match self.link() {
            Link::Up(session) => session,
            Link::Down(down) => return Err(CallError::Down(down)),
        };
        if session.lacks(method) {
            return Err(CallError::Unsupported);
        }
        let started = Instant::now();
        let answer = self.exchange(method, params, deadline).await;
        self.stats.count(started, answer.is_ok());
        match answer {
            Ok(payload) => {
                session.learn(method, true);
                serde_json::from_str(&payload).map_err(|e| CallError::Malformed(e.to_string()))
            }
            Err(CallError::Rejected(error)) if error.is_unknown_method() => {
                session.learn(method, false);
                Err(CallError::Unsupported)
            }
            Err(error) => Err(error),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        params: serde_json::Value,
        deadline: Instant,
    ) -> Result<String, CallError> {
        let (reply, answer) = oneshot::channel();
        self.calls.try_send(Call { method, params, reply }).map_err(|_| CallError::Down(Down::Mute))?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CallError::Lost),
            Err(_) => Err(CallError::TimedOut),
        }
    }
}
