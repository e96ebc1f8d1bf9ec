//! What support sees: the same for the API and for the console.

use serde::Serialize;

use super::status::{self, Confidence, Facet};
use super::store::{Blind, Counts};
use super::tenant::{Entry, Row, Status};
use crate::checkin::wire::{Bye, Report};
use crate::clock::UnixMs;

/// One line of the fleet.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TenantLine {
    /// The tenant.
    pub id: String,
    /// Its name for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// How it is, derived now.
    pub status: Status,
    /// Since when, as far as it was noticed.
    pub since: UnixMs,
    /// Why, in one sentence.
    pub reason: String,
    /// How sure that is.
    pub confidence: Confidence,
    /// What no status may hide.
    pub facets: Vec<Facet>,
    /// When it last checked in.
    pub as_of: Option<UnixMs>,
    /// How long ago, in seconds; since its creation if it never did.
    pub age_s: u64,
    /// How many requests wait for approval.
    pub pending_count: u64,
    /// Since when one waits.
    pub pending_since: Option<UnixMs>,
    /// Codes of open findings, errors first.
    pub findings: Vec<String>,
    /// The gateway's version.
    pub gateway_version: String,
    /// The sidecar's version.
    pub sidecar_version: String,
    /// Where it runs.
    pub region: String,
}

/// A page of the fleet.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fleet {
    /// When this was read.
    pub at: UnixMs,
    /// The tenants, in the order asked for.
    pub tenants: Vec<TenantLine>,
    /// Where the next page begins; none on the last.
    pub next: Option<String>,
}

/// The fleet in numbers.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    /// When this was read.
    pub at: UnixMs,
    /// How many tenants are how.
    pub counts: Counts,
    /// When the registry was blind, lately.
    pub blind: Vec<Blind>,
}

/// One tenant, whole.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TenantView {
    /// When this was read.
    pub at: UnixMs,
    /// The line of the fleet.
    #[serde(flatten)]
    pub line: TenantLine,
    /// The facts the status rests on.
    pub evidence: Vec<String>,
    /// When its next message is due, grace included.
    pub due_at: Option<UnixMs>,
    /// When it was created here.
    pub created_at: UnixMs,
    /// When it was retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<UnixMs>,
    /// Its goodbye, if that was the last it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bye: Option<Bye>,
    /// What it reported, as of `as_of`; ages and times to run are those of now.
    pub report: Option<Report>,
}

/// A page of a tenant's history.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Timeline {
    /// When this was read.
    pub at: UnixMs,
    /// What happened, newest first.
    pub entries: Vec<Entry>,
    /// Where the next page begins; none on the last.
    pub next: Option<u64>,
}

impl TenantLine {
    /// The line of a tenant at `now`.
    pub fn of(row: &Row, now: UnixMs, blind: &[Blind]) -> Self {
        Self::from_derived(row, &status::derive(row, now, blind), now)
    }

    fn from_derived(row: &Row, derived: &status::Derived, now: UnixMs) -> Self {
        let last = row.last.as_ref();
        let text = |of: fn(&super::tenant::Last) -> &String| last.map(of).cloned().unwrap_or_default();
        Self {
            id: row.id.clone(),
            label: row.label.clone(),
            status: derived.status,
            // Derived just now and not yet noticed by the sweep: since its deadline.
            since: if derived.status == row.status { row.status_since } else { derived.due_at.unwrap_or(now).min(now) },
            reason: derived.reason.clone(),
            confidence: derived.confidence,
            facets: derived.facets.clone(),
            as_of: derived.as_of,
            age_s: derived.age_s,
            pending_count: last.map_or(0, |last| last.pending_count),
            pending_since: last.and_then(|last| last.pending_since),
            findings: last.map(|l| l.errors.iter().chain(&l.warnings).cloned().collect()).unwrap_or_default(),
            gateway_version: text(|last| &last.gateway_version),
            sidecar_version: text(|last| &last.sidecar_version),
            region: text(|last| &last.region),
        }
    }
}

impl TenantView {
    /// The whole tenant at `now`. A report that cannot be read is left out.
    pub fn of(row: &Row, report: Option<&str>, now: UnixMs, blind: &[Blind]) -> Self {
        let derived = status::derive(row, now, blind);
        let mut report: Option<Report> = report.and_then(|text| serde_json::from_str(text).ok());
        if let Some(report) = &mut report {
            age(report, derived.age_s);
            // A process that is gone does not go on.
            if !matches!(derived.status, Status::Asleep | Status::Unreachable) {
                report.sidecar.uptime_s += derived.age_s;
            }
        }
        Self {
            at: now,
            line: TenantLine::from_derived(row, &derived, now),
            evidence: derived.evidence,
            due_at: derived.due_at,
            created_at: row.created_at,
            retired_at: row.retired_at,
            bye: row.last.as_ref().and_then(|last| last.bye.clone()),
            report,
        }
    }
}

/// Moves the ages in a report on by the time that passed since.
fn age(report: &mut Report, seconds: u64) {
    for pending in &mut report.pairing.pending {
        pending.age_s += seconds;
        pending.expires_in_s = pending.expires_in_s.map(|left| left.saturating_sub(seconds));
    }
    for finding in &mut report.findings {
        finding.age_s += seconds;
    }
}
