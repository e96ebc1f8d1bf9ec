use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::checkin::wire::{AuditEvent, AuditHead};
use crate::state::{Approved, Code, DesiredState, Pairing, State};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

fn snapshot() -> Snapshot {
    (*State::new("boot".into()).now()).clone()
}

fn request(n: usize, text: &str) -> Pending {
    Pending {
        kind: Kind::Device,
        request_id: format!("{n}{text}"),
        device_id: text.to_owned(),
        label: text.to_owned(),
        client_id: text.to_owned(),
        platform: text.to_owned(),
        role: text.to_owned(),
        scopes: vec![text.to_owned(); 40],
        commands: vec![text.to_owned(); 40],
        remote_ip: text.to_owned(),
        is_upgrade: false,
        requested_at: UnixMs(NOW.0 - 7_500),
        expires_at: Some(UnixMs(NOW.0 + 9_500)),
        channel: text.to_owned(),
        account: text.to_owned(),
    }
}

fn finding(code: Code, severity: Severity, text: &str) -> Finding {
    Finding {
        code,
        severity,
        since: UnixMs(NOW.0 - 60_000),
        summary: text.to_owned(),
        evidence: vec![text.to_owned(); 6],
        remedy: text.to_owned(),
    }
}

/// Everything as large as it gets, made of one text.
fn full(text: &str) -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.phase_reason = text.to_owned();
    let pending = (0..256).map(|n| request(n, text)).collect();
    snapshot.pairing = Arc::new(Pairing { pending, ..Pairing::default() });
    snapshot.findings = (0..40).map(|_| finding(Code::GatewayCrashLoop, Severity::Warning, text)).collect();
    snapshot.findings.push(finding(Code::GatewayConfigInvalid, Severity::Error, text));
    snapshot.desired = DesiredState { generation: 7, status: Some(Outcome::Failed), error: Some(text.to_owned()) };
    snapshot
}

fn message(snapshot: &Snapshot, events: usize, text: &str) -> CheckIn {
    let event = |seq| AuditEvent {
        seq,
        at: NOW,
        actor: cut(text, 128),
        verb: cut(text, 128),
        target: cut(text, 128),
        outcome: cut(text, 128),
    };
    CheckIn {
        tenant: "t".repeat(64),
        epoch: u64::MAX,
        boot_id: "b".repeat(32),
        seq: u64::MAX,
        reason: ["audit", "boot", "bye", "desired", "findings", "pairing", "phase", "resume"].map(String::from).into(),
        bye: Some(wire::Bye { intent: wire::Intent::Decommission, reason: cut(text, 128) }),
        next_s: Some(u64::MAX),
        state: report(snapshot, &Surroundings::default(), NOW),
        audit: Some(AuditHead { seq: u64::MAX, hash: "f".repeat(64) }),
        events: (1..=events as u64).map(event).collect(),
        dropped: u64::MAX,
    }
}

#[test]
fn the_largest_state_fits_and_its_counts_are_whole() {
    // Quotes and backslashes take twice their room, others in scripts of four bytes.
    for text in ["x", "\"", "\\", "\u{1}", "ü", "𝄞", "\u{2028}"] {
        let text = text.repeat(5000);
        let mut message = message(&full(&text), 500, &text);
        let bytes = encode(&mut message);
        assert!(bytes.len() <= MAX_SENT, "{} bytes", bytes.len());
        let read: CheckIn = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read, message);
        assert_eq!((read.state.pairing.pending_count, read.state.findings_count), (256, 41));
        assert!(!read.state.pairing.pending.is_empty(), "the oldest request is told");
    }
}

#[test]
fn the_least_needed_goes_first() {
    let mut message = message(&full("a text of some length, such as they have"), 8, "short");
    message.state.findings[0].evidence = vec!["evidence".repeat(10); 4];
    let bytes = encode(&mut message);
    assert!(bytes.len() > MAX_SENT - 1500, "no more than needed: {}", bytes.len());
    let state = &message.state;
    assert!(state.findings[0].evidence.is_empty() && state.findings.len() == MAX_FINDINGS);
    assert_eq!(state.findings[0].code, "gateway_config_invalid", "the worst first");
}

