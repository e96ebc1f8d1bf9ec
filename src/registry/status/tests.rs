use super::*;
use crate::checkin::wire::Bye;
use crate::registry::tenant::{Life, Row};

const AT: UnixMs = UnixMs(1_800_000_000_000);

fn last() -> Last {
    Last {
        received_at: AT,
        booted_at: AT,
        lives: vec![Life { boot_id: "b".to_owned(), epoch: 1, seq: 1 }],
        next_s: Some(300),
        bye: None,
        phase: "ready".to_owned(),
        phase_reason: String::new(),
        pending_count: 0,
        pending: Vec::new(),
        pending_since: None,
        pending_told: false,
        errors: Vec::new(),
        warnings: Vec::new(),
        desired_error: String::new(),
        gateway_version: String::new(),
        sidecar_version: String::new(),
        region: String::new(),
        audit: None,
        events_through: 0,
        conflict_at: None,
        restored_at: None,
    }
}

fn row(change: impl FnOnce(&mut Last)) -> Row {
    let mut last = last();
    change(&mut last);
    Row { last: Some(last), ..Row::new("acme", "", Vec::new(), AT) }
}

fn after(row: &Row, seconds: u64, blind: &[Blind]) -> Derived {
    derive(row, AT.plus_ms(seconds * 1000), blind)
}

fn bye(intent: Intent) -> Bye {
    Bye { intent, reason: "SIGTERM".to_owned() }
}

#[test]
fn the_first_that_fits_is_the_status() {
    let at_once = |change: fn(&mut Last)| after(&row(change), 1, &[]).status;
    assert_eq!(derive(&Row::new("acme", "", Vec::new(), AT), AT, &[]).status, Status::Provisioning);
    assert_eq!(at_once(|_| {}), Status::Ready);
    assert_eq!(at_once(|l| l.pending_count = 1), Status::PairingPending);
    assert_eq!(at_once(|l| l.errors = vec!["disk_low".into()]), Status::Degraded);
    assert_eq!(at_once(|l| l.warnings = vec!["disk_low".into()]), Status::Ready);
    assert_eq!(at_once(|l| l.desired_error = "bad".into()), Status::Degraded);
    assert_eq!(at_once(|l| l.bye = Some(bye(Intent::Sleep))), Status::Asleep);
    assert_eq!(at_once(|l| l.bye = Some(bye(Intent::Restart))), Status::Booting);
    for (phase, status) in [
        ("starting", Status::Booting),
        ("seeding", Status::Booting),
        ("degraded", Status::Degraded),
        ("unauthorized", Status::Degraded),
        ("stopped", Status::Degraded),
        ("crash_loop", Status::Crashed),
        ("config_invalid", Status::Crashed),
        ("suspended", Status::Asleep),
        ("thinking", Status::Unknown),
    ] {
        assert_eq!(after(&row(|l| l.phase = phase.into()), 1, &[]).status, status, "{phase}");
    }
}

#[test]
fn waiting_is_a_facet_of_every_status_but_sleep() {
    for phase in ["ready", "degraded", "crash_loop", "starting"] {
        let row = row(|l| (l.phase, l.pending_count, l.errors) = (phase.into(), 2, vec!["x".into()]));
        assert!(after(&row, 1, &[]).facets.contains(&Facet::PairingPending), "{phase}");
    }
    let asleep = row(|l| (l.pending_count, l.bye) = (2, Some(bye(Intent::Stop))));
    assert!(!after(&asleep, 1, &[]).facets.contains(&Facet::PairingPending));
}

#[test]
fn silence_is_unreachable_only_past_the_promise_and_without_a_goodbye() {
    let silent = row(|_| {});
    assert_eq!(after(&silent, 449, &[]).status, Status::Ready);
    assert_eq!(after(&silent, 449, &[]).confidence, Confidence::Medium);
    let derived = after(&silent, 451, &[]);
    assert_eq!((derived.status, derived.confidence), (Status::Unreachable, Confidence::High));
    assert!(derived.evidence.iter().any(|line| line.contains("overdue")), "{:?}", derived.evidence);
    assert_eq!(after(&row(|l| l.bye = Some(bye(Intent::Stop))), 1_000_000, &[]).status, Status::Asleep);
    assert_eq!(after(&row(|l| l.bye = Some(bye(Intent::Restart))), 451, &[]).status, Status::Unreachable);
    let quiet = row(|l| l.next_s = None);
    assert_eq!(after(&quiet, 20 * 3600, &[]).status, Status::Ready);
    assert_eq!(after(&quiet, 20 * 3600, &[]).confidence, Confidence::Low);
    assert_eq!(after(&quiet, 25 * 3600, &[]).status, Status::Unknown);
}

#[test]
fn nobody_is_unreachable_for_the_time_we_were_blind() {
    let silent = row(|_| {});
    let hours = |h: u64| AT.plus_ms(h * 3_600_000);
    let outage = Blind { from: AT.plus_ms(60_000), to: hours(72) };
    assert_eq!(derive(&silent, hours(72).plus_ms(11 * 60_000), &[outage]).status, Status::Ready);
    assert_eq!(derive(&silent, hours(72).plus_ms(13 * 60_000), &[outage]).status, Status::Unreachable);
    // A machine that was overdue before we went blind stays so.
    let late = Blind { from: AT.plus_ms(600_000), to: AT.plus_ms(700_000) };
    assert_eq!(derive(&silent, AT.plus_ms(710_000), &[late]).status, Status::Unreachable);
}

#[test]
fn a_boot_that_takes_long_is_degraded() {
    let boots = row(|l| (l.phase, l.next_s) = ("starting".into(), Some(3600)));
    assert_eq!(after(&boots, 599, &[]).status, Status::Booting);
    assert_eq!(after(&boots, 601, &[]).status, Status::Degraded);
}
