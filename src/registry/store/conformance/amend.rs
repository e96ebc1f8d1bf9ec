//! Changes: order, uniqueness, all or nothing.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::*;

pub(super) async fn changes_are_made_in_order(store: &dyn Store) {
    assert_eq!(found(store, "a").await, None);
    let refuse = |row: Option<&Row>| Change {
        outcome: if row.is_some() { Outcome::Exists } else { Outcome::NoTenant },
        ..Change::default()
    };
    let report = |text: &str| {
        let report = Some(text.to_owned());
        move |_: Option<&Row>| Change { report: report.clone(), ..Change::default() }
    };
    let batch = vec![
        work("a", refuse),
        put(&row("a")),
        work("a", refuse),
        lengthen("a"),
        put(&row("b")),
        lengthen("a"),
        work("b", report("{\"n\":1}")),
        work("b", report("{\"n\":2}")),
        work("nobody", report("{}")),
    ];
    let mut expected = vec![Outcome::Done; 9];
    (expected[0], expected[2]) = (Outcome::NoTenant, Outcome::Exists);
    assert_eq!(outcomes(store, batch).await, expected);
    assert_eq!(found(store, "a").await.unwrap().label, "xx");
    outcomes(store, vec![lengthen("b")]).await;
    let (b, report) = store.tenant("b".to_owned()).await.unwrap().unwrap();
    assert_eq!((b.label.as_str(), report.as_deref()), ("x", Some("{\"n\":2}")), "a change without a report keeps it");
    assert_eq!(found(store, "nobody").await, None, "a report alone makes no tenant");
    outcomes(store, vec![put(&row("nobody"))]).await;
    assert_eq!(store.tenant("nobody".to_owned()).await.unwrap().unwrap().1, None);
    let lines: Vec<String> = store.entries_after(0, 10).await.unwrap().into_iter().map(|e| e.text).collect();
    assert_eq!(lines, ["x", "xx", "x"], "history is in the order of the work");
    // What was said may become unsaid.
    let mut silent = row("a");
    silent.last = None;
    put_all(store, &[silent.clone()]).await;
    assert_eq!(found(store, "a").await, Some(silent));
    assert_eq!(outcomes(store, vec![]).await, []);
}

fn holding(id: &str, digests: &[u8]) -> Row {
    Row { credentials: digests.iter().map(|n| digest(*n)).collect(), ..row(id) }
}

pub(super) async fn credentials_are_unique(store: &dyn Store) {
    let owner = async |n| store.owner(digest(n)).await.unwrap();
    put_all(store, &[holding("a", &[2, 1])]).await;
    assert_eq!(owner(1).await.as_deref(), Some("a"));
    assert_eq!(found(store, "a").await.unwrap().credentials, [digest(2), digest(1)], "in their order");
    assert_eq!(owner(9).await, None);
    // Another's, one new twice in a batch, and one that its holder lets go just before.
    let steal = holding("b", &[3, 1]);
    let told = work("b", move |_| Change { entries: vec![line("b")], row: Some(steal.clone()), ..Change::default() });
    let batch = vec![
        told,
        put(&holding("c", &[4])),
        put(&holding("d", &[4])),
        put(&holding("a", &[2, 5])),
        put(&holding("e", &[1])),
        put(&holding("a", &[5, 1])),
    ];
    let (done, taken) = (Outcome::Done, Outcome::CredentialTaken);
    assert_eq!(outcomes(store, batch).await, [taken.clone(), done.clone(), taken.clone(), done.clone(), done, taken]);
    assert_eq!([found(store, "b").await, found(store, "d").await], [None, None]);
    assert_eq!(store.entries_after(0, 10).await.unwrap(), [], "nothing of what was refused is kept");
    assert_eq!(found(store, "a").await.unwrap().credentials, [digest(2), digest(5)]);
    let owners = [owner(1).await, owner(2).await, owner(3).await, owner(4).await, owner(5).await];
    assert_eq!(owners.map(Option::unwrap_or_default), ["e", "a", "", "c", "a"]);
    // Two tenants change places.
    put_all(store, &[holding("a", &[]), holding("c", &[2]), holding("a", &[4])]).await;
    assert_eq!([owner(2).await, owner(4).await].map(Option::unwrap), ["c", "a"]);
}

