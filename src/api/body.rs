//! The bodies of requests and answers. Times are RFC 3339 in UTC, durations end in `_s` or `_ms`.

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::audit::chain::{Head, Record};
use crate::checkin;
use crate::clock::UnixMs;
use crate::harden::Report;
use crate::launcher::verbs::Status;
use crate::op::Patience;
use crate::op::pairing::expect::Expect;
use crate::op::pairing::{Approval, ApproveCommand, ChangeCommand, Target};
use crate::state::{Approved, DesiredState, Finding, GatewayInfo, Kind, OutOfBand, Pairing, Pending, Phase};

/// One request that waits, as shown at some moment.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PendingBody {
    /// The request.
    #[serde(flatten)]
    pub request: Pending,
    /// How long ago the gateway recorded it.
    pub age_s: u64,
}

impl PendingBody {
    /// The request as shown at `now`.
    pub fn of(request: &Pending, now: UnixMs) -> Self {
        let mut request = request.clone();
        // A device that keeps trying keeps its request alive without saying so.
        request.expires_at = request.expires_at.filter(|at| *at > now);
        Self { age_s: request.requested_at.seconds_until(now), request }
    }
}

/// Answer of `GET /v1/pairing`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PairingBody {
    /// Generation this was read at.
    pub generation: u64,
    /// Who may be approved without a person; `manual`: nobody.
    pub posture: &'static str,
    /// Waiting requests, oldest first; at most 256 of each kind.
    pub pending: Vec<PendingBody>,
    /// Approved devices and nodes, oldest first; at most 1024 of each kind.
    pub approved: Vec<Approved>,
    /// The newest approval that was not made by this sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_out_of_band: Option<OutOfBand>,
}

impl PairingBody {
    /// The whole view at `now`.
    pub fn of(generation: u64, pairing: &Pairing, now: UnixMs) -> Self {
        Self {
            generation,
            posture: "manual",
            pending: pairing.pending.iter().map(|p| PendingBody::of(p, now)).collect(),
            approved: pairing.approved.clone(),
            last_out_of_band: pairing.last_out_of_band.clone(),
        }
    }
}

/// Answer of `GET /v1/state`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StateBody {
    /// Raised by every visible change; `?wait_gen=` waits for a newer one.
    pub generation: u64,
    /// `launch`, or `attach`: somebody else starts the gateway.
    pub mode: &'static str,
    /// What the gateway is doing.
    pub phase: Phase,
    /// Since when.
    pub phase_since: UnixMs,
    /// Why, in plain words; empty when ready.
    pub phase_reason: String,
    /// This program.
    pub sidecar: SidecarBody,
    /// How the gateway's process is doing; launch mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Status>,
    /// Which desired state is in force; launch mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredState>,
    /// The gateway as it introduced itself; absent before the first session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayBody>,
    /// Pairing in short; `GET /v1/pairing` has it whole.
    pub pairing: PairingShort,
    /// How check-ins with the registry are going.
    pub registry: checkin::Status,
    /// Open problems.
    pub findings: Vec<Finding>,
}

/// This program, in the state.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SidecarBody {
    /// Its version.
    pub version: &'static str,
    /// The commit it was built from.
    pub commit: &'static str,
    /// Random name of this process.
    pub boot_id: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Our own device towards the gateway; it is in no list.
    pub device_id: String,
    /// SHA-256 of the certificate, for pinning; absent without `tls` listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
    /// Where it listens.
    pub listeners: Vec<ListenerBody>,
    /// What it gave up before it began, layer by layer: `on`, or why not.
    pub hardening: Report,
}

/// One listener, in the state.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListenerBody {
    /// `tls`, `edge` (plain HTTP behind a platform edge) or `unix`.
    pub kind: &'static str,
    /// Address or path.
    pub address: String,
}

/// The gateway, in the state.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GatewayBody {
    /// What it said of itself.
    #[serde(flatten)]
    pub info: GatewayInfo,
    /// How long the last answered call took.
    pub rpc_ms: f64,
    /// Seconds since the last answered call; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_answer_s: Option<u64>,
}

