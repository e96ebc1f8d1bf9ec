//! What a check-in changes, and what the passing of time changes. Pure: the store runs it on the row as it is then.

use serde_json::{Value, json};

use super::status;
use super::store::{Blind, Change, Outcome};
use super::tenant::{Digest, Entry, EntryKind, LIVES_KEPT, Last, Life, Row, Status};
use crate::checkin::wire::{self, CheckIn, Intent};
use crate::clock::UnixMs;

/// A request that waits so long is told to webhooks: most lapse after five minutes.
pub const PAIRING_WAITS_MS: u64 = 120_000;
/// A process that still reports so long after its successor began is a second machine, not a late message.
const LATE_MS: u64 = 60_000;
/// More requests than a gateway ever keeps are a machine's invention.
const MOST_PENDING: u64 = 99_999;
/// The longest text kept of anything a machine says in its row or history, in bytes.
const TEXT: usize = 300;

/// A check-in that passed authentication.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// What it says.
    pub message: CheckIn,
    /// The digest of the credential it came with.
    pub credential: Digest,
    /// It came with a ticket of ours that binds this tenant and this credential.
    pub ticket: bool,
    /// When it was received.
    pub at: UnixMs,
}

/// How a message stands to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// The next of the current process, or newer.
    Newer,
    /// The first of a new process.
    NewLife,
    /// The first of a process on a volume that went back in time.
    Restored,
    /// From a second machine that reports as the same tenant.
    Clone,
    /// Heard before, or overtaken.
    Stale,
}

fn order(last: &Last, message: &CheckIn, at: UnixMs) -> Order {
    let Some(current) = last.lives.first() else { return Order::NewLife };
    let known = last.lives.iter().position(|life| life.boot_id == message.boot_id);
    let long_ago = |then: UnixMs| then.plus_ms(LATE_MS) < at;
    match known {
        Some(n) if message.seq <= last.lives[n].seq => Order::Stale,
        Some(0) => Order::Newer,
        // Late, if its successor has only just begun. A process that began no earlier than the current one has no
        // successor in it, and one of two known machines is not late.
        Some(n) if last.lives[n].epoch < current.epoch && !long_ago(last.booted_at) && !status::conflict(last, at) => {
            Order::Stale
        }
        Some(_) => Order::Clone,
        None if message.epoch > current.epoch => Order::NewLife,
        None if message.epoch == current.epoch => Order::Clone,
        None => Order::Restored,
    }
}

/// What a check-in changes.
pub fn check_in(row: Option<&Row>, arrival: &Arrival, blind: &[Blind]) -> Change {
    let refused = |outcome| Change { outcome, ..Change::default() };
    let message = &arrival.message;
    let fresh;
    let (row, created) = match row {
        Some(row) if row.retired_at.is_some() => return refused(Outcome::Retired),
        Some(row) if !row.credentials.contains(&arrival.credential) => return refused(Outcome::NotYours),
        Some(row) => (row, false),
        // Our database was lost: the ticket proves that we once created this tenant with this credential.
        None if arrival.ticket => {
            fresh = Row::new(&message.tenant, "", vec![arrival.credential], arrival.at);
            (&fresh, true)
        }
        None => return refused(Outcome::NoTenant),
    };
    let order = row.last.as_ref().map_or(Order::NewLife, |last| order(last, message, arrival.at));
    if order == Order::Stale {
        return refused(Outcome::Unchanged);
    }
    let mut history = History::new(row, arrival.at);
    if created {
        history.add(EntryKind::Created, "taken in again by its ticket".to_owned(), Value::Null);
    }
    let next = Row { last: Some(merged(row, arrival, order)), ..row.clone() };
    tell(&mut history, row.last.as_ref(), &next, arrival, order);
    history.finish(next, arrival.at, blind, serde_json::to_string(&message.state).ok())
}

