//! Things that get lost: connections, answers, events, whole gateways.

use std::time::{Duration, Instant};

use super::super::pairing_outcomes::rig::{Rig, SOON, by_device, typed};
use super::check::{HEALED, heals, serves, view_is_true};
use crate::support::fake::{DeviceSpec, RestartIn, Times, Version};

#[tokio::test]
async fn a_gateway_that_goes_and_comes_back() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    for _ in 0..3 {
        rig.fake.crash().await;
        rig.phase("stopped", SOON).await?;
        assert_eq!(serves(&rig, 1, &spec.device_id).await?, "gateway_stopped");
        rig.fake.resume_listening().await;
        rig.ready(Duration::from_secs(5)).await?;
    }
    assert_eq!(serves(&rig, 20, &spec.device_id).await?, "approved");
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn a_restart_is_starting_and_not_stopped() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser();
        rig.raise(&spec).await?;
        let mut events = rig.client.events("/v1/events", None).await?;
        let fake = rig.fake.clone();
        let restart = tokio::spawn(async move { fake.restart().await });
        assert_eq!(serves(&rig, 20, &spec.device_id).await?, "approved", "{version:?}");
        restart.await?;
        let told = events.wait_for(|event| event.event == "gateway.phase", SOON).await?.json();
        assert_eq!(told["phase"], "starting", "{version:?}: {told}");
        heals(&rig, HEALED).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_restart_in_the_middle_of_an_approval() -> anyhow::Result<()> {
    for version in Version::ALL {
        for when in [RestartIn::BeforeEffect, RestartIn::AfterEffect] {
            let rig = Rig::start(version).await?;
            let spec = DeviceSpec::browser();
            rig.raise(&spec).await?;
            rig.fake.restart_in_approve(when);
            let code = serves(&rig, 20, &spec.device_id).await?;
            assert_eq!(code, "approved", "{version:?} {when:?}");
            assert_eq!(rig.fake.approvals(&spec.device_id).len(), 1, "{version:?} {when:?}: approved once");
            heals(&rig, HEALED).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_restart_that_outlasts_the_call_is_unreachable_and_not_a_lie() -> anyhow::Result<()> {
    let options = crate::support::fake::Options { starting_for: Duration::from_secs(4), ..Default::default() };
    let rig = Rig::with_options(Version::V2026_9_6, options).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    rig.fake.restart_in_approve(RestartIn::AfterEffect);
    assert_eq!(serves(&rig, 1, &spec.device_id).await?, "gateway_unreachable");
    assert!(rig.fake.truth(&spec.device_id).is_some(), "it took effect, and nobody could know");
    let code = serves(&rig, 20, &spec.device_id).await?;
    assert_eq!(code, "already_paired");
    rig.paired(&spec.device_id, |one| one["approved_by"] == "control").await?;
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn lost_answers_and_dropped_connections() -> anyhow::Result<()> {
    for times in [Times::Next(1), Times::Next(5), Times::Forever] {
        let rig = Rig::start(Version::V2026_9_6).await?;
        let spec = DeviceSpec::browser();
        rig.raise(&spec).await?;
        rig.fake.lose_reply_on_approve(times);
        assert_eq!(serves(&rig, 20, &spec.device_id).await?, "approved", "{times:?}");
        assert_eq!(rig.fake.approvals(&spec.device_id).len(), 1, "{times:?}: approved once");
        assert_eq!(serves(&rig, 20, &spec.device_id).await?, "already_paired", "{times:?}");
        rig.fake.clear_faults();
        heals(&rig, HEALED).await?;
    }
    Ok(())
}

#[tokio::test]
async fn calls_that_never_arrive_use_up_nothing_but_time() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    rig.fake.drop_call_on_approve(Times::Next(12));
    assert_eq!(serves(&rig, 30, &spec.device_id).await?, "approved");
    assert_eq!(rig.fake.approvals(&spec.device_id).len(), 1, "approved once");
    rig.fake.drop_call_on_approve(Times::Forever);
    let other = DeviceSpec::browser();
    rig.raise(&other).await?;
    let began = Instant::now();
    assert_eq!(serves(&rig, 3, &other.device_id).await?, "gateway_unreachable");
    assert!(began.elapsed() >= Duration::from_secs(3), "given up after {:?}", began.elapsed());
    rig.fake.clear_faults();
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn a_device_that_replaces_its_request_under_our_hands() -> anyhow::Result<()> {
    let tries = [
        (Times::Next(0), "approved"),
        (Times::Next(1), "approved"),
        (Times::Next(5), "approved"),
        (Times::Forever, "superseded"),
    ];
    for version in [Version::V2026_4_9, Version::V2026_6_11, Version::V2026_9_6] {
        for (times, expected) in tries {
            let rig = Rig::start(version).await?;
            let spec = DeviceSpec::browser();
            rig.raise(&spec).await?;
            rig.fake.supersede_on_approve(times);
            assert_eq!(serves(&rig, 20, &spec.device_id).await?, expected, "{version:?} {times:?}");
            assert_eq!(rig.fake.truth(&spec.device_id).is_some(), expected == "approved", "{version:?} {times:?}");
            rig.fake.clear_faults();
            heals(&rig, HEALED).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn lost_events_are_made_up_for_by_the_next_look() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    rig.fake.drop_events(Times::Forever);
    let (asks, leaves) = (DeviceSpec::browser(), DeviceSpec::browser());
    rig.fake.silently_pair(&leaves);
    let id = rig.fake.raise(&asks);
    rig.sees(&id).await?;
    rig.paired(&leaves.device_id, |_| true).await?;
    rig.fake.remove(&leaves.device_id);
    rig.fake.expire(&id);
    view_is_true(&rig, SOON).await?;
    rig.fake.clear_faults();
    heals(&rig, HEALED).await
}

#[tokio::test]
async fn a_hole_in_the_numbering_is_looked_into_at_once() -> anyhow::Result<()> {
    for version in [Version::V2026_4_9, Version::V2026_9_6] {
        let rig = Rig::start(version).await?;
        // A hole is seen between two events; this is the first.
        rig.raise(&DeviceSpec::browser()).await?;
        // By its timer alone it would look every five seconds: four times in a row is no accident.
        for _ in 0..4 {
            rig.fake.drop_events(Times::Next(1));
            let lost = rig.fake.raise(&DeviceSpec::browser());
            let told = rig.fake.raise(&DeviceSpec::browser());
            rig.sees(&told).await?;
            let started = Instant::now();
            rig.sees(&lost).await?;
            assert!(started.elapsed() < Duration::from_secs(2), "{version:?}: {:?}", started.elapsed());
        }
    }
    Ok(())
}

#[tokio::test]
async fn connections_cut_again_and_again() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    for _ in 0..10 {
        let (_, admitted) = rig.fake.totals();
        rig.fake.drop_connections();
        serves(&rig, 10, &spec.device_id).await?;
        rig.fake.wait_until("a new session", SOON, |core| core.admitted > admitted).await?;
    }
    assert_eq!(rig.fake.approvals(&spec.device_id).len(), 1);
    assert_eq!(typed(&rig.approve(by_device(&spec.device_id)).await?), "already_paired");
    heals(&rig, HEALED).await
}
