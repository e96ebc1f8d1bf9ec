//! What only this store can meet: other instances, and a server that goes away. The server is real, made by the test.

#[path = "../../../../tests/support/postgres.rs"]
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

pub(in super::super) use server::Server;

use super::super::conformance::{
    append, comes_from_the_first_schema, found, lengthen, of_the_first_schema, put_all, refused, row, told,
};
use super::connect::MIGRATIONS;
use super::*;

/// How a run through a fault went so far.
#[derive(Debug, Default)]
struct Went {
    kept: AtomicUsize,
    refused: AtomicUsize,
}

impl Went {
    fn so_far(&self) -> (usize, usize) {
        (self.kept.load(Ordering::SeqCst), self.refused.load(Ordering::SeqCst))
    }
}

/// Changes the tenant until the store has refused, and then taken one again.
async fn change_through_a_fault(store: &Postgres, went: &Went) {
    loop {
        let answer = timeout(Duration::from_secs(10), store.amend(vec![lengthen("a")])).await;
        let refused = if answer.expect("answers within its deadline").is_ok() {
            went.kept.fetch_add(1, Ordering::SeqCst);
            went.so_far().1
        } else {
            went.refused.fetch_add(1, Ordering::SeqCst);
            0
        };
        if refused > 0 {
            return;
        }
    }
}

async fn until(done: impl Fn() -> bool) {
    let reached = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(120), reached).await.expect("is reached");
}

/// What is there now is what was acknowledged, and at most those of which nothing was heard.
async fn nothing_is_lost(store: &Postgres, kept: usize, refused: usize) {
    let found = found(store, "a").await.unwrap().label.len();
    assert!((kept..=kept + refused).contains(&found), "{kept} acknowledged, {refused} refused, {found} found");
    assert_eq!(store.entries_after(0, 100_000).await.unwrap().len(), found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_its_server() {
    let Some(server) = Server::start() else { return };
    let store = Postgres::connect(&server.database("one").await, None).await.unwrap();
    put_all(&store, &[row("a")]).await;
    assert!(store.leads().await.unwrap());
    let mut changes = store.changes();

    let went = Went::default();
    let crash = async {
        until(|| went.so_far().0 >= 100).await;
        tokio::task::block_in_place(|| server.crash());
        let why = refused(store.tenant("a".to_owned())).await;
        assert!(why.contains("PostgreSQL cannot be reached"), "{why}");
        refused(store.leads()).await;
        refused(store.counts()).await;
        tokio::task::block_in_place(|| server.up());
    };
    tokio::join!(change_through_a_fault(&store, &went), crash);
    let (before, unheard) = went.so_far();
    nothing_is_lost(&store, before, unheard).await;
    let heard = async { while !changes.recv().await.is_ok_and(|told| told.tenant.is_empty()) {} };
    timeout(Duration::from_secs(10), heard).await.expect("is told that it missed something");
    assert!(store.leads().await.unwrap(), "leads again, with a new lock");

    let before = found(&store, "a").await.unwrap().label.len();
    let went = Went::default();
    let kill = async {
        // One that comes between two calls is not noticed: again, until one was.
        while went.so_far().1 == 0 {
            let (kept, _) = went.so_far();
            until(|| went.so_far().0 >= kept + 20 || went.so_far().1 > 0).await;
            server.kill_connections("one").await;
        }
    };
    tokio::join!(change_through_a_fault(&store, &went), kill);
    let (kept, unheard) = went.so_far();
    nothing_is_lost(&store, before + kept, unheard).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_instances_serve_one_fleet() {
    let Some(server) = Server::start() else { return };
    let url = server.database("one").await;
    // Both at once make the schema.
    let (one, two) = tokio::join!(Postgres::connect(&url, None), Postgres::connect(&url, None));
    let (one, two) = (one.unwrap(), two.unwrap());
    let ids: Vec<String> = (0..10).map(|n| format!("t{n}")).collect();
    put_all(&one, &ids.iter().map(|id| row(id)).collect::<Vec<_>>()).await;

    let changed = async |store: &Postgres, reverse: bool| {
        for turn in 0..100 {
            let mut order: Vec<&String> = ids.iter().cycle().skip(turn % 7).take(10).collect();
            if reverse {
                order.reverse();
            }
            store.amend(order.into_iter().map(|id| lengthen(id)).collect()).await.unwrap();
        }
    };
    tokio::join!(changed(&one, false), changed(&two, true));
    for id in &ids {
        assert_eq!(found(&one, id).await.unwrap().label.len(), 200, "1,000 changes of each, none lost");
    }
    for (writer, listener) in [(&one, &two), (&two, &one)] {
        let mut changes = listener.changes();
        let seen = async { while told(&mut changes, 1).await.first().map(String::as_str) != Some("other") {} };
        let ((), done) = tokio::join!(seen, writer.amend(vec![append("other", &["x"])]));
        done.unwrap();
    }

    assert!(one.leads().await.unwrap() && one.leads().await.unwrap());
    assert!(!two.leads().await.unwrap(), "one leads");
    // The lock ends with the connection that holds it, and another instance takes it.
    drop(one);
    let leads = async { while !two.leads().await.unwrap() {} };
    timeout(Duration::from_secs(10), leads).await.expect("another leads");

    let other = server.client("one").await;
    other.batch_execute("BEGIN; SELECT id FROM tenant WHERE id = 't3' FOR UPDATE").await.unwrap();
    let why = refused(two.amend(vec![lengthen("t1"), lengthen("t3")])).await;
    assert!(why.contains("lock timeout") || why.contains("did not answer"), "{why}");
    assert_eq!(found(&two, "t1").await.unwrap().label.len(), 200, "nothing of it was kept");
    other.batch_execute("ROLLBACK").await.unwrap();
    join_all((0..20).map(|_| two.amend(vec![lengthen("t1"), lengthen("t3")]))).await.into_iter().for_each(|done| {
        done.unwrap();
    });
    assert_eq!(found(&two, "t3").await.unwrap().label.len(), 220);

    server.execute("one", "INSERT INTO registry_schema VALUES (99)").await;
    let why = Postgres::connect(&url, None).await.unwrap_err();
    assert!(why.contains(&format!("newer version (schema 99, this one knows {})", MIGRATIONS.len())), "{why}");
    server
        .execute("postgres", "CREATE DATABASE odd ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        .await;
    let why = Postgres::connect(&server.url("odd"), None).await.unwrap_err();
    assert!(why.contains("encoding is LATIN1"), "{why}");
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_taken_over() {
    let Some(server) = Server::start() else { return };
    let url = server.database("old").await;
    let version = "CREATE TABLE registry_schema (version integer NOT NULL); INSERT INTO registry_schema VALUES (1);";
    for sql in [version, MIGRATIONS[0], &of_the_first_schema("''")] {
        server.execute("old", sql).await;
    }
    comes_from_the_first_schema(&Postgres::connect(&url, None).await.unwrap()).await;
}

#[tokio::test]
async fn says_what_it_cannot_and_never_the_password() {
    for (url, expected) in [
        ("postgres://u:pa55word@localhost/db?pa55word=1", "cannot be read"),
        ("postgres://u:pa55word@127.0.0.1:1/db", "cannot be reached"),
    ] {
        let why = Postgres::connect(url, None).await.unwrap_err();
        assert!(why.contains(expected), "{url}: {why}");
        assert!(!why.contains("pa55word"), "{why}");
    }
}