pub(super) async fn credentials_are_unique_among_concurrent_batches(store: &dyn Store) {
    for round in 0..10_u8 {
        let claims = (0..8).map(|n| {
            let mut batch = vec![put(&row("shared")), put(&holding(&format!("r{round}-{n}"), &[round + 1]))];
            if n % 2 == 1 {
                batch.reverse();
            }
            store.amend(batch)
        });
        let answers = join_all(claims).await.into_iter().flat_map(Result::unwrap);
        assert_eq!(answers.filter(|outcome| *outcome == Outcome::CredentialTaken).count(), 7);
        let owner = store.owner(digest(round + 1)).await.unwrap().unwrap();
        let rows = store
            .list(Filter { text: Some(format!("r{round}-")), ..Filter::default() }, Order::default(), 10)
            .await
            .unwrap();
        assert_eq!(rows.into_iter().map(|row| row.id).collect::<Vec<_>>(), [owner]);
    }
}

pub(super) async fn a_failing_batch_leaves_nothing(store: &dyn Store) {
    put_all(store, &[holding("a", &[1])]).await;
    std::panic::set_hook(Box::new(|_| ()));
    let fails = work("c", |_| panic!("a rule that is wrong"));
    let batch = vec![put(&holding("b", &[2])), lengthen("a"), append("a", &["told"]), fails];
    assert_eq!(refused(store.amend(batch)).await, "the registry failed inside");
    let _ = std::panic::take_hook();
    assert_eq!(found(store, "a").await.unwrap().label, "");
    assert_eq!((found(store, "b").await, store.owner(digest(2)).await.unwrap()), (None, None));
    assert_eq!(store.entries_after(0, 10).await.unwrap(), []);
    outcomes(store, vec![lengthen("a")]).await;
    assert_eq!(found(store, "a").await.unwrap().label, "x", "the store goes on");
}

pub(super) async fn concurrent_batches_lose_nothing(store: &dyn Store) {
    let ids = ["a", "b", "c", "d"];
    put_all(store, &ids.map(row)).await;
    // Each batch names the tenants in another order: what locks rows in that order meets itself.
    let writer = async |n: usize| {
        for turn in 0..20 {
            let mut order = ids;
            order.rotate_left((n + turn) % 4);
            outcomes(store, order.iter().map(|id| lengthen(id)).collect()).await;
        }
    };
    join_all((0..8).map(writer)).await;
    for id in ids {
        assert_eq!(found(store, id).await.unwrap().label.len(), 160);
        let lines = store.timeline(Some(id.to_owned()), None, 1000).await.unwrap();
        let lengths: Vec<usize> = lines.iter().rev().map(|line| line.text.len()).collect();
        assert_eq!(lengths, (1..=160).collect::<Vec<_>>(), "each change saw the one before");
    }
}

pub(super) async fn listeners_are_told(store: &dyn Store) {
    let mut changes = store.changes();
    let quiet = work("quiet", |_| Change { outcome: Outcome::Unchanged, ..Change::default() });
    outcomes(store, vec![quiet, put(&row("b")), append("a", &["x"]), put(&row("b"))]).await;
    assert_eq!(told(&mut changes, 2).await, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    let many: Vec<Row> = (0..2000).map(|n| row(&format!("tenant-with-a-long-name-{n}"))).collect();
    put_all(store, &many).await;
    assert_eq!(told(&mut changes, 1).await, BTreeSet::from([String::new()]), "too many: everything anew");
}

/// The tenants of the next `n` changes.
pub(in super::super) async fn told(changes: &mut broadcast::Receiver<Changed>, n: usize) -> BTreeSet<String> {
    let mut tenants = BTreeSet::new();
    while tenants.len() < n {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), changes.recv()).await;
        tenants.insert(next.expect("is told").unwrap().tenant);
    }
    tenants
}

