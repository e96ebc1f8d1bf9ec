//! The published snapshot: everything the API shows about the machine, under one generation number.
//!
//! Every visible change passes [`State::publish`]. It raises the generation when something really changed, so that a
//! caller can wait for "anything newer than N", and keeps the last events for streams that resume.

pub mod code;
mod finding;
mod publisher;

use std::sync::Arc;

use serde::Serialize;

use crate::clock::UnixMs;
use crate::desired::history::Outcome;
use crate::launcher::machine::State as Launched;
use crate::launcher::verbs::Status;

pub use code::Code;
pub use finding::{Finding, Found, Severity};
pub use publisher::{Draft, EVENTS_KEPT, Event, State};

/// What the gateway is doing: as far as its answers prove it, and in launch mode what its process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It boots or restarts, or was not reached yet.
    Starting,
    /// An authenticated call succeeded lately.
    Ready,
    /// It is connected or accepts connections, but does not answer in time.
    Degraded,
    /// Nothing listens at its address.
    Stopped,
    /// It answers, but refuses us: see the findings for which side is stale.
    Unauthorized,
    /// Its configuration and files are being written (launch mode, as all that follow).
    Seeding,
    /// It is being stopped.
    Draining,
    /// It ended and will be started again soon.
    Backoff,
    /// It ended too often and is tried seldom; the reason says how.
    CrashLoop,
    /// It refuses its configuration, and no repair helped.
    ConfigInvalid,
    /// It was put to sleep.
    Suspended,
}

impl Phase {
    /// The phase's name as the API writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Stopped => "stopped",
            Self::Unauthorized => "unauthorized",
            Self::Seeding => "seeding",
            Self::Draining => "draining",
            Self::Backoff => "backoff",
            Self::CrashLoop => "crash_loop",
            Self::ConfigInvalid => "config_invalid",
            Self::Suspended => "suspended",
        }
    }
}

/// What a request asks approval for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A browser, app or CLI that wants to be let in.
    Device,
    /// A node host that wants its commands allowed.
    Node,
    /// A person who wrote to a messenger channel for the first time.
    Channel,
}

/// One request that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pending {
    /// What is asked for.
    pub kind: Kind,
    /// The gateway's id of the request. It changes when the device asks again for more.
    pub request_id: String,
    /// The device or node that asks; absent for channel requests.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device_id: String,
    /// A name for people.
    pub label: String,
    /// The client program, e.g. `openclaw-control-ui`; for a channel request the sender's id.
    pub client_id: String,
    /// What the client runs on.
    pub platform: String,
    /// The role asked for; several are separated by commas.
    pub role: String,
    /// Scopes asked for; for a node the scopes its approver must hold.
    pub scopes: Vec<String>,
    /// Commands a node wants allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Where it comes from, as the gateway saw it.
    pub remote_ip: String,
    /// It was approved before and now asks for more, or for something else.
    pub is_upgrade: bool,
    /// When the gateway recorded it.
    pub requested_at: UnixMs,
    /// When it lapses at the earliest; absent where nothing is known or it does not lapse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMs>,
    /// The messenger channel, for channel requests.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub channel: String,
    /// The account of that channel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub account: String,
}

/// One device or node that was approved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Approved {
    /// Device or node.
    pub kind: Kind,
    /// Its id.
    pub device_id: String,
    /// A name for people.
    pub label: String,
    /// The client program.
    pub client_id: String,
    /// What it runs on.
    pub platform: String,
    /// The role granted; several are separated by commas.
    pub role: String,
    /// Scopes granted.
    pub scopes: Vec<String>,
    /// Commands allowed to a node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// Where it last came from.
    pub remote_ip: String,
    /// Whether it is connected now; absent where the gateway does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
    /// When it was approved.
    pub approved_at: UnixMs,
    /// Who approved it: a credential's id, `out_of_band` (not by this sidecar), or `before_sidecar`.
    pub approved_by: String,
    /// How the gateway says it was approved, e.g. `owner` or `silent`; empty on old versions.
    pub approved_via: String,
}

/// An approval that did not come from this sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OutOfBand {
    /// The device or node that was let in.
    pub device_id: String,
    /// When it was noticed.
    pub noticed_at: UnixMs,
    /// How the gateway says it was approved; empty on old versions.
    pub via: String,
}

