//! Reject, revoke, rename of devices; the sidecar's own device is out of reach.

use serde_json::json;

use super::rig::{READ, Rig, by_device, by_request, entry, outcome, problem};
use crate::support::fake::{DeviceSpec, Version};

#[tokio::test]
async fn rejecting_is_safe_to_repeat() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser();
        let id = rig.raise(&spec).await?;
        outcome(&rig.change("reject", by_request(&id)).await?, "rejected");
        assert_eq!(rig.fake.pending_id(&spec.device_id), None, "{version:?}");
        outcome(&rig.change("reject", by_request(&id)).await?, "already_rejected");
        problem(&rig.approve(by_request(&id)).await?, "no_pending_request");

        let id = rig.raise(&spec).await?;
        rig.fake.reject_out_of_band(&id);
        outcome(&rig.change("reject", by_request(&id)).await?, "already_rejected");

        let id = rig.raise(&spec).await?;
        outcome(&rig.approve(by_request(&id)).await?, "approved");
        problem(&rig.change("reject", by_request(&id)).await?, "no_pending_request");
        assert!(rig.fake.truth(&spec.device_id).is_some(), "{version:?}: a late reject revokes nothing");
    }
    Ok(())
}

#[tokio::test]
async fn revoking_ends_the_pairing_and_its_session() -> anyhow::Result<()> {
    for version in [Version::V2026_4_9, Version::V2026_6_11, Version::V2026_9_6] {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser();
        let id = rig.raise(&spec).await?;
        outcome(&rig.approve(by_request(&id)).await?, "approved");
        rig.fake.connect_device(&spec.device_id);
        outcome(&rig.change("revoke", by_device(&spec.device_id)).await?, "revoked");
        assert_eq!(rig.fake.truth(&spec.device_id), None, "{version:?}");
        assert!(!rig.fake.with(|core| core.is_connected(&spec.device_id)), "{version:?}: its session is over");
        let list = rig.pairing().await?;
        assert!(entry(&list, "approved", "device_id", &spec.device_id).is_none(), "{version:?}: {list}");
        problem(&rig.change("revoke", by_device(&spec.device_id)).await?, "not_found");
        problem(&rig.approve(by_device(&spec.device_id)).await?, "no_pending_request");

        // It may ask again, and be let in again.
        let id = rig.raise(&spec).await?;
        outcome(&rig.approve(by_request(&id)).await?, "approved");
        assert_eq!(rig.out_of_band_records(&spec.device_id).await?, 0, "{version:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_unknown_is_not_found() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let nobody = "e".repeat(64);
    for kind in ["device", "node"] {
        let target = json!({"kind": kind, "device_id": nobody});
        problem(&rig.change("revoke", target.clone()).await?, "not_found");
        let mut rename = target;
        rename["label"] = json!("kitchen");
        problem(&rig.change("rename", rename).await?, "not_found");
    }
    Ok(())
}

#[tokio::test]
async fn renaming_gives_a_name_for_people() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser().named("Safari");
    let id = rig.raise(&spec).await?;
    let label = |list: &serde_json::Value| {
        entry(list, "approved", "device_id", &spec.device_id).map(|one| one["label"].clone())
    };
    outcome(&rig.approve(by_request(&id)).await?, "approved");
    assert_eq!(label(&rig.pairing().await?), Some(json!("Safari")));
    let rename = json!({"kind": "device", "device_id": spec.device_id, "label": "  Anna's phone "});
    outcome(&rig.change("rename", rename).await?, "renamed");
    assert_eq!(label(&rig.pairing().await?), Some(json!("Anna's phone")), "the answer and the view agree");
    assert_eq!(rig.out_of_band_records(&spec.device_id).await?, 0);
    for bad in ["", "   ", "a\nb", &"x".repeat(65)] {
        let rename = json!({"kind": "device", "device_id": spec.device_id, "label": bad});
        assert_eq!(rig.change("rename", rename).await?.code(), "invalid_body", "{bad:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_sidecars_own_device_is_in_no_list_and_cannot_be_touched() -> anyhow::Result<()> {
    // 2026.2.9 keeps a record of every operator, so there the sidecar is in the gateway's list.
    for version in [Version::V2026_2_9, Version::V2026_9_6] {
        let rig = Rig::start(version).await?;
        let own = rig.state().await?["sidecar"]["device_id"].as_str().expect("its own id").to_owned();
        let params = rig.fake.last_connect().expect("it connected");
        assert_eq!(params["device"]["id"], own);
        // Even a request and a record under that id, whoever made them.
        let spec = DeviceSpec { device_id: own.clone(), ..DeviceSpec::browser() };
        rig.fake.silently_pair(&spec);
        let spec = spec.with_scopes(&[READ, "operator.everything"]);
        let id = rig.fake.raise(&spec);
        rig.raise(&DeviceSpec::browser()).await?;
        let calls = rig.fake.calls("device.pair.list");
        rig.fake.wait_for_call("device.pair.list", calls + 1, super::rig::SOON).await?;
        let text = rig.pairing().await?.to_string();
        assert!(!text.contains(&own), "{version:?}: {text}");
        problem(&rig.change("revoke", by_device(&own)).await?, "not_found");
        let rename = json!({"kind": "device", "device_id": own, "label": "me"});
        problem(&rig.change("rename", rename).await?, "not_found");
        problem(&rig.approve(by_device(&own)).await?, "no_pending_request");
        problem(&rig.approve(by_request(&id)).await?, "no_pending_request");
        assert!(rig.fake.truth(&own).is_some(), "{version:?}: the record is untouched");
        assert_eq!(rig.out_of_band_records(&own).await?, 0, "{version:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_revoke_of_the_sidecar_itself_never_reaches_the_gateway() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let own = rig.state().await?["sidecar"]["device_id"].as_str().expect("its own id").to_owned();
    for kind in ["device", "node"] {
        problem(&rig.change("revoke", json!({"kind": kind, "device_id": own})).await?, "not_found");
    }
    assert_eq!(rig.fake.calls("device.pair.remove") + rig.fake.calls("node.pair.remove"), 0);
    Ok(())
}
