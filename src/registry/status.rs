//! How a tenant is, derived at read time from what it last said and how long ago that was. Pure.
//!
//! ```text
//! no check-in yet ------------------------------> provisioning
//! said goodbye (sleep, stop, wiped) ------------> asleep
//! a promise is overdue, and we were not blind --> unreachable
//! quiet, silent for long -----------------------> unknown
//! crash_loop | config_invalid ------------------> crashed
//! starting | seeding | backoff | draining ------> booting (degraded when it takes too long)
//! degraded | stopped | error findings ----------> degraded
//! somebody waits -------------------------------> pairing-pending
//! ready ----------------------------------------> ready
//! ```

use serde::Serialize;

use super::store::Blind;
use super::tenant::{Last, Row, Status};
use crate::checkin::wire::Intent;
use crate::clock::UnixMs;

/// A promise is overdue by this much before it counts: the sender spreads by a quarter, and messages get lost.
const GRACE_MS: u64 = 30_000;
/// A message takes no longer to arrive, unless something is in its way.
const ON_THE_WAY_MS: u64 = 5_000;
/// After a time in which we were blind, every machine gets so long to come back: its longest pause between tries.
const AFTER_BLIND_MS: u64 = 12 * 60_000;
/// A boot that takes longer is no boot any more. On a sixteenth of a core a gateway takes 240 s.
const LONGEST_BOOT_MS: u64 = 10 * 60_000;
/// A machine in quiet mode that was silent for so long may be anything.
const QUIET_MS: u64 = 24 * 3_600_000;
/// Two machines under one name are shown for so long after they were last seen.
const CONFLICT_MS: u64 = 15 * 60_000;
/// A volume that went back in time is shown for so long.
const RESTORED_MS: u64 = 24 * 3_600_000;

/// How sure a status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Heard lately, as promised.
    High,
    /// Overdue a little, or we were blind for a while.
    Medium,
    /// Only what it said long ago.
    Low,
}

/// Facts that no status may hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Facet {
    /// Somebody waits to be let in.
    PairingPending,
    /// Findings of severity `error` are open.
    Errors,
    /// Other findings are open.
    Warnings,
    /// The last change of the desired state failed.
    ProvisioningFailed,
    /// Two machines report as this tenant.
    Conflict,
    /// Its volume went back in time.
    Restored,
}

/// A status with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Derived {
    /// The status.
    pub status: Status,
    /// Why, in one sentence.
    pub reason: String,
    /// The facts it rests on.
    pub evidence: Vec<String>,
    /// How sure it is.
    pub confidence: Confidence,
    /// What no status may hide.
    pub facets: Vec<Facet>,
    /// When the facts were received; none before the first check-in.
    pub as_of: Option<UnixMs>,
    /// How old they are, in seconds.
    pub age_s: u64,
    /// When the next message is due, grace included; none where none was promised.
    pub due_at: Option<UnixMs>,
}

/// Derives the status of a tenant at `now`, knowing when the registry itself was blind.
pub fn derive(row: &Row, now: UnixMs, blind: &[Blind]) -> Derived {
    let (status, reason) = verdict(row, now, blind);
    let Some(last) = &row.last else {
        let age = span(row.created_at.seconds_until(now));
        let evidence = vec![format!("created {} ago, no check-in since", age)];
        return Derived {
            status,
            reason,
            evidence,
            confidence: Confidence::High,
            facets: Vec::new(),
            as_of: None,
            age_s: row.created_at.seconds_until(now),
            due_at: None,
        };
    };
    let deadline = deadline(row, blind);
    let overdue = deadline.is_some_and(|d| now > d);
    let age_s = last.received_at.seconds_until(now);
    Derived {
        status,
        reason,
        evidence: evidence(last, now, deadline, blind),
        confidence: confidence(row, last, now, overdue, status, blind),
        facets: facets(last, now),
        as_of: Some(last.received_at),
        age_s,
        due_at: deadline,
    }
}