/// Everything about pairing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairing {
    /// Waiting requests, oldest first.
    pub pending: Vec<Pending>,
    /// Approved devices and nodes, oldest first.
    pub approved: Vec<Approved>,
    /// The newest approval that was not ours.
    pub last_out_of_band: Option<OutOfBand>,
}

/// The gateway as it introduced itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GatewayInfo {
    /// Its version; `dev` on 2026.2.9 from npm.
    pub version: String,
    /// The protocol number both agreed on.
    pub protocol: u32,
    /// Changes with every restart; absent on old versions.
    pub boot_id: Option<String>,
    /// What this gateway can do for pairing.
    pub capabilities: Vec<&'static str>,
    /// Sessions opened since the sidecar started.
    pub connects: u64,
}

/// Which desired state is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DesiredState {
    /// The newest generation; 0 when there is none.
    pub generation: u64,
    /// What became of it; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Outcome>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// All of it at one generation.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Raised by every visible change.
    pub generation: u64,
    /// What the gateway is doing.
    pub phase: Phase,
    /// Since when.
    pub phase_since: UnixMs,
    /// Why, in plain words; empty when ready.
    pub phase_reason: String,
    /// What the connection alone proves, and why.
    pub seen: (Phase, String),
    /// In launch mode, how the gateway's process is doing.
    pub supervisor: Option<Arc<Status>>,
    /// In launch mode, which desired state is in force.
    pub desired: DesiredState,
    /// The gateway's introduction, from the latest session.
    pub gateway: Option<GatewayInfo>,
    /// Pairing.
    pub pairing: Arc<Pairing>,
    /// Open problems.
    pub findings: Vec<Finding>,
}

impl Snapshot {
    fn differs(&self, other: &Self) -> bool {
        self.phase != other.phase
            || self.phase_reason != other.phase_reason
            || self.supervisor != other.supervisor
            || self.desired != other.desired
            || self.gateway != other.gateway
            || self.pairing != other.pairing
            || self.findings != other.findings
    }

    /// Notes what the connection proves; the time of a change is kept when nothing changes.
    pub fn enter(&mut self, phase: Phase, reason: &str) {
        self.seen = (phase, reason.to_owned());
        self.settle();
    }

    /// Notes how the gateway's process is doing.
    pub fn supervised(&mut self, status: Status) {
        self.supervisor = Some(Arc::new(status));
        self.settle();
    }

    /// The phase that follows from both: what the process does, and while it runs what its answers prove.
    fn settle(&mut self) {
        let seen = || (self.seen.0, self.seen.1.clone());
        let Some(status) = &self.supervisor else {
            let (phase, reason) = seen();
            return self.move_to(phase, &reason);
        };
        let (phase, reason) = match status.state {
            Launched::Stopped => (Phase::Stopped, status.reason.clone()),
            Launched::Seeding => (Phase::Seeding, status.reason.clone()),
            Launched::Draining => (Phase::Draining, status.reason.clone()),
            Launched::Backoff => (Phase::Backoff, status.reason.clone()),
            Launched::CrashLoop => (Phase::CrashLoop, status.reason.clone()),
            Launched::ConfigInvalid => (Phase::ConfigInvalid, status.reason.clone()),
            Launched::Suspended => (Phase::Suspended, status.reason.clone()),
            Launched::Starting | Launched::Ready | Launched::Degraded => match seen() {
                (Phase::Stopped, _) => (Phase::Starting, "the gateway boots".to_owned()),
                // The launcher learns of it at once; what it says and the phase go together.
                (Phase::Ready, _) if status.state == Launched::Starting => {
                    (Phase::Starting, "the gateway answers".to_owned())
                }
                seen => seen,
            },
        };
        self.move_to(phase, &reason);
    }

    fn move_to(&mut self, phase: Phase, reason: &str) {
        if self.phase != phase {
            self.phase_since = UnixMs::now();
        }
        self.phase = phase;
        reason.clone_into(&mut self.phase_reason);
    }

    /// Opens a finding, or renews its text while keeping its time; `None` closes it.
    pub fn set_finding(&mut self, code: Code, found: Option<Found>) {
        finding::set(&mut self.findings, code, found);
    }
}
