//! Three days without a registry, simulated: schedule and spool of ten thousand sidecars on one side, the registry's own
//! rules on the other. Nothing waits, and every run is the same.

use std::time::Duration;

use super::rules::{Arrival, check_in, pass_time};
use super::status;
use super::store::{Blind, Outcome};
use super::tenant::{EntryKind, Row, Status};
use crate::audit::chain::{Entry, Record};
use crate::checkin::schedule::{Failed, Mode, Schedule};
use crate::checkin::spool::{MOST, Spool};
use crate::checkin::wire::{CheckIn, Pairing, Pending, Report};
use crate::clock::UnixMs;

const FLEET: u64 = 10_000;
const EPOCH: UnixMs = UnixMs(1_800_000_000_000);
/// The registry goes half an hour after the beginning, is away for three days, and is watched for two more hours.
const GONE: Duration = Duration::from_secs(1800);
const BACK: Duration = Duration::from_secs(1800 + 72 * 3600);
const END: Duration = Duration::from_secs(1800 + 74 * 3600);
/// Support asks to hear less often, and later more often than in the beginning.
const RARER: Duration = Duration::from_secs(1800 + 73 * 3600);
const OFTENER: Duration = Duration::from_secs(1800 + 73 * 3600 + 2400);
/// The registry's last sign of life: it gives one every five seconds.
const LAST_ALIVE: Duration = Duration::from_secs(1797);

/// A small generator, so that every run is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from * 1000 + self.next() % ((to - from) * 1000))
    }
}

fn wall(at: Duration) -> UnixMs {
    EPOCH.plus_ms(u64::try_from(at.as_millis()).unwrap())
}

/// What the registry asks for, in seconds.
fn interval_s(at: Duration) -> u64 {
    match at {
        at if at < RARER => 300,
        at if at < OFTENER => 1200,
        _ => 240,
    }
}

/// What the registry knows of its own absence.
fn blind(at: Duration) -> Vec<Blind> {
    if at < BACK { Vec::new() } else { vec![Blind { from: wall(LAST_ALIVE), to: wall(BACK) }] }
}

/// A sidecar, and what the registry made of it.
struct Machine {
    random: Random,
    schedule: Schedule,
    spool: Spool,
    /// Something worth telling and worth an audit record happens between so and so many seconds after the last.
    pace: (u64, u64),
    next_change: Duration,
    changes: u64,
    /// Somebody waits to be let in, all the time.
    attention: bool,
    /// It ends without a word.
    dies: Option<Duration>,
    seq: u64,
    row: Row,
    /// Audit records in its history.
    audit: Vec<u64>,
    given_up: u64,
    heard: Vec<Duration>,
}

impl Machine {
    /// Most have something to say a few times a day, one in a hundred every few minutes; one in ten has somebody who
    /// waits, and one in a hundred dies during the outage.
    fn new(n: u64) -> Self {
        let mut random = Random(n);
        let began = random.within(0, 300);
        let pace = if n.is_multiple_of(100) { (60, 600) } else { (6 * 3600, 48 * 3600) };
        let mut schedule = Schedule::new(Mode::Interval, began);
        schedule.changed(began);
        let attention = n % 10 == 3;
        schedule.attention(attention);
        Self {
            next_change: began + random.within(pace.0 / 2, pace.1),
            dies: (n % 100 == 7).then(|| GONE + random.within(600, 72 * 3600)),
            random,
            schedule,
            spool: Spool::default(),
            pace,
            changes: 0,
            attention,
            seq: 0,
            row: Row::new("acme", "", vec![[7; 32]], EPOCH),
            audit: Vec::new(),
            given_up: 0,
            heard: Vec::new(),
        }
    }

    fn live(&mut self) {
        let end = self.dies.unwrap_or(END);
        loop {
            let due = self.schedule.due().expect("there is always a next one");
            if due.min(self.next_change) >= end {
                break;
            }
            if self.next_change <= due { self.change() } else { self.check_in(due) }
        }
        self.sweep(END);
    }

    fn change(&mut self) {
        let now = self.next_change;
        self.changes += 1;
        let entry = Entry { verb: "pairing.approve".to_owned(), ..Entry::default() };
        self.spool.push(&Record { n: self.changes, entry, prev: String::new(), hash: format!("{:064}", self.changes) });
        assert!(self.spool.len() <= MOST);
        self.schedule.changed(now);
        self.next_change = now + self.random.within(self.pace.0, self.pace.1);
    }