pub(super) async fn texts_come_back_as_they_were(store: &dyn Store) {
    let texts = [
        "it's \"quoted\" \\ and -- ; DROP TABLE tenant; $1 ?1 :a",
        "𝔬𝔭𝔢𝔫🦞 Ünï ÇÖDÉ",
        "\u{202e}עברית\u{200f}\u{feff}",
        "line\nbreak\r\ttab\u{1}\u{7f}",
        &"8 KiB".repeat(1639),
        "",
    ];
    for (n, text) in texts.iter().enumerate() {
        let id = format!("t{n}");
        let mut hostile = said(&id, |last| {
            last.phase_reason = (*text).to_owned();
            last.region = (*text).to_owned();
            last.errors = vec![(*text).to_owned()];
            last.pending = vec![(*text).to_owned()];
        });
        hostile.label = (*text).to_owned();
        let report = serde_json::json!({ "text": text }).to_string();
        let change = Change {
            row: Some(hostile.clone()),
            report: Some(report.clone()),
            entries: vec![line(text)],
            outcome: Outcome::Done,
        };
        outcomes(store, vec![work(&id, move |_| change.clone())]).await;
        assert_eq!(store.tenant(id.clone()).await.unwrap(), Some((hostile, Some(report))));
        let lines = store.timeline(Some(id.clone()), None, 10).await.unwrap();
        assert_eq!((lines[0].text.as_str(), &lines[0].data["text"]), (*text, &serde_json::json!(text)));
        assert_eq!(lines[0].tenant, id);
    }
    // NUL cannot be kept everywhere; it is replaced where it stands alone and kept inside JSON.
    let mut nul = said("nul", |last| (last.region, last.phase) = ("n\0l".to_owned(), "n\0l".to_owned()));
    nul.label = "n\0l".to_owned();
    outcomes(store, vec![put(&nul), append("nul", &["n\0l"])]).await;
    nul.label = "n\u{fffd}l".to_owned();
    assert_eq!(found(store, "nul").await, Some(nul));
    let line = store.timeline(Some("nul".to_owned()), None, 1).await.unwrap().remove(0);
    assert_eq!((line.text.as_str(), &line.data["text"]), ("n\u{fffd}l", &serde_json::json!("n\0l")));
    let by_region = Filter { region: Some("n\0l".to_owned()), text: Some("N\0L".to_owned()), ..Filter::default() };
    assert_eq!(store.list(by_region, Order::Id(Some("\0".to_owned())), 10).await.unwrap().len(), 1);
    assert_eq!(found(store, "n\0l").await, None);
    assert_eq!(store.timeline(Some("n\0l".to_owned()), None, 1).await.unwrap(), []);
    assert!(!store.drop_key("n\0l".to_owned()).await.unwrap());
    assert!(!store.drop_webhook("n\0l".to_owned()).await.unwrap());
}

pub(super) async fn a_tenant_is_read_as_of_one_moment(store: &dyn Store) {
    let numbered = |n: u32| {
        let row = Row { label: n.to_string(), ..said("a", |last| last.phase_reason = n.to_string()) };
        work("a", move |_| Change { row: Some(row.clone()), report: Some(n.to_string()), ..Change::default() })
    };
    store.amend(vec![numbered(0)]).await.unwrap();
    let writes = async {
        for n in 1..=300 {
            store.amend(vec![numbered(n)]).await.unwrap();
        }
    };
    let reads = async {
        loop {
            let (row, report) = store.tenant("a".to_owned()).await.unwrap().unwrap();
            let reason = row.last.unwrap().phase_reason;
            assert_eq!((Some(&row.label), Some(reason.as_str())), (report.as_ref(), report.as_deref()));
            if row.label == "300" {
                return;
            }
        }
    };
    tokio::join!(writes, reads);
}
