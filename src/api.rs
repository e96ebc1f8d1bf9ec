//! The control API: one route table, typed bodies, one place where an outcome becomes a status.
//!
//! A request is parsed once into a typed command; that value is authorised and that value is carried out.

pub mod body;
pub mod handlers;
pub mod launch;
pub mod problem;
pub mod query;
pub mod routes;

#[cfg(test)]
mod openapi;

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::auth::Auth;
use crate::checkin::CheckIns;
use crate::gateway::Gateway;
use crate::harden;
use crate::metrics::Metrics;
use crate::op::Caller;
use crate::op::decommission::Decommission;
use crate::op::desired::Desired;
use crate::op::lifecycle::Lifecycle;
use crate::op::pairing::Pairings;
use crate::op::secrets::Secrets;
use crate::state::{Event, State};

/// Version, build and start of this process.
#[derive(Clone, Debug)]
pub struct About {
    /// When the process started, for the uptime.
    pub started: Instant,
    /// What the process did to itself before it began.
    pub hardening: harden::Report,
    /// Where it listens: `tls`, `edge` or `unix`, and the address.
    pub listeners: Vec<(&'static str, String)>,
    /// SHA-256 of the certificate served, for pinning; changes when it is reloaded.
    pub certificate_sha256: Arc<std::sync::Mutex<Option<String>>>,
}

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build says so.
pub const COMMIT: &str = match option_env!("OPENCLAW_SIDECAR_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What handlers work with.
#[derive(Debug)]
pub struct Context {
    /// The published snapshot.
    pub state: State,
    /// The gateway's connection, for its numbers.
    pub gateway: Gateway,
    /// The pairing operations.
    pub pairings: Arc<Pairings>,
    /// What only a sidecar that launches the gateway can do.
    pub launch: Option<Launch>,
    /// The audit.
    pub audit: Audit,
    /// The credentials, for what is wrong with them.
    pub auth: Auth,
    /// The check-ins, for how they are going.
    pub checkins: CheckIns,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// This process.
    pub about: About,
    /// Wakes calls that wait for news when the process ends.
    pub stopping: CancellationToken,
}

/// The operations of launch mode.
#[derive(Debug)]
pub struct Launch {
    /// Starting, stopping, repairing.
    pub lifecycle: Lifecycle,
    /// The desired state.
    pub desired: Arc<Desired>,
    /// The gateway's secrets.
    pub secrets: Arc<Secrets>,
    /// The end of a tenant.
    pub decommission: Decommission,
}

/// An authorised request, without HTTP around it.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Caller,
    /// The name in the path, where the route has one.
    pub name: String,
    /// The query text, if any.
    pub query: Option<String>,
    /// The body, already bounded.
    pub body: Bytes,
    /// `If-Match`, if any.
    pub if_match: Option<String>,
    /// `If-None-Match`, if any.
    pub if_none_match: Option<String>,
    /// `Last-Event-ID`, if any.
    pub last_event_id: Option<String>,
}

/// What a handler answers.
#[derive(Debug)]
pub enum Answer {
    /// JSON with a status and an optional entity tag.
    Json(StatusCode, Bytes, Option<String>),
    /// Text of another media type.
    Text(StatusCode, &'static str, Bytes),
    /// The caller has this already.
    NotModified(String),
    /// A stream of events, from this position on.
    Events(StreamStart),
}

/// Where an event stream begins.
#[derive(Debug)]
pub struct StreamStart {
    /// Events after this position follow.
    pub after: u64,
    /// The stream cannot resume where the caller left: it has to read the state anew.
    pub reset: Option<&'static str>,
}

/// The id of an event in a stream: the process's name and the position, `<boot>.<seq>`.
pub fn event_id(boot: &str, event: &Event) -> String {
    format!("{boot}.{}", event.seq)
}
