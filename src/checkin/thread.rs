//! The one thread that talks to the registry: sleeps until a check-in is due, sends it, learns from the answer.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use aws_lc_rs::rand;

use super::memory::Memory;
use super::schedule::{Failed, Mode, Schedule};
use super::send::Failure;
use super::wire::{Answer, CheckIn};
use super::{Inbox, REFUSED, Shared, UNREACHABLE, report};
use crate::clock::UnixMs;
use crate::state::{Code, Found};

/// From so many failures on it is a finding.
const FAILURES: u32 = 3;
/// Or from this time on without an answer.
const SILENCE: Duration = Duration::from_secs(600);

struct Worker<'a> {
    shared: &'a Shared,
    memory: Memory,
    schedule: Schedule,
    failures: u32,
    /// When it last worked, or began.
    well: Duration,
}

/// A message on its way.
struct Sent {
    bytes: Vec<u8>,
    seq: u64,
    reasons: BTreeSet<&'static str>,
    /// The newest audit record in it.
    last_event: Option<u64>,
    dropped: u64,
}

/// Checks in until goodbye is said.
pub(super) fn run(shared: &Shared, memory: Memory) {
    let mode = if shared.config.registry.quiet { Mode::Quiet } else { Mode::Interval };
    let now = shared.now();
    let mut worker = Worker { shared, memory, schedule: Schedule::new(mode, now), failures: 0, well: now };
    while let Some(sent) = worker.next() {
        let taken = worker.send(&sent);
        worker.learn(sent, taken);
    }
}

impl Worker<'_> {
    /// Waits until a message is due, and makes it; `None` after the goodbye.
    fn next(&mut self) -> Option<Sent> {
        let mut inbox = self.shared.locked();
        loop {
            if inbox.silent {
                return None;
            }
            let now = self.shared.now();
            self.take(&mut inbox, now);
            let due = self.schedule.due();
            self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).1 = due;
            let wake = &self.shared.wake;
            inbox = match due {
                Some(at) if at <= now => break,
                Some(at) => wake.wait_timeout(inbox, at.saturating_sub(now)).unwrap_or_else(PoisonError::into_inner).0,
                None => wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
            };
        }
        let promise_s = self.schedule.begin(self.shared.now());
        let mut message: CheckIn = self.shared.message(&mut inbox, None, promise_s);
        let bytes = report::encode(&mut message);
        Some(Sent {
            bytes,
            seq: message.seq,
            reasons: std::mem::take(&mut inbox.reasons),
            last_event: message.events.last().map(|event| event.seq),
            dropped: message.dropped,
        })
    }

    fn take(&mut self, inbox: &mut Inbox, now: Duration) {
        if std::mem::take(&mut inbox.resumed) {
            self.schedule.resumed(now);
        }
        if std::mem::take(&mut inbox.news) {
            self.schedule.changed(now);
        }
        self.schedule.attention(inbox.watched.attention());
    }

    fn send(&self, sent: &Sent) -> Result<Answer, Failure> {
        let sender = self.shared.sender().map_err(|why| Failure { failed: Failed::Network, why })?;
        let answer = sender.send(&sent.bytes, None)?;
        if answer.ack.seq == sent.seq && answer.ack.boot_id == self.shared.state.boot() {
            return Ok(answer);
        }
        Err(Failure { failed: Failed::Network, why: "it acknowledged another message".to_owned() })
    }

    fn learn(&mut self, sent: Sent, taken: Result<Answer, Failure>) {
        match taken {
            Ok(answer) => self.taken(&sent, &answer),
            Err(failure) => self.not_taken(sent, &failure),
        }
    }

    fn taken(&mut self, sent: &Sent, answer: &Answer) {
        self.schedule.sent(answer.next_s, random());
        (self.failures, self.well) = (0, self.shared.now());
        self.note(None, "ok");
        self.shared.state.publish(|draft| {
            draft.snapshot.set_finding(UNREACHABLE, None);
            draft.snapshot.set_finding(REFUSED, None);
        });
        let mut inbox = self.shared.locked();
        inbox.spool.told(sent.dropped);
        // What we did not send cannot be acknowledged.
        let kept = sent.last_event.map_or(0, |last| last.min(answer.ack.events));
        if !inbox.spool.acknowledged(kept) {
            return;
        }
        if !inbox.spool.is_empty() {
            inbox.reasons.insert("audit");
            inbox.news = true;
        }
        drop(inbox);
        self.memory.set_audit_sent(kept);
    }

    fn not_taken(&mut self, sent: Sent, failure: &Failure) {
        let now = self.shared.now();
        self.schedule.failed(now, failure.failed, random());
        self.failures = self.failures.saturating_add(1);
        self.shared.forget_sender();
        self.shared.locked().reasons.extend(sent.reasons);
        self.note(Some(&failure.why), kind(failure.failed));
        tracing::debug!(why = failure.why, "the registry did not take a check-in");
        if failure.failed == Failed::Unauthorised {
            return self.find(REFUSED, &format!("the registry refuses us: {}", failure.why));
        }
        if self.failures >= FAILURES || now.saturating_sub(self.well) >= SILENCE {
            let what = format!("the registry does not take our check-ins: {}", failure.why);
            self.find(UNREACHABLE, &what);
        }
    }

    fn find(&self, code: Code, what: &str) {
        if self.failures == FAILURES || code == REFUSED {
            tracing::warn!(code = code.name(), "{what}");
        }
        let found = Found::new(what);
        self.shared.state.publish(|draft| draft.snapshot.set_finding(code, Some(found)));
    }

    fn note(&self, error: Option<&str>, kind: &'static str) {
        self.shared.metrics.checked_in(kind);
        let mut status = self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.0.last_error = error.map(str::to_owned);
        if error.is_none() {
            status.0.last_ok_at = Some(UnixMs::now());
        }
    }
}

fn kind(failed: Failed) -> &'static str {
    match failed {
        Failed::Network => "network",
        Failed::Status => "status",
        Failed::RetryAfter(_) => "retry_after",
        Failed::Unauthorised => "unauthorised",
    }
}

/// Without random numbers the jitter is gone, nothing else.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = rand::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
