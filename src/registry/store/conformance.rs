//! What every store must do, written once and run on each.

mod amend;
mod history;
mod lists;
mod model;

use tokio::sync::broadcast;

use super::{Blind, Change, Changed, Counts, Filter, Key, Order, Outcome, Store, Unavailable, Webhook, Work};
use crate::clock::UnixMs;
use crate::registry::tenant::{Digest, Entry, EntryKind, Last, Row, Status};

/// Each behaviour is a test of its own on SQLite; on PostgreSQL, whose server takes a second to make, one test runs all
/// of them, each in a new database.
macro_rules! behaviours {
    ($($module:ident :: $name:ident),* $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let dir = tempfile::tempdir().unwrap();
                    let store = super::super::sqlite::Sqlite::open(&dir.path().join("registry.db")).unwrap();
                    super::$module::$name(&store).await;
                }
            )*
        }

        #[cfg(feature = "postgres")]
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn on_postgres() {
            let Some(server) = super::postgres::tests::Server::start() else { return };
            $({
                eprintln!("{}", stringify!($name));
                let url = server.database(stringify!($name)).await;
                let store = super::postgres::Postgres::connect(&url, None).await.unwrap();
                $module::$name(&store).await;
            })*
        }
    };
}

behaviours![
    amend::changes_are_made_in_order,
    amend::credentials_are_unique,
    amend::credentials_are_unique_among_concurrent_batches,
    amend::a_failing_batch_leaves_nothing,
    amend::concurrent_batches_lose_nothing,
    amend::a_tenant_is_read_as_of_one_moment,
    amend::listeners_are_told,
    amend::texts_come_back_as_they_were,
    lists::pages_are_by_id,
    lists::the_most_urgent_come_first,
    lists::filters_choose,
    lists::text_is_taken_literally,
    lists::counts_are_of_those_not_retired,
    lists::overdue_are_found,
    history::timelines_are_paged,
    history::positions_appear_in_order,
    history::blind_times_are_kept,
    history::old_things_are_removed_in_bounds,
    history::keys_have_one_name_each,
    history::webhooks_begin_at_the_newest_line,
    model::as_a_plain_map_would,
];

#[cfg(feature = "postgres")]
pub(super) use amend::told;

/// A digest made of one byte.
pub(super) fn digest(n: u8) -> Digest {
    [n; 32]
}

/// A moment after the start of the tests' time.
pub(super) fn at(ms: u64) -> UnixMs {
    UnixMs(1_795_000_000_000 + ms)
}

/// A tenant that was heard of.
pub(super) fn row(id: &str) -> Row {
    let mut row = Row::new(id, "", vec![], at(0));
    row.status = Status::Ready;
    row.last = Some(last());
    row
}

pub(super) fn last() -> Last {
    Last {
        received_at: at(0),
        booted_at: at(0),
        lives: vec![],
        next_s: Some(300),
        bye: None,
        phase: "ready".to_owned(),
        phase_reason: String::new(),
        pending_count: 0,
        pending: vec![],
        pending_since: None,
        pending_told: false,
        errors: vec![],
        warnings: vec![],
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

/// `row` changed in what its machine said last.
pub(super) fn said(id: &str, change: impl FnOnce(&mut Last)) -> Row {
    let mut row = row(id);
    change(row.last.as_mut().unwrap());
    row
}

pub(super) fn line(text: &str) -> Entry {
    let data = serde_json::json!({ "text": text });
    Entry { seq: 0, tenant: String::new(), at: at(0), kind: EntryKind::Status, text: text.to_owned(), data }
}

pub(super) fn work(tenant: &str, act: impl Fn(Option<&Row>) -> Change + Send + Sync + 'static) -> Work {
    Work { tenant: tenant.to_owned(), act: Box::new(act) }
}

/// Makes the row so, whatever it was.
pub(super) fn put(row: &Row) -> Work {
    let row = row.clone();
    work(&row.id.clone(), move |_| Change { row: Some(row.clone()), ..Change::default() })
}

/// Adds history lines to a tenant.
pub(super) fn append(tenant: &str, texts: &[&str]) -> Work {
    let entries: Vec<Entry> = texts.iter().map(|text| line(text)).collect();
    work(tenant, move |_| Change { entries: entries.clone(), ..Change::default() })
}

pub(super) async fn put_all(store: &dyn Store, rows: &[Row]) {
    store.amend(rows.iter().map(put).collect()).await.unwrap();
}

pub(super) async fn found(store: &dyn Store, id: &str) -> Option<Row> {
    store.tenant(id.to_owned()).await.unwrap().map(|(row, _)| row)
}

/// One more label letter, so that every kept change shows.
pub(super) fn lengthen(tenant: &str) -> Work {
    work(tenant, |row| {
        let mut row = row.unwrap().clone();
        row.label.push('x');
        Change { entries: vec![line(&row.label)], row: Some(row), ..Change::default() }
    })
}

/// Counts as the rows themselves say.
pub(super) fn counted<'a>(rows: impl Iterator<Item = &'a Row>) -> Counts {
    let mut counts = Counts::default();
    for row in rows.filter(|row| row.retired_at.is_none()) {
        *counts.status.entry(row.status.name().to_owned()).or_default() += 1;
        counts.pairing += u64::from(row.pairing_waits());
        let Some(last) = &row.last else { continue };
        let codes: std::collections::BTreeSet<&String> = last.errors.iter().chain(&last.warnings).collect();
        for code in codes {
            *counts.finding.entry(code.clone()).or_default() += 1;
        }
        for (map, name) in [(&mut counts.version, &last.gateway_version), (&mut counts.region, &last.region)] {
            if !name.is_empty() {
                *map.entry(name.clone()).or_default() += 1;
            }
        }
    }
    counts
}

/// A call's own deadline, and a little for a machine that is busy.
pub(super) async fn refused<T: std::fmt::Debug>(call: super::Answered<'_, T>) -> String {
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), call).await;
    let Unavailable(why) = answer.expect("answers within its deadline").expect_err("is unavailable");
    why
}

