//! What is read of the whole fleet.

use super::*;
use crate::checkin::wire::{Bye, Intent};

async fn ids(store: &dyn Store, filter: Filter) -> String {
    let rows = store.list(filter, Order::default(), 100).await.unwrap();
    rows.into_iter().map(|row| row.id).collect::<Vec<_>>().join(" ")
}

pub(super) async fn pages_are_by_id(store: &dyn Store) {
    let names = ["b", "B", "a-1", "a.1", "a1", "a", "_", "10", "9", "Z"];
    let mut rows: Vec<Row> = names.iter().map(|name| row(name)).collect();
    rows[0].retired_at = Some(at(1));
    put_all(store, &rows).await;
    rows.remove(0);
    rows.sort_by(|x, y| x.id.cmp(&y.id));
    let mut after = None;
    for expected in rows.chunks(4) {
        let page = store.list(Filter::default(), Order::Id(after), 4).await.unwrap();
        assert_eq!(page, expected);
        after = page.last().map(|row| row.id.clone());
    }
    assert_eq!(store.list(Filter::default(), Order::Id(after), 4).await.unwrap(), []);
    let between = store.list(Filter::default(), Order::Id(Some("Zz".to_owned())), 1).await.unwrap();
    assert_eq!(between[0].id, "_", "a page may begin where nobody is");
}

pub(super) async fn the_most_urgent_come_first(store: &dyn Store) {
    let mut rows: Vec<Row> = (0..36_usize)
        .map(|n| {
            let mut row = said(["a", "B", "_", "9"][n % 4], |last| {
                last.region = ["fra", "iad"][n % 2].to_owned();
                last.warnings = if n % 3 == 0 { vec!["slow".to_owned()] } else { Vec::new() };
            });
            row.id = format!("{}{n}", row.id);
            row.status = Status::ALL[n % Status::ALL.len()];
            row
        })
        .collect();
    put_all(store, &rows).await;
    // Then some become more or less urgent, and some go.
    rows[7].status = Status::Unreachable;
    rows[9].status = Status::Asleep;
    rows[12].last.as_mut().unwrap().warnings.clear();
    rows[20].retired_at = Some(at(1));
    put_all(store, &rows).await;
    rows.remove(20);
    rows.sort_by_key(|row| (row.urgency(), row.id.clone()));
    assert_eq!(rows[0].status, Status::Unreachable);
    let here = Filter { region: Some("fra".to_owned()), ..Filter::default() };
    let ready = Filter { status: Some(Status::Ready), ..Filter::default() };
    for filter in [Filter::default(), here, ready] {
        let wanted = |row: &&Row| {
            filter.status.is_none_or(|status| status == row.status)
                && filter.region.as_ref().is_none_or(|region| row.last.as_ref().is_some_and(|l| l.region == *region))
        };
        let expected: Vec<&Row> = rows.iter().filter(wanted).collect();
        let mut after = None;
        let mut found = Vec::new();
        loop {
            let page = store.list(filter.clone(), Order::Urgency(after), 5).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.urgency(), last.id.clone()));
            found.extend(page);
        }
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{filter:?}");
        let beyond = store.list(filter.clone(), Order::Urgency(Some((255, String::new()))), 5).await.unwrap();
        assert_eq!(beyond, [], "{filter:?}");
    }
}

pub(super) async fn filters_choose(store: &dyn Store) {
    let some = |text: &str| Some(text.to_owned());
    let bye = Bye { intent: Intent::Sleep, reason: String::new() };
    let mut crashed = said("crashed", |last| {
        (last.errors, last.warnings) = (vec!["port_in_use".to_owned()], vec!["slow".to_owned()]);
        (last.region, last.gateway_version) = ("fra".to_owned(), "2026.9.6".to_owned());
    });
    crashed.status = Status::Crashed;
    let waits = said("waits", |last| (last.pending_count, last.region) = (2, "fra".to_owned()));
    let mut asleep = said("asleep", |last| (last.pending_count, last.bye) = (1, Some(bye)));
    asleep.status = Status::Asleep;
    let mut retired = Row { id: "retired".to_owned(), ..crashed.clone() };
    retired.retired_at = Some(at(1));
    let fresh = Row::new("fresh", "", vec![], at(0));
    put_all(store, &[crashed, waits, asleep, retired, fresh]).await;

    let of = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        ids(store, filter)
    };
    assert_eq!(of(|_| ()).await, "asleep crashed fresh waits");
    assert_eq!(of(|f| f.status = Some(Status::Crashed)).await, "crashed");
    assert_eq!(of(|f| f.status = Some(Status::Provisioning)).await, "fresh");
    assert_eq!(of(|f| f.pairing = true).await, "waits");
    assert_eq!(of(|f| f.finding = Some("slow".to_owned())).await, "crashed");
    assert_eq!(of(|f| f.finding = Some("port_in_use".to_owned())).await, "crashed");
    assert_eq!(of(|f| f.finding = Some("low".to_owned())).await, "", "a part of a code is none");
    assert_eq!(of(|f| f.finding = Some("port_in_use,slow".to_owned())).await, "", "two codes are none");
    assert_eq!(of(|f| f.region = Some("fra".to_owned())).await, "crashed waits");
    assert_eq!(of(|f| f.region = Some("FRA".to_owned())).await, "");
    assert_eq!(of(|f| f.version = Some("2026.9.6".to_owned())).await, "crashed");
    assert_eq!(of(|f| f.version = Some("2026%".to_owned())).await, "");
    let both = Filter { region: some("fra"), pairing: true, text: some("AIT"), ..Filter::default() };
    assert_eq!(ids(store, both).await, "waits");
}