/// Only the status and its reason: what every check-in needs, without the texts that people read.
pub fn verdict(row: &Row, now: UnixMs, blind: &[Blind]) -> (Status, String) {
    let Some(last) = &row.last else {
        return (Status::Provisioning, "it was created and has not checked in yet".to_owned());
    };
    judge(last, now, deadline(row, blind).is_some_and(|deadline| now > deadline))
}

/// When silence begins to count. A promise that fell due while we were blind counts from our return.
pub fn deadline(row: &Row, blind: &[Blind]) -> Option<UnixMs> {
    let last = row.last.as_ref()?;
    let promised = last.next_s?;
    if last.bye.as_ref().is_some_and(|bye| bye.intent != Intent::Restart) {
        return None;
    }
    // Half of the promise: the sender spreads by a quarter, and one message may be lost to a back-off.
    let grace = GRACE_MS.max(promised * 500);
    let mut deadline = last.received_at.plus_ms(promised * 1000 + grace);
    for window in blind {
        if window.from <= deadline && window.to >= last.received_at {
            deadline = deadline.max(window.to.plus_ms(AFTER_BLIND_MS.max(promised * 1000 + grace)));
        }
    }
    Some(deadline)
}

/// When a sweep has to look at a row: from then on its status may change without a message. None for those that only a
/// message changes, and for what was noticed already.
pub fn look_at(row: &Row) -> Option<UnixMs> {
    let last = row.last.as_ref()?;
    if row.retired_at.is_some() || matches!(row.status, Status::Asleep | Status::Unreachable) {
        return None;
    }
    let boots = row.status == Status::Booting && last.bye.is_none();
    let quiet = last.next_s.is_none() && row.status != Status::Unknown;
    let boot = boots.then(|| last.booted_at.plus_ms(LONGEST_BOOT_MS));
    let silence = quiet.then(|| last.received_at.plus_ms(QUIET_MS));
    [row.due_at(), boot, silence].into_iter().flatten().min()
}

fn judge(last: &Last, now: UnixMs, overdue: bool) -> (Status, String) {
    if let Some(bye) = last.bye.as_ref().filter(|bye| bye.intent != Intent::Restart) {
        let what = match bye.intent {
            Intent::Sleep => "it went to sleep",
            Intent::Decommission => "the tenant was wiped",
            _ => "it was stopped",
        };
        return (Status::Asleep, with(what, &bye.reason));
    }
    let silent = last.received_at.seconds_until(now);
    if overdue {
        let said = last.bye.as_ref().map_or("did not say goodbye", |_| "said it would be back in a moment");
        return (Status::Unreachable, format!("nothing was heard for {}, and it {said}", span(silent)));
    }
    if last.next_s.is_none() && silent * 1000 > QUIET_MS {
        return (Status::Unknown, format!("it is quiet by design and was silent for {}", span(silent)));
    }
    if last.bye.is_some() {
        return (Status::Booting, "it restarts".to_owned());
    }
    judge_phase(last, now)
}

fn judge_phase(last: &Last, now: UnixMs) -> (Status, String) {
    let reason = |what: &str| with(what, &last.phase_reason);
    match last.phase.as_str() {
        "crash_loop" => return (Status::Crashed, reason("the gateway ends again and again")),
        "config_invalid" => return (Status::Crashed, reason("the gateway refuses its configuration")),
        "suspended" => return (Status::Asleep, reason("the gateway was put to sleep")),
        "starting" | "seeding" | "backoff" | "draining" => {
            let since = last.booted_at.seconds_until(now) * 1000;
            return if since <= LONGEST_BOOT_MS && last.errors.is_empty() {
                (Status::Booting, reason("the gateway starts"))
            } else {
                (Status::Degraded, reason("the gateway is not up"))
            };
        }
        "degraded" => return (Status::Degraded, reason("the gateway does not answer in time")),
        "unauthorized" => return (Status::Degraded, reason("the gateway refuses the sidecar")),
        "stopped" => return (Status::Degraded, reason("no gateway runs")),
        "ready" => {}
        other => return (Status::Unknown, format!("its phase {other:?} is not known here")),
    }
    if let Some(code) = last.errors.first() {
        return (Status::Degraded, format!("open problem: {code}"));
    }
    if !last.desired_error.is_empty() {
        return (Status::Degraded, with("the last change of the desired state failed", &last.desired_error));
    }
    if last.pending_count > 0 {
        let word = if last.pending_count == 1 { "request waits" } else { "requests wait" };
        return (Status::PairingPending, format!("{} {word} for approval", last.pending_count));
    }
    (Status::Ready, "the gateway answers".to_owned())
}

