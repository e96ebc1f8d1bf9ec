//! One diagnosed problem, and what proves it.

use serde::Serialize;

use super::code::Code;
use crate::clock::UnixMs;

/// Facts shown with one finding, and the length of each in bytes.
const MAX_EVIDENCE: usize = 6;
const MAX_FACT: usize = 200;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// Since when.
    pub since: UnixMs,
    /// One sentence.
    pub summary: String,
    /// What it follows from, as `key=value`: at most 6 of 200 bytes. `source=log` marks what a line of the gateway's log
    /// says, which the tenant's own programs could have written.
    pub evidence: Vec<String>,
    /// What to do about it.
    pub remedy: String,
}

/// What a finding says: without its code, which decides the severity, and its time, which the state keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub(super) summary: String,
    pub(super) evidence: Vec<String>,
    pub(super) remedy: Option<String>,
}

impl Found {
    /// A finding with this sentence, no evidence yet, and the remedy of its code.
    pub fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), evidence: Vec::new(), remedy: None }
    }

    /// Adds a fact. Its value may come from anywhere: control characters go, and it is cut.
    #[must_use]
    pub fn fact(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        if self.evidence.len() < MAX_EVIDENCE {
            let text: String = format!("{key}={value}").chars().filter(|c| !c.is_control()).collect();
            let end = (0..=MAX_FACT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            self.evidence.push(text[..end].to_owned());
        }
        self
    }

    /// A finer remedy than the code's own.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same with every text passed through `redact`.
    #[must_use]
    pub fn redacted(mut self, redact: impl Fn(&str) -> String) -> Self {
        self.summary = redact(&self.summary);
        self.evidence.iter_mut().for_each(|fact| *fact = redact(fact));
        self
    }
}

/// Opens the finding `code`, or renews its text while keeping its time; `None` closes it. Errors come first.
pub(super) fn set(findings: &mut Vec<Finding>, code: Code, found: Option<Found>) {
    let known = findings.iter().position(|f| f.code == code);
    let since = known.map(|at| findings.remove(at).since);
    if let Some(Found { summary, evidence, remedy }) = found {
        let since = since.unwrap_or_else(UnixMs::now);
        let remedy = remedy.unwrap_or_else(|| code.remedy().to_owned());
        findings.push(Finding { code, severity: code.severity(), since, summary, evidence, remedy });
        findings.sort_by_key(|f| (std::cmp::Reverse(f.severity), f.since.0, f.code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_whatever_it_is_made_of() {
        let found = (0..20).fold(Found::new("x"), |found, _| found.fact("line", "\u{1b}[31mé\n".repeat(300)));
        assert_eq!(found.evidence.len(), MAX_EVIDENCE);
        assert!(found.evidence.iter().all(|fact| fact.len() <= MAX_FACT && !fact.contains(char::is_control)));
    }

    #[test]
    fn errors_come_first_and_time_is_kept() {
        let mut findings = Vec::new();
        set(&mut findings, Code::DiskLow, Some(Found::new("one")));
        findings[0].since = UnixMs(7);
        set(&mut findings, Code::GatewayMute, Some(Found::new("two")));
        set(&mut findings, Code::DiskLow, Some(Found::new("three").remedy("another")));
        let shown: Vec<_> = findings.iter().map(|f| (f.code, f.summary.as_str(), f.remedy.as_str())).collect();
        assert_eq!(shown[0].0, Code::GatewayMute);
        assert_eq!((shown[1], findings[1].since), ((Code::DiskLow, "three", "another"), UnixMs(7)));
        set(&mut findings, Code::GatewayMute, None);
        assert_eq!(findings.len(), 1);
    }
}
