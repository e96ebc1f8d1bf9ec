use proptest::prelude::*;

use super::*;
use crate::checkin::wire::{AuditEvent, AuditHead, Bye, Finding, Pending, Report};

const AT: UnixMs = UnixMs(1_800_000_000_000);
const OURS: Digest = [7; 32];

fn message(epoch: u64, boot_id: &str, seq: u64) -> CheckIn {
    CheckIn {
        tenant: "acme".to_owned(),
        epoch,
        boot_id: boot_id.to_owned(),
        seq,
        reason: Vec::new(),
        bye: None,
        next_s: Some(300),
        state: Report { phase: "ready".to_owned(), ..Report::default() },
        audit: None,
        events: Vec::new(),
        dropped: 0,
    }
}

fn arrival(message: CheckIn, seconds: u64) -> Arrival {
    Arrival { message, credential: OURS, ticket: false, at: arrival_at(seconds) }
}

fn arrival_at(seconds: u64) -> UnixMs {
    AT.plus_ms(seconds * 1000)
}

fn new_row() -> Row {
    Row::new("acme", "", vec![OURS], AT)
}

/// Takes messages in, one a second, and returns the row and the kinds of lines each wrote.
fn taken(messages: Vec<CheckIn>) -> (Row, Vec<Vec<EntryKind>>) {
    let (mut row, mut lines) = (new_row(), Vec::new());
    for (n, message) in messages.into_iter().enumerate() {
        let change = check_in(Some(&row), &arrival(message, n as u64), &[]);
        lines.push(change.entries.iter().map(|entry| entry.kind).collect());
        row = change.row.unwrap_or(row);
    }
    (row, lines)
}

#[test]
fn strangers_change_nothing() {
    let ask = |row: Option<&Row>, arrival: &Arrival| check_in(row, arrival, &[]);
    let good = arrival(message(1, "a", 1), 0);
    assert_eq!(ask(None, &good).outcome, Outcome::NoTenant);
    let other = Arrival { credential: [8; 32], ticket: true, ..good.clone() };
    assert_eq!(ask(Some(&new_row()), &other).outcome, Outcome::NotYours, "no ticket replaces a credential");
    let retired = Row { retired_at: Some(AT), ..new_row() };
    assert_eq!(ask(Some(&retired), &good).outcome, Outcome::Retired);
    for change in [ask(None, &good), ask(Some(&new_row()), &other), ask(Some(&retired), &good)] {
        assert_eq!((change.row, change.report, change.entries.len()), (None, None, 0));
    }
}

#[test]
fn a_ticket_takes_a_lost_tenant_in_again() {
    let change = check_in(None, &Arrival { ticket: true, ..arrival(message(9, "a", 4), 0) }, &[]);
    let row = change.row.unwrap();
    assert_eq!((row.id.as_str(), row.credentials.as_slice(), row.status), ("acme", &[OURS][..], Status::Ready));
    assert_eq!(change.entries[0].kind, EntryKind::Created);
}

#[test]
fn a_restart_a_restore_and_a_copy_are_told_apart() {
    let (_, lines) = taken(vec![message(5, "a", 1), message(6, "b", 1), message(5, "a", 2)]);
    assert!(lines[1].contains(&EntryKind::Booted));
    assert_eq!(lines[2], [], "a late message of the life before");
    let (row, lines) = taken(vec![message(5, "a", 1), message(3, "c", 1)]);
    assert!(lines[1].contains(&EntryKind::Restored) && row.last.unwrap().restored_at.is_some());
    let (row, lines) = taken(vec![message(5, "a", 1), message(5, "b", 1)]);
    assert!(lines[1].contains(&EntryKind::Conflict) && row.last.unwrap().conflict_at.is_some());
}

#[test]
fn the_old_life_that_goes_on_is_a_second_machine() {
    let mut row = new_row();
    for (message, seconds) in [(message(5, "a", 1), 0), (message(6, "b", 1), 1), (message(5, "a", 2), 120)] {
        row = check_in(Some(&row), &arrival(message, seconds), &[]).row.unwrap_or(row);
    }
    assert!(row.last.unwrap().conflict_at.is_some());
}

#[test]
fn a_copy_of_an_older_volume_does_not_hide_the_machine_that_lives() {
    let (row, lines) = taken(vec![message(9, "a", 1), message(5, "old", 1), message(9, "a", 2), message(5, "old", 2)]);
    assert!(lines[1].contains(&EntryKind::Restored), "it could be one");
    assert!(lines[2].contains(&EntryKind::Conflict), "the other one goes on");
    let last = row.last.unwrap();
    assert_eq!((last.lives[0].boot_id.as_str(), last.lives[0].seq), ("old", 2), "neither is left out");
    assert_eq!(last.restored_at, None, "it was no restore");
    assert!(!lines[3].contains(&EntryKind::Conflict), "told once");
}

