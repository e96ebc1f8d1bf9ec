//! The published snapshot: everything the API shows about the machine, under one generation number.
//!
//! Every visible change passes [`State::publish`]. It raises the generation when something really changed, so that a
//! caller can wait for "anything newer than N", and keeps the last events for streams that resume.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::UnixMs;

/// Events kept for streams that resume; older ones are answered with a `reset`.
pub const EVENTS_KEPT: usize = 512;

/// What the gateway is doing, as far as its answers prove it.
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

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Works, but somebody should look.
    Warning,
    /// Something does not work.
    Error,
}

/// A diagnosed problem: machines branch on `code`, people read the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// Stable name of the problem.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Since when.
    pub since: UnixMs,
    /// One sentence.
    pub summary: String,
    /// What to do about it.
    pub remedy: String,
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
            || self.gateway != other.gateway
            || self.pairing != other.pairing
            || self.findings != other.findings
    }

    /// Moves to `phase`; the time of the change is kept when nothing changes.
    pub fn enter(&mut self, phase: Phase, reason: &str) {
        if self.phase != phase {
            self.phase_since = UnixMs::now();
        }
        self.phase = phase;
        reason.clone_into(&mut self.phase_reason);
    }

    /// Opens a finding, or renews its text while keeping its time; `None` closes it.
    pub fn set_finding(&mut self, code: &'static str, severity: Severity, text: Option<(String, String)>) {
        let known = self.findings.iter().position(|f| f.code == code);
        match (text, known) {
            (Some((summary, remedy)), Some(at)) => {
                self.findings[at].summary = summary;
                self.findings[at].remedy = remedy;
            }
            (Some((summary, remedy)), None) => {
                let since = UnixMs::now();
                self.findings.push(Finding { code, severity, since, summary, remedy });
            }
            (None, Some(at)) => {
                self.findings.remove(at);
            }
            (None, None) => {}
        }
    }
}

/// Something that happened, for the event stream.
#[derive(Clone, Debug)]
pub struct Event {
    /// Position in the stream of this process, from 1.
    pub seq: u64,
    /// The generation it belongs to.
    pub generation: u64,
    /// E.g. `pairing.requested`.
    pub name: &'static str,
    /// When, and what about it.
    pub data: Value,
}

/// A change being prepared: the snapshot to edit and the events to tell.
#[derive(Debug)]
pub struct Draft {
    /// The next snapshot.
    pub snapshot: Snapshot,
    events: Vec<(&'static str, Value)>,
}

impl Draft {
    /// Adds an event to the stream.
    pub fn tell(&mut self, name: &'static str, data: Value) {
        self.events.push((name, data));
    }
}

/// The one publisher; cheap to clone.
#[derive(Clone, Debug)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Random per process, so that a stream does not resume into another process's numbering.
    boot: String,
    events: Mutex<Ring>,
    current: watch::Sender<Arc<Snapshot>>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Arc<Event>>,
    last_seq: u64,
}

impl State {
    /// A first snapshot: nothing known yet. `boot` names this process.
    pub fn new(boot: String) -> Self {
        let first = Snapshot {
            generation: 1,
            phase: Phase::Starting,
            phase_since: UnixMs::now(),
            phase_reason: "the gateway was not reached yet".to_owned(),
            gateway: None,
            pairing: Arc::default(),
            findings: Vec::new(),
        };
        Self(Arc::new(Inner { boot, events: Mutex::default(), current: watch::Sender::new(Arc::new(first)) }))
    }

    /// Random name of this process.
    pub fn boot(&self) -> &str {
        &self.0.boot
    }

    /// The newest snapshot.
    pub fn now(&self) -> Arc<Snapshot> {
        self.0.current.borrow().clone()
    }

    /// A receiver that is told of every newer snapshot.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.current.subscribe()
    }

    /// Applies `change` to a copy of the snapshot. A new generation is published if anything visible changed or an
    /// event was told; a change of phase tells its own event.
    pub fn publish<T>(&self, change: impl FnOnce(&mut Draft) -> T) -> T {
        let mut ring = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.now();
        let mut draft = Draft { snapshot: (*old).clone(), events: Vec::new() };
        let result = change(&mut draft);
        let Draft { mut snapshot, mut events } = draft;
        if snapshot.phase != old.phase {
            let data =
                serde_json::json!({ "phase": snapshot.phase, "was": old.phase, "reason": snapshot.phase_reason });
            events.push(("gateway.phase", data));
        }
        if !snapshot.differs(&old) && events.is_empty() {
            return result;
        }
        if events.is_empty() {
            events.push(("state", Value::Null));
        }
        snapshot.generation = old.generation + 1;
        for (name, data) in events {
            ring.push(snapshot.generation, name, data);
        }
        self.0.current.send_replace(Arc::new(snapshot));
        result
    }

    /// Events after position `seq`, oldest first; `None` if some of them are no longer kept.
    pub fn events_after(&self, seq: u64) -> Option<Vec<Arc<Event>>> {
        let ring = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.last_seq + 1 - ring.kept.len() as u64;
        if seq > ring.last_seq || seq + 1 < oldest {
            return None;
        }
        Some(ring.kept.iter().filter(|e| e.seq > seq).cloned().collect())
    }

    /// Position of the newest event.
    pub fn last_seq(&self) -> u64 {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner).last_seq
    }
}

impl Ring {
    fn push(&mut self, generation: u64, name: &'static str, mut data: Value) {
        self.last_seq += 1;
        if data.is_null() {
            data = Value::Object(serde_json::Map::new());
        }
        data["at"] = UnixMs::now().rfc3339().into();
        data["generation"] = generation.into();
        if self.kept.len() == EVENTS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(Event { seq: self.last_seq, generation, name, data }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_changes_raise_the_generation() {
        let state = State::new("boot".into());
        state.publish(|_| ());
        assert_eq!(state.now().generation, 1);
        state.publish(|d| d.snapshot.enter(Phase::Ready, ""));
        assert_eq!(state.now().generation, 2);
        state.publish(|d| d.snapshot.enter(Phase::Ready, ""));
        assert_eq!(state.now().generation, 2);
        let events = state.events_after(0).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].name, events[0].generation), ("gateway.phase", 2));
    }

    #[test]
    fn a_stream_resumes_inside_the_window_only() {
        let state = State::new("boot".into());
        for n in 0..EVENTS_KEPT + 10 {
            state.publish(|d| d.tell("test", serde_json::json!({ "n": n })));
        }
        assert!(state.events_after(0).is_none());
        assert!(state.events_after(9).is_none());
        assert_eq!(state.events_after(10).unwrap().len(), EVENTS_KEPT);
        assert_eq!(state.events_after(state.last_seq()).unwrap().len(), 0);
        assert!(state.events_after(state.last_seq() + 1).is_none());
    }

    #[test]
    fn a_finding_keeps_its_time_until_it_closes() {
        let state = State::new("boot".into());
        let open = |text: &str| Some((text.to_owned(), "fix it".to_owned()));
        state.publish(|d| d.snapshot.set_finding("x", Severity::Error, open("one")));
        let since = state.now().findings[0].since;
        state.publish(|d| d.snapshot.set_finding("x", Severity::Error, open("two")));
        assert_eq!(state.now().findings[0].summary, "two");
        assert_eq!(state.now().findings[0].since, since);
        state.publish(|d| d.snapshot.set_finding("x", Severity::Error, None));
        assert!(state.now().findings.is_empty());
    }
}
