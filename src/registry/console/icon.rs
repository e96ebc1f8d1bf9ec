//! Shapes and words for what support sees: nothing is told by colour alone.

use maud::{Markup, PreEscaped, html};

use crate::registry::status::{Confidence, Facet};
use crate::registry::tenant::{EntryKind, Status};

/// How something looks: its shape, the name of its colour, its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) shape: &'static str,
    pub(super) tone: &'static str,
    pub(super) word: &'static str,
}

const OCTAGON: &str = r#"<path class="f" d="M5 1h6l4 4v6l-4 4H5l-4-4V5z"/><path class="k" d="M8 4.5v4M8 11.4v.01"/>"#;
const TRIANGLE: &str = r#"<path class="f" d="M8 1.2 15.4 14H.6z"/><path class="k" d="M8 6v3.6M8 11.9v.01"/>"#;
const PERSON: &str = r#"<circle cx="8" cy="5" r="3"/><path d="M2.5 14.5a5.5 5.5 0 0 1 11 0"/>"#;
const MOON: &str = r#"<path class="f" d="M13.9 10A6.3 6.3 0 0 1 6 2.1 6.3 6.3 0 1 0 13.9 10z"/>"#;
const CHECK: &str = r#"<circle class="f" cx="8" cy="8" r="7"/><path class="k" d="m4.8 8.3 2.2 2.2 4.2-4.6"/>"#;
const SIGNAL_LOST: &str = r#"<path d="M8 13v.01M5.3 10a4 4 0 0 1 5.4 0M2.4 7a8 8 0 0 1 11.2 0M2.5 2l11 12"/>"#;
const TURNING: &str = r#"<path d="M13.5 8a5.5 5.5 0 1 1-1.6-3.9M13.7 1.2v3.3h-3.3"/>"#;
const TURNING_BACK: &str = r#"<path d="M2.5 8a5.5 5.5 0 1 0 1.6-3.9M2.3 1.2v3.3h3.3"/>"#;
const DASHED: &str = r#"<circle cx="8" cy="8" r="6" stroke-dasharray="2.6 2.1"/>"#;
const QUESTION: &str =
    r#"<circle cx="8" cy="8" r="6.5"/><path d="M6.1 6.3a1.9 1.9 0 1 1 2.7 1.7c-.6.3-.8.7-.8 1.3M8 11.5v.01"/>"#;
const BOX_CROSSED: &str =
    r#"<rect x="2" y="2" width="12" height="12" rx="2"/><path d="m5.8 5.8 4.4 4.4M10.2 5.8l-4.4 4.4"/>"#;
const TWO: &str =
    r#"<rect x="1.5" y="1.5" width="9" height="9" rx="1"/><rect x="5.5" y="5.5" width="9" height="9" rx="1"/>"#;
const PLUS: &str = r#"<circle cx="8" cy="8" r="6.5"/><path d="M8 5v6M5 8h6"/>"#;
const MINUS: &str = r#"<circle cx="8" cy="8" r="6.5"/><path d="M5 8h6"/>"#;
const KEY: &str = r#"<circle cx="5" cy="11" r="3"/><path d="M7.2 8.8 14 2M10.5 5.5l2.2 2.2"/>"#;
const POWER: &str = r#"<path d="M8 1.5v6M4.4 4a5.5 5.5 0 1 0 7.2 0"/>"#;
const ARROW: &str = r#"<path d="M2 8h11.5M9 3.5 13.5 8 9 12.5"/>"#;
const INTERRUPTED: &str = r#"<path d="M1 8h3.5M11.5 8H15M6.2 4v8M9.8 4v8"/>"#;
const DONE: &str = r#"<circle cx="8" cy="8" r="6.5"/><path d="m5 8.3 2.1 2.1L11 6"/>"#;
const PERSON_GONE: &str = r#"<circle cx="6.5" cy="5" r="3"/><path d="M1 14.5a5.5 5.5 0 0 1 11 0M11.5 6H15"/>"#;
const CLOCK: &str = r#"<circle cx="8" cy="8" r="6.5"/><path d="M8 4.3V8l2.5 1.6"/>"#;
const UP: &str = r#"<path d="M8 14V2.5M3.5 7 8 2.5 12.5 7"/>"#;
const CUT: &str = r#"<path d="M2 3h12M2 7h7M2 11h4M10 10l4.5 4.5M14.5 10 10 14.5"/>"#;
const LINES: &str = r#"<path d="M2.5 4h11M2.5 8h11M2.5 12h7"/>"#;