#[test]
fn requests_and_findings_open_and_close_once() {
    let request = Pending { request_id: "r1".to_owned(), label: "Ada\u{7}".to_owned(), age_s: 5, ..Pending::default() };
    let finding = Finding { code: "disk_low".to_owned(), severity: "error".to_owned(), ..Finding::default() };
    let mut open = message(1, "a", 2);
    open.state.pairing = wire::Pairing { pending: vec![request], pending_count: 1, ..wire::Pairing::default() };
    (open.state.findings, open.state.findings_count) = (vec![finding], 1);
    let again = CheckIn { seq: 3, ..open.clone() };
    let (row, lines) = taken(vec![message(1, "a", 1), open, again, message(1, "a", 4)]);
    assert_eq!(lines[1], [EntryKind::FindingOpened, EntryKind::PairingRequested, EntryKind::Status]);
    assert_eq!(lines[2], []);
    assert_eq!(lines[3], [EntryKind::FindingClosed, EntryKind::PairingGone, EntryKind::Status]);
    assert_eq!((row.status, row.last.unwrap().pending_since), (Status::Ready, None));
}

#[test]
fn waiting_too_long_is_told_once() {
    let mut waits = message(1, "a", 1);
    let request = Pending { request_id: "r1".to_owned(), ..Pending::default() };
    waits.state.pairing = wire::Pairing { pending: vec![request], pending_count: 1, ..wire::Pairing::default() };
    let (row, _) = taken(vec![waits]);
    assert_eq!(pass_time(Some(&row), AT.plus_ms(119_000), &[]).outcome, Outcome::Unchanged);
    let told = pass_time(Some(&row), AT.plus_ms(120_000), &[]);
    assert_eq!(told.entries.iter().map(|e| e.kind).collect::<Vec<_>>(), [EntryKind::PairingWaits]);
    assert_eq!(pass_time(told.row.as_ref(), AT.plus_ms(180_000), &[]).outcome, Outcome::Unchanged);
}

#[test]
fn silence_is_told_when_it_begins_and_when_it_ends() {
    let (row, _) = taken(vec![message(1, "a", 1)]);
    let silent = pass_time(Some(&row), AT.plus_ms(451_000), &[]).row.unwrap();
    assert_eq!(silent.status, Status::Unreachable);
    let back = check_in(Some(&silent), &arrival(message(2, "b", 1), 900), &[]);
    let kinds: Vec<_> = back.entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::Booted, EntryKind::Gap, EntryKind::Status]);
    assert_eq!(back.row.unwrap().status, Status::Ready);
}

fn record(seq: u64) -> AuditEvent {
    AuditEvent {
        seq,
        at: AT,
        actor: "control".to_owned(),
        verb: "pairing.approve".to_owned(),
        target: "d1".to_owned(),
        outcome: "approved".to_owned(),
    }
}

#[test]
fn an_audit_that_goes_back_is_told_and_its_records_are_kept_once() {
    let head = |seq: u64| Some(AuditHead { seq, hash: "ab".to_owned() });
    let first = CheckIn { audit: head(9), events: vec![record(8), record(9)], ..message(1, "a", 1) };
    let again = CheckIn { audit: head(10), events: vec![record(9), record(10)], ..message(1, "a", 2) };
    let cut = CheckIn { audit: head(3), ..message(1, "a", 3) };
    let (row, lines) = taken(vec![first, again, cut]);
    let audits = |n: usize| lines[n].iter().filter(|kind| **kind == EntryKind::Audit).count();
    assert_eq!((audits(0), audits(1)), (2, 1));
    assert_eq!(lines[2], [EntryKind::AuditTruncated]);
    assert_eq!(row.last.unwrap().events_through, 0, "its numbers are given again");
}

#[test]
fn an_audit_that_was_begun_anew_is_told_from_its_first_record() {
    let with = |seq: u64, head: u64, records: &[u64]| CheckIn {
        audit: Some(AuditHead { seq: head, hash: format!("{head}") }),
        events: records.iter().map(|n| record(*n)).collect(),
        ..message(1, "a", seq)
    };
    let (row, lines) = taken(vec![with(1, 9, &[8, 9]), with(2, 2, &[1, 2]), with(3, 3, &[2, 3]), with(4, 4, &[])]);
    let audits: Vec<usize> =
        lines.iter().map(|kinds| kinds.iter().filter(|kind| **kind == EntryKind::Audit).count()).collect();
    assert_eq!(audits, [2, 2, 1, 0]);
    assert_eq!(row.last.unwrap().events_through, 3);
}

