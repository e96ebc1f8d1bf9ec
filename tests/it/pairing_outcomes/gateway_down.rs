//! What the gateway's state makes of a call: starting, stopped, mute, refusing, too old.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rig::{Rig, SOON, by_device, by_request, outcome, problem};
use crate::support::fake::{DeviceSpec, Fake, Mute, Options, Refusal, Times, Version};
use crate::support::sidecar::Sidecar;

fn finding<'a>(state: &'a Value, code: &str) -> Option<&'a Value> {
    state["findings"].as_array()?.iter().find(|one| one["code"] == code)
}

#[tokio::test]
async fn a_starting_gateway_is_told_apart_and_waited_for() -> anyhow::Result<()> {
    let options = Options { starting_for: Duration::from_secs(4), ..Options::default() };
    let fake = Fake::start_with(Version::V2026_9_6, options).await;
    let spec = DeviceSpec::browser();
    let id = fake.raise(&spec);
    let rig = Rig::unready(fake).await?;
    let started = Instant::now();
    problem(&rig.approve_within(1, by_request(&id)).await?, "gateway_starting");
    assert!(started.elapsed() < Duration::from_secs(2), "no longer than told: {:?}", started.elapsed());
    assert_eq!(rig.state().await?["phase"], "starting");
    let ready = rig.client.get("/readyz").await?;
    assert_eq!((ready.status, &ready.json()["phase"]), (503, &json!("starting")));
    outcome(&rig.approve_within(20, by_request(&id)).await?, "approved");
    assert!(rig.fake.truth(&spec.device_id).is_some());
    Ok(())
}

#[tokio::test]
async fn a_stopped_gateway_is_told_apart_and_waited_for() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    rig.fake.stop().await;
    rig.phase("stopped", SOON).await?;
    for verb in ["approve", "reject", "revoke", "rename"] {
        let body = match verb {
            "approve" => by_device(&spec.device_id),
            "reject" => by_request("any"),
            "revoke" => by_device(&spec.device_id),
            _ => json!({"kind": "device", "device_id": spec.device_id, "label": "x"}),
        };
        let reply = rig.client.post(&format!("/v1/pairing/{verb}?wait_s=0"), &body).await?;
        problem(&reply, "gateway_stopped");
    }
    let client = rig.client.clone();
    let ask = by_device(&spec.device_id);
    let call = tokio::spawn(async move { client.post("/v1/pairing/approve?wait_s=30", &ask).await });
    rig.fake.resume_listening().await;
    outcome(&call.await??, "approved");
    Ok(())
}

#[tokio::test]
async fn a_mute_gateway_is_unreachable_within_the_time_given() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    let id = rig.raise(&spec).await?;
    rig.fake.mute(Mute::Everything);
    for body in [by_request(&id), json!({"kind": "device", "only_pending": true})] {
        let started = Instant::now();
        problem(&rig.approve_within(1, body).await?, "gateway_unreachable");
        let took = started.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_secs(2)).contains(&took), "{took:?}");
    }
    let started = Instant::now();
    let reply = rig.client.post("/v1/pairing/reject?wait_s=1", &by_request(&id)).await?;
    problem(&reply, "gateway_unreachable");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(rig.fake.truth(&spec.device_id), None);
    rig.fake.mute(Mute::Off);
    outcome(&rig.approve(by_request(&id)).await?, "approved");
    Ok(())
}

#[tokio::test]
async fn a_wrong_token_is_missing_authority_at_once() -> anyhow::Result<()> {
    for version in Version::ALL {
        let fake = Fake::start(version).await;
        let builder = Sidecar::builder().gateway(fake.port(), "not-the-token");
        let rig = Rig::of(fake, builder).await?;
        let state = rig.phase("unauthorized", SOON).await?;
        let started = Instant::now();
        problem(&rig.approve(by_request("any")).await?, "missing_authority");
        assert!(started.elapsed() < Duration::from_secs(3), "waiting would not help");
        // 2026.2.9 gives no code, only a text.
        let code = if version == Version::V2026_2_9 { "gateway_refuses_us" } else { "gateway_token_mismatch" };
        let found = finding(&state, code).or_else(|| finding(&state, "gateway_token_mismatch"));
        let found = found.unwrap_or_else(|| panic!("{version:?}: {state}"));
        assert!(!found["remedy"].as_str().unwrap_or_default().is_empty(), "{found}");
        assert!(!rig.sidecar.log_text().contains("not-the-token"), "a token is never written down");
    }
    Ok(())
}

#[tokio::test]
async fn stripped_scopes_are_missing_authority_on_every_version_that_strips() -> anyhow::Result<()> {
    for version in [Version::V2026_4_9, Version::V2026_6_11, Version::V2026_9_6] {
        let fake = Fake::start(version).await;
        fake.strip_scopes(Times::Forever);
        let rig = Rig::unready(fake).await?;
        let state = rig.phase("unauthorized", SOON).await?;
        assert!(finding(&state, "gateway_refuses_us").is_some(), "{version:?}: {state}");
        problem(&rig.approve(by_request("any")).await?, "missing_authority");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_protocol_is_missing_authority_with_its_own_finding() -> anyhow::Result<()> {
    let fake = Fake::start(Version::V2026_9_6).await;
    fake.reject_connect(Refusal::protocol_mismatch(Version::V2026_9_6, 3, 4), Times::Forever);
    let rig = Rig::unready(fake).await?;
    let state = rig.phase("unauthorized", SOON).await?;
    assert!(finding(&state, "gateway_version_unsupported").is_some(), "{state}");
    problem(&rig.approve(by_request("any")).await?, "missing_authority");
    Ok(())
}

#[tokio::test]
async fn what_a_version_cannot_do_is_unsupported() -> anyhow::Result<()> {
    let sender = || json!({"kind": "channel", "channel": "telegram", "request_id": "any"});
    for version in [Version::V2026_2_9, Version::V2026_4_9, Version::V2026_6_11] {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser();
        let id = rig.raise(&spec).await?;
        outcome(&rig.approve(by_request(&id)).await?, "approved");
        let rename = json!({"kind": "device", "device_id": spec.device_id, "label": "x"});
        problem(&rig.change("rename", rename).await?, "unsupported_by_gateway");
        problem(&rig.approve(sender()).await?, "unsupported_by_gateway");
        problem(&rig.change("reject", sender()).await?, "unsupported_by_gateway");
        let mut with_account = sender();
        with_account["account"] = json!("default");
        problem(&rig.approve(with_account).await?, "unsupported_by_gateway");
        let reply = rig.change("revoke", by_device(&spec.device_id)).await?;
        if version == Version::V2026_2_9 {
            problem(&reply, "unsupported_by_gateway");
            assert!(rig.fake.truth(&spec.device_id).is_some(), "nothing was done");
        } else {
            outcome(&reply, "revoked");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_channel_code_needs_the_launcher_whatever_the_gateway_does() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let by_code = || json!({"kind": "channel", "channel": "telegram", "code": "ABCD1234"});
    problem(&rig.approve(by_code()).await?, "needs_launch_mode");
    rig.fake.stop().await;
    problem(&rig.approve(by_code()).await?, "needs_launch_mode");
    assert!(!rig.sidecar.log_text().contains("ABCD1234"), "a code is a secret");
    assert!(!rig.audit().await?.iter().any(|one| one.to_string().contains("ABCD1234")));
    Ok(())
}
