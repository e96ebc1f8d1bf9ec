//! A fleet of 100,000, measured.

use tokio::time::Instant;

use super::*;

const FLEET: usize = 100_000;

fn member(n: usize, turn: u64) -> Row {
    let mut row = said(&format!("tenant-{n:06}"), |last| {
        last.received_at = at(turn);
        last.phase_reason = "the gateway answers and says that all is well ".repeat(6);
        last.gateway_version = ["2026.9.6", "2026.6.11", "2026.4.9"][n % 3].to_owned();
        last.region = ["fra", "iad", "syd", "gru"][n % 4].to_owned();
        last.warnings = (0..n % 3).map(|k| format!("finding_{}", (n + k) % 20)).collect();
    });
    row.label = format!("Customer {n}");
    row.status = if n.is_multiple_of(10) { Status::Asleep } else { Status::Ready };
    row
}

fn batch(from: usize, size: usize, turn: u64) -> Vec<Work> {
    (from..from + size)
        .map(|n| {
            let change = Change {
                row: Some(member(n % FLEET, turn)),
                report: Some(format!("{{\"text\":\"{}\"}}", "x".repeat(2000))),
                ..Change::default()
            };
            work(&format!("tenant-{:06}", n % FLEET), move |_| change.clone())
        })
        .collect()
}

/// Prints what amends in batches and reads of a large fleet take.
pub(in super::super) async fn measure(name: &str, store: &dyn Store) {
    let mut from = 0;
    while from < FLEET {
        store.amend(batch(from, 1000, 0)).await.unwrap();
        from += 1000;
    }
    for size in [1, 64, 500] {
        let began = Instant::now();
        let mut done = 0;
        while began.elapsed().as_secs() < 5 {
            // Spread over the fleet, as check-ins are.
            let works = (0..size).flat_map(|k| batch((done + k) * 7919, 1, 1)).collect();
            store.amend(works).await.unwrap();
            done += size;
        }
        let ms = usize::try_from(began.elapsed().as_millis()).expect("no test lasts for ages").max(1);
        println!("{name}: batches of {size}: {} amends/s", done * 1000 / ms);
    }
    let nothing = |filter: fn(&mut Filter)| {
        let mut wanted = Filter::default();
        filter(&mut wanted);
        store.list(wanted, None, 100)
    };
    for turn in 0..3 {
        let mut began = Instant::now();
        let mut lap = |what: &str| {
            println!("{name}: {turn}: {what}: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
            began = Instant::now();
        };
        store.counts().await.unwrap();
        lap("counts");
        nothing(|f| f.text = Some("nobody is called so".to_owned())).await.unwrap();
        lap("list by text, none found");
        nothing(|f| f.finding = Some("finding_none".to_owned())).await.unwrap();
        lap("list by finding, none found");
        nothing(|f| f.status = Some(Status::Crashed)).await.unwrap();
        lap("list by status, none found");
        store.list(Filter::default(), None, 100).await.unwrap();
        lap("list, first page");
        store.overdue(at(0), at(0), None, 500).await.unwrap();
        lap("overdue, none found");
        store.owner(digest(1)).await.unwrap();
        lap("owner");
    }
}
