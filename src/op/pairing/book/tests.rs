use proptest::prelude::*;

use super::*;

fn request(id: &str, device: &str) -> Pending {
    Pending {
        kind: Kind::Device,
        request_id: id.into(),
        device_id: device.into(),
        label: String::new(),
        client_id: "openclaw-control-ui".into(),
        platform: String::new(),
        role: "operator".into(),
        scopes: vec!["operator.read".into()],
        commands: Vec::new(),
        remote_ip: String::new(),
        is_upgrade: false,
        requested_at: UnixMs(1_000),
        expires_at: Some(UnixMs(301_000)),
        channel: String::new(),
        account: String::new(),
    }
}

fn paired(device: &str, at: u64) -> Approved {
    Approved {
        kind: Kind::Device,
        device_id: device.into(),
        label: String::new(),
        client_id: String::new(),
        platform: String::new(),
        role: "operator".into(),
        scopes: Vec::new(),
        commands: Vec::new(),
        remote_ip: String::new(),
        connected: None,
        approved_at: UnixMs(at),
        approved_by: String::new(),
        approved_via: String::new(),
    }
}

fn lists(pending: &[Pending], approved: &[Approved]) -> Lists {
    Lists { pending: pending.to_vec(), approved: approved.to_vec() }
}

fn book() -> Book {
    let mut book = Book::default();
    assert!(book.merge(Kind::Device, lists(&[], &[paired("old", 5)]), UnixMs(0)).is_empty());
    assert_eq!(book.approved(Kind::Device, "old").unwrap().approved_by, "before_sidecar");
    book
}

#[test]
fn a_request_that_lapses_without_event_is_expired() {
    let mut book = book();
    book.requested(request("r1", "d"));
    let happened = book.merge(Kind::Device, lists(&[], &[paired("old", 5)]), UnixMs(302_000));
    assert!(matches!(&happened[..], [Happened::Resolved(_, Fate::Expired)]));
    assert_eq!(book.fate(Kind::Device, "r1"), Some((Fate::Expired, "d".into())));
}

#[test]
fn a_new_id_for_the_same_device_supersedes_with_or_without_event() {
    let mut book = book();
    book.requested(request("r1", "d"));
    book.requested(request("r2", "d"));
    assert_eq!(book.fate(Kind::Device, "r1").unwrap().0, Fate::Superseded("r2".into()));
    book.merge(Kind::Device, lists(&[request("r3", "d")], &[paired("old", 5)]), UnixMs(3_000));
    assert_eq!(book.fate(Kind::Device, "r2").unwrap().0, Fate::Superseded("r3".into()));
    assert_eq!(book.pending_of(Kind::Device, "d").unwrap().request_id, "r3");
}

#[test]
fn a_rejection_followed_by_a_new_request_was_a_supersession() {
    let mut book = book();
    book.requested(request("r1", "d"));
    assert!(book.resolved(Kind::Device, "r1", false).is_empty(), "not told before it is known");
    assert_eq!(book.fate(Kind::Device, "r1").unwrap().0, Fate::Rejected);
    let happened = book.requested(request("r2", "d"));
    assert!(matches!(&happened[..], [Happened::Resolved(old, Fate::Superseded(by)), Happened::Requested(_)]
        if old.request_id == "r1" && by == "r2"));
    assert_eq!(book.fate(Kind::Device, "r1").unwrap().0, Fate::Superseded("r2".into()));
}

#[test]
fn a_rejection_by_somebody_else_is_told_with_the_next_list_and_ours_at_once() {
    let mut book = book();
    book.requested(request("r1", "d1"));
    book.resolved(Kind::Device, "r1", false);
    let happened = book.merge(Kind::Device, lists(&[], &[paired("old", 5)]), UnixMs(2_000));
    assert!(matches!(&happened[..], [Happened::Resolved(_, Fate::Rejected)]));
    book.requested(request("r2", "d2"));
    book.resolved(Kind::Device, "r2", false);
    assert!(matches!(&book.rejected_by_us(Kind::Device, "r2")[..], [Happened::Resolved(_, Fate::Rejected)]));
}

