//! The captured session of an operator, played again on the fake: what others did happens, what the operator asked is
//! asked, and every answer has to look like the captured one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::wire::Wire;
use crate::support::fake::{DeviceSpec, Fake, Version};

/// Present or not according to who connected meanwhile, which the play leaves out.
const OPTIONAL: [&str; 6] =
    ["lastSeenAtMs", "lastSeenReason", "rotatedAtMs", "lastUsedAtMs", "revokedAtMs", "operatorLabel"];
/// Times and secrets; that they are there is compared, their values are not.
const VARIABLE: [&str; 6] = ["ts", "token", "tokens", "connected", "platform", "issuedAtMs"];

#[tokio::test]
async fn the_captured_operator_session_gets_the_captured_answers() -> anyhow::Result<()> {
    for version in Version::ALL {
        let compared = play(version).await?;
        assert!(compared >= 15, "{version:?}: only {compared} answers were compared");
    }
    Ok(())
}

async fn play(version: Version) -> anyhow::Result<usize> {
    let session = version.captured_session();
    let fake = Fake::replay(version).await;
    let mut wire = Wire::operator(&fake).await?;
    let first_list = session.iter().position(|entry| entry["frame"]["method"] == "device.pair.list");
    let entries = &session[first_list.expect("the session lists")..];
    let mut compared = 0;
    for (at, entry) in entries.iter().enumerate() {
        let frame = &entry["frame"];
        match (entry["dir"].as_str(), frame["event"].as_str()) {
            (Some("in"), Some("device.pair.requested")) => others_ask(&fake, &frame["payload"]),
            (Some("in"), Some("device.pair.resolved")) => others_decide(&fake, &frame["payload"]),
            (Some("out"), _) => {
                let answer =
                    entries[at..].iter().find(|later| later["dir"] == "in" && later["frame"]["id"] == frame["id"]);
                let expected = &answer.expect("a captured answer")["frame"];
                let method = frame["method"].as_str().expect("a method");
                let params = frame.get("params").cloned().unwrap_or_else(|| json!({}));
                let got = wire.call(method, params).await?;
                compare(version, method, expected, &got);
                compared += 1;
            }
            _ => {}
        }
    }
    Ok(compared)
}

/// A device asked under this id; whatever the fake would have called it.
fn others_ask(fake: &Fake, record: &Value) {
    let id = fake.raise(&DeviceSpec::from_record(record));
    let captured = record["requestId"].as_str().expect("an id").to_owned();
    fake.with(|core| {
        let pending = core.world.pending.iter_mut().find(|one| one.request_id == id);
        pending.expect("it was just raised").request_id = captured;
    });
}

/// Another operator approved. (A rejection announces the next request of the same device, which follows.)
fn others_decide(fake: &Fake, payload: &Value) {
    if payload["decision"] == "approved" {
        fake.approve_out_of_band(payload["requestId"].as_str().expect("an id"));
    }
}

fn compare(version: Version, method: &str, expected: &Value, got: &Value) {
    let context = format!("{} {method}\nexpected {expected}\ngot      {got}", version.name());
    assert_eq!(got["ok"], expected["ok"], "{context}");
    assert_eq!(got["error"], expected["error"], "{context}");
    if method == "device.pair.list" {
        lists(expected, got, &context);
    } else if let Some(payload) = expected["payload"].as_object() {
        records(&Value::Object(payload.clone()), &got["payload"], &context);
    }
}

/// The same requests; of the paired devices those the fake knows (the recording had passers-by).
fn lists(expected: &Value, got: &Value, context: &str) {
    let ids = |list: &Value, key: &str| -> BTreeSet<String> {
        list.as_array().into_iter().flatten().filter_map(|one| one[key].as_str()).map(String::from).collect()
    };
    let (expected, got) = (&expected["payload"], &got["payload"]);
    assert_eq!(ids(&got["pending"], "requestId"), ids(&expected["pending"], "requestId"), "{context}");
    for (list, key) in [("pending", "requestId"), ("paired", "deviceId")] {
        for record in expected[list].as_array().into_iter().flatten() {
            let same = got[list].as_array().into_iter().flatten().find(|one| one[key] == record[key]);
            if let Some(same) = same {
                records(record, same, context);
            }
        }
    }
}

fn records(expected: &Value, got: &Value, context: &str) {
    let keys = |value: &Value| -> BTreeSet<String> {
        let names = value.as_object().into_iter().flatten().map(|(name, _)| name.clone());
        names.filter(|name| !OPTIONAL.contains(&name.as_str())).collect()
    };
    assert_eq!(keys(got), keys(expected), "{context}");
    for (name, value) in expected.as_object().into_iter().flatten() {
        let skipped = OPTIONAL.contains(&name.as_str()) || VARIABLE.contains(&name.as_str()) || name.ends_with("AtMs");
        if value.is_object() {
            records(value, &got[name], context);
        } else if name == "tokens" {
            // What a token allows follows its device's last visit, so only its shape is compared.
            assert_eq!(keys(&got[name][0]), keys(&value[0]), "{context}");
        } else if !skipped {
            assert_eq!(&got[name], value, "{name}: {context}");
        }
    }
}
