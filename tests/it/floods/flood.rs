//! A thousand connections that never come to the point. `FLOOD_SECONDS` says for how long (default 10).

use std::time::{Duration, Instant};

use tokio::time::{interval, timeout};

use super::super::auth_matrix::scene::{LIMIT, Scene};
use super::super::auth_matrix::wire::Wire;
use super::attackers::Crowd;
use super::descriptors;
use crate::support::client::Client;
use crate::support::fake::DeviceSpec;

const CROWD: usize = 1_000;
/// A debug build with its allocator's slack; a leak per connection would pass it within seconds.
const MOST_KIB: u64 = 64 * 1024;
/// What a health checker typically allows.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

fn length() -> Duration {
    let text = std::env::var("FLOOD_SECONDS").unwrap_or_default();
    Duration::from_secs(text.parse().unwrap_or(10))
}

/// A fresh connection every 100 ms for `length`: how long each took, and what failed.
async fn probe(client: &Client, length: Duration) -> (Vec<Duration>, Vec<String>) {
    let (mut took, mut failed) = (Vec::new(), Vec::new());
    let mut ticks = interval(Duration::from_millis(100));
    let end = Instant::now() + length;
    while Instant::now() < end {
        ticks.tick().await;
        client.forget_connections();
        let started = Instant::now();
        match timeout(PROBE_LIMIT, client.get("/livez")).await {
            Ok(Ok(reply)) if reply.status == 200 => took.push(started.elapsed()),
            other => failed.push(format!("after {:?}: {other:?}", started.elapsed())),
        }
    }
    took.sort();
    (took, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_connections_keep_nobody_out() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let sidecar = &scene.sidecar;
    let mut idle = Wire::open(sidecar.edge_addr()).await?;
    let state = idle.get("/v1/state", sidecar.support_token(), LIMIT).await?.expect("an answer");
    let state: serde_json::Value = serde_json::from_str(&state.body)?;
    let poller = sidecar.client();
    let path = format!("/v1/state?timeout_s=60&wait_gen={}", state["generation"]);
    let mut poll = tokio::spawn(async move { poller.get(&path).await });
    assert!(timeout(Duration::from_millis(300), &mut poll).await.is_err(), "the poll does not wait");
    let (calm, before) = (descriptors(sidecar), sidecar.rss_kib());

    let crowd = Crowd::gather(sidecar, CROWD);
    let length = length().min(Duration::from_secs(50));
    let (took, failed) = probe(&sidecar.client().with_token(None), length).await;
    let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
    let rss = sidecar.rss_kib();
    println!(
        "{} connections in {length:?}; {} probes, p50 {:?} p99 {:?} max {:?}, {} failed; RSS {before} -> {rss} KiB; \
         {} descriptors",
        crowd.opened(),
        took.len(),
        at(50),
        at(99),
        took.last(),
        failed.len(),
        descriptors(sidecar)
    );
    assert!(
        failed.is_empty(),
        "{} of {} probes failed: {:#?}",
        failed.len(),
        took.len() + failed.len(),
        failed.first()
    );
    assert!(rss < MOST_KIB, "{rss} KiB resident");
    assert!(descriptors(sidecar) < 128 + 48, "{} descriptors", descriptors(sidecar));
    assert!(crowd.opened() > 2 * CROWD as u64, "the crowd was held instead of dropped: {}", crowd.opened());

    assert_eq!(
        idle.get("/v1/state", sidecar.support_token(), LIMIT).await?.map(|a| a.status),
        Some(200),
        "idle, but known"
    );
    assert!(!poll.is_finished(), "the long poll was cut");
    scene.fake.raise(&DeviceSpec::browser());
    assert_eq!(timeout(LIMIT, poll).await???.status, 200, "the long poll");
    drop(crowd);
    let end = Instant::now() + Duration::from_secs(30);
    let mut looks = interval(Duration::from_millis(100));
    while descriptors(sidecar) > calm + 8 {
        assert!(Instant::now() < end, "{} descriptors, {calm} before", descriptors(sidecar));
        looks.tick().await;
    }
    Ok(())
}
