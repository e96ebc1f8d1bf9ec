//! Things that go wrong, switchable while the fake runs: some last until switched off, some are armed for n uses.

use std::time::Duration;

use serde_json::{Value, json};

use super::Fake;
use super::churn::Churn;
use super::core::Out;
use super::refusal::Refusal;
use super::world::Event;

/// How often an armed fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    Next(u64),
    Forever,
}

/// A fault waiting for its occasion.
#[derive(Debug)]
pub struct Charge<T> {
    what: Option<T>,
    times: Times,
}

impl<T> Default for Charge<T> {
    fn default() -> Self {
        Self { what: None, times: Times::Next(0) }
    }
}

impl<T: Clone> Charge<T> {
    pub fn arm(&mut self, what: T, times: Times) {
        self.what = Some(what);
        self.times = times;
    }

    /// The fault, if it strikes this time.
    pub fn take(&mut self) -> Option<T> {
        match &mut self.times {
            Times::Forever => {}
            Times::Next(0) => return None,
            Times::Next(left) => *left -= 1,
        }
        self.what.clone()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mute {
    #[default]
    Off,
    /// Ticks and events go on, calls are never answered.
    Replies,
    /// TCP and WebSocket stay up, nothing is ever sent.
    Everything,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    PerSecond(u32),
    /// As fast as the reader takes them.
    Unlimited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    InvalidJson,
    Binary,
    WrongTypes,
    /// A well-formed answer whose records have numbers where strings belong.
    WrongTypedRecords,
    AnswerWithoutId,
    UnknownId,
    DuplicateAnswer,
    /// 20,000 arrays inside each other.
    DeepNesting,
    /// A text frame of this many MiB.
    Oversize(usize),
}

impl Malformed {
    /// Stands in for the answer `frame`, or comes unasked.
    pub fn instead_of(self, frame: &Value) -> Out {
        let id = &frame["id"];
        let deep = || "[".repeat(20_000) + &"]".repeat(20_000);
        Out::Text(match self {
            Self::InvalidJson => "{\"type\":\"res\",\"id\":".to_owned(),
            Self::Binary => return Out::Binary(vec![0, 159, 146, 150]),
            Self::WrongTypes => {
                json!({"type": "res", "id": id, "ok": "yes", "payload": [1, 2], "seq": "x"}).to_string()
            }
            Self::WrongTypedRecords => {
                let records = json!({"pending": [{"requestId": 5, "scopes": "all"}], "paired": {"a": 1}});
                json!({"type": "res", "id": id, "ok": true, "payload": records}).to_string()
            }
            Self::AnswerWithoutId => json!({"type": "res", "ok": true, "payload": {}}).to_string(),
            Self::UnknownId => json!({"type": "res", "id": "nobody-asked", "ok": true, "payload": {}}).to_string(),
            Self::DuplicateAnswer => frame.to_string(),
            Self::DeepNesting => format!("{{\"type\":\"res\",\"id\":{id},\"ok\":true,\"payload\":{}}}", deep()),
            Self::Oversize(mib) => {
                json!({"type": "event", "event": "chat", "payload": {"text": "x".repeat(mib << 20)}}).to_string()
            }
        })
    }
}

/// An `ok` that is not true: nothing was approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The record has scopes nobody asked for.
    MoreScopes,
    /// The record is another device's.
    OtherDevice,
    /// `{}`.
    Empty,
    /// The device as asked; only the ground truth shows that it is not paired.
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartIn {
    BeforeEffect,
    AfterEffect,
}

/// Faults that strike a number of times.
#[derive(Debug, Default)]
pub struct Armed {
    pub reject_connect: Charge<Refusal>,
    pub strip_scopes: Charge<()>,
    pub malformed_answer: Charge<Malformed>,
    pub dropped_events: Charge<()>,
    pub supersede: Charge<Vec<String>>,
    pub lose_reply: Charge<()>,
    pub drop_call: Charge<()>,
    pub lie: Charge<Lie>,
    pub restart: Charge<RestartIn>,
}

/// Faults of the transport that last; every connection watches them.
#[derive(Debug, Clone, Default)]
pub struct Switches {
    pub mute_accept: bool,
    pub half_open: bool,
    pub slow: Duration,
    /// Pause between two bytes.
    pub drip: Option<Duration>,
    pub flood: Option<Flood>,
}

pub fn flood_event() -> Event {
    let payload = json!({"runId": "flood", "stream": "assistant", "data": {"text": "one more token of an answer"}});
    Event { name: "agent", payload, scope: Some("operator.read"), state_version: None }
}

impl Fake {
    pub fn mute(&self, mute: Mute) {
        self.with(|core| core.mute = mute);
    }

    /// TCP connections are accepted and then nothing is read or written.
    pub fn mute_accept(&self, on: bool) {
        self.switch(|switches| switches.mute_accept = on);
    }

    /// Every call waits this long; zero switches it off.
    pub fn slow(&self, delay: Duration) {
        self.switch(|switches| switches.slow = delay);
    }

    /// Every byte waits this long after the one before it.
    pub fn drip(&self, pause: Option<Duration>) {
        self.switch(|switches| switches.drip = pause);
    }

    /// Stops reading and writing on connections that stay open.
    pub fn half_open(&self, on: bool) {
        self.switch(|switches| switches.half_open = on);
    }

    pub fn flood(&self, flood: Option<Flood>) {
        self.switch(|switches| switches.flood = flood);
    }

    /// `count` events at once on every session.
    pub fn flood_burst(&self, count: usize) {
        self.with(|core| (0..count).for_each(|_| core.broadcast(vec![flood_event()])));
    }

    /// An unasked frame of `mib` MiB on every connection.
    pub fn send_oversize(&self, mib: usize) {
        self.send_malformed(Malformed::Oversize(mib));
    }

    pub fn send_malformed(&self, kind: Malformed) {
        self.with(|core| core.send_to_all(|| kind.instead_of(&json!({"id": "nobody-asked"}))));
    }

    /// Bytes chosen by the test, as one text frame on every connection.
    pub fn send_text(&self, text: &str) {
        self.with(|core| core.send_to_all(|| Out::Text(text.to_owned())));
    }

    pub fn malform_answers(&self, kind: Malformed, times: Times) {
        self.with(|core| core.armed.malformed_answer.arm(kind, times));
    }

    /// The next events are lost on the way, leaving holes in `seq`.
    pub fn drop_events(&self, times: Times) {
        self.with(|core| core.armed.dropped_events.arm((), times));
    }

    /// On the next approve calls the device asks again first, so that the id in the call is unknown (on 2026.2.9: the
    /// request is wider than the caller knows).
    pub fn supersede_on_approve(&self, times: Times) {
        self.supersede_on_approve_adding(times, &[]);
    }

    /// The same, and the device now also asks for `scopes`.
    pub fn supersede_on_approve_adding(&self, times: Times, scopes: &[&str]) {
        let scopes = scopes.iter().map(ToString::to_string).collect();
        self.with(|core| core.armed.supersede.arm(scopes, times));
    }

    /// The approve happens, then the connection is gone without an answer.
    pub fn lose_reply_on_approve(&self, times: Times) {
        self.with(|core| core.armed.lose_reply.arm((), times));
    }

    /// The connection is gone instead of the approve.
    pub fn drop_call_on_approve(&self, times: Times) {
        self.with(|core| core.armed.drop_call.arm((), times));
    }

    pub fn restart_in_approve(&self, when: RestartIn) {
        self.with(|core| core.armed.restart.arm(when, Times::Next(1)));
    }

    pub fn lie_approved(&self, lie: Lie, times: Times) {
        self.with(|core| core.armed.lie.arm(lie, times));
    }

    /// Connects succeed and may do nothing.
    pub fn strip_scopes(&self, times: Times) {
        self.with(|core| core.armed.strip_scopes.arm((), times));
    }

    pub fn reject_connect(&self, refusal: Refusal, times: Times) {
        self.with(|core| core.armed.reject_connect.arm(refusal, times));
    }

    /// On every approve something happens at random, repeatable by `seed`.
    pub fn churn(&self, seed: Option<u64>) {
        self.with(|core| core.churn = seed.map(Churn::new));
    }

    pub fn clear_faults(&self) {
        self.switch(|switches| *switches = Switches::default());
        self.with(|core| {
            core.armed = Armed::default();
            core.churn = None;
            core.mute = Mute::Off;
        });
    }
}
