//! Audit records on their way to the registry: bounded, the oldest given up first, every one that is given up counted.

use std::collections::VecDeque;

use super::report::cut;
use super::wire::{AuditEvent, AuditHead, MAX_EVENTS};
use crate::audit::chain::Record;
use crate::clock::UnixMs;

/// Records that wait at most.
pub const MOST: usize = 500;
const MOST_BYTES: usize = 256 * 1024;
/// A text of a record is cut to this.
const TEXT: usize = 128;

/// The records that the registry does not have yet.
#[derive(Debug, Default)]
pub struct Spool {
    waiting: VecDeque<AuditEvent>,
    bytes: usize,
    dropped: u64,
    /// The newest record of all.
    head: Option<AuditHead>,
    /// The newest that was ever put in.
    last: u64,
}

impl Spool {
    /// Puts a record in, unless it came before.
    pub fn push(&mut self, record: &Record) {
        if record.n <= self.last {
            return;
        }
        self.last = record.n;
        self.head = Some(AuditHead { seq: record.n, hash: record.hash.clone() });
        let event = event(record);
        self.bytes += size(&event);
        self.waiting.push_back(event);
        while self.waiting.len() > MOST || self.bytes > MOST_BYTES {
            self.waiting.pop_front().iter().for_each(|gone| self.bytes -= size(gone));
            self.dropped += 1;
        }
    }

    /// What was in the audit before this process: the newest records of those after `sent`.
    pub fn begin(&mut self, sent: u64, head: &AuditHead, newest: &[Record]) {
        self.head = (head.seq > 0).then(|| head.clone());
        // An audit that was begun anew counts from one again.
        self.last = if sent > head.seq { 0 } else { sent };
        let after: Vec<_> = newest.iter().filter(|record| record.n > self.last).collect();
        self.dropped += after.first().map_or(0, |first| first.n - self.last - 1);
        for record in after {
            self.push(record);
        }
    }

    /// Records were lost on their way here.
    pub fn lost(&mut self, count: u64) {
        self.dropped += count;
    }

    /// The oldest ones, for one message.
    pub fn oldest(&self) -> Vec<AuditEvent> {
        self.waiting.iter().take(MAX_EVENTS).cloned().collect()
    }

    /// The registry has all up to `n`; tells whether that is news.
    pub fn acknowledged(&mut self, n: u64) -> bool {
        let before = self.waiting.len();
        while self.waiting.front().is_some_and(|event| event.seq <= n) {
            self.waiting.pop_front().iter().for_each(|gone| self.bytes -= size(gone));
        }
        self.waiting.len() < before
    }

    /// The registry was told that so many were given up.
    pub fn told(&mut self, dropped: u64) {
        self.dropped = self.dropped.saturating_sub(dropped);
    }

    /// The newest record of the audit.
    pub fn head(&self) -> Option<&AuditHead> {
        self.head.as_ref()
    }

    /// Records that were given up and that nobody was told of.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Records that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn event(record: &Record) -> AuditEvent {
    let text = |text: &str| cut(text, TEXT);
    AuditEvent {
        seq: record.n,
        at: UnixMs::parse(&record.entry.at).unwrap_or_default(),
        actor: text(&record.entry.actor),
        verb: text(&record.entry.verb),
        target: text(&record.entry.target),
        outcome: text(&record.entry.outcome),
    }
}

fn size(event: &AuditEvent) -> usize {
    size_of::<AuditEvent>() + event.actor.len() + event.verb.len() + event.target.len() + event.outcome.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::Entry;

    fn record(n: u64, target: &str) -> Record {
        let entry = Entry { verb: "secrets.put".into(), target: target.into(), ..Entry::default() };
        Record { n, entry, prev: String::new(), hash: format!("{n:064}") }
    }

    fn records(range: std::ops::RangeInclusive<u64>) -> Vec<Record> {
        range.map(|n| record(n, "x")).collect()
    }

    fn head(seq: u64) -> AuditHead {
        AuditHead { seq, hash: String::new() }
    }

    #[test]
    fn the_oldest_give_way_and_are_counted() {
        let mut spool = Spool::default();
        for record in &records(1..=700) {
            spool.push(record);
        }
        assert_eq!((spool.len(), spool.dropped(), spool.oldest()[0].seq), (500, 200, 201));
        assert_eq!(spool.head().unwrap().seq, 700);
        spool.told(200);
        assert!(spool.acknowledged(699) && !spool.acknowledged(7) && spool.acknowledged(u64::MAX));
        assert_eq!((spool.len(), spool.dropped(), spool.bytes), (0, 0, 0));
    }

    #[test]
    fn long_texts_are_bounded_together() {
        let mut spool = Spool::default();
        (1..=MOST as u64).for_each(|n| spool.push(&record(n, &"ü".repeat(9000))));
        assert!(spool.bytes <= MOST_BYTES && spool.oldest()[0].target.len() <= TEXT, "{}", spool.bytes);
    }

    #[test]
    fn what_was_not_sent_before_a_restart_is_sent_after_it() {
        let mut spool = Spool::default();
        spool.begin(7, &head(10), &records(1..=10));
        assert_eq!((spool.len(), spool.oldest()[0].seq, spool.dropped()), (3, 8, 0));
        // The newest were read before they were told of.
        for record in &records(9..=11) {
            spool.push(record);
        }
        assert_eq!((spool.len(), spool.head().unwrap().seq), (4, 11));

        let mut spool = Spool::default();
        spool.begin(7, &head(1000), &records(501..=1000));
        assert_eq!((spool.len(), spool.dropped()), (500, 493));

        // The audit was begun anew: what it holds now is news.
        let mut spool = Spool::default();
        spool.begin(900, &head(2), &records(1..=2));
        spool.push(&record(3, "x"));
        assert_eq!((spool.oldest()[0].seq, spool.head().unwrap().seq, spool.dropped()), (1, 3, 0));
    }
}