pub(super) async fn text_is_taken_literally(store: &dyn Store) {
    let labelled = |id: &str, label: &str| Row { label: label.to_owned(), ..row(id) };
    put_all(
        store,
        &[labelled("one", "100% Ünïted"), labelled("two", "100 of them"), labelled("t_3", "a\\b*[c]'"), row("TwoX")],
    )
    .await;
    let of = |text: &str| ids(store, Filter { text: Some(text.to_owned()), ..Filter::default() });
    assert_eq!(of("100%").await, "one");
    assert_eq!(of("0%").await, "one");
    assert_eq!(of("1%0").await, "");
    assert_eq!(of("t_").await, "t_3", "an underscore is one");
    assert_eq!(of("A\\B*[").await, "t_3");
    assert_eq!(of("c]'").await, "t_3");
    assert_eq!(of("üNÏTED").await, "one", "letters of any case, not only English ones");
    assert_eq!(of("TWO").await, "TwoX two");
    assert_eq!(of("").await, "TwoX one t_3 two");
    assert_eq!(of("two100").await, "", "no match from the id into the label");
    assert_eq!(of("two\u{1}100").await, "");
}

pub(super) async fn counts_are_of_those_not_retired(store: &dyn Store) {
    assert_eq!(store.counts().await.unwrap(), Counts::default());
    let mut rows: Vec<Row> = (0..30_u8)
        .map(|n| {
            let mut row = said(&format!("t{n}"), |last| {
                last.pending_count = u64::from(n % 3);
                last.gateway_version = ["", "2026.9.6", "2026.6.11"][usize::from(n % 3)].to_owned();
                last.region = ["fra", "iad"][usize::from(n % 2)].to_owned();
                last.errors = (0..n % 4).map(|k| format!("code_{k}")).collect();
                last.warnings = vec!["code_0".to_owned(), "slow".to_owned()];
            });
            row.status = Status::ALL[usize::from(n) % Status::ALL.len()];
            row
        })
        .collect();
    put_all(store, &rows).await;
    assert_eq!(store.counts().await.unwrap(), counted(rows.iter()));
    // Some change in one batch, more than once; some go.
    rows[0].status = Status::Crashed;
    rows[1].last = None;
    rows[2].retired_at = Some(at(5));
    let mut batch: Vec<Work> = rows.iter().take(3).map(put).collect();
    rows[0].status = Status::Asleep;
    batch.push(put(&rows[0]));
    outcomes(store, batch).await;
    assert_eq!(store.counts().await.unwrap(), counted(rows.iter()));
}

pub(super) async fn overdue_are_found(store: &dyn Store) {
    let after = async |id: &str, now: u64, before: u64, limit| {
        store.overdue(at(now), at(before), Some(id.to_owned()), limit).await.unwrap().join(" ")
    };
    let of =
        async |now: u64, before: u64, limit| store.overdue(at(now), at(before), None, limit).await.unwrap().join(" ");
    let with = |id: &str, status: Status, change: fn(&mut Last)| Row { status, ..said(id, change) };
    let waits = |last: &mut Last| (last.pending_count, last.pending_since, last.next_s) = (1, Some(at(50_000)), None);
    let mut rows = vec![
        with("due", Status::Ready, |last| last.next_s = Some(60)),
        with("crashed", Status::Crashed, |last| last.next_s = Some(60)),
        with("asleep", Status::Asleep, |last| last.next_s = Some(60)),
        with("unreachable", Status::Unreachable, |last| last.next_s = Some(60)),
        with("quiet", Status::Ready, |last| last.next_s = None),
        with("later", Status::Ready, |_| ()),
        with("retired", Status::Ready, |last| last.next_s = Some(60)),
        with("waits", Status::Unreachable, waits),
        Row::new("fresh", "", vec![], at(0)),
    ];
    let boots = |last: &mut Last| (last.phase, last.next_s) = ("starting".to_owned(), Some(3600));
    rows.push(with("boots", Status::Booting, boots));
    rows[6].retired_at = Some(at(1));
    let mut told = Row { id: "waits-told".to_owned(), ..rows[7].clone() };
    told.last.as_mut().unwrap().pending_told = true;
    rows.push(told);
    put_all(store, &rows).await;
    assert_eq!(of(60_000, 50_000, 9).await, "", "at its time it is not late yet");
    assert_eq!(of(60_001, 50_000, 9).await, "crashed due");
    assert_eq!(of(60_001, 50_001, 9).await, "crashed due waits");
    assert_eq!(of(60_001, 50_001, 2).await, "crashed due");
    assert_eq!(after("crashed", 60_001, 50_001, 1).await, "due");
    assert_eq!(after("due", 60_001, 50_001, 9).await, "waits");
    assert_eq!(of(400_000, 0, 9).await, "crashed due later");
    assert_eq!(of(600_001, 0, 9).await, "boots crashed due later", "a boot takes too long");
    assert_eq!(of(24 * 3_600_000 + 1, 0, 9).await, "boots crashed due later quiet");
}