#[test]
fn a_usual_state_is_sent_whole_with_ages() {
    let mut snapshot = snapshot();
    snapshot.pairing = Arc::new(Pairing { pending: vec![request(1, "x")], ..Pairing::default() });
    snapshot.findings = vec![finding(Code::DiskLow, Severity::Warning, "x")];
    let mut message = message(&snapshot, 2, "x");
    let before = message.clone();
    encode(&mut message);
    assert_eq!(message, before);
    let pending = &message.state.pairing.pending[0];
    assert_eq!((pending.age_s, pending.expires_in_s), (7, Some(9)));
    assert_eq!(message.state.findings[0].age_s, 60);
}

#[test]
fn what_is_worth_a_message_and_what_is_not() {
    let before = Watched::of(&snapshot(), Some("aa"));
    let reasons = |change: fn(&mut Snapshot)| {
        let mut changed = snapshot();
        change(&mut changed);
        Watched::of(&changed, Some("aa")).since(&before).collect::<Vec<_>>()
    };
    assert_eq!(reasons(|s| s.phase = Phase::Ready), ["phase"]);
    assert_eq!(reasons(|s| s.phase_reason = "another".into()), ["phase"]);
    assert_eq!(reasons(|s| s.desired.generation = 3), ["desired"]);
    assert_eq!(reasons(|s| s.findings = vec![finding(Code::DiskLow, Severity::Error, "x")]), ["findings"]);
    let pairing = |pending, approved| Arc::new(Pairing { pending, approved, last_out_of_band: None });
    assert_eq!(
        reasons(|s| s.pairing = Arc::new(Pairing { pending: vec![request(1, "x")], ..Pairing::default() })),
        ["pairing"]
    );
    assert_eq!(Watched::of(&snapshot(), Some("bb")).since(&before).collect::<Vec<_>>(), ["phase"], "the certificate");

    assert!(reasons(|s| s.findings = vec![finding(UNREACHABLE, Severity::Warning, "x")]).is_empty());
    assert!(reasons(|s| s.generation = 99).is_empty());
    let mut waiting = snapshot();
    waiting.pairing = pairing(vec![request(1, "x")], Vec::new());
    let mut later = waiting.clone();
    let mut known = request(1, "x");
    (known.expires_at, known.label) = (None, "renamed".into());
    later.pairing = pairing(vec![known], Vec::new());
    assert_eq!(Watched::of(&later, None).since(&Watched::of(&waiting, None)).count(), 0, "the same request");
    later.pairing = pairing(vec![request(1, "x")], vec![approved()]);
    assert_eq!(Watched::of(&later, None).since(&Watched::of(&waiting, None)).count(), 1, "one more is approved");
}

fn approved() -> Approved {
    Approved {
        kind: Kind::Device,
        device_id: "d".into(),
        label: String::new(),
        client_id: String::new(),
        platform: String::new(),
        role: String::new(),
        scopes: Vec::new(),
        commands: Vec::new(),
        remote_ip: String::new(),
        connected: Some(true),
        approved_at: NOW,
        approved_by: String::new(),
        approved_via: String::new(),
    }
}

#[test]
fn the_platform_is_what_the_environment_says() {
    let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Env>();
    let fly = platform(&env(&[("FLY_MACHINE_ID", "m1"), ("FLY_REGION", "fra"), ("FLY_APP_NAME", "app")]));
    assert_eq!((fly.kind.as_str(), fly.region.as_str(), fly.machine.as_str()), ("fly", "fra", "app/m1"));
    assert_eq!(platform(&env(&[("RAILWAY_SERVICE_ID", "s")])).kind, "railway");
    assert_eq!(platform(&env(&[("INVOCATION_ID", "i")])).kind, "systemd");
    assert_eq!(platform(&env(&[])).kind, "docker");
    let host = host(Path::new("/"));
    assert!(host.memory_free_mib > Some(0) && host.disk_free_mib.is_some() && host.load_percent.is_some(), "{host:?}");
}

proptest! {
    #[test]
    fn cutting_keeps_whole_characters(text in "\\PC{0,80}", most in 0usize..100) {
        let short = cut(&text, most);
        prop_assert!(short.len() <= most && text.starts_with(&short));
        prop_assert!(short == text || short.len() + 4 > most);
    }

}

proptest! {
    // A message that is too long is cut down step by step; a few hostile ones tell as much as many.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_message_is_too_long(texts in proptest::collection::vec("(?s).{0,300}", 1..6), events in 0usize..20) {
        for text in texts {
            prop_assert!(encode(&mut message(&full(&text), events, &text)).len() <= MAX_SENT);
        }
    }
}
