//! Approving: approved, already paired, nothing there, expired, and waiting for the device to come in.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::rig::{READ, Rig, SOON, by_device, by_request, outcome, problem, sorted};
use crate::support::fake::{Approver, DeviceSpec, Fake, Options, Version};

#[tokio::test]
async fn approved_and_again_on_every_version() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser();
        let id = rig.raise(&spec).await?;
        let body = outcome(&rig.approve(by_request(&id)).await?, "approved");
        let device = &body["device"];
        assert_eq!(body["request_id"], id, "{version:?}");
        assert_eq!(device["device_id"], spec.device_id, "{version:?}");
        assert_eq!(device["kind"], "device");
        assert_eq!(device["role"], "operator");
        assert_eq!(device["client_id"], "openclaw-control-ui");
        assert_eq!(device["platform"], "MacIntel");
        assert_eq!(device["remote_ip"], "203.0.113.9");
        assert_eq!(device["approved_by"], "control", "{version:?}");
        assert_eq!(sorted(&device["scopes"]), sorted(&json!(spec.scopes)), "{version:?}");
        assert!(body.get("connected").is_none(), "nobody asked: {body}");

        let granted = rig.fake.approvals(&spec.device_id);
        assert_eq!(granted.len(), 1, "{version:?}");
        assert_eq!((granted[0].by, &granted[0].request_id), (Approver::Rpc, &id), "{version:?}");

        for again in [by_request(&id), by_device(&spec.device_id)] {
            let body = outcome(&rig.approve(again).await?, "already_paired");
            assert!(body.get("request_id").is_none(), "nothing was approved now: {body}");
            assert_eq!(body["device"]["device_id"], spec.device_id);
            assert_eq!(body["device"]["approved_by"], "control", "{version:?}");
        }
        assert_eq!(rig.fake.approvals(&spec.device_id).len(), 1, "{version:?}: approved once");
        let list = rig.pairing().await?;
        assert_eq!(list["pending"], json!([]), "{version:?}");
        assert_eq!(list["approved"].as_array().map(Vec::len), Some(1), "{version:?}: {list}");
        assert_eq!(rig.out_of_band_records(&spec.device_id).await?, 0, "{version:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_device_without_an_id_in_hand_is_approved_by_device() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser().with_scopes(&[READ]);
    let id = rig.raise(&spec).await?;
    let body = outcome(&rig.approve(by_device(&spec.device_id)).await?, "approved");
    assert_eq!(body["request_id"], id);
    let records = rig.audit().await?;
    let about: Vec<(&Value, &Value)> = records.iter().map(|one| (&one["outcome"], &one["target"])).collect();
    let target = json!(format!("device:{}", spec.device_id));
    assert_eq!(about, [(&json!("intent"), &target), (&json!("approved"), &target)]);
    assert!(records.iter().all(|one| one["actor"] == "control" && one["verb"] == "pairing.approve"), "{records:?}");
    assert!(records[1]["detail"].as_str().is_some_and(|text| text.contains(READ)), "what was granted: {records:?}");
    assert_eq!(records[0]["request_id"], records[1]["request_id"]);
    Ok(())
}

#[tokio::test]
async fn nothing_waits() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let nobody = "f".repeat(64);
    for body in [by_request("no-such-request"), by_device(&nobody), json!({"kind": "device", "only_pending": true})] {
        problem(&rig.approve(body).await?, "no_pending_request");
    }
    problem(&rig.approve(json!({"kind": "node", "request_id": "no-such-request"})).await?, "no_pending_request");
    problem(&rig.change("reject", by_request("no-such-request")).await?, "no_pending_request");
    let spec = DeviceSpec::browser();
    let id = rig.raise(&spec).await?;
    rig.fake.reject_out_of_band(&id);
    problem(&rig.approve(by_request(&id)).await?, "no_pending_request");
    assert_eq!(rig.fake.truth(&spec.device_id), None);
    Ok(())
}

/// Makes the request look as if it had waited for so long already.
fn backdate(fake: &Fake, request_id: &str, by: Duration) {
    fake.with(|core| {
        let request = core.world.pending.iter_mut().find(|one| one.request_id == request_id).expect("it waits");
        request.ts -= u64::try_from(by.as_millis()).expect("a short time");
    });
}

#[tokio::test]
async fn a_lapsed_request_is_expired_and_not_merely_unknown() -> anyhow::Result<()> {
    let options = Options { pending_ttl: Duration::from_secs(8), ..Options::default() };
    let fake = Fake::start_with(Version::V2026_9_6, options).await;
    let (by_itself, seen_by_list) = (DeviceSpec::browser(), DeviceSpec::browser());
    let ids = [fake.raise(&by_itself), fake.raise(&seen_by_list)];
    // Five minutes is what a request lives; both have waited longer than that when they go.
    for id in &ids {
        backdate(&fake, id, Duration::from_secs(300));
    }
    let rig = Rig::beside(fake).await?;
    rig.sees(&ids[0]).await?;
    rig.sees(&ids[1]).await?;
    rig.fake.expire(&ids[1]);
    for body in [by_request(&ids[1]), by_device(&seen_by_list.device_id)] {
        problem(&rig.approve(body).await?, "expired");
    }
    problem(&rig.change("reject", by_request(&ids[1])).await?, "expired");
    rig.gone(&by_itself.device_id).await?;
    problem(&rig.approve(by_request(&ids[0])).await?, "expired");
    // It is remembered, but the device's next try counts.
    let id = rig.raise(&by_itself).await?;
    outcome(&rig.approve(by_device(&by_itself.device_id)).await?, "approved");
    outcome(&rig.approve(by_request(&id)).await?, "already_paired");
    Ok(())
}

#[tokio::test]
async fn the_answer_can_wait_until_the_device_is_in() -> anyhow::Result<()> {
    for version in [Version::V2026_6_11, Version::V2026_9_6] {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser().with_scopes(&[READ]);
        let id = rig.raise(&spec).await?;
        let (client, fake, device) = (rig.client.clone(), rig.fake.clone(), spec.device_id.clone());
        let call =
            tokio::spawn(async move { client.post("/v1/pairing/approve?wait_connected_s=20", &by_request(&id)).await });
        let paired = |core: &crate::support::fake::Core| core.world.truth(&device).is_some();
        rig.fake.wait_until("the approval", SOON, paired).await?;
        fake.connect_device(&spec.device_id);
        let body = outcome(&call.await??, "approved");
        assert_eq!(body["connected"], true, "{version:?}: it is connected: {body}");
        rig.paired(&spec.device_id, |one| one["connected"] == true).await?;
        fake.disconnect_device(&spec.device_id);
        rig.paired(&spec.device_id, |one| one["connected"] == false).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_device_that_does_not_come_in_is_said_so() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let id = rig.raise(&DeviceSpec::browser()).await?;
    let started = Instant::now();
    let reply = rig.client.post("/v1/pairing/approve?wait_connected_s=1", &by_request(&id)).await?;
    assert_eq!(outcome(&reply, "approved")["connected"], false);
    assert!(started.elapsed() >= Duration::from_secs(1), "it waited");
    assert!(started.elapsed() < Duration::from_secs(5), "but no longer than told");
    Ok(())
}