/// The outcomes of a batch.
pub(super) async fn outcomes(store: &dyn Store, work: Vec<Work>) -> Vec<Outcome> {
    store.amend(work).await.unwrap()
}

/// A fleet as the first schema kept it, in SQL that every store understands but for the empty list; [`comes_from_the_first_schema`] reads it.
pub(super) fn of_the_first_schema(no_credentials: &str) -> String {
    let doc = serde_json::to_string(&last()).unwrap();
    let (begun, due) = (at(0).0, at(300_000).0);
    let tenant = |id: &str, status: &str, retired: &str, due: &str| {
        format!(
            "INSERT INTO tenant (id, label, created_at, retired_at, credentials, status, status_since, due_at, waits,
                untold_since, version, region, codes, search)
             VALUES ('{id}', '', {begun}, {retired}, {no_credentials}, '{status}', {begun}, {due}, false, NULL, '', '', '', '{id}');"
        )
    };
    let (due, begun) = (due.to_string(), begun.to_string());
    let mut sql = tenant("silent", "provisioning", "NULL", "NULL");
    for status in Status::ALL {
        sql += &tenant(&format!("z-{status}"), status.name(), "NULL", "NULL");
    }
    for (id, status, retired) in
        [("a", "ready", "NULL"), ("b", "ready", "NULL"), ("asleep", "asleep", "NULL"), ("gone", "ready", &begun)]
    {
        sql += &tenant(id, status, retired, &due);
        sql = format!("{sql}INSERT INTO last VALUES ('{id}', '{doc}');");
    }
    sql + "INSERT INTO report VALUES ('a', '{\"n\":1}');"
}

/// What [`of_the_first_schema`] wrote is there, and goes on.
pub(super) async fn comes_from_the_first_schema(store: &dyn Store) {
    let (a, report) = store.tenant("a".to_owned()).await.unwrap().unwrap();
    assert_eq!((a, report.as_deref()), (row("a"), Some("{\"n\":1}")));
    assert_eq!(store.tenant("b".to_owned()).await.unwrap(), Some((row("b"), None)));
    assert_eq!(found(store, "silent").await.unwrap().last, None);
    let mut rows = store.list(Filter::default(), Order::default(), 100).await.unwrap();
    rows.sort_by_key(|row| (row.urgency(), row.id.clone()));
    assert_eq!(store.list(Filter::default(), Order::Urgency(None), 100).await.unwrap(), rows);
    let late = async || store.overdue(at(300_001), at(0), None, 10).await.unwrap();
    assert_eq!(late().await, ["a", "b"], "neither who sleeps nor who is retired");
    let mut later = row("a");
    later.last.as_mut().unwrap().received_at = at(100_000);
    put_all(store, std::slice::from_ref(&later)).await;
    assert_eq!(late().await, ["b"]);
    let (a, report) = store.tenant("a".to_owned()).await.unwrap().unwrap();
    assert_eq!((a, report.as_deref()), (later, Some("{\"n\":1}")));
}