impl Look {
    const fn new(shape: &'static str, tone: &'static str, word: &'static str) -> Self {
        Self { shape, tone, word }
    }

    /// The shape alone, for a place where the word stands beside it.
    pub(super) fn icon(self) -> Markup {
        html! { svg.icon.(self.tone) viewBox="0 0 16 16" aria-hidden="true" { (PreEscaped(self.shape)) } }
    }

    /// Shape and word.
    pub(super) fn tag(self) -> Markup {
        html! { span.tag.(self.tone) { (self.icon()) (self.word) } }
    }
}

pub(super) fn status(status: Status) -> Look {
    match status {
        Status::Unreachable => Look::new(SIGNAL_LOST, "red", "Unreachable"),
        Status::Crashed => Look::new(OCTAGON, "red", "Crashed"),
        Status::Degraded => Look::new(TRIANGLE, "amber", "Degraded"),
        Status::PairingPending => Look::new(PERSON, "violet", "Pairing pending"),
        Status::Booting => Look::new(TURNING, "blue", "Booting"),
        Status::Provisioning => Look::new(DASHED, "blue", "Provisioning"),
        Status::Unknown => Look::new(QUESTION, "grey", "Unknown"),
        Status::Ready => Look::new(CHECK, "green", "Ready"),
        Status::Asleep => Look::new(MOON, "grey", "Asleep"),
    }
}

pub(super) fn facet(facet: Facet) -> Look {
    match facet {
        Facet::PairingPending => Look::new(PERSON, "violet", "Pairing waits"),
        Facet::Errors => Look::new(OCTAGON, "red", "Errors"),
        Facet::Warnings => Look::new(TRIANGLE, "amber", "Warnings"),
        Facet::ProvisioningFailed => Look::new(BOX_CROSSED, "red", "Provisioning failed"),
        Facet::Conflict => Look::new(TWO, "red", "Two machines"),
        Facet::Restored => Look::new(TURNING_BACK, "amber", "Restored from a copy"),
    }
}

/// Severities come from a machine: what is not known is a warning.
pub(super) fn severity(name: &str) -> Look {
    match name {
        "error" => Look::new(OCTAGON, "red", "Error"),
        "info" => Look::new(LINES, "blue", "Note"),
        _ => Look::new(TRIANGLE, "amber", "Warning"),
    }
}

pub(super) fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::High => "confidence high",
        Confidence::Medium => "confidence medium",
        Confidence::Low => "confidence low",
    }
}

pub(super) fn entry(kind: EntryKind) -> Look {
    match kind {
        EntryKind::Created => Look::new(PLUS, "grey", "Created"),
        EntryKind::Retired => Look::new(MINUS, "grey", "Retired"),
        EntryKind::CredentialChanged => Look::new(KEY, "grey", "Credential"),
        EntryKind::Booted => Look::new(POWER, "blue", "Started"),
        EntryKind::Bye => Look::new(MOON, "grey", "Goodbye"),
        EntryKind::Status => Look::new(ARROW, "grey", "Status"),
        EntryKind::Gap => Look::new(INTERRUPTED, "red", "Silence"),
        EntryKind::FindingOpened => Look::new(TRIANGLE, "amber", "Problem"),
        EntryKind::FindingClosed => Look::new(DONE, "green", "Solved"),
        EntryKind::PairingRequested => Look::new(PERSON, "violet", "Asks"),
        EntryKind::PairingGone => Look::new(PERSON_GONE, "grey", "Decided"),
        EntryKind::PairingWaits => Look::new(CLOCK, "violet", "Waits"),
        EntryKind::VersionChanged => Look::new(UP, "blue", "Version"),
        EntryKind::Conflict => Look::new(TWO, "red", "Two machines"),
        EntryKind::Restored => Look::new(TURNING_BACK, "amber", "Restored"),
        EntryKind::AuditTruncated => Look::new(CUT, "red", "Audit cut"),
        EntryKind::AuditSkipped => Look::new(CUT, "amber", "Audit gap"),
        EntryKind::Audit => Look::new(LINES, "grey", "Audit"),
    }
}