fn evidence(last: &Last, now: UnixMs, deadline: Option<UnixMs>, blind: &[Blind]) -> Vec<String> {
    let mut lines = vec![format!(
        "last check-in {} ago, at {}",
        span(last.received_at.seconds_until(now)),
        last.received_at.rfc3339()
    )];
    match (&last.bye, last.next_s, deadline) {
        (Some(bye), ..) if bye.intent != Intent::Restart => {
            lines.push(with("it said goodbye", &bye.reason));
        }
        (_, Some(promised), Some(deadline)) => lines.push(if now > deadline {
            format!("the next was promised within {}, and is overdue since {}", span(promised), deadline.rfc3339())
        } else if last.received_at.plus_ms(promised * 1000 + ON_THE_WAY_MS) < now {
            format!("the next was promised within {}, and is late", span(promised))
        } else {
            format!("the next is promised within {}", span(promised))
        }),
        _ => lines.push("quiet mode: it only speaks when something happens".to_owned()),
    }
    if !last.phase.is_empty() {
        lines.push(with(&format!("its gateway was {} then", last.phase), &last.phase_reason));
    }
    if let Some(window) = blind.iter().rev().find(|w| w.to >= last.received_at) {
        lines.push(format!("the registry was blind from {} to {}", window.from.rfc3339(), window.to.rfc3339()));
    }
    if let Some(at) = last.conflict_at.filter(|_| conflict(last, now)) {
        lines.push(format!("two machines report as this tenant, seen at {}", at.rfc3339()));
    }
    lines
}

fn confidence(row: &Row, last: &Last, now: UnixMs, overdue: bool, status: Status, blind: &[Blind]) -> Confidence {
    if status == Status::Asleep {
        return Confidence::High;
    }
    let late = row.due_at().is_some_and(|due| now > due.plus_ms(ON_THE_WAY_MS));
    // Not heard since we came back.
    let missed = blind.iter().any(|window| window.to >= last.received_at);
    match () {
        () if overdue && last.conflict_at.is_none() => Confidence::High,
        () if last.next_s.is_none() && last.received_at.seconds_until(now) > 3600 => Confidence::Low,
        () if late || missed || conflict(last, now) => Confidence::Medium,
        () => Confidence::High,
    }
}

/// Whether two machines reported as this tenant lately.
pub fn conflict(last: &Last, now: UnixMs) -> bool {
    lately(last.conflict_at, now, CONFLICT_MS)
}

fn lately(at: Option<UnixMs>, now: UnixMs, ms: u64) -> bool {
    at.is_some_and(|at| at.seconds_until(now) * 1000 < ms)
}

fn facets(last: &Last, now: UnixMs) -> Vec<Facet> {
    let all = [
        (Facet::PairingPending, last.pending_count > 0 && last.bye.is_none()),
        (Facet::Errors, !last.errors.is_empty()),
        (Facet::Warnings, !last.warnings.is_empty()),
        (Facet::ProvisioningFailed, !last.desired_error.is_empty()),
        (Facet::Conflict, conflict(last, now)),
        (Facet::Restored, lately(last.restored_at, now, RESTORED_MS)),
    ];
    all.into_iter().filter_map(|(facet, holds)| holds.then_some(facet)).collect()
}

fn with(what: &str, why: &str) -> String {
    if why.is_empty() { what.to_owned() } else { format!("{what}: {why}") }
}

/// A length of time for people: `45 s`, `12 min`, `3 h`, `2 d`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
