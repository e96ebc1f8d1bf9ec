//! The other kinds of pairing: nodes, and people who write to a channel.

use serde_json::{Value, json};

use super::rig::{Rig, SOON, entry, outcome, problem};
use crate::support::fake::{DeviceSpec, Fake, Version};

fn node(id: &str) -> Value {
    json!({"kind": "node", "request_id": id})
}

fn sender(id: &str) -> Value {
    json!({"kind": "channel", "channel": "telegram", "request_id": id})
}

fn node_entry(list: &Value, id: &str) -> Option<Value> {
    let mut nodes = list["approved"].as_array()?.iter().filter(|one| one["kind"] == "node");
    nodes.find(|one| one["device_id"] == id).cloned()
}

#[tokio::test]
async fn a_node_is_approved_by_its_request_and_revoked() -> anyhow::Result<()> {
    for version in [Version::V2026_4_9, Version::V2026_6_11, Version::V2026_9_6] {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::node();
        let id = rig.fake.raise_node(&spec, &["system.run", "camera.snap"]);
        let request = rig.sees(&id).await?;
        assert_eq!(request["kind"], "node", "{version:?}");
        assert_eq!(request["commands"], json!(["system.run", "camera.snap"]), "{version:?}");
        assert_eq!(request["label"], "build node", "{version:?}");
        problem(&rig.approve(json!({"kind": "device", "request_id": id})).await?, "no_pending_request");

        let body = outcome(&rig.approve(node(&id)).await?, "approved");
        assert_eq!(body["device"]["kind"], "node", "{version:?}: {body}");
        assert_eq!(body["device"]["device_id"], spec.device_id, "{version:?}");
        assert_eq!(body["device"]["commands"], json!(["system.run", "camera.snap"]), "{version:?}");
        assert_eq!(body["device"]["approved_by"], "control", "{version:?}");
        assert!(body.to_string().find("token").is_none(), "{version:?}: a node's secret is not passed on: {body}");
        assert!(rig.fake.paired_node(&spec.device_id), "{version:?}");
        outcome(&rig.approve(node(&id)).await?, "already_paired");

        if version == Version::V2026_9_6 {
            let target = json!({"kind": "node", "device_id": spec.device_id});
            outcome(&rig.change("revoke", target.clone()).await?, "revoked");
            assert!(!rig.fake.paired_node(&spec.device_id));
            assert!(node_entry(&rig.pairing().await?, &spec.device_id).is_none());
            problem(&rig.change("revoke", target).await?, "not_found");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_node_is_rejected() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::node();
    let id = rig.fake.raise_node(&spec, &["camera.snap"]);
    rig.sees(&id).await?;
    outcome(&rig.change("reject", node(&id)).await?, "rejected");
    assert!(!rig.fake.paired_node(&spec.device_id));
    outcome(&rig.change("reject", node(&id)).await?, "already_rejected");
    problem(&rig.approve(node(&id)).await?, "no_pending_request");
    Ok(())
}

#[tokio::test]
async fn a_node_beyond_the_expectation_is_refused() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::node();
    let id = rig.fake.raise_node(&spec, &["system.run"]);
    rig.sees(&id).await?;
    let limited = |limit: Value| json!({"kind": "node", "request_id": id, "expect": limit});
    problem(&rig.approve(limited(json!({"role": "operator"}))).await?, "exceeds_expectation");
    problem(&rig.approve(limited(json!({"platform": "darwin"}))).await?, "exceeds_expectation");
    // The scopes of a node's request are those its approver must hold: running programs needs admin.
    let body = limited(json!({"max_scopes": ["operator.pairing"]}));
    problem(&rig.approve(body).await?, "exceeds_expectation");
    assert!(!rig.fake.paired_node(&spec.device_id));
    outcome(&rig.approve(limited(json!({"role": "node", "platform": "linux"}))).await?, "approved");
    Ok(())
}

#[tokio::test]
async fn a_channel_sender_is_let_in_or_dismissed_by_request() -> anyhow::Result<()> {
    let fake = Fake::start(Version::V2026_9_6).await;
    let ids = ["111", "222", "333"].map(|who| fake.raise_channel("telegram", "default", who));
    let rig = Rig::beside(fake).await?;
    // No event tells of these; the first look at the lists does.
    let listed = rig.sees(&ids[0]).await?;
    assert_eq!((&listed["kind"], &listed["channel"]), (&json!("channel"), &json!("telegram")), "{listed}");
    assert_eq!((&listed["account"], &listed["client_id"]), (&json!("default"), &json!("111")), "{listed}");
    assert!(listed["expires_at"].is_string(), "{listed}");
    assert!(listed.get("device_id").is_none(), "{listed}");

    let body = outcome(&rig.approve(sender(&ids[0])).await?, "approved");
    assert_eq!(body["request_id"], ids[0]);
    assert!(body.get("device").is_none(), "a person is no device: {body}");
    let mut with_account = sender(&ids[1]);
    with_account["account"] = json!("default");
    outcome(&rig.approve(with_account).await?, "approved");
    outcome(&rig.change("reject", sender(&ids[2])).await?, "rejected");
    let allowed = rig.fake.with(|core| core.world.nodes.allowed_senders.clone());
    let names: Vec<&str> = allowed.iter().map(|(_, who)| who.as_str()).collect();
    assert_eq!(names, ["111", "222"]);
    assert!(ids.iter().all(|id| !allowed.iter().any(|(_, who)| who == id)));

    for id in &ids {
        problem(&rig.approve(sender(id)).await?, "no_pending_request");
    }
    let mut elsewhere = sender(&ids[0]);
    elsewhere["channel"] = json!("whatsapp");
    problem(&rig.approve(elsewhere).await?, "no_pending_request");
    assert_eq!(rig.pairing().await?["pending"], json!([]));
    Ok(())
}

#[tokio::test]
async fn a_channel_request_that_came_later_is_found_by_the_call() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let id = rig.fake.raise_channel("telegram", "default", "444");
    outcome(&rig.approve(sender(&id)).await?, "approved");
    let id = rig.fake.raise_channel("telegram", "default", "555");
    // A hint of any kind makes the daemon look at everything.
    rig.fake.silently_pair(&DeviceSpec::browser());
    let wanted = |list: &Value| entry(list, "pending", "request_id", &id).is_some();
    rig.client.wait_until("/v1/pairing", wanted, SOON).await?;
    Ok(())
}

#[tokio::test]
async fn nodes_are_renamed() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::node();
    let id = rig.fake.raise_node(&spec, &["camera.snap"]);
    rig.sees(&id).await?;
    outcome(&rig.approve(node(&id)).await?, "approved");
    let rename = json!({"kind": "node", "device_id": spec.device_id, "label": "garage"});
    outcome(&rig.change("rename", rename).await?, "renamed");
    let found = node_entry(&rig.pairing().await?, &spec.device_id);
    assert_eq!(found.map(|one| one["label"].clone()), Some(json!("garage")));
    Ok(())
}