/// What the passing of time changes: silence becomes a status, and long waiting is told.
pub fn pass_time(row: Option<&Row>, now: UnixMs, blind: &[Blind]) -> Change {
    let Some(row) = row.filter(|row| row.retired_at.is_none()) else {
        return Change { outcome: Outcome::Unchanged, ..Change::default() };
    };
    let mut next = row.clone();
    let mut history = History::new(row, now);
    if let Some(last) = next.last.as_mut().filter(|last| last.bye.is_none() && !last.pending_told)
        && let Some(since) = last.pending_since.filter(|since| since.plus_ms(PAIRING_WAITS_MS) <= now)
    {
        last.pending_told = true;
        let waited = since.seconds_until(now);
        let text = format!("a request has been waiting for {}", status::span(waited));
        history.add(EntryKind::PairingWaits, text, json!({ "s": waited, "pending": last.pending_count }));
    }
    let change = history.finish(next, now, blind, None);
    if change.entries.is_empty() { Change { outcome: Outcome::Unchanged, ..Change::default() } } else { change }
}

/// The facts after a message.
fn merged(row: &Row, arrival: &Arrival, order: Order) -> Last {
    let (message, at) = (&arrival.message, arrival.at);
    let state = &message.state;
    let before = row.last.as_ref();
    let life = Life { boot_id: cut(&message.boot_id), epoch: message.epoch, seq: message.seq };
    let mut lives = vec![life];
    let others = before.map(|last| last.lives.as_slice()).unwrap_or_default();
    lives.extend(others.iter().filter(|life| life.boot_id != lives[0].boot_id).cloned().collect::<Vec<_>>());
    lives.truncate(LIVES_KEPT);
    let pending: Vec<String> =
        state.pairing.pending.iter().take(wire::MAX_PENDING).map(|p| cut(&p.request_id)).collect();
    let oldest = state.pairing.pending.iter().map(|p| p.age_s).max().unwrap_or(0);
    let same_wait = before.is_some_and(|last| last.pending.iter().any(|id| pending.contains(id)));
    let pending_since = (state.pairing.pending_count > 0).then(|| {
        let kept = before.and_then(|last| last.pending_since).filter(|_| same_wait);
        kept.unwrap_or(UnixMs(at.0.saturating_sub(oldest.min(3600) * 1000)))
    });
    let codes = |error: bool| {
        let of = state.findings.iter().take(wire::MAX_FINDINGS).filter(|f| (f.severity == "error") == error);
        of.map(|f| code(&f.code)).collect::<Vec<_>>()
    };
    Last {
        received_at: at,
        booted_at: before.filter(|_| order == Order::Newer).map_or(at, |last| last.booted_at),
        lives,
        next_s: message.next_s.map(|s| s.clamp(*wire::NEXT_S.start(), *wire::NEXT_S.end())),
        bye: message.bye.as_ref().map(|bye| wire::Bye { intent: bye.intent, reason: cut(&bye.reason) }),
        phase: code(&state.phase),
        phase_reason: cut(&state.phase_reason),
        pending_count: state.pairing.pending_count.min(MOST_PENDING),
        pending,
        pending_since,
        pending_told: same_wait && before.is_some_and(|last| last.pending_told),
        errors: codes(true),
        warnings: codes(false),
        desired_error: cut(&state.desired.error),
        gateway_version: cut(&state.gateway.version),
        sidecar_version: cut(&state.sidecar.version),
        region: cut(&state.platform.region),
        audit: message.audit.clone(),
        events_through: message.events.iter().map(|e| e.seq).max().unwrap_or(0).max(known_records(before, message)),
        conflict_at: if order == Order::Clone { Some(at) } else { before.and_then(|last| last.conflict_at) },
        restored_at: match order {
            Order::Restored => Some(at),
            // What looked like one was a copy that runs beside it.
            Order::Clone => None,
            _ => before.and_then(|last| last.restored_at),
        },
    }
}