#[test]
fn our_approval_is_ours_and_another_is_out_of_band() {
    let mut book = book();
    book.requested(request("r1", "d1"));
    book.sending(&request("r1", "d1"), "control", &Expect::default());
    book.resolved(Kind::Device, "r1", true);
    assert!(book.approved_by_us(paired("d1", 1_100), "r1", "control", UnixMs(1_101)).is_empty());
    assert_eq!(book.approved(Kind::Device, "d1").unwrap().approved_by, "control");

    let now_paired = [paired("old", 5), paired("d1", 1_100), paired("d2", 1_200)];
    let happened = book.merge(Kind::Device, lists(&[], &now_paired), UnixMs(1_300));
    assert!(matches!(&happened[..], [Happened::OutOfBand(a)] if a.device_id == "d2"));
    assert!(book.merge(Kind::Device, lists(&[], &now_paired), UnixMs(1_400)).is_empty(), "told once");
}

#[test]
fn approving_a_paired_device_anew_behind_our_back_is_noticed() {
    let mut book = book();
    let happened = book.merge(Kind::Device, lists(&[], &[paired("old", 900)]), UnixMs(1_000));
    assert!(matches!(&happened[..], [Happened::OutOfBand(_)]));
}

#[test]
fn a_refused_approval_is_not_claimed_later() {
    let mut book = book();
    book.requested(request("r1", "d1"));
    book.sending(&request("r1", "d1"), "control", &Expect::default());
    assert!(book.not_sent(Kind::Device, "r1", UnixMs(1_100)).is_empty());
    let happened = book.merge(Kind::Device, lists(&[], &[paired("old", 5), paired("d1", 1_100)]), UnixMs(1_200));
    assert!(happened.iter().any(|h| matches!(h, Happened::OutOfBand(_))));
}

#[test]
fn what_a_list_claimed_for_us_is_disowned_when_the_gateway_refuses_us() {
    let mut book = book();
    book.requested(request("r1", "d1"));
    book.sending(&request("r1", "d1"), "control", &Expect::default());
    book.merge(Kind::Device, lists(&[], &[paired("old", 5), paired("d1", 1_100)]), UnixMs(1_200));
    let happened = book.not_sent(Kind::Device, "r1", UnixMs(1_300));
    assert!(matches!(&happened[..], [Happened::OutOfBand(a)] if a.device_id == "d1"));
}

#[test]
fn a_late_grant_beyond_the_expectation_is_told() {
    let mut book = book();
    book.requested(request("r1", "d1"));
    let expect = Expect { max_scopes: Some(vec![]), ..Expect::default() };
    book.sending(&request("r1", "d1"), "control", &expect);
    let wide = Approved { scopes: vec!["operator.admin".into()], ..paired("d1", 1_100) };
    let happened = book.merge(Kind::Device, lists(&[], &[paired("old", 5), wide]), UnixMs(1_200));
    assert!(happened.iter().any(|h| matches!(h, Happened::Exceeded(a, _) if a.device_id == "d1")));
}

#[test]
fn who_approved_survives_a_restart_and_news_while_down_are_noticed() {
    let mut first = book();
    first.requested(request("r1", "d1"));
    first.sending(&request("r1", "d1"), "control", &Expect::default());
    first.approved_by_us(paired("d1", 1_100), "r1", "control", UnixMs(1_101));
    let (version, kept) = first.unkept_credits().unwrap();
    first.kept(version);
    assert!(first.unkept_credits().is_none());

    let mut second = Book::with_credits(Some(kept));
    let now_paired = [paired("old", 5), paired("d1", 1_100), paired("d2", 1_200)];
    let happened = second.merge(Kind::Device, lists(&[], &now_paired), UnixMs(2_000));
    assert_eq!(second.approved(Kind::Device, "d1").unwrap().approved_by, "control");
    assert!(matches!(&happened[..], [Happened::OutOfBand(a)] if a.device_id == "d2"));
}

#[test]
fn what_is_on_record_is_recalled_but_never_over_something_newer() {
    let credit = |at, by: &str| Credit { kind: Kind::Device, device_id: "d".into(), approved_at_ms: at, by: by.into() };
    let mut book = Book::with_credits(Some(vec![credit(5_000, "newer")]));
    book.recall(credit(1_000, "older"));
    book.merge(Kind::Device, lists(&[], &[paired("d", 4_990)]), UnixMs(6_000));
    assert_eq!(book.approved(Kind::Device, "d").unwrap().approved_by, "newer");
    book.recall(credit(7_000, "latest"));
    assert!(book.merge(Kind::Device, lists(&[], &[paired("d", 6_990)]), UnixMs(8_000)).is_empty());
    assert_eq!(book.approved(Kind::Device, "d").unwrap().approved_by, "latest");
}

