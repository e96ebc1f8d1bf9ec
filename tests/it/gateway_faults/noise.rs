//! Floods: memory stays bounded, calls get through, and no final state is lost.

use std::time::Duration;

use serde_json::json;

use super::super::pairing_outcomes::rig::{Rig, SOON};
use super::check::{HEALED, heals, serves, view_is_true};
use crate::support::fake::{DeviceSpec, Fake, Flood, Options, Version};

/// How much a flood may leave behind, in KiB: buffers and the allocator's reserve.
const GROWTH_KIB: u64 = 24 * 1024;

async fn flooded(flood: Flood) -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let before = rig.sidecar.rss_kib();
    rig.fake.flood(Some(flood));
    for _ in 0..20 {
        let spec = DeviceSpec::browser();
        rig.fake.raise(&spec);
        assert_eq!(serves(&rig, 20, &spec.device_id).await?, "approved", "{flood:?}");
    }
    // Changes in the middle of it, of the kinds that events tell and do not tell.
    let (gone, waits) = (DeviceSpec::browser(), DeviceSpec::browser());
    rig.fake.silently_pair(&gone);
    rig.fake.remove(&gone.device_id);
    rig.fake.raise(&waits);
    rig.fake.flood(None);
    view_is_true(&rig, SOON).await?;
    let grown = rig.sidecar.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{flood:?}: it grew by {grown} KiB");
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn thousands_of_events_a_second() -> anyhow::Result<()> {
    flooded(Flood::PerSecond(2000)).await
}

#[tokio::test]
async fn as_many_events_as_it_takes() -> anyhow::Result<()> {
    flooded(Flood::Unlimited).await
}

#[tokio::test]
async fn a_burst_between_two_pairing_events_loses_neither() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let (first, second) = (DeviceSpec::browser(), DeviceSpec::browser());
    let before = rig.sidecar.rss_kib();
    rig.fake.raise(&first);
    rig.fake.flood_burst(50_000);
    rig.fake.raise(&second);
    let code = serves(&rig, 20, &first.device_id).await?;
    assert_eq!(code, "approved");
    view_is_true(&rig, SOON).await?;
    let grown = rig.sidecar.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "it grew by {grown} KiB");
    Ok(())
}

/// An event of a request that the gateway's own list does not have.
fn made_up_request(seq: usize) -> String {
    let id = format!("{seq:08x}-0000-4000-8000-000000000000");
    let payload = json!({"requestId": id, "deviceId": format!("{seq:064x}"), "platform": "x".repeat(200),
        "clientId": "y".repeat(200), "displayName": "z".repeat(200), "role": "operator", "roles": ["operator"],
        "scopes": ["operator.read"], "remoteIp": "203.0.113.1", "ts": 1});
    json!({"type": "event", "event": "device.pair.requested", "payload": payload}).to_string()
}

#[tokio::test]
async fn made_up_requests_do_not_pile_up() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    let before = rig.sidecar.rss_kib();
    for round in 0..20 {
        for n in 0..500 {
            rig.fake.send_text(&made_up_request(round * 500 + n));
        }
        let pending = rig.pairing().await?["pending"].as_array().map_or(0, Vec::len);
        assert!(pending <= 512, "the documented bound of a list is 256 of each kind, not {pending}");
        serves(&rig, 5, "nobody").await?;
    }
    assert_eq!(serves(&rig, 20, &spec.device_id).await?, "approved");
    view_is_true(&rig, SOON).await?;
    let grown = rig.sidecar.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "it grew by {grown} KiB");
    Ok(())
}

#[tokio::test]
async fn a_lapsed_request_is_seen_as_such_while_events_never_stop() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let lapsed = DeviceSpec::browser();
    rig.raise(&lapsed).await?;
    rig.fake.expire(&rig.fake.pending_id(&lapsed.device_id).expect("it waits"));
    // Other devices keep asking: every list is overtaken by an event.
    let fake = rig.fake.clone();
    let restless = tokio::spawn(async move {
        loop {
            let spec = DeviceSpec::browser();
            let id = fake.raise(&spec);
            tokio::task::yield_now().await;
            fake.reject_out_of_band(&id);
            // Paced by the daemon's own calls, not by a clock.
            let calls = fake.calls("device.pair.list");
            let _ = fake.wait_for_call("device.pair.list", calls, Duration::from_millis(1)).await;
        }
    });
    let code = serves(&rig, 10, &lapsed.device_id).await;
    restless.abort();
    // The device is gone and asked for nothing else: anything but that would be invented.
    assert_eq!(code?, "no_pending_request");
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn large_frames_are_taken_and_oversize_ones_cost_only_the_connection() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    let before = rig.sidecar.rss_kib();
    rig.fake.send_oversize(1);
    assert_eq!(serves(&rig, 20, &spec.device_id).await?, "approved");
    assert_eq!(rig.fake.totals().1, 1, "one MiB is no reason to part");
    for round in 2..6 {
        rig.fake.send_oversize(20);
        rig.fake.wait_until("a new session", SOON, |core| core.admitted == round).await?;
        heals(&rig, HEALED).await?;
    }
    let grown = rig.sidecar.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB, "it grew by {grown} KiB");
    Ok(())
}

#[tokio::test]
async fn a_list_at_the_documented_bounds_is_taken_whole() -> anyhow::Result<()> {
    let options = Options { pending_ttl: Duration::from_secs(3600), ..Options::default() };
    let fake = Fake::start_with(Version::V2026_9_6, options).await;
    for n in 0..1024 + 200 {
        let spec = DeviceSpec::browser();
        if n < 1024 { fake.silently_pair(&spec) } else { drop(fake.raise(&spec)) }
    }
    let rig = Rig::beside(fake).await?;
    view_is_true(&rig, SOON).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    assert_eq!(serves(&rig, 20, &spec.device_id).await?, "approved");
    Ok(())
}