/// Writes down what is new in a message.
fn tell(history: &mut History, before: Option<&Last>, next: &Row, arrival: &Arrival, order: Order) {
    let message = &arrival.message;
    let Some(last) = &next.last else { return };
    match order {
        Order::NewLife => history.add(EntryKind::Booted, booted(message), json!({ "epoch": message.epoch })),
        Order::Restored => {
            let text = format!("the volume went back to start {}: restored from a copy", message.epoch);
            history.add(EntryKind::Restored, text, json!({ "epoch": message.epoch }));
        }
        Order::Clone if before.is_none_or(|before| !status::conflict(before, arrival.at)) => {
            let other = before.and_then(|b| b.lives.first()).map_or("", |life| life.boot_id.as_str());
            let text = "two machines report as this tenant: a copy of its volume runs".to_owned();
            history.add(EntryKind::Conflict, text, json!({ "boot_ids": [message.boot_id, other] }));
        }
        _ => {}
    }
    if let Some(before) = before {
        tell_gap(history, before, arrival);
        tell_findings(history, before, last, message);
        tell_pairing(history, before, last, message);
        if !before.gateway_version.is_empty() && before.gateway_version != last.gateway_version {
            let (from, to) = (&before.gateway_version, &last.gateway_version);
            if !to.is_empty() {
                let text = format!("the gateway's version changed from {from} to {to}");
                history.add(EntryKind::VersionChanged, text, json!({ "from": from, "to": to }));
            }
        }
        tell_audit_head(history, before, message, order);
    } else {
        let nothing = Last { errors: Vec::new(), warnings: Vec::new(), pending: Vec::new(), ..last.clone() };
        tell_findings(history, &nothing, last, message);
        tell_pairing(history, &nothing, last, message);
    }
    tell_audit(history, before, message);
    if let Some(bye) = &last.bye {
        let what = match bye.intent {
            Intent::Sleep => "it goes to sleep",
            Intent::Stop => "it stops",
            Intent::Restart => "it restarts",
            Intent::Decommission => "the tenant was wiped",
            Intent::Other => "it goes away",
        };
        let text = if bye.reason.is_empty() { what.to_owned() } else { format!("{what}: {}", bye.reason) };
        history.add(EntryKind::Bye, text, json!({ "intent": bye.intent, "reason": bye.reason }));
    }
}

fn booted(message: &CheckIn) -> String {
    let gateway = &message.state.gateway.version;
    let version = if gateway.is_empty() { String::new() } else { format!(", gateway {}", cut(gateway)) };
    format!("the machine's sidecar began its start {}{version}", message.epoch)
}

/// Silence that was longer than promised is told when it is over.
fn tell_gap(history: &mut History, before: &Last, arrival: &Arrival) {
    let silent = before.received_at.seconds_until(arrival.at);
    let said_goodbye = before.bye.as_ref().is_some_and(|bye| bye.intent != Intent::Restart);
    if before.next_s.is_some_and(|promised| silent > promised * 2) && !said_goodbye {
        let text = format!("it is back after {} of silence", status::span(silent));
        let data = json!({ "from": before.received_at, "to": arrival.at, "s": silent });
        history.add(EntryKind::Gap, text, data);
    }
}

fn tell_findings(history: &mut History, before: &Last, last: &Last, message: &CheckIn) {
    let old: Vec<&String> = before.errors.iter().chain(&before.warnings).collect();
    for finding in message.state.findings.iter().take(wire::MAX_FINDINGS) {
        let code = code(&finding.code);
        if !old.contains(&&code) {
            let data = json!({ "code": code, "severity": cut(&finding.severity), "remedy": cut(&finding.remedy) });
            history.add(EntryKind::FindingOpened, cut(&finding.summary), data);
        }
    }
    // Findings that did not fit into the message are not known to be closed.
    if message.state.findings_count > message.state.findings.len() as u64 {
        return;
    }
    for code in old {
        if !last.errors.contains(code) && !last.warnings.contains(code) {
            history.add(EntryKind::FindingClosed, format!("{code} is over"), json!({ "code": code }));
        }
    }
}

