//! One tenant as the registry knows it: the facts that order, status and lists need, apart from the report itself.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::checkin::wire::{AuditHead, Bye};
use crate::clock::UnixMs;

/// Processes of one machine that are remembered, the current one included.
pub const LIVES_KEPT: usize = 4;
/// Credentials a tenant may hold at once: the one in use and the next.
pub const MAX_CREDENTIALS: usize = 2;

/// How a tenant is, as support sees it. The order is the order of urgency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// It was expected and did not come, and had not said goodbye.
    Unreachable,
    /// The gateway ends again and again, or refuses its configuration.
    Crashed,
    /// It runs, but something does not work.
    Degraded,
    /// It runs, and somebody waits to be let in.
    PairingPending,
    /// The gateway starts.
    Booting,
    /// It was created and has not checked in yet.
    Provisioning,
    /// Nothing can be said with confidence.
    Unknown,
    /// It works.
    Ready,
    /// It said goodbye.
    Asleep,
}

impl Status {
    /// All of them, most urgent first.
    pub const ALL: [Self; 9] = [
        Self::Unreachable,
        Self::Crashed,
        Self::Degraded,
        Self::PairingPending,
        Self::Booting,
        Self::Provisioning,
        Self::Unknown,
        Self::Ready,
        Self::Asleep,
    ];

    /// Their names, in the same order.
    pub const NAMES: [&'static str; 9] = {
        let (mut names, mut n) = ([""; 9], 0);
        while n < names.len() {
            names[n] = Self::ALL[n].name();
            n += 1;
        }
        names
    };

    /// The name in the API and the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Crashed => "crashed",
            Self::Degraded => "degraded",
            Self::PairingPending => "pairing-pending",
            Self::Booting => "booting",
            Self::Provisioning => "provisioning",
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Asleep => "asleep",
        }
    }

    /// The urgencies of tenants of this status: with findings, and without.
    pub fn urgency(self) -> RangeInclusive<u8> {
        let first = self as u8 * 2;
        first..=first + 1
    }

    /// The status of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// SHA-256 of a machine's credential.
pub type Digest = [u8; 32];

/// One tenant's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The control plane's name of it.
    pub id: String,
    /// A name for people; may be empty.
    pub label: String,
    /// When it was created here.
    pub created_at: UnixMs,
    /// When it was retired; it is refused and hidden from then on.
    pub retired_at: Option<UnixMs>,
    /// Digests of its credentials, at most [`MAX_CREDENTIALS`].
    pub credentials: Vec<Digest>,
    /// Its status at the last write. What is shown is derived anew from the rest; this one is for lists and counts.
    pub status: Status,
    /// Since when.
    pub status_since: UnixMs,
    /// What its last check-in said; none before the first.
    pub last: Option<Last>,
}

/// What the last check-in said, and what is remembered of those before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Received here, by our clock: the only time shown as truth.
    pub received_at: UnixMs,
    /// Start of the machine's current process, as far as we heard.
    pub booted_at: UnixMs,
    /// The current process first, then those before it.
    pub lives: Vec<Life>,
    /// Promised next message, in seconds after this one; none in quiet mode.
    pub next_s: Option<u64>,
    /// Its goodbye, if that was the last it said.
    pub bye: Option<Bye>,
    /// The gateway's phase.
    pub phase: String,
    /// Why.
    pub phase_reason: String,
    /// How many requests wait for approval.
    pub pending_count: u64,
    /// Ids of those that wait, as far as named.
    pub pending: Vec<String>,
    /// Since when, by our clock, one has been waiting.
    pub pending_since: Option<UnixMs>,
    /// Whether it was told that this one waits too long.
    pub pending_told: bool,
    /// Codes of open findings of severity `error`.
    pub errors: Vec<String>,
    /// Codes of the other open findings.
    pub warnings: Vec<String>,
    /// The last provisioning error.
    pub desired_error: String,
    /// The gateway's version.
    pub gateway_version: String,
    /// The sidecar's version.
    pub sidecar_version: String,
    /// Where it runs.
    pub region: String,
    /// The newest audit record heard of.
    pub audit: Option<AuditHead>,
    /// Audit records up to this position are in the timeline.
    pub events_through: u64,
    /// When two machines last reported as this tenant.
    pub conflict_at: Option<UnixMs>,
    /// When its volume was last seen to have gone back in time.
    pub restored_at: Option<UnixMs>,
}

