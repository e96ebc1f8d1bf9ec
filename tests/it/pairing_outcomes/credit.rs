//! Whose approval it was: ours stays ours across lost answers and restarts, and never covers somebody else's.

use serde_json::Value;

use super::rig::{ADMIN, READ, Rig, SOON, by_device, by_request, outcome};
use crate::support::fake::{Approver, DeviceSpec, Fake, RestartIn, Times, Version};
use crate::support::sidecar::Sidecar;

async fn nothing_is_called_out_of_band(rig: &Rig, device_id: &str) -> anyhow::Result<()> {
    let calls = rig.fake.calls("device.pair.list");
    // Two looks later everything that could be noticed has been.
    rig.fake.wait_for_call("device.pair.list", calls + 1, SOON).await?;
    let list = rig.pairing().await?;
    assert_eq!(list.get("last_out_of_band"), None, "{list}");
    assert_eq!(rig.out_of_band_records(device_id).await?, 0);
    rig.paired(device_id, |one| one["approved_by"] == "control").await?;
    Ok(())
}

#[tokio::test]
async fn an_approval_whose_answer_was_lost_is_ours() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser();
        let id = rig.raise(&spec).await?;
        rig.fake.lose_reply_on_approve(Times::Next(1));
        let body = outcome(&rig.approve(by_request(&id)).await?, "approved");
        assert_eq!(body["device"]["approved_by"], "control", "{version:?}: {body}");
        assert_eq!(rig.fake.approvals(&spec.device_id).len(), 1, "{version:?}");
        nothing_is_called_out_of_band(&rig, &spec.device_id).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_approval_across_a_restart_of_the_gateway_is_ours() -> anyhow::Result<()> {
    for when in [RestartIn::BeforeEffect, RestartIn::AfterEffect] {
        let rig = Rig::start(Version::V2026_9_6).await?;
        let spec = DeviceSpec::browser();
        let id = rig.raise(&spec).await?;
        rig.fake.restart_in_approve(when);
        let body = outcome(&rig.approve(by_request(&id)).await?, "approved");
        assert_eq!(body["device"]["approved_by"], "control", "{when:?}: {body}");
        assert_eq!(rig.fake.approvals(&spec.device_id).len(), 1, "{when:?}");
        nothing_is_called_out_of_band(&rig, &spec.device_id).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_repeated_try_does_not_cover_a_later_approval_by_somebody_else() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser().with_scopes(&[READ]);
    let id = rig.raise(&spec).await?;
    // The first try never reaches the gateway, so the daemon tries again.
    rig.fake.restart_in_approve(RestartIn::BeforeEffect);
    outcome(&rig.approve(by_request(&id)).await?, "approved");
    let upgrade = rig.fake.widen(&spec.device_id, &[ADMIN]);
    rig.sees(&upgrade).await?;
    assert!(rig.fake.approve_out_of_band(&upgrade));
    let wider = |one: &Value| one["scopes"].as_array().is_some_and(|scopes| scopes.len() == 2);
    let device = rig.paired(&spec.device_id, wider).await?;
    assert_eq!(device["approved_by"], "out_of_band", "{device}");
    assert_eq!(rig.out_of_band_records(&spec.device_id).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_device_approved_elsewhere_during_the_call_is_already_paired() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    let id = rig.raise(&spec).await?;
    rig.fake.drop_events(Times::Forever);
    assert!(rig.fake.approve_out_of_band(&id));
    let body = outcome(&rig.approve(by_request(&id)).await?, "already_paired");
    assert_eq!(body["device"]["approved_by"], "out_of_band", "{body}");
    assert_eq!(rig.fake.approvals(&spec.device_id)[0].by, Approver::OutOfBand);
    Ok(())
}

#[tokio::test]
async fn approvers_are_known_after_the_daemon_was_stopped_or_killed() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fake = Fake::start(Version::V2026_9_6).await;
    let builder = Sidecar::builder().gateway(fake.port(), &fake.token()).state_dir(directory.path());
    let (ours, theirs) = (DeviceSpec::browser(), DeviceSpec::browser());
    let rig = Rig::of(fake.clone(), builder.clone()).await?;
    let id = rig.raise(&ours).await?;
    outcome(&rig.approve(by_request(&id)).await?, "approved");
    let id = rig.raise(&theirs).await?;
    fake.approve_out_of_band(&id);
    rig.paired(&theirs.device_id, |one| one["approved_by"] == "out_of_band").await?;
    rig.out_of_band_record(&theirs.device_id).await?;
    rig.sidecar.kill().await?;
    let mut late: Vec<String> = Vec::new();
    for end in ["stop", "kill", "stop"] {
        let rig = Rig::of(fake.clone(), builder.clone()).await?;
        rig.ready(SOON).await?;
        rig.paired(&ours.device_id, |one| one["approved_by"] == "control").await?;
        rig.paired(&theirs.device_id, |one| one["approved_by"] == "out_of_band").await?;
        assert_eq!(rig.out_of_band_records(&theirs.device_id).await?, 1, "noticed once, not again");
        for device in &late {
            let listed = rig.paired(device, |_| true).await?;
            assert_eq!(listed["approved_by"], "control", "before {end}");
        }
        let spec = DeviceSpec::browser();
        rig.raise(&spec).await?;
        outcome(&rig.approve(by_device(&spec.device_id)).await?, "approved");
        late.push(spec.device_id);
        // Right after the answer.
        match end {
            "stop" => drop(rig.sidecar.stop().await?),
            _ => rig.sidecar.kill().await?,
        }
    }
    Ok(())
}

#[tokio::test]
async fn many_approvals_at_once_are_all_remembered() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fake = Fake::start(Version::V2026_9_6).await;
    let builder = Sidecar::builder().gateway(fake.port(), &fake.token()).state_dir(directory.path());
    let rig = Rig::of(fake.clone(), builder.clone()).await?;
    rig.ready(SOON).await?;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (client, spec) = (rig.client.clone(), DeviceSpec::browser());
        fake.raise(&spec);
        calls.spawn(async move {
            let reply = client.post("/v1/pairing/approve", &by_device(&spec.device_id)).await?;
            outcome(&reply, "approved");
            anyhow::Ok(spec.device_id)
        });
    }
    let mut devices = Vec::new();
    while let Some(done) = calls.join_next().await {
        devices.push(done??);
    }
    assert_eq!(rig.state().await?["findings"], serde_json::json!([]), "everything could be written");
    rig.sidecar.stop().await?;
    let rig = Rig::of(fake, builder).await?;
    rig.ready(SOON).await?;
    for device in devices {
        let listed = rig.paired(&device, |_| true).await?;
        assert_eq!(listed["approved_by"], "control", "{listed}");
    }
    Ok(())
}

#[tokio::test]
async fn devices_paired_before_the_first_start_are_not_called_out_of_band() -> anyhow::Result<()> {
    let fake = Fake::start(Version::V2026_9_6).await;
    let spec = DeviceSpec::browser();
    let id = fake.raise(&spec);
    fake.approve_out_of_band(&id);
    let rig = Rig::beside(fake).await?;
    rig.paired(&spec.device_id, |one| one["approved_by"] == "before_sidecar").await?;
    assert_eq!(rig.out_of_band_records(&spec.device_id).await?, 0);
    Ok(())
}
