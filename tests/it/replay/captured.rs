//! Captured answers and events, frame by frame: the library reads each, and the daemon believes what they say.

use openclaw_sidecar::gateway::frames::RpcError;
use serde_json::Value;

use super::super::pairing_outcomes::rig::{Rig, SOON, entry};
use crate::support::fake::Version;

fn received(version: Version) -> Vec<Value> {
    let entries = version.captured_session();
    entries.into_iter().filter(|one| one["dir"] == "in").map(|one| one["frame"].clone()).collect()
}

#[test]
fn every_captured_error_is_understood() {
    let mut unknown_ids = 0;
    for version in Version::ALL {
        let refusals = version.captured_refusals();
        let refused = refusals.iter().flat_map(|one| one["frames"].as_array().into_iter().flatten());
        let refused = refused.map(|one| one["frame"].clone());
        for frame in received(version).into_iter().chain(refused) {
            let Some(wire) = frame.get("error").filter(|error| error.is_object()) else { continue };
            let error: RpcError = serde_json::from_value(wire.clone()).unwrap_or_else(|e| panic!("{e}: {wire}"));
            let text = wire["message"].as_str().unwrap_or_default();
            assert!(!error.fine_code().is_empty(), "{version:?}: {wire}");
            assert_eq!(error.is_unknown_method(), text.starts_with("unknown method"), "{version:?}: {wire}");
            assert_eq!(error.is_missing_scope(), text.contains("missing scope"), "{version:?}: {wire}");
            let id = ["unknown requestId", "unknown deviceId"].iter().any(|known| text.starts_with(known));
            assert_eq!(error.is_unknown_id(), id, "{version:?}: {wire}");
            unknown_ids += usize::from(id);
        }
    }
    assert!(unknown_ids >= 4, "every version was asked for something unknown: {unknown_ids}");
}

/// The captured events are sent to a daemon as they are; requests they tell of are shown as they say.
#[tokio::test]
async fn captured_events_are_taken_as_they_are() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let events: Vec<Value> = received(version).into_iter().filter(|one| one["type"] == "event").collect();
        let requested = events.iter().find(|one| one["event"] == "device.pair.requested").expect("a captured request");
        // The gateway has to have it too, or the next look takes it for gone.
        let spec = crate::support::fake::DeviceSpec::from_record(&requested["payload"]);
        let wanted = requested["payload"]["requestId"].as_str().expect("an id").to_owned();
        rig.fake.with(|core| {
            core.world.request(spec.clone());
            core.world.pending[0].request_id.clone_from(&wanted);
        });
        let mut stream = rig.client.events("/v1/events", None).await?;
        rig.fake.send_text(&requested.to_string());
        let told = stream.wait_for(|event| event.event == "pairing.requested", SOON).await?.json();
        assert_eq!(told["request_id"], wanted, "{version:?}");
        let list = rig.pairing().await?;
        let shown = entry(&list, "pending", "request_id", &wanted).unwrap_or_default();
        assert_eq!(shown["device_id"], requested["payload"]["deviceId"], "{version:?}: {list}");
        assert_eq!(shown["scopes"], requested["payload"]["scopes"], "{version:?}");
        for event in &events {
            rig.fake.send_text(&event.to_string());
        }
        rig.ready(SOON).await?;
        assert_eq!(rig.fake.totals().1, 1, "{version:?}: nothing of it ended the session");
        let metrics = rig.client.get("/metrics").await?.text();
        let malformed = metrics.lines().find(|line| line.contains("malformed") && !line.starts_with('#'));
        assert!(malformed.is_some_and(|line| line.ends_with(" 0")), "{version:?}: all were readable: {malformed:?}");
    }
    Ok(())
}