fn tell_pairing(history: &mut History, before: &Last, last: &Last, message: &CheckIn) {
    for request in message.state.pairing.pending.iter().take(wire::MAX_PENDING) {
        if !before.pending.contains(&cut(&request.request_id)) {
            let (kind, label) = (cut(&request.kind), cut(&request.label));
            let text = format!("{kind} {label:?} asks to be let in as {}", cut(&request.role));
            let data = json!({ "request_id": cut(&request.request_id), "kind": kind, "label": label });
            history.add(EntryKind::PairingRequested, text, data);
        }
    }
    if message.state.pairing.pending_count > message.state.pairing.pending.len() as u64 {
        return;
    }
    for id in before.pending.iter().filter(|id| !last.pending.contains(id)) {
        let text = format!("request {id} no longer waits: decided or lapsed");
        history.add(EntryKind::PairingGone, text, json!({ "request_id": id }));
    }
}

fn tell_audit_head(history: &mut History, before: &Last, message: &CheckIn, order: Order) {
    let (Some(old), Some(new)) = (&before.audit, &message.audit) else { return };
    let rewritten = new.seq == old.seq && new.hash != old.hash;
    if (new.seq < old.seq || rewritten) && order != Order::Restored {
        let text = format!("the machine's audit went from record {} back to {}", old.seq, new.seq);
        history.add(EntryKind::AuditTruncated, text, json!({ "from": old.seq, "to": new.seq }));
    }
}

/// Audit records up to this position are in the history. Of an audit that went back none is: its numbers are given again.
fn known_records(before: Option<&Last>, message: &CheckIn) -> u64 {
    let known = before.map_or(0, |last| last.events_through);
    if message.audit.as_ref().is_some_and(|head| head.seq < known) { 0 } else { known }
}

fn tell_audit(history: &mut History, before: Option<&Last>, message: &CheckIn) {
    if message.dropped > 0 {
        let text = format!("{} records of the machine's audit are not shown here: too many at once", message.dropped);
        history.add(EntryKind::AuditSkipped, text, json!({ "records": message.dropped }));
    }
    let known = known_records(before, message);
    for event in message.events.iter().take(wire::MAX_EVENTS).filter(|event| event.seq > known) {
        let [actor, verb, target, outcome] = [&event.actor, &event.verb, &event.target, &event.outcome].map(|t| cut(t));
        let text = format!("{actor}: {verb} {target} -> {outcome}");
        let data = json!({ "seq": event.seq, "at": event.at, "actor": actor, "verb": verb, "target": target,
            "outcome": outcome });
        history.add(EntryKind::Audit, text, data);
    }
}

/// Lines for a tenant's history as they come up.
#[derive(Debug)]
pub struct History {
    tenant: String,
    status: Status,
    at: UnixMs,
    entries: Vec<Entry>,
}

impl History {
    /// Begins with the row as it was.
    pub fn new(row: &Row, at: UnixMs) -> Self {
        Self { tenant: row.id.clone(), status: row.status, at, entries: Vec::new() }
    }

    /// Adds a line.
    pub fn add(&mut self, kind: EntryKind, text: String, data: Value) {
        self.entries.push(Entry { seq: 0, tenant: self.tenant.clone(), at: self.at, kind, text, data });
    }

    /// Only the lines.
    pub fn only(self) -> Change {
        Change { entries: self.entries, ..Change::default() }
    }

    /// Derives the status of the row as it is to be, tells its change, and makes the change of it all.
    pub fn finish(mut self, mut row: Row, now: UnixMs, blind: &[Blind], report: Option<String>) -> Change {
        let (status, reason) = status::verdict(&row, now, blind);
        if status != self.status {
            let data = json!({ "from": self.status, "to": status, "reason": reason });
            self.add(EntryKind::Status, format!("{} -> {status}: {reason}", self.status), data);
            row.status = status;
            row.status_since = now;
        }
        Change { row: Some(row), report, entries: self.entries, outcome: Outcome::Done }
    }
}

/// A text of a machine, without control characters, at most [`TEXT`] bytes.
fn cut(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut kept = String::with_capacity(text.len().min(TEXT));
    for c in clean {
        if kept.len() + c.len_utf8() > TEXT {
            break;
        }
        kept.push(c);
    }
    kept
}

/// A name that machines branch on: nothing but lower-case letters, digits and underscores.
fn code(text: &str) -> String {
    let legal = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    text.chars().filter(legal).take(64).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
