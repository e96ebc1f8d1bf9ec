//! Ten thousand approvals while devices come, go, ask again and ask for more, and answers get lost.

#[path = "churn/tally.rs"]
mod tally;
#[path = "churn/widened.rs"]
mod widened;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::pairing_outcomes::rig::{READ, Rig, by_device, expecting, sorted, typed};
use crate::support::client::Client;
use crate::support::fake::{Approval, Approver, DeviceSpec, Fake, Version};
use tally::Tally;

const APPROVALS: u64 = 10_000;
/// Each lost connection interrupts all calls under way: more at once would only interrupt each other.
const WORKERS: u64 = 10;
/// Far longer than the gateway is ever away.
const WAIT_S: u64 = 30;
const WRITE: &str = "operator.write";

/// Asks, approves, and holds the answer against what the fake knows to be true.
async fn one_approval(fake: &Fake, client: &Client, tally: &Tally) -> anyhow::Result<()> {
    let spec = DeviceSpec::browser().with_scopes(&[READ, WRITE]);
    fake.raise(&spec);
    let expect = json!({"role": "operator", "max_scopes": [READ, WRITE], "client_id": "openclaw-control-ui"});
    let started = Instant::now();
    let body = expecting(by_device(&spec.device_id), expect);
    let reply = client.post(&format!("/v1/pairing/approve?wait_s={WAIT_S}"), &body).await?;
    let code = typed(&reply);
    let took = started.elapsed();
    tally.add(&code, took);
    let (granted, waiting) = (fake.approvals(&spec.device_id), fake.pending_id(&spec.device_id));
    if code == "approved" && granted.iter().all(|one| one.by != Approver::Rpc) {
        tally.claimed();
    }
    let answer = reply.json();
    let wrong = judge_grant(&code, &answer, &spec.device_id, &granted);
    if let Some(wrong) = wrong.or_else(|| judge_refusal(&code, &answer, took, &granted, waiting.as_deref())) {
        tally.wrong(format!("{wrong} after {took:.1?}: {answer}; waiting: {waiting:?}, granted: {granted:?}"));
    }
    forget(fake, &spec.device_id);
    Ok(())
}

/// What is wrong with an answer, given everything that was ever granted to the device.
fn judge_grant(code: &str, answer: &Value, device_id: &str, granted: &[Approval]) -> Option<&'static str> {
    let inside = |scopes: &[String]| !scopes.is_empty() && scopes.iter().all(|scope| [READ, WRITE].contains(&&**scope));
    if !granted.iter().filter(|one| one.by == Approver::Rpc).all(|grant| inside(&grant.scopes)) {
        return Some("approved beyond the expectation");
    }
    match code {
        "approved" if !granted.iter().any(|one| answer["request_id"] == one.request_id) => Some("a false `approved`"),
        "approved" | "already_paired" if answer["device"].is_null() => Some("no record of the device"),
        "approved" | "already_paired" if answer["device"]["device_id"] != device_id => Some("another device"),
        "approved" | "already_paired" if !inside(&sorted(&answer["device"]["scopes"])) => Some("other scopes"),
        "already_paired" if granted.is_empty() => Some("a false `already_paired`"),
        _ => None,
    }
}

/// What is wrong with a refusal, given what the device asks for now.
fn judge_refusal(
    code: &str,
    answer: &Value,
    took: Duration,
    granted: &[Approval],
    waiting: Option<&str>,
) -> Option<&'static str> {
    let done = granted.iter().any(|one| one.by == Approver::Rpc);
    let denied = answer["detail"].as_str().is_some_and(|text| text.contains("nothing was done"));
    match code {
        "gateway_unreachable" if denied && done => Some("it says that nothing was done"),
        "gateway_unreachable" if took < Duration::from_secs(WAIT_S) => Some("given up before its time"),
        "superseded" if waiting.is_none() => Some("superseded by nothing"),
        "no_pending_request" if waiting.is_some() => Some("not found, although it waits"),
        "exceeds_expectation" if waiting.is_none() => Some("nothing asks for so much"),
        _ => None,
    }
}

/// Keeps the lists at the size of a real tenant's: what was looked at goes, and so do bystanders in time.
fn forget(fake: &Fake, device_id: &str) {
    fake.remove(device_id);
    fake.with(|core| {
        core.world.pending.retain(|one| one.spec.device_id != device_id);
        let bystander = |scopes: &[String]| scopes.len() == 1;
        if core.world.pending.iter().filter(|one| bystander(&one.spec.scopes)).count() > 20 {
            core.world.pending.retain(|one| !bystander(&one.spec.scopes));
        }
    });
}

fn seed() -> u64 {
    let given = std::env::var("CHURN_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        u64::from(now.subsec_nanos())
    })
}

#[tokio::test]
async fn ten_thousand_approvals_without_one_false_answer() -> anyhow::Result<()> {
    let seed = seed();
    println!("CHURN_SEED={seed}");
    let rig = Rig::start(Version::V2026_9_6).await?;
    rig.fake.churn(Some(seed));
    let (tally, left) = (Arc::new(Tally::default()), Arc::new(AtomicU64::new(APPROVALS)));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (fake, client) = (rig.fake.clone(), rig.client.clone());
        let (tally, left) = (tally.clone(), left.clone());
        workers.spawn(async move {
            let take = |left: u64| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                one_approval(&fake, &client, &tally).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done??;
    }
    let (took, counts) = (started.elapsed(), rig.fake.churn_counts());
    println!("{APPROVALS} approvals by {WORKERS} workers in {took:.1?}\n{tally}{counts:?}");
    let wrongs = tally.wrongs();
    wrongs.iter().take(10).for_each(|wrong| println!("{wrong}"));
    assert!(wrongs.is_empty(), "{} answers are not true", wrongs.len());
    // Let in by somebody else in the moment in which the answer to our own call was lost: the device is in, within the
    // expectation, and the gateway's record does not tell whose approval it was.
    println!("claimed although somebody else was first: {}", tally.claims());
    assert!(tally.claims() <= (counts.replies_lost + counts.calls_dropped) / 10, "{}", tally.claims());
    assert_eq!(tally.total(), APPROVALS);
    let met = [counts.superseded, counts.widened, counts.expired, counts.approved_elsewhere, counts.replies_lost];
    assert!(met.iter().all(|count| *count > 100), "the run met everything often: {counts:?}");
    // Most devices only want to be let in, and are.
    assert!(tally.count("approved") > APPROVALS / 2, "{tally}");
    assert!(took < Duration::from_secs(240), "{took:?}");
    rig.fake.churn(None);
    super::gateway_faults::check::heals(&rig, Duration::from_secs(50)).await
}