#[test]
fn records_that_were_not_kept_are_told_of() {
    let gap = CheckIn { dropped: 7, events: vec![record(8)], ..message(1, "a", 1) };
    let change = check_in(Some(&new_row()), &arrival(gap, 0), &[]);
    let skipped = change.entries.iter().find(|entry| entry.kind == EntryKind::AuditSkipped).expect("told");
    assert_eq!(skipped.data["records"], 7);
    assert!(skipped.text.starts_with("7 records"), "{}", skipped.text);
}

#[test]
fn a_boot_that_takes_too_long_is_noticed_without_a_message() {
    let mut boots = CheckIn { next_s: Some(3600), ..message(1, "a", 1) };
    boots.state.phase = "starting".to_owned();
    let (row, _) = taken(vec![boots]);
    assert_eq!((row.status, status::look_at(&row)), (Status::Booting, Some(arrival_at(600))));
    let row = pass_time(Some(&row), arrival_at(602), &[]).row.unwrap();
    assert_eq!((row.status, status::look_at(&row)), (Status::Degraded, Some(arrival_at(3600))));
}

#[test]
fn a_goodbye_is_asleep_with_its_reason() {
    let bye = Some(Bye { intent: Intent::Stop, reason: "SIGTERM".to_owned() });
    let (row, lines) = taken(vec![message(1, "a", 1), CheckIn { bye, ..message(1, "a", 2) }]);
    assert_eq!((row.status, &lines[1][..]), (Status::Asleep, &[EntryKind::Bye, EntryKind::Status][..]));
}

proptest! {
    /// Whatever the order of arrival and however often: the newest message of the newest life wins.
    #[test]
    fn order_and_repetition_do_not_matter(mut order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(), repeat in 0..12usize) {
        order.push(order[repeat]);
        let all: Vec<CheckIn> = (0..12u64).map(|n| {
            let (life, seq) = (n / 4, n % 4 + 1);
            let mut message = message(life + 1, &format!("boot{life}"), seq);
            message.state.gateway.version = format!("{n}");
            message
        }).collect();
        // Lives overlap by lateness only: all arrive within a minute of the newest one's start.
        let (row, _) = taken(order.iter().map(|n| all[*n].clone()).collect());
        let last = row.last.unwrap();
        let newest = order.iter().rposition(|n| *n == 11).unwrap();
        if last.restored_at.is_none() && last.conflict_at.is_none() && newest > 0 {
            prop_assert_eq!(last.lives[0].epoch, 3);
        }
    }

    /// Two machines on copies of one volume: from a minute on, and as long as both speak, each message is kept and both
    /// are known.
    #[test]
    fn two_machines_are_always_told_apart(
        epochs in (1..5_u64, 1..5_u64),
        speakers in proptest::collection::vec((any::<bool>(), 1..400_u64), 2..30),
    ) {
        let (mut row, mut seqs, mut now) = (new_row(), [0_u64; 2], 0);
        let (mut both, mut kept) = (None, None);
        for (second, gap) in speakers {
            now += gap;
            let which = usize::from(second);
            seqs[which] += 1;
            let message = message([epochs.0, epochs.1][which], ["a", "b"][which], seqs[which]);
            let known = row.last.as_ref().is_some_and(|last| last.conflict_at.is_some());
            let change = check_in(Some(&row), &arrival(message, now), &[]);
            let late = !known && both.is_none_or(|both| now <= both + 60);
            prop_assert!(late || change.outcome == Outcome::Done, "left out: {:?}", row.last);
            if change.outcome == Outcome::Done {
                row = change.row.unwrap();
                let went_back = kept.replace(which).is_some_and(|before| before != which) && seqs[which] > 1;
                prop_assert!(!went_back || status::conflict(row.last.as_ref().unwrap(), arrival_at(now)), "{:?}", row);
            }
            if both.is_none() && seqs.iter().all(|seq| *seq > 0) {
                both = Some(now);
            }
        }
    }

    #[test]
    fn hostile_texts_are_bounded(text in "\\PC{0,600}", code in "\\PC{0,100}") {
        let mut message = message(1, "a", 1);
        (message.state.phase_reason, message.state.gateway.version) = (text.clone(), text.clone());
        message.state.findings = vec![Finding { code, summary: text, ..Finding::default() }; 40];
        let (row, _) = taken(vec![message]);
        let last = row.last.unwrap();
        prop_assert!(last.phase_reason.len() <= 300 && last.gateway_version.len() <= 300);
        prop_assert!(last.warnings.len() <= wire::MAX_FINDINGS && last.warnings.iter().all(|code| code.len() <= 64));
    }
}