/// Pairing, in the state.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PairingShort {
    /// Who may be approved without a person.
    pub posture: &'static str,
    /// Waiting requests.
    pub pending: Vec<PendingBody>,
    /// How many are paired.
    pub approved_count: usize,
    /// How many of them are connected.
    pub connected_count: usize,
    /// The newest approval that was not made by this sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_out_of_band: Option<OutOfBand>,
}

/// Body of `POST /v1/pairing/approve`: which request, and what it may ask for.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ApproveBody {
    /// `device`, `node` or `channel`.
    pub kind: Kind,
    /// The request's id.
    #[serde(default)]
    pub request_id: Option<String>,
    /// Device only: whatever this device asks for now.
    #[serde(default)]
    pub device_id: Option<String>,
    /// Device only: the one request that waits, if it is exactly one.
    #[serde(default)]
    pub only_pending: Option<bool>,
    /// Channel only: e.g. `telegram`.
    #[serde(default)]
    pub channel: Option<String>,
    /// Channel only: the account, where the channel has several.
    #[serde(default)]
    pub account: Option<String>,
    /// Channel only: the code its sender was shown (needs launch mode).
    #[serde(default)]
    pub code: Option<String>,
    /// Limits beyond which nothing is approved.
    #[serde(default)]
    pub expect: Option<Expect>,
}

impl ApproveBody {
    /// The typed command.
    ///
    /// # Errors
    /// A problem that names the field that is missing or too much.
    pub fn command(self, patience: Patience) -> Result<ApproveCommand, Problem> {
        let expect = self.expect.clone().unwrap_or_default();
        let target = match self.kind {
            Kind::Device => self.device_target()?,
            Kind::Node => {
                let extra = [("device_id", self.device_id.is_some()), ("only_pending", self.only_pending.is_some())];
                self.no_channel_fields()?;
                refuse_extra("node", &extra)?;
                Target::Request(Kind::Node, id("request_id", self.request_id)?)
            }
            Kind::Channel => self.channel_target()?,
        };
        Ok(ApproveCommand { target, expect, patience })
    }

    fn device_target(&self) -> Result<Target, Problem> {
        self.no_channel_fields()?;
        let only_pending = match self.only_pending {
            Some(false) => return Err(invalid("only_pending: must be true where it is given")),
            other => other.is_some(),
        };
        match (self.request_id.clone(), self.device_id.clone(), only_pending) {
            (Some(request), None, false) => Ok(Target::Request(Kind::Device, id("request_id", Some(request))?)),
            (None, Some(device), false) => Ok(Target::Device(id("device_id", Some(device))?)),
            (None, None, true) => Ok(Target::OnlyPending),
            _ => Err(invalid("give exactly one of request_id, device_id and only_pending")),
        }
    }

    fn channel_target(&self) -> Result<Target, Problem> {
        let extra = [("device_id", self.device_id.is_some()), ("only_pending", self.only_pending.is_some())];
        refuse_extra("channel", &extra)?;
        let channel = id("channel", self.channel.clone())?;
        match (self.request_id.clone(), self.code.clone()) {
            (Some(request), None) => Ok(Target::Channel {
                channel,
                account: self.account.clone().map(|a| id("account", Some(a))).transpose()?,
                request_id: id("request_id", Some(request))?,
            }),
            (None, Some(_)) if self.expect.as_ref().is_some_and(|e| !e.is_empty()) => Err(invalid(
                "expect: what a code stands for is not known before; leave it out, or approve by request_id",
            )),
            (None, Some(code)) => Ok(Target::ChannelCode {
                channel,
                account: self.account.clone().map(|a| id("account", Some(a))).transpose()?,
                code: id("code", Some(code))?,
            }),
            _ => Err(invalid("give exactly one of request_id and code")),
        }
    }

    fn no_channel_fields(&self) -> Result<(), Problem> {
        let extra =
            [("channel", self.channel.is_some()), ("account", self.account.is_some()), ("code", self.code.is_some())];
        refuse_extra("device or node", &extra)
    }
}

/// Body of `POST /v1/pairing/reject`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RejectBody {
    /// `device`, `node` or `channel`.
    pub kind: Kind,
    /// The request's id.
    pub request_id: String,
    /// Channel only: e.g. `telegram`.
    #[serde(default)]
    pub channel: Option<String>,
    /// Channel only: the account, where the channel has several.
    #[serde(default)]
    pub account: Option<String>,
}

