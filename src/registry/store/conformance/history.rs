//! History lines, blind times, keys, webhooks.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;

use super::*;

const DAY_MS: u64 = 24 * 3600 * 1000;

fn texts(entries: &[Entry]) -> String {
    entries.iter().map(|entry| entry.text.as_str()).collect::<Vec<_>>().join(" ")
}

pub(super) async fn timelines_are_paged(store: &dyn Store) {
    let mut kinds = Vec::new();
    for kind in EntryKind::ALL {
        let line = Entry { kind, ..line(kind.name()) };
        kinds.push(work("kinds", move |_| Change { entries: vec![line.clone()], ..Change::default() }));
    }
    outcomes(store, kinds).await;
    let all = store.timeline(Some("kinds".to_owned()), None, 100).await.unwrap();
    assert_eq!(all.iter().rev().map(|entry| entry.kind).collect::<Vec<_>>(), EntryKind::ALL, "newest first");
    outcomes(store, vec![append("a", &["1", "2"]), append("b", &["3"]), append("a", &["4", "5"])]).await;
    let of = async |tenant: Option<&str>, before, limit| {
        store.timeline(tenant.map(str::to_owned), before, limit).await.unwrap()
    };
    let page = of(Some("a"), None, 3).await;
    assert_eq!(texts(&page), "5 4 2");
    assert_eq!(texts(&of(Some("a"), Some(page[2].seq), 3).await), "1");
    let page = of(None, None, 4).await;
    assert_eq!(texts(&page), "5 4 3 2");
    assert_eq!(texts(&of(None, Some(page[3].seq), 2).await), "1 audit");
    assert_eq!(texts(&of(Some("nobody"), None, 2).await), "");
    assert_eq!(texts(&of(Some("a"), Some(u64::MAX), 1).await), "5");
    let oldest = page[3].seq;
    assert_eq!(texts(&store.entries_after(oldest, 2).await.unwrap()), "3 4");
    assert_eq!(store.entries_after(page[0].seq, 2).await.unwrap(), []);
    assert_eq!(store.entries_after(u64::MAX, 2).await.unwrap(), []);
}

pub(super) async fn positions_appear_in_order(store: &dyn Store) {
    const WRITERS: usize = 8;
    const TURNS: usize = 40;
    let running = AtomicUsize::new(WRITERS);
    let writer = async |n: usize| {
        for turn in 0..TURNS {
            let (id, text) = (format!("w{n}"), format!("{turn}"));
            outcomes(store, vec![put(&row(&id)), append(&id, &[&text, "and"])]).await;
        }
        running.fetch_sub(1, Ordering::SeqCst);
    };
    // Follows the newest line as a delivery does: what it passed over it never sees.
    let reader = async {
        let mut seen: Vec<Entry> = Vec::new();
        loop {
            let over = running.load(Ordering::SeqCst) == 0;
            let after = seen.last().map_or(0, |entry| entry.seq);
            let more = store.entries_after(after, 50).await.unwrap();
            if over && more.is_empty() {
                return seen;
            }
            seen.extend(more);
        }
    };
    let (seen, _) = tokio::join!(reader, join_all((0..WRITERS).map(writer)));
    assert!(seen.is_sorted_by(|x, y| x.seq < y.seq));
    assert_eq!(seen.len(), WRITERS * TURNS * 2);
    assert_eq!(seen, store.entries_after(0, 10_000).await.unwrap());
}

pub(super) async fn blind_times_are_kept(store: &dyn Store) {
    let (now, gap) = (at(0), 30_000);
    store.alive(now, gap).await.unwrap();
    assert_eq!(store.blind(UnixMs(0)).await.unwrap(), [], "the first sign of life ends nothing");
    store.alive(at(30_000), gap).await.unwrap();
    store.alive(at(29_000), gap).await.unwrap();
    assert_eq!(store.blind(UnixMs(0)).await.unwrap(), []);
    store.alive(at(60_000), gap).await.unwrap();
    store.alive(at(200_000), gap).await.unwrap();
    let expected = [Blind { from: at(29_000), to: at(60_000) }, Blind { from: at(60_000), to: at(200_000) }];
    assert_eq!(store.blind(UnixMs(0)).await.unwrap(), expected);
    assert_eq!(store.blind(at(59_999)).await.unwrap(), expected);
    assert_eq!(store.blind(at(60_000)).await.unwrap(), expected[1..]);
}

