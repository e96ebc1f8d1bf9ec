//! Gateways that say nothing, or say it slowly.

use std::time::{Duration, Instant};

use super::super::pairing_outcomes::rig::{READ, Rig, SOON, by_device, by_request, expecting, outcome};
use super::check::{HEALED, heals, serves};
use crate::support::fake::{DeviceSpec, Fake, Mute, Version};

#[tokio::test]
async fn mute_for_long_is_degraded_and_heals() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    rig.fake.mute(Mute::Everything);
    let started = Instant::now();
    assert_eq!(serves(&rig, 2, &spec.device_id).await?, "gateway_unreachable");
    let state = rig.phase("degraded", Duration::from_secs(20)).await?;
    let took = started.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(17)).contains(&took), "ten seconds of silence: {took:?}");
    assert!(state["phase_reason"].as_str().is_some_and(|text| !text.is_empty()), "{state}");
    assert_eq!(rig.client.get("/readyz").await?.status, 503);
    assert_eq!(serves(&rig, 1, &spec.device_id).await?, "gateway_unreachable");
    rig.fake.mute(Mute::Off);
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn ticking_without_answering_is_degraded_too() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    rig.fake.mute(Mute::Replies);
    rig.phase("degraded", Duration::from_secs(20)).await?;
    assert_eq!(serves(&rig, 1, &spec.device_id).await?, "gateway_unreachable");
    // Events go on, so what is asked for meanwhile is still seen.
    rig.raise(&DeviceSpec::browser()).await?;
    rig.fake.mute(Mute::Off);
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn accepted_and_never_spoken_to() -> anyhow::Result<()> {
    let fake = Fake::start(Version::V2026_9_6).await;
    fake.mute_accept(true);
    let spec = DeviceSpec::browser();
    fake.raise(&spec);
    let rig = Rig::unready(fake).await?;
    assert_eq!(serves(&rig, 1, &spec.device_id).await?, "gateway_starting", "nothing is known yet");
    rig.fake.mute_accept(false);
    heals(&rig, HEALED).await?;
    rig.fake.mute_accept(true);
    rig.fake.drop_connections();
    rig.phase("degraded", SOON).await?;
    assert_eq!(serves(&rig, 1, &spec.device_id).await?, "gateway_unreachable");
    rig.fake.mute_accept(false);
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn thirteen_seconds_for_an_answer_are_legal() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    let id = rig.raise(&spec).await?;
    rig.fake.slow(Duration::from_secs(13));
    // A look may be under way, and this fake answers one call after the other.
    let reply = rig.approve_within(60, by_request(&id)).await?;
    outcome(&reply, "approved");
    assert_eq!(rig.fake.totals().1, 1, "slow is not dead: the session was kept");
    rig.fake.slow(Duration::ZERO);
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn a_slow_gateway_is_waited_for_exactly_as_long_as_told() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    rig.fake.slow(Duration::from_millis(1500));
    let body = expecting(by_device(&spec.device_id), serde_json::json!({"max_scopes": ["operator.admin"]}));
    outcome(&rig.approve_within(20, body).await?, "approved");
    let late = DeviceSpec::browser().with_scopes(&[READ]);
    rig.raise(&late).await?;
    assert_eq!(serves(&rig, 1, &late.device_id).await?, "gateway_unreachable");
    rig.fake.slow(Duration::ZERO);
    // The approval that came too late may have taken effect: asking again is safe.
    rig.paired(&late.device_id, |one| one["approved_by"] == "control").await?;
    assert_eq!(serves(&rig, 20, &late.device_id).await?, "already_paired");
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn half_open_connections_heal_without_a_new_one() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    rig.fake.half_open(true);
    assert_eq!(serves(&rig, 1, &spec.device_id).await?, "gateway_unreachable");
    rig.fake.half_open(false);
    heals(&rig, HEALED).await?;
    assert_eq!(rig.fake.totals().1, 1);
    Ok(())
}

#[tokio::test]
async fn answers_that_drip_byte_by_byte_are_taken() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    rig.fake.drip(Some(Duration::from_millis(1)));
    assert_eq!(serves(&rig, 30, &spec.device_id).await?, "approved");
    rig.fake.drip(None);
    heals(&rig, HEALED).await
}
