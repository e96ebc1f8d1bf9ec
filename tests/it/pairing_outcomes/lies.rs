//! A gateway that lies about an approval: nothing beyond the expectation is ever called approved.

use serde_json::{Value, json};

use super::rig::{READ, Rig, SOON, by_device, by_request, entry, expecting, outcome, problem, typed};
use crate::support::fake::{DeviceSpec, Lie, Times, Version};

const LIES: [Lie; 4] = [Lie::MoreScopes, Lie::OtherDevice, Lie::Empty, Lie::Plain];

fn at_most(scopes: &[&str]) -> Value {
    json!({"max_scopes": scopes})
}

#[tokio::test]
async fn a_lie_is_never_approved_beyond_the_expectation() -> anyhow::Result<()> {
    for version in Version::ALL {
        for lie in LIES {
            for times in [Times::Next(1), Times::Forever] {
                let rig = Rig::start(version).await?;
                let spec = DeviceSpec::browser().with_scopes(&[READ]);
                let id = rig.raise(&spec).await?;
                rig.fake.lie_approved(lie, times);
                let reply = rig.approve_within(10, expecting(by_request(&id), at_most(&[READ]))).await?;
                let said = typed(&reply);
                let body = reply.json();
                if said == "approved" {
                    assert_eq!(body["device"]["device_id"], spec.device_id, "{version:?} {lie:?}: {body}");
                    assert_eq!(body["device"]["scopes"], json!([READ]), "{version:?} {lie:?}: {body}");
                }
                match lie {
                    Lie::MoreScopes => assert_eq!(said, "exceeds_expectation", "{version:?}: {body}"),
                    Lie::OtherDevice | Lie::Empty if times == Times::Forever => {
                        assert_ne!(said, "approved", "{version:?} {lie:?}: {body}");
                    }
                    Lie::OtherDevice | Lie::Empty => {
                        assert_eq!(said, "approved", "{version:?} {lie:?}: the second try is true: {body}");
                        assert!(rig.fake.truth(&spec.device_id).is_some(), "{version:?} {lie:?}");
                    }
                    Lie::Plain => {}
                }
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_keeps_lying_is_blamed_and_not_the_device() -> anyhow::Result<()> {
    for lie in [Lie::OtherDevice, Lie::Empty] {
        let rig = Rig::start(Version::V2026_9_6).await?;
        let spec = DeviceSpec::browser();
        let id = rig.raise(&spec).await?;
        rig.fake.lie_approved(lie, Times::Forever);
        let reply = rig.approve(by_request(&id)).await?;
        assert_eq!(rig.fake.truth(&spec.device_id), None, "{lie:?}");
        // The device asked once: "it keeps asking anew" would send people the wrong way.
        problem(&reply, "gateway_error");
    }
    Ok(())
}

#[tokio::test]
async fn a_pairing_that_never_happened_does_not_stay_in_the_view() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser();
    let id = rig.raise(&spec).await?;
    rig.fake.lie_approved(Lie::Plain, Times::Next(1));
    rig.approve(by_request(&id)).await?;
    let waits_only = |list: &Value| {
        entry(list, "approved", "device_id", &spec.device_id).is_none()
            && entry(list, "pending", "request_id", &id).is_some()
    };
    rig.client.wait_until("/v1/pairing", waits_only, SOON).await?;
    outcome(&rig.approve(by_device(&spec.device_id)).await?, "approved");
    assert!(rig.fake.truth(&spec.device_id).is_some());
    Ok(())
}

#[tokio::test]
async fn what_was_really_granted_too_much_is_removed_again() -> anyhow::Result<()> {
    for version in [Version::V2026_4_9, Version::V2026_6_11, Version::V2026_9_6] {
        let rig = Rig::start(version).await?;
        let spec = DeviceSpec::browser().with_scopes(&[READ]);
        let id = rig.raise(&spec).await?;
        rig.fake.lie_approved(Lie::MoreScopes, Times::Next(1));
        let reply = rig.approve(expecting(by_request(&id), at_most(&[READ]))).await?;
        let body = problem(&reply, "exceeds_expectation");
        assert!(body["detail"].as_str().is_some_and(|text| text.contains("removed again")), "{version:?}: {body}");
        assert_eq!(rig.fake.truth(&spec.device_id), None, "{version:?}: it was taken back");
        let records = rig.audit().await?;
        let last = records.iter().rfind(|one| one["verb"] == "pairing.approve").expect("a record");
        assert_eq!(last["outcome"], "exceeds_expectation", "{last}");
    }
    Ok(())
}

#[tokio::test]
async fn a_grant_beyond_the_expectation_is_removed_even_at_the_end_of_the_time_given() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser().with_scopes(&[READ]);
    let id = rig.raise(&spec).await?;
    rig.fake.lie_approved(Lie::MoreScopes, Times::Next(1));
    // The approval takes most of the second, so none is left for the removal.
    let calls = rig.fake.calls("device.pair.approve");
    rig.fake.slow(std::time::Duration::from_millis(700));
    let body = expecting(by_request(&id), at_most(&[READ]));
    let reply = rig.approve_within(1, body).await?;
    assert_ne!(typed(&reply), "approved");
    rig.fake.wait_for_call("device.pair.approve", calls, SOON).await?;
    let removed = |core: &crate::support::fake::Core| core.world.truth(&spec.device_id).is_none();
    rig.fake.wait_until("the removal", SOON, removed).await?;
    Ok(())
}

/// What a device held before, by another approval, is not taken for a grant of this one.
#[tokio::test]
async fn an_upgrade_is_measured_by_what_it_adds() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let spec = DeviceSpec::browser().with_scopes(&[READ, "operator.write"]);
    rig.fake.silently_pair(&spec);
    rig.paired(&spec.device_id, |_| true).await?;
    let id = rig.raise(&spec.clone().with_scopes(&["operator.approvals"])).await?;
    let asked = rig.sees(&id).await?["scopes"].clone();
    let asked: Vec<&str> = asked.as_array().expect("scopes").iter().filter_map(|s| s.as_str()).collect();
    let body = expecting(by_request(&id), at_most(&asked));
    assert_eq!(typed(&rig.approve(body).await?), "approved");
    assert!(rig.fake.truth(&spec.device_id).is_some(), "it was not removed");
    Ok(())
}