    fn check_in(&mut self, now: Duration) {
        let promise_s = self.schedule.begin(now);
        self.seq += 1;
        if (GONE..BACK).contains(&now) {
            let random = self.random.next();
            return self.schedule.failed(now, Failed::Network, random);
        }
        self.sweep(now);
        let message = self.message(promise_s);
        let (last, dropped) = (message.events.last().map_or(0, |event| event.seq), message.dropped);
        let arrival = Arrival { message, credential: [7; 32], ticket: false, at: wall(now) };
        let change = check_in(Some(&self.row), &arrival, &blind(now));
        assert_eq!(change.outcome, Outcome::Done);
        let told = change.entries.iter().filter(|entry| entry.kind == EntryKind::Audit);
        self.audit.extend(told.map(|entry| entry.data["seq"].as_u64().unwrap()));
        self.row = change.row.unwrap();
        self.heard.push(now);
        let random = self.random.next();
        self.schedule.sent(interval_s(now), random);
        self.spool.told(dropped);
        self.given_up += dropped;
        if self.spool.acknowledged(last) && !self.spool.is_empty() {
            self.schedule.changed(now);
        }
    }

    fn message(&self, next_s: Option<u64>) -> CheckIn {
        let waits = Pending { request_id: "one".to_owned(), ..Pending::default() };
        let pending = if self.attention { vec![waits] } else { Vec::new() };
        let pairing = Pairing { pending_count: pending.len() as u64, pending, ..Pairing::default() };
        CheckIn {
            tenant: "acme".to_owned(),
            epoch: 1,
            boot_id: "b".to_owned(),
            seq: self.seq,
            reason: Vec::new(),
            bye: None,
            next_s,
            state: Report { phase: "ready".to_owned(), pairing, ..Report::default() },
            audit: self.spool.head().cloned(),
            events: self.spool.oldest(),
            dropped: self.spool.dropped(),
        }
    }

    /// The registry looks at the clock. Silence only grows, so that one look before each message finds all there is.
    fn sweep(&mut self, now: Duration) {
        if now >= BACK && self.heard.last().is_some_and(|last| *last < BACK) {
            let unexcused = status::verdict(&self.row, wall(now), &[]).0;
            assert_eq!(unexcused, Status::Unreachable, "the outage is one that has to be excused");
        }
        let change = pass_time(Some(&self.row), wall(now), &blind(now));
        self.row = change.row.unwrap_or_else(|| self.row.clone());
        let gone = self.row.status == Status::Unreachable;
        assert_eq!(gone, self.dies.is_some_and(|at| at < now), "{}: {:?}", now.as_secs(), self.row);
    }

    /// Every record is in the history once and in order, or was counted as given up.
    fn check_audit(&self) {
        assert!(self.audit.is_sorted_by(|one, next| one < next), "{:?}", self.audit);
        let kept = self.audit.len() as u64 + self.spool.len() as u64;
        assert_eq!(kept + self.given_up + self.spool.dropped(), self.changes);
    }
}

#[test]
fn ten_thousand_sidecars_outlast_three_days_without_a_registry() {
    let mut tens = vec![0usize; usize::try_from(END.as_secs() / 10).unwrap()];
    let (mut latest, mut given_up) = (BACK, 0);
    for n in 0..FLEET {
        let mut machine = Machine::new(n);
        machine.live();
        if machine.dies.is_none() {
            machine.check_audit();
            latest = latest.max(*machine.heard.iter().find(|at| **at >= BACK).expect("it came back"));
            given_up += usize::from(machine.given_up > 0);
        }
        for at in &machine.heard {
            tens[usize::try_from(at.as_secs() / 10).unwrap()] += 1;
        }
    }
    let (gone, back) = (tens.len() - 74 * 360, tens.len() - 2 * 360);
    let usual: usize = tens[gone - 120..gone].iter().sum::<usize>() / 120;
    let peak = *tens[back..].iter().max().unwrap();
    println!(
        "usual {usual} in ten seconds, peak {peak}; all were back after {:?}; {given_up} gave records up",
        latest.saturating_sub(BACK)
    );
    assert!(given_up > 0, "no spool was ever full");
    assert!(tens[gone + 1..back].iter().all(|heard| *heard == 0));
    assert!(peak <= 2 * usual, "{peak} within ten seconds, {usual} are usual");
}
