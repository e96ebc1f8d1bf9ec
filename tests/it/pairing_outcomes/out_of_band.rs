//! Approvals that were not made here are noticed: event, audit record, `approved_by`, `last_out_of_band`.

use serde_json::{Value, json};

use super::rig::{Rig, SOON, by_request, outcome};
use crate::support::fake::{DeviceSpec, Fake, Times, Version};
use crate::support::sidecar::Sidecar;

/// Everything that has to be seen of an approval by somebody else.
async fn noticed(rig: &Rig, device_id: &str, via: &str) -> anyhow::Result<()> {
    let wanted = |list: &Value| list["last_out_of_band"]["device_id"] == device_id;
    let list = rig.client.wait_until("/v1/pairing", wanted, SOON).await?;
    let last = &list["last_out_of_band"];
    assert_eq!(last["via"], via, "{last}");
    assert!(last["noticed_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{last}");
    assert_eq!(rig.state().await?["pairing"]["last_out_of_band"], *last);
    let device = rig.paired(device_id, |one| one["approved_by"] == "out_of_band").await?;
    assert_eq!(device["approved_via"], via, "{device}");
    rig.out_of_band_record(device_id).await?;
    assert_eq!(rig.out_of_band_records(device_id).await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_approval_on_the_machine_is_noticed_on_every_version() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let mut events = rig.client.events("/v1/events", None).await?;
        let (ours, theirs) = (DeviceSpec::browser(), DeviceSpec::browser());
        let id = rig.raise(&ours).await?;
        outcome(&rig.approve(by_request(&id)).await?, "approved");
        let id = rig.raise(&theirs).await?;
        assert!(rig.fake.approve_out_of_band(&id));
        let event = events.wait_for(|event| event.event == "pairing.out_of_band", SOON).await?.json();
        assert_eq!(event["device_id"], theirs.device_id, "{version:?}: not for our own: {event}");
        assert_eq!(event["kind"], "device");
        let via = if version == Version::V2026_9_6 { "owner" } else { "" };
        noticed(&rig, &theirs.device_id, via).await?;
        assert_eq!(rig.out_of_band_records(&ours.device_id).await?, 0, "{version:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_silent_pairing_is_noticed_although_nothing_ever_waited() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser();
        rig.fake.silently_pair(&spec);
        let via = if version == Version::V2026_9_6 { "silent" } else { "" };
        noticed(&rig, &spec.device_id, via).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_approval_whose_event_was_lost_is_noticed_by_the_next_look() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    let id = rig.raise(&spec).await?;
    rig.fake.drop_events(Times::Forever);
    rig.fake.approve_out_of_band(&id);
    noticed(&rig, &spec.device_id, "owner").await
}

#[tokio::test]
async fn an_approval_while_the_daemon_was_down_is_noticed_at_its_next_start() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let fake = Fake::start(Version::V2026_9_6).await;
    let builder = Sidecar::builder().gateway(fake.port(), &fake.token()).state_dir(directory.path());
    let rig = Rig::of(fake.clone(), builder.clone()).await?;
    rig.ready(SOON).await?;
    let (ours, theirs) = (DeviceSpec::browser(), DeviceSpec::browser());
    let id = rig.raise(&ours).await?;
    outcome(&rig.approve(by_request(&id)).await?, "approved");
    rig.sidecar.stop().await?;

    let id = fake.raise(&theirs);
    fake.approve_out_of_band(&id);
    let rig = Rig::of(fake, builder).await?;
    rig.ready(SOON).await?;
    noticed(&rig, &theirs.device_id, "owner").await?;
    rig.paired(&ours.device_id, |one| one["approved_by"] == "control").await?;
    assert_eq!(rig.out_of_band_records(&ours.device_id).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_second_approval_of_our_own_device_by_somebody_else_is_noticed() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser().with_scopes(&["operator.read"]);
    let id = rig.raise(&spec).await?;
    let body = outcome(&rig.approve(by_request(&id)).await?, "approved");
    assert_eq!(body["device"]["approved_by"], "control");
    let upgrade = rig.fake.widen(&spec.device_id, &["operator.admin"]);
    let listed = rig.sees(&upgrade).await?;
    assert_eq!(listed["is_upgrade"], json!(true));
    rig.fake.approve_out_of_band(&upgrade);
    noticed(&rig, &spec.device_id, "owner").await
}

#[tokio::test]
async fn a_removal_on_the_machine_is_told() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    let id = rig.raise(&spec).await?;
    outcome(&rig.approve(by_request(&id)).await?, "approved");
    let mut events = rig.client.events("/v1/events", None).await?;
    assert!(rig.fake.remove(&spec.device_id));
    let event = events.wait_for(|event| event.event == "pairing.removed", SOON).await?.json();
    assert_eq!(event["device_id"], spec.device_id);
    rig.gone(&spec.device_id).await?;
    Ok(())
}
