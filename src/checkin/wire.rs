//! What travels between a sidecar and the registry: one kind of message, always whole, and its answer.
//!
//! Both sides use these types. The registry ignores fields it does not know, so that it may be older than a sidecar;
//! every field that is not needed to order and place a message has a default, so that it may be newer.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;

/// The one route a sidecar calls.
pub const PATH: &str = "/v1/agent/checkin";
/// Carries the proof by which a registry that lost its database takes a tenant in again.
pub const TICKET_HEADER: &str = "x-openclaw-ticket";
/// Largest message sent, in bytes: what is least needed is left out before that.
pub const MAX_SENT: usize = 8 * 1024;
/// Largest message taken, in bytes.
pub const MAX_TAKEN: usize = 16 * 1024;
/// Largest answer read, in bytes.
pub const MAX_ANSWER: usize = 4 * 1024;
/// Waiting requests named in a message; the count is always whole.
pub const MAX_PENDING: usize = 8;
/// Findings named in a message.
pub const MAX_FINDINGS: usize = 12;
/// Audit events carried by one message.
pub const MAX_EVENTS: usize = 8;
/// The answer's `next_s` is brought into these bounds by whoever reads it, in seconds.
pub const NEXT_S: std::ops::RangeInclusive<u64> = 15..=3600;

/// One check-in. Ordered by `(epoch, boot_id, seq)`, never by a clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CheckIn {
    /// The tenant, as the control plane named it.
    pub tenant: String,
    /// Raised on the volume by every start of the daemon, from 1.
    pub epoch: u64,
    /// Random name of this process.
    pub boot_id: String,
    /// Raised by every message of this process, from 1.
    pub seq: u64,
    /// Why now: `boot`, `phase`, `pairing`, `findings`, `desired`, `resume`, `interval`, `bye`, `audit`.
    #[serde(default)]
    pub reason: Vec<String>,
    /// The machine goes away, planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bye: Option<Bye>,
    /// Another message follows within so many seconds whatever happens; absent in quiet mode, where silence means
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_s: Option<u64>,
    /// The whole state.
    pub state: Report,
    /// Newest audit record of the machine: one that goes back shows a truncated audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditHead>,
    /// Audit records the registry has not acknowledged, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<AuditEvent>,
    /// Audit records that were never sent because too many waited.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

/// A planned goodbye.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bye {
    /// What becomes of the machine.
    pub intent: Intent,
    /// Why, in plain words, e.g. `SIGTERM`.
    #[serde(default)]
    pub reason: String,
}

/// What becomes of a machine that says goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// It sleeps until somebody wakes it.
    Sleep,
    /// It stops: the platform ends it, or an operator.
    Stop,
    /// It is back in a moment.
    Restart,
    /// The tenant was wiped.
    Decommission,
    /// Something this build does not know.
    #[serde(other)]
    Other,
}

/// The newest audit record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditHead {
    /// Its position, from 1.
    pub seq: u64,
    /// Its place in the hash chain, lower-case hex SHA-256.
    pub hash: String,
}

/// One audit record, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditEvent {
    /// Its position in the machine's audit.
    pub seq: u64,
    /// The machine's clock then.
    pub at: UnixMs,
    /// Who acted: a credential's id.
    #[serde(default)]
    pub actor: String,
    /// What was asked for, e.g. `pairing.approve`.
    #[serde(default)]
    pub verb: String,
    /// On what.
    #[serde(default)]
    pub target: String,
    /// What became of it, e.g. `approved`.
    #[serde(default)]
    pub outcome: String,
}

/// The state of a machine, in texts that are cut to a bound each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Report {
    /// The gateway's phase by the name the control API gives it.
    pub phase: String,
    /// Since when, by the machine's clock.
    pub phase_since: Option<UnixMs>,
    /// Why, in plain words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub phase_reason: String,
    /// `launch` or `attach`.
    pub mode: String,
    /// When this was written, by the machine's clock.
    pub sent_at: Option<UnixMs>,
    /// This program.
    pub sidecar: Sidecar,
    /// The gateway.
    pub gateway: Gateway,
    /// Pairing.
    pub pairing: Pairing,
    /// The desired state.
    pub desired: Desired,
    /// Where the machine runs.
    pub platform: Platform,
    /// How the machine is doing.
    pub host: Host,
    /// Open problems, worst first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// How many problems are open.
    pub findings_count: u64,
}

/// The sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Sidecar {
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// SHA-256 of the certificate it serves, so that the control plane can pin it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
    /// `separate-uids`, `shared-uid`, or empty in attach mode.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub isolation: String,
}

/// The gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Gateway {
    /// Its version; empty while unknown.
    pub version: String,
    /// How often it was started by this launcher.
    pub starts: u64,
    /// How it last ended, in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
    /// When it last ended, by the machine's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit_at: Option<UnixMs>,
    /// How long its last authenticated call took, in milliseconds.
    pub rpc_ms: u64,
}

/// Pairing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Pairing {
    /// Who may be approved without a person.
    pub posture: String,
    /// Waiting requests, oldest first, at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<Pending>,
    /// How many wait.
    pub pending_count: u64,
    /// How many devices and nodes are approved.
    pub approved_count: u64,
    /// How many of them are connected.
    pub connected_count: u64,
    /// When somebody was let in past the sidecar, newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_out_of_band_at: Option<UnixMs>,
}

/// A request that waits for approval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Pending {
    /// `device`, `node` or `channel`.
    pub kind: String,
    /// The gateway's id of the request.
    pub request_id: String,
    /// The device that asks.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device_id: String,
    /// A name for people.
    pub label: String,
    /// The client program.
    pub client: String,
    /// What it runs on.
    pub platform: String,
    /// The role asked for.
    pub role: String,
    /// Scopes asked for.
    pub scopes: Vec<String>,
    /// It was approved before and asks for more.
    pub is_upgrade: bool,
    /// Seconds it had waited when the message was written. Ages, because the machine's clock may be wrong.
    pub age_s: u64,
    /// Seconds it had left then; absent where it does not lapse.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// The desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Desired {
    /// Newest generation; 0 when there is none.
    pub generation: u64,
    /// What became of it, e.g. `applied`, `failed`.
    pub status: String,
    /// The last provisioning error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Where the machine runs, as its environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Platform {
    /// `fly`, `railway`, `systemd`, `docker` or `other`.
    pub kind: String,
    /// The region, where the platform names one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// The platform's name of the machine.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
}

/// How the machine is doing; told along, never a reason to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Host {
    /// Memory that can still be had, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_free_mib: Option<u64>,
    /// Free space on the volume, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_free_mib: Option<u64>,
    /// Load average over a minute, times 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_percent: Option<u64>,
}

/// A diagnosed problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Finding {
    /// Stable name.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// Seconds it had been open when the message was written.
    pub age_s: u64,
    /// One sentence.
    pub summary: String,
    /// What proves it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What to do about it.
    pub remedy: String,
}

/// The registry's answer: scheduling, never a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Answer {
    /// What was taken.
    pub ack: Ack,
    /// When to check in again if nothing happens, in seconds; brought between 15 s and an hour.
    pub next_s: u64,
}

/// What the registry took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ack {
    /// Of the process that sent it.
    pub boot_id: String,
    /// Of the message.
    pub seq: u64,
    /// Every audit record up to this position is kept.
    #[serde(default)]
    pub events: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}