impl RejectBody {
    /// The typed command.
    ///
    /// # Errors
    /// A problem that names the field.
    pub fn command(self) -> Result<ChangeCommand, Problem> {
        let channel = match (self.kind, self.channel) {
            (Kind::Channel, channel) => {
                Some((id("channel", channel)?, self.account.map(|a| id("account", Some(a))).transpose()?))
            }
            (_, None) if self.account.is_none() => None,
            _ => return Err(invalid("channel and account belong to kind channel only")),
        };
        Ok(ChangeCommand::Reject { kind: self.kind, request_id: id("request_id", Some(self.request_id))?, channel })
    }
}

/// Body of `POST /v1/pairing/revoke`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RevokeBody {
    /// `device` or `node`.
    pub kind: Kind,
    /// Its id.
    pub device_id: String,
}

impl RevokeBody {
    /// The typed command.
    ///
    /// # Errors
    /// A problem that names the field.
    pub fn command(self) -> Result<ChangeCommand, Problem> {
        let kind = device_or_node(self.kind)?;
        Ok(ChangeCommand::Revoke { kind, device_id: id("device_id", Some(self.device_id))? })
    }
}

/// Body of `POST /v1/pairing/rename`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RenameBody {
    /// `device` or `node`.
    pub kind: Kind,
    /// Its id.
    pub device_id: String,
    /// The new name, 1 to 64 characters.
    pub label: String,
}

impl RenameBody {
    /// The typed command.
    ///
    /// # Errors
    /// A problem that names the field.
    pub fn command(self) -> Result<ChangeCommand, Problem> {
        let kind = device_or_node(self.kind)?;
        let label = self.label.trim().to_owned();
        if label.is_empty() || label.chars().count() > 64 || label.chars().any(char::is_control) {
            return Err(invalid("label: must have 1 to 64 printable characters"));
        }
        Ok(ChangeCommand::Rename { kind, device_id: id("device_id", Some(self.device_id))?, label })
    }
}

/// Answer of `POST /v1/pairing/approve`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApproveReply {
    /// `approved` or `already_paired`.
    pub outcome: &'static str,
    /// The request that was approved; absent when the device was paired already.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The gateway's own record of the device or node; absent for channel requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Approved>,
    /// Whether it is connected, when `?wait_connected_s=` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected: Option<bool>,
}

impl From<Approval> for ApproveReply {
    fn from(approval: Approval) -> Self {
        Self {
            outcome: if approval.already { "already_paired" } else { "approved" },
            request_id: approval.request_id,
            device: approval.device,
            connected: approval.connected,
        }
    }
}

/// Answer of the other changes.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangeReply {
    /// `rejected`, `already_rejected`, `revoked` or `renamed`.
    pub outcome: &'static str,
}

/// Answer of `GET /v1/audit`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AuditBody {
    /// The newest record: a copy kept elsewhere shows a truncation here.
    pub head: Head,
    /// Records in order.
    pub records: Vec<Record>,
    /// Give this as `?after=` for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
}

fn device_or_node(kind: Kind) -> Result<Kind, Problem> {
    match kind {
        Kind::Device | Kind::Node => Ok(kind),
        Kind::Channel => Err(invalid("kind: must be device or node")),
    }
}

fn refuse_extra(kind: &str, extra: &[(&str, bool)]) -> Result<(), Problem> {
    match extra.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(invalid(&format!("{name}: does not belong to kind {kind}"))),
        None => Ok(()),
    }
}

/// An id that can be repeated to the gateway exactly.
fn id(name: &str, value: Option<String>) -> Result<String, Problem> {
    let value = value.ok_or_else(|| invalid(&format!("{name}: is missing")))?;
    if value.is_empty() || value.len() > 256 || value.chars().any(char::is_control) {
        return Err(invalid(&format!("{name}: must have 1 to 256 printable characters")));
    }
    Ok(value)
}

fn invalid(what: &str) -> Problem {
    Problem::new("invalid_body", what)
}

#[cfg(test)]
mod tests;
