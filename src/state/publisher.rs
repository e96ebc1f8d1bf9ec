//! The one publisher of snapshots, and the events that streams resume from.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::{Phase, Snapshot};
use crate::clock::UnixMs;

/// Events kept for streams that resume; older ones are answered with a `reset`.
pub const EVENTS_KEPT: usize = 512;

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
            seen: (Phase::Starting, "the gateway was not reached yet".to_owned()),
            supervisor: None,
            desired: super::DesiredState::default(),
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
            if snapshot.seen != old.seen {
                // Nobody sees it now; the phase after the next change of the process follows from it.
                self.0.current.send_replace(Arc::new(snapshot));
            }
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
    use super::super::{Code, Found};
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
        let open = |text: &str| Some(Found::new(text));
        state.publish(|d| d.snapshot.set_finding(Code::SeedNotes, open("one")));
        let since = state.now().findings[0].since;
        state.publish(|d| d.snapshot.set_finding(Code::SeedNotes, open("two")));
        assert_eq!(state.now().findings[0].summary, "two");
        assert_eq!(state.now().findings[0].since, since);
        state.publish(|d| d.snapshot.set_finding(Code::SeedNotes, None));
        assert!(state.now().findings.is_empty());
    }
}