#[test]
fn presence_tells_who_is_connected_where_the_list_does_not() {
    let mut book = book();
    book.presence(HashSet::from(["old".to_owned()]));
    assert_eq!(book.approved(Kind::Device, "old").unwrap().connected, Some(true));
    book.merge(Kind::Device, lists(&[], &[paired("old", 5)]), UnixMs(10));
    assert_eq!(book.approved(Kind::Device, "old").unwrap().connected, Some(true));
    book.presence(HashSet::new());
    assert_eq!(book.approved(Kind::Device, "old").unwrap().connected, Some(false));
}

#[test]
fn a_retry_does_not_move_the_clock_of_the_view() {
    let mut book = book();
    book.requested(request("r1", "d"));
    let before = book.view();
    let retried = Pending { requested_at: UnixMs(6_000), expires_at: Some(UnixMs(306_000)), ..request("r1", "d") };
    book.merge(Kind::Device, lists(&[retried], &[paired("old", 5)]), UnixMs(6_000));
    assert_eq!(book.view(), before);
}

#[derive(Clone, Debug)]
enum Step {
    Requested(u8, u8),
    Resolved(u8, bool),
    Listed(Vec<(u8, u8)>, Vec<(u8, u16)>),
    Presence(Vec<u8>),
    Ours(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6u8, 0..4u8).prop_map(|(r, d)| Step::Requested(r, d)),
        (0..6u8, any::<bool>()).prop_map(|(r, a)| Step::Resolved(r, a)),
        (proptest::collection::vec((0..6u8, 0..4u8), 0..4), proptest::collection::vec((0..4u8, 0..50u16), 0..4))
            .prop_map(|(p, a)| Step::Listed(p, a)),
        proptest::collection::vec(0..4u8, 0..4).prop_map(Step::Presence),
        (0..6u8).prop_map(Step::Ours),
    ]
}

proptest! {
    /// Whatever order events and lists come in: after a list the view holds exactly what it says, a request is told
    /// as raised before it is told as gone, never twice in a row, and memory stays bounded.
    #[test]
    fn the_view_follows_the_gateway(steps in proptest::collection::vec(step(), 1..60)) {
        let mut book = Book::default();
        let mut waiting: HashSet<String> = HashSet::new();
        for (n, step) in steps.into_iter().enumerate() {
            let now = UnixMs(n as u64 * 1_000);
            let happened = match step.clone() {
                Step::Requested(r, d) => book.requested(request(&format!("r{r}"), &format!("d{d}"))),
                Step::Resolved(r, approved) => book.resolved(Kind::Device, &format!("r{r}"), approved),
                Step::Presence(ids) => {
                    book.presence(ids.iter().map(|d| format!("d{d}")).collect());
                    Vec::new()
                }
                Step::Ours(r) => {
                    book.sending(&request(&format!("r{r}"), "d0"), "control", &Expect::default());
                    Vec::new()
                }
                Step::Listed(pending, approved) => {
                    let mut seen = HashSet::new();
                    let mut devices = HashSet::new();
                    let pending: Vec<Pending> = pending
                        .into_iter()
                        .filter(|(r, d)| seen.insert(*r) && devices.insert(*d))
                        .map(|(r, d)| request(&format!("r{r}"), &format!("d{d}")))
                        .collect();
                    let approved: Vec<Approved> =
                        approved.into_iter().map(|(d, at)| paired(&format!("d{d}"), at.into())).collect();
                    let happened = book.merge(Kind::Device, lists(&pending, &approved), now);
                    let mut listed: Vec<_> = pending.iter().map(|p| p.request_id.clone()).collect();
                    let mut shown: Vec<_> = book.view().pending.into_iter().map(|p| p.request_id).collect();
                    listed.sort();
                    shown.sort();
                    prop_assert_eq!(listed, shown);
                    let listed: HashSet<_> = approved.iter().map(|a| a.device_id.clone()).collect();
                    let shown: HashSet<_> = book.view().approved.into_iter().map(|a| a.device_id).collect();
                    prop_assert_eq!(listed, shown);
                    happened
                }
            };
            for event in happened {
                match event {
                    Happened::Requested(p) => prop_assert!(waiting.insert(p.request_id)),
                    Happened::Resolved(p, _) => prop_assert!(waiting.remove(&p.request_id)),
                    Happened::OutOfBand(a) => prop_assert_eq!(a.approved_by, "out_of_band"),
                    Happened::Removed(_) | Happened::Exceeded(..) => {}
                }
            }
            prop_assert!(book.past.len() <= FATES && book.ours.len() <= OURS);
        }
    }
}