pub(super) async fn old_things_are_removed_in_bounds(store: &dyn Store) {
    let now = at(0).plus_ms(200 * DAY_MS);
    let gone = |days: u64| Some(UnixMs(now.0 - days * DAY_MS));
    let dated = |tenant: &str, days: u64, n: usize| {
        let entries = vec![Entry { at: gone(days).unwrap(), ..line("x") }; n];
        work(tenant, move |_| Change { entries: entries.clone(), ..Change::default() })
    };
    let mut rows: Vec<Row> = (0..1200).map(|n| Row { retired_at: gone(31), ..row(&format!("old-{n}")) }).collect();
    rows[0].credentials = vec![digest(7)];
    rows.push(Row { retired_at: gone(29), ..row("retired-lately") });
    rows.push(row("here"));
    put_all(store, &rows).await;
    outcomes(store, vec![dated("old-0", 91, 1500), dated("here", 89, 3)]).await;
    store.alive(at(0), 1).await.unwrap();
    store.alive(at(5), 1).await.unwrap();

    assert_eq!(store.prune(now).await.unwrap(), 1000 + 1000 + 1, "a bounded number at once");
    assert_eq!(store.prune(now).await.unwrap(), 500 + 200);
    assert_eq!(store.prune(now).await.unwrap(), 0);
    assert_eq!(store.blind(UnixMs(0)).await.unwrap(), []);
    assert_eq!(store.timeline(None, None, 10).await.unwrap().len(), 3);
    assert_eq!(found(store, "old-0").await, None);
    assert_eq!(store.owner(digest(7)).await.unwrap(), None, "its credential is free again");
    assert!(found(store, "retired-lately").await.is_some() && found(store, "here").await.is_some());
    assert_eq!(store.counts().await.unwrap(), counted([row("here")].iter()));
    put_all(store, &[row("old-0")]).await;
    assert_eq!(store.tenant("old-0".to_owned()).await.unwrap(), Some((row("old-0"), None)), "nothing old is left");
}

pub(super) async fn keys_have_one_name_each(store: &dyn Store) {
    let key = |id: &str, admin, expires_at| Key {
        id: id.to_owned(),
        digest: digest(1),
        admin,
        created_at: at(1),
        expires_at,
    };
    let (one, two) = (key("one", true, None), key("two", false, Some(at(9))));
    assert!(store.put_key(two.clone()).await.unwrap() && store.put_key(one.clone()).await.unwrap());
    assert!(!store.put_key(key("one", false, None)).await.unwrap(), "the name is taken");
    assert_eq!(store.keys().await.unwrap(), [one, two.clone()]);
    assert!(store.drop_key("one".to_owned()).await.unwrap() && !store.drop_key("one".to_owned()).await.unwrap());
    assert_eq!(store.keys().await.unwrap(), [two]);
}

pub(super) async fn webhooks_begin_at_the_newest_line(store: &dyn Store) {
    let hook = |url: &str, kinds: &[EntryKind]| Webhook {
        id: "w".to_owned(),
        url: url.to_owned(),
        kinds: kinds.to_vec(),
        created_at: at(1),
        cursor: 77,
        failures: 77,
        next_at: at(77),
        last_error: "77".to_owned(),
    };
    let only = async || store.webhooks().await.unwrap().pop().unwrap();
    let first = hook("https://one", &[EntryKind::Gap, EntryKind::Conflict]);
    store.put_webhook(first.clone()).await.unwrap();
    let fresh = Webhook { cursor: 0, failures: 0, next_at: UnixMs(0), last_error: String::new(), ..first.clone() };
    assert_eq!(only().await, fresh, "how deliveries went is not given when it is made");
    outcomes(store, vec![append("a", &["1", "2"])]).await;
    let newest = store.timeline(None, None, 1).await.unwrap()[0].seq;
    let went = Webhook { cursor: newest, failures: 3, next_at: at(9), last_error: "503".to_owned(), ..fresh };
    store.delivered(went.clone()).await.unwrap();
    assert_eq!(only().await, went);
    store.put_webhook(hook("https://two", &[])).await.unwrap();
    assert_eq!(only().await, Webhook { url: "https://two".to_owned(), kinds: vec![], ..went.clone() });
    assert!(store.drop_webhook("w".to_owned()).await.unwrap() && !store.drop_webhook("w".to_owned()).await.unwrap());
    store.delivered(went.clone()).await.unwrap();
    assert_eq!(store.webhooks().await.unwrap(), [], "what is gone stays gone");
    outcomes(store, vec![append("a", &["3"])]).await;
    store.put_webhook(first).await.unwrap();
    assert!(only().await.cursor > newest, "a new one begins after the newest line");
    store.delivered(went).await.unwrap();
    assert!(only().await.cursor > newest, "a late word of an earlier one does not set it back");
}
