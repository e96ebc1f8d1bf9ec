//! Gateways that refuse the daemon: it says why, does not hammer, and comes back when the reason is gone.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::super::pairing_outcomes::rig::{Rig, SOON};
use super::check::{HEALED, heals, serves};
use crate::support::fake::{DeviceSpec, Fake, Refusal, Times, Version};
use crate::support::sidecar::Sidecar;

fn finding<'a>(state: &'a Value, code: &str) -> Option<&'a Value> {
    state["findings"].as_array()?.iter().find(|one| one["code"] == code)
}

/// Watches for so long that no more than `most` TCP connections are made after the first `before`.
async fn connects_no_more_than(fake: &Fake, before: u64, most: u64, watch: Duration) {
    let too_many = fake.wait_until("too many connects", watch, |core| core.accepted > before + most).await;
    assert!(too_many.is_err(), "{} connects since, where {most} are enough", fake.totals().0 - before);
}

async fn with_config(fake: &Fake, path: &Path) -> anyhow::Result<Rig> {
    fake.write_config(path)?;
    Rig::of(fake.clone(), Sidecar::builder().gateway_config(fake.port(), path)).await
}

#[tokio::test]
async fn a_rotated_token_is_read_again_and_used() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("openclaw.json");
    let fake = Fake::start(Version::V2026_9_6).await;
    let rig = with_config(&fake, &path).await?;
    rig.ready(SOON).await?;
    for round in 0..3 {
        let (before, admitted) = fake.totals();
        // The gateway writes its file first and closes its sessions then.
        let token = format!("rotated-{round}");
        fake.with(|core| core.gate.token.clone_from(&token));
        fake.write_config(&path)?;
        fake.set_token(&token);
        fake.wait_until("a session with the new token", Duration::from_secs(5), |core| core.admitted > admitted)
            .await?;
        rig.ready(SOON).await?;
        connects_no_more_than(&fake, before, 2, Duration::from_secs(1)).await;
    }
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn a_token_that_reaches_the_file_late_is_used_within_seconds() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("openclaw.json");
    let fake = Fake::start(Version::V2026_9_6).await;
    let rig = with_config(&fake, &path).await?;
    rig.ready(SOON).await?;
    let before = fake.totals().0;
    fake.set_token("not-in-the-file-yet");
    let state = rig.phase("unauthorized", SOON).await?;
    assert!(finding(&state, "gateway_token_mismatch").is_some(), "{state}");
    assert_eq!(serves(&rig, 2, "nobody").await?, "missing_authority");
    connects_no_more_than(&fake, before, 2, Duration::from_secs(5)).await;
    fake.write_config(&path)?;
    let state = rig.ready(Duration::from_secs(6)).await?;
    assert!(finding(&state, "gateway_token_mismatch").is_none(), "the finding is closed: {state}");
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn a_wrong_token_is_not_tried_again_and_again() -> anyhow::Result<()> {
    let fake = Fake::start(Version::V2026_9_6).await;
    let rig = Rig::of(fake.clone(), Sidecar::builder().gateway(fake.port(), "wrong")).await?;
    let state = rig.phase("unauthorized", SOON).await?;
    assert!(finding(&state, "gateway_token_mismatch").is_some(), "{state}");
    // Callers do not make it try more often either.
    for _ in 0..20 {
        assert_eq!(serves(&rig, 20, "nobody").await?, "missing_authority");
    }
    connects_no_more_than(&fake, 0, 3, Duration::from_secs(10)).await;
    assert_eq!(rig.fake.calls("device.pair.list"), 0);
    Ok(())
}

#[tokio::test]
async fn a_rate_limit_is_respected_until_the_token_changes() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("openclaw.json");
    let fake = Fake::start(Version::V2026_9_6).await;
    fake.reject_connect(Refusal::rate_limited(300_000), Times::Forever);
    let rig = with_config(&fake, &path).await?;
    rig.phase("unauthorized", SOON).await?;
    assert_eq!(serves(&rig, 2, "nobody").await?, "missing_authority");
    connects_no_more_than(&fake, 0, 1, Duration::from_secs(10)).await;
    fake.clear_faults();
    fake.set_token("fresh");
    fake.write_config(&path)?;
    rig.ready(Duration::from_secs(6)).await?;
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn refusals_that_end_are_forgotten() -> anyhow::Result<()> {
    let refusals = [
        (Refusal::protocol_mismatch(Version::V2026_9_6, 3, 4), "gateway_version_unsupported"),
        (Refusal::token_missing(Version::V2026_9_6), "gateway_token_missing"),
        (Refusal::device_identity_required(Version::V2026_9_6), "gateway_refuses_us"),
        (Refusal::invalid("something nobody has seen before"), "gateway_refuses_us"),
    ];
    let mut all = tokio::task::JoinSet::new();
    for (refusal, code) in refusals {
        all.spawn(async move {
            let fake = Fake::start(Version::V2026_9_6).await;
            fake.reject_connect(refusal, Times::Next(1));
            let rig = Rig::unready(fake).await?;
            let state = rig.phase("unauthorized", SOON).await?;
            anyhow::ensure!(finding(&state, code).is_some(), "{code}: {state}");
            anyhow::ensure!(serves(&rig, 2, "nobody").await? == "missing_authority");
            let state = rig.ready(HEALED).await?;
            anyhow::ensure!(finding(&state, code).is_none(), "{code}: {state}");
            heals(&rig, HEALED).await
        });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    Ok(())
}

#[tokio::test]
async fn stripped_scopes_that_come_back_are_used() -> anyhow::Result<()> {
    for version in [Version::V2026_4_9, Version::V2026_9_6] {
        let fake = Fake::start(version).await;
        fake.strip_scopes(Times::Next(1));
        let spec = DeviceSpec::browser();
        fake.raise(&spec);
        let rig = Rig::unready(fake).await?;
        rig.phase("unauthorized", SOON).await?;
        assert_eq!(serves(&rig, 2, &spec.device_id).await?, "missing_authority");
        heals(&rig, HEALED).await?;
    }
    Ok(())
}
