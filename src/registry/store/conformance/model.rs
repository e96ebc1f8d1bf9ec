//! Random changes, beside a plain map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};

use super::*;

/// What may be done to one of few tenants with few credentials.
#[derive(Clone, Debug)]
enum Step {
    /// The row becomes this.
    Put { label: String, status: usize, credentials: Vec<u8>, pending: u64, codes: Vec<u8>, retired: bool },
    /// A row that is there gets a letter more and says so.
    Lengthen,
    /// A report, a history line.
    Report(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let some = |n| proptest::collection::vec(0..n, 0..3_usize);
    let put = ("\\PC{0,4}", 0..9_usize, some(4_u8), 0..2_u64, some(5_u8), proptest::bool::weighted(0.2));
    prop_oneof![
        4 => put.prop_map(|(label, status, credentials, pending, codes, retired)| {
            Step::Put { label, status, credentials, pending, codes, retired }
        }),
        2 => Just(Step::Lengthen),
        1 => (0..9_u8).prop_map(Step::Report),
    ]
}

/// A store that cannot be simpler.
#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<String, Row>,
    reports: BTreeMap<String, String>,
    lines: Vec<(String, String)>,
}

impl Model {
    fn amend(&mut self, tenant: &str, change: Change) -> Outcome {
        if let Some(row) = &change.row {
            let of_others: BTreeSet<Digest> = self
                .rows
                .values()
                .filter(|other| other.id != tenant)
                .flat_map(|other| other.credentials.clone())
                .collect();
            if row.credentials.iter().any(|digest| of_others.contains(digest)) {
                return Outcome::CredentialTaken;
            }
            self.rows.insert(tenant.to_owned(), row.clone());
        }
        if let (Some(report), true) = (change.report, self.rows.contains_key(tenant)) {
            self.reports.insert(tenant.to_owned(), report);
        }
        self.lines.extend(change.entries.into_iter().map(|line| (tenant.to_owned(), line.text)));
        change.outcome
    }
}

fn rule(id: &str, case: u32, step: &Step) -> impl Fn(Option<&Row>) -> Change + Clone + Send + Sync + use<> {
    let (id, step) = (id.to_owned(), step.clone());
    move |current| match &step {
        Step::Put { label, status, credentials, pending, codes, retired } => {
            let mut row = said(&id, |last| {
                last.pending_count = *pending;
                last.errors = codes.iter().map(|code| format!("code_{code}")).collect();
                last.gateway_version = format!("v{pending}");
            });
            row.credentials = credentials.iter().map(|n| digest_of(case, *n)).collect();
            (row.label, row.status) = (label.clone(), Status::ALL[*status]);
            row.retired_at = retired.then(|| at(3));
            Change { row: Some(row), ..Change::default() }
        }
        Step::Lengthen => match current {
            Some(row) => {
                let row = Row { label: format!("{}x", row.label), ..row.clone() };
                Change { entries: vec![line(&row.label)], row: Some(row), ..Change::default() }
            }
            None => Change { outcome: Outcome::NoTenant, ..Change::default() },
        },
        Step::Report(n) => Change { report: Some(format!("{n}")), entries: vec![line("report")], ..Change::default() },
    }
}

/// Each case has tenants and credentials of its own.
fn digest_of(case: u32, n: u8) -> Digest {
    let mut digest = digest(n);
    digest[..4].copy_from_slice(&case.to_be_bytes());
    digest
}

async fn same(store: &dyn Store, case: u32, since: u64, model: &Model) -> Result<(), TestCaseError> {
    for (id, row) in &model.rows {
        let expected = Some((row.clone(), model.reports.get(id).cloned()));
        prop_assert_eq!(store.tenant(id.clone()).await.unwrap(), expected);
        for digest in &row.credentials {
            prop_assert_eq!(store.owner(*digest).await.unwrap(), Some(id.clone()));
        }
    }
    let here = Filter { text: Some(format!("c{case}-")), ..Filter::default() };
    let listed: Vec<Row> = model.rows.values().filter(|row| row.retired_at.is_none()).cloned().collect();
    prop_assert_eq!(store.list(here, Order::default(), 100).await.unwrap(), listed);
    let all = store.list(Filter::default(), Order::default(), 10_000).await.unwrap();
    prop_assert_eq!(store.counts().await.unwrap(), counted(all.iter()));
    let lines = store.entries_after(since, 10_000).await.unwrap();
    let lines: Vec<(String, String)> = lines.into_iter().map(|line| (line.tenant, line.text)).collect();
    prop_assert_eq!(&lines, &model.lines);
    Ok(())
}

async fn run(store: &dyn Store, case: u32, batches: Vec<Vec<(usize, Step)>>) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let since = store.timeline(None, None, 1).await.unwrap().first().map_or(0, |entry| entry.seq);
    for batch in batches {
        let rules = batch.iter().map(|(n, step)| {
            let id = format!("c{case}-{n}");
            (id.clone(), rule(&id, case, step))
        });
        let rules: Vec<_> = rules.collect();
        let done = outcomes(store, rules.iter().map(|(id, rule)| work(id, rule.clone())).collect()).await;
        let mut expected = Vec::new();
        for (id, rule) in &rules {
            let change = rule(model.rows.get(id));
            expected.push(model.amend(id, change));
        }
        prop_assert_eq!(done, expected);
    }
    same(store, case, since, &model).await
}

pub(super) async fn as_a_plain_map_would(store: &dyn Store) {
    let strategy = proptest::collection::vec(proptest::collection::vec((0..3_usize, step()), 1..6), 1..8);
    let cases = AtomicU32::new(0);
    let check = |batches| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        tokio::runtime::Handle::current().block_on(run(store, case, batches))
    };
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    match tokio::task::block_in_place(|| runner.run(&strategy, check)) {
        Ok(()) => {}
        Err(TestError::Fail(why, batches)) => panic!("{why}\n{batches:#?}"),
        Err(e) => panic!("{e}"),
    }
}
