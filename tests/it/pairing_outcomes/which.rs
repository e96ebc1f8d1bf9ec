//! Which request is meant, and whether it may be approved: superseded, ambiguous, beyond the expectation.

use serde_json::{Value, json};

use super::rig::{ADMIN, READ, Rig, by_device, by_request, expecting, outcome, problem, sorted};
use crate::support::fake::{DeviceSpec, Times, Version};

const NEWER: [Version; 3] = [Version::V2026_4_9, Version::V2026_6_11, Version::V2026_9_6];

fn reader() -> DeviceSpec {
    DeviceSpec::browser().with_scopes(&[READ])
}

fn max(scopes: &[&str]) -> Value {
    json!({"max_scopes": scopes})
}

#[tokio::test]
async fn a_replaced_request_is_superseded_or_followed_within_the_expectation() -> anyhow::Result<()> {
    for version in NEWER {
        let rig = Rig::start(version).await?;
        let spec = reader();
        let old = rig.raise(&spec).await?;
        let new = rig.fake.widen(&spec.device_id, &[ADMIN]);
        rig.sees(&new).await?;

        let body = problem(&rig.approve(by_request(&old)).await?, "superseded");
        let candidates = body["candidates"].as_array().expect("the candidate");
        assert_eq!(candidates.len(), 1, "{version:?}: {body}");
        assert_eq!(candidates[0]["request_id"], new, "{version:?}");
        assert_eq!(sorted(&candidates[0]["scopes"]), [ADMIN, READ], "{version:?}");

        problem(&rig.approve(expecting(by_request(&old), max(&[READ]))).await?, "exceeds_expectation");
        problem(&rig.change("reject", by_request(&old)).await?, "superseded");
        assert_eq!(rig.fake.truth(&spec.device_id), None, "{version:?}: nothing was approved");

        let body = outcome(&rig.approve(expecting(by_request(&old), max(&[ADMIN]))).await?, "approved");
        assert_eq!(body["request_id"], new, "{version:?}: the one that really was approved");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_replaced_during_the_call_is_superseded_or_followed() -> anyhow::Result<()> {
    for version in NEWER {
        let rig = Rig::start(version).await?;
        let spec = reader();
        let old = rig.raise(&spec).await?;
        rig.fake.supersede_on_approve(Times::Next(1));
        let body = problem(&rig.approve(by_request(&old)).await?, "superseded");
        let new = rig.fake.pending_id(&spec.device_id).expect("it still waits");
        assert_eq!(body["candidates"][0]["request_id"], new, "{version:?}");

        rig.fake.supersede_on_approve(Times::Next(2));
        let body = outcome(&rig.approve(by_device(&spec.device_id)).await?, "approved");
        assert_ne!(body["request_id"], new, "{version:?}: it was replaced twice more");
        assert_eq!(rig.fake.approvals(&spec.device_id)[0].request_id, body["request_id"], "{version:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_keeps_changing_is_given_up_on() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = reader();
    rig.raise(&spec).await?;
    rig.fake.supersede_on_approve(Times::Forever);
    let body = problem(&rig.approve(by_device(&spec.device_id)).await?, "superseded");
    assert_eq!(body["candidates"][0]["device_id"], spec.device_id);
    assert_eq!(rig.fake.truth(&spec.device_id), None);
    rig.fake.clear_faults();
    outcome(&rig.approve(by_device(&spec.device_id)).await?, "approved");
    Ok(())
}

#[tokio::test]
async fn only_pending_acts_on_exactly_one() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let only = || json!({"kind": "device", "only_pending": true});
        let (one, other) = (reader(), DeviceSpec::browser());
        let ids = [rig.raise(&one).await?, rig.raise(&other).await?];
        for body in [only(), expecting(only(), max(&[ADMIN])), expecting(only(), max(&[]))] {
            let body = problem(&rig.approve(body).await?, "ambiguous");
            let listed: Vec<Value> =
                body["candidates"].as_array().into_iter().flatten().map(|one| one["request_id"].clone()).collect();
            assert_eq!(sorted(&json!(listed)), sorted(&json!(ids)), "{version:?}");
        }
        let body = outcome(&rig.approve(expecting(only(), max(&[READ]))).await?, "approved");
        assert_eq!(body["request_id"], ids[0], "{version:?}: the only one that fits");
        problem(&rig.approve(expecting(only(), max(&[READ]))).await?, "exceeds_expectation");
        let body = outcome(&rig.approve(only()).await?, "approved");
        assert_eq!(body["request_id"], ids[1], "{version:?}: the only one left");
        problem(&rig.approve(only()).await?, "no_pending_request");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_nobody_told_of_still_counts_for_only_pending() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    rig.raise(&reader()).await?;
    rig.fake.drop_events(Times::Next(1));
    rig.fake.raise(&reader());
    let reply = rig.approve(json!({"kind": "device", "only_pending": true})).await?;
    assert_eq!(problem(&reply, "ambiguous")["candidates"].as_array().map(Vec::len), Some(2));
    Ok(())
}

#[tokio::test]
async fn each_limit_of_an_expectation_holds() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = reader();
    let id = rig.raise(&spec).await?;
    let limits = [
        (json!({"role": "node"}), "node"),
        (max(&[]), READ),
        (max(&["operator.write"]), READ),
        (json!({"client_id": "openclaw-cli"}), "openclaw-control-ui"),
        (json!({"platform": "Win32"}), "MacIntel"),
        (json!({"role": "operator", "max_scopes": [READ], "platform": "Win32"}), "Win32"),
    ];
    for (limit, told) in limits {
        for target in [by_request(&id), by_device(&spec.device_id), json!({"kind": "device", "only_pending": true})] {
            let body = problem(&rig.approve(expecting(target, limit.clone())).await?, "exceeds_expectation");
            assert!(body["detail"].as_str().is_some_and(|text| text.contains(told)), "{limit}: {body}");
        }
    }
    assert_eq!(rig.fake.calls("device.pair.approve"), 0, "the gateway was never asked");
    let all = json!({"role": "operator", "max_scopes": [READ], "client_id": "openclaw-control-ui",
        "platform": "MacIntel"});
    outcome(&rig.approve(expecting(by_request(&id), all)).await?, "approved");
    let body = problem(&rig.approve(expecting(by_request(&id), max(&[]))).await?, "exceeds_expectation");
    assert!(body["detail"].as_str().is_some_and(|text| text.contains("already paired")), "{body}");
    Ok(())
}

#[tokio::test]
async fn a_request_widened_after_the_list_is_refused() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let spec = reader();
        let id = rig.raise(&spec).await?;
        // On 2026.2.9 no event tells of it, and the id stays.
        rig.fake.widen(&spec.device_id, &[ADMIN]);
        for target in [by_request(&id), by_device(&spec.device_id)] {
            problem(&rig.approve(expecting(target, max(&[READ]))).await?, "exceeds_expectation");
        }
        assert_eq!(rig.fake.truth(&spec.device_id), None, "{version:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_widened_during_the_call_is_never_reported_as_approved() -> anyhow::Result<()> {
    for version in Version::ALL {
        let rig = Rig::start(version).await?;
        let spec = reader();
        rig.raise(&spec).await?;
        rig.fake.supersede_on_approve_adding(Times::Next(1), &[ADMIN]);
        let reply = rig.approve(expecting(by_device(&spec.device_id), max(&[READ]))).await?;
        let body = problem(&reply, "exceeds_expectation");
        if version == Version::V2026_2_9 {
            // It grants what nobody was shown, and cannot take it back: then a person has to know.
            assert!(body["detail"].as_str().is_some_and(|text| text.contains("BY HAND")), "{body}");
        } else {
            assert_eq!(rig.fake.truth(&spec.device_id), None, "{version:?}");
        }
    }
    Ok(())
}