/// One process of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Its random name.
    pub boot_id: String,
    /// The volume's count of starts.
    pub epoch: u64,
    /// The newest message taken.
    pub seq: u64,
}

impl Row {
    /// A tenant that has not checked in yet.
    pub fn new(id: &str, label: &str, credentials: Vec<Digest>, now: UnixMs) -> Self {
        Self {
            id: id.to_owned(),
            label: label.to_owned(),
            created_at: now,
            retired_at: None,
            credentials,
            status: Status::Provisioning,
            status_since: now,
            last: None,
        }
    }

    /// When its next message is due at the latest, before any grace.
    pub fn due_at(&self) -> Option<UnixMs> {
        let last = self.last.as_ref()?;
        last.next_s.map(|s| last.received_at.plus_ms(s.saturating_mul(1000)))
    }

    /// How urgent it is, the most urgent first: by status, then by whether findings are open. Databases are sorted by it,
    /// so another order takes a migration.
    pub fn urgency(&self) -> u8 {
        let found = self.last.as_ref().is_some_and(|last| !last.errors.is_empty() || !last.warnings.is_empty());
        self.status.urgency().start() + u8::from(!found)
    }

    /// Whether somebody waits to be let in, whatever else is wrong.
    pub fn pairing_waits(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.pending_count > 0 && last.bye.is_none())
    }
}

/// Whether `id` may name a tenant, a key or a webhook: 1 to 64 letters, digits, dots, dashes and underscores.
pub fn is_id(id: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=64).contains(&id.len()) && id.bytes().all(legal) && !id.starts_with('.')
}

/// One line of a tenant's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// Position in the history of the whole fleet; given by the store.
    pub seq: u64,
    /// Whose.
    pub tenant: String,
    /// When we learned of it.
    pub at: UnixMs,
    /// What kind of thing happened.
    pub kind: EntryKind,
    /// What happened, for people.
    pub text: String,
    /// The same for machines: a JSON object.
    pub data: serde_json::Value,
}

/// Kinds of history lines; webhooks choose by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// The tenant was created.
    Created,
    /// The tenant was retired.
    Retired,
    /// Its credentials were changed.
    CredentialChanged,
    /// A process of the machine began.
    Booted,
    /// It said goodbye.
    Bye,
    /// Its status changed: `{from, to}`.
    Status,
    /// It was silent when it should not have been: `{from, to, s}`, told when it is back.
    Gap,
    /// A finding opened: `{code, severity}`.
    FindingOpened,
    /// A finding closed: `{code}`.
    FindingClosed,
    /// Somebody asks to be let in: `{request_id, kind, label}`.
    PairingRequested,
    /// A request no longer waits: `{request_id}`.
    PairingGone,
    /// A request has been waiting too long: `{s}`.
    PairingWaits,
    /// The gateway's version changed: `{from, to}`.
    VersionChanged,
    /// Two machines report as this tenant.
    Conflict,
    /// Its volume went back in time.
    Restored,
    /// The machine's audit lost records it had shown before.
    AuditTruncated,
    /// Audit records that the machine could not keep until they were told: `{records}`.
    AuditSkipped,
    /// Something from the machine's audit: `{actor, verb, target, outcome}`.
    Audit,
}

impl EntryKind {
    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::Created,
        Self::Retired,
        Self::CredentialChanged,
        Self::Booted,
        Self::Bye,
        Self::Status,
        Self::Gap,
        Self::FindingOpened,
        Self::FindingClosed,
        Self::PairingRequested,
        Self::PairingGone,
        Self::PairingWaits,
        Self::VersionChanged,
        Self::Conflict,
        Self::Restored,
        Self::AuditTruncated,
        Self::AuditSkipped,
        Self::Audit,
    ];

    /// The name in the API and the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Retired => "retired",
            Self::CredentialChanged => "credential_changed",
            Self::Booted => "booted",
            Self::Bye => "bye",
            Self::Status => "status",
            Self::Gap => "gap",
            Self::FindingOpened => "finding_opened",
            Self::FindingClosed => "finding_closed",
            Self::PairingRequested => "pairing_requested",
            Self::PairingGone => "pairing_gone",
            Self::PairingWaits => "pairing_waits",
            Self::VersionChanged => "version_changed",
            Self::Conflict => "conflict",
            Self::Restored => "restored",
            Self::AuditTruncated => "audit_truncated",
            Self::AuditSkipped => "audit_skipped",
            Self::Audit => "audit",
        }
    }

    /// The kind of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
