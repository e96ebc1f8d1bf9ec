//! The fake gateway is held against frames captured from the real ones, and its faults against what they promise.

#[path = "fake_is_true/refusals.rs"]
mod refusals;
#[path = "fake_is_true/transcript.rs"]
mod transcript;
#[path = "fake_is_true/wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::fake::{
    Approver, DeviceSpec, Fake, Flood, Lie, Malformed, Mute, Options, Refusal, RestartIn, Times, Version,
};
use wire::{Key, REMOTE, Seen, Wire, browser, operator};

const LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_common_handshake_is_accepted_by_every_version() -> anyhow::Result<()> {
    for version in Version::ALL {
        let fake = Fake::start(version).await;
        for form in ["v2", "v3"] {
            let mut wire = Wire::open(&fake, &[]).await?;
            let params = wire.signed(&Key::new(), operator(&fake.token()), form);
            let answer = wire.call("connect", params).await?;
            if version == Version::V2026_2_9 && form == "v3" {
                assert_eq!(answer["error"]["message"], "device signature invalid", "{version:?} knows only v2");
                continue;
            }
            let hello = &answer["payload"];
            let captured = &version.templates().hello;
            assert_eq!(hello["type"], "hello-ok", "{version:?} {form}: {answer}");
            assert_eq!(hello["features"], captured["features"], "{version:?}");
            assert_eq!(hello["server"]["version"], captured["server"]["version"], "{version:?}");
            assert_eq!(hello["auth"]["scopes"].is_array(), captured["auth"]["scopes"].is_array(), "{version:?}");
            let list = wire.call("device.pair.list", json!({})).await?;
            assert!(list["payload"]["pending"].is_array(), "{version:?}: {list}");
            // Only 2026.2.9 makes a record of such an operator.
            let own = list["payload"]["paired"].as_array().map_or(0, Vec::len);
            assert_eq!(own, usize::from(version == Version::V2026_2_9), "{version:?}");
        }
    }
    Ok(())
}

async fn pending_ids(wire: &mut Wire) -> anyhow::Result<Vec<String>> {
    let list = wire.call("device.pair.list", json!({})).await?;
    let text = |record: &Value| record["requestId"].as_str().unwrap_or_default().to_owned();
    Ok(list["payload"]["pending"].as_array().into_iter().flatten().map(text).collect())
}

#[tokio::test]
async fn a_device_that_asks_for_more_replaces_or_widens_its_request() -> anyhow::Result<()> {
    for version in Version::ALL {
        let fake = Fake::start(version).await;
        let mut wire = Wire::operator(&fake).await?;
        let spec = DeviceSpec::browser().with_scopes(&["operator.read", "operator.pairing"]);
        let first = fake.raise(&spec);
        assert_eq!(fake.raise(&spec), first, "{version:?}: the same question keeps its id");
        wire.event("device.pair.requested").await?;
        let second = fake.widen(&spec.device_id, &["operator.admin"]);
        assert_eq!(second == first, version == Version::V2026_2_9, "{version:?}");
        assert_eq!(pending_ids(&mut wire).await?, std::slice::from_ref(&second), "{version:?}: one request a device");
        let told = wire.events.iter().any(|event| event["event"] == "device.pair.resolved");
        assert_eq!(told, version == Version::V2026_9_6, "{version:?}: who says that the old id is gone");
        let narrow = fake.raise(&spec.clone().with_scopes(&["operator.read"]));
        let replaced = matches!(version, Version::V2026_4_9 | Version::V2026_6_11);
        assert_eq!(narrow != second, replaced, "{version:?}: fewer scopes");
        let answer = wire.call("device.pair.approve", json!({"requestId": narrow})).await?;
        let scopes = &answer["payload"]["device"]["scopes"];
        assert_eq!(scopes, &json!(["operator.read", "operator.pairing", "operator.admin"]), "{version:?}");
        assert!(fake.truth(&spec.device_id).expect("paired").scopes.contains("operator.admin"));
    }
    Ok(())
}

#[tokio::test]
async fn a_remote_browser_is_refused_then_let_in_and_shown_as_connected() -> anyhow::Result<()> {
    for version in Version::ALL {
        let fake = Fake::start(version).await;
        let mut wire = Wire::operator(&fake).await?;
        let key = Key::new();
        let ask = |page: &Wire| page.signed(&key, browser(&fake.token(), &["operator.read"]), "v2");
        let mut page = Wire::open(&fake, &REMOTE).await?;
        let refused = page.call("connect", ask(&page)).await?;
        let id = refused["error"]["details"]["requestId"].as_str().expect("a request id").to_owned();
        let event = wire.event("device.pair.requested").await?;
        assert_eq!(event["payload"]["remoteIp"], "203.0.113.9", "{version:?}");
        wire.call("device.pair.approve", json!({"requestId": id})).await?;
        let mut page = Wire::open(&fake, &REMOTE).await?;
        let hello = page.call("connect", ask(&page)).await?;
        assert!(hello["payload"]["auth"]["deviceToken"].is_string(), "{version:?}: {hello}");
        let list = wire.call("device.pair.list", json!({})).await?;
        let connected = &list["payload"]["paired"][0]["connected"];
        let expected = if version == Version::V2026_9_6 { json!(true) } else { Value::Null };
        assert_eq!(connected, &expected, "{version:?}");
        if version > Version::V2026_2_9 {
            wire.call("device.pair.remove", json!({"deviceId": key.device_id()})).await?;
            assert_eq!(page.end().await?, Seen::Close(4001, "device removed".into()), "{version:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn requests_expire_silently() -> anyhow::Result<()> {
    let options = Options { pending_ttl: Duration::from_millis(60), ..Options::default() };
    let fake = Fake::start_with(Version::V2026_9_6, options).await;
    let mut wire = Wire::operator(&fake).await?;
    let spec = DeviceSpec::browser();
    let id = fake.raise(&spec);
    let end = Instant::now() + LIMIT;
    while fake.pending_id(&spec.device_id).is_some() {
        assert!(Instant::now() < end, "it never expires");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = wire.call("device.pair.approve", json!({"requestId": id})).await?;
    assert_eq!(answer["error"], json!({"code": "INVALID_REQUEST", "message": "unknown requestId"}));
    assert!(wire.events.iter().all(|event| event["event"] != "device.pair.resolved"));
    Ok(())
}

#[tokio::test]
async fn nodes_and_channel_senders_are_approved_in_their_own_ways() -> anyhow::Result<()> {
    for version in Version::ALL {
        let fake = Fake::start(version).await;
        let mut wire = Wire::operator(&fake).await?;
        let node = DeviceSpec::node();
        let id = fake.raise_node(&node, &["system.run"]);
        let answer = wire.call("node.pair.approve", json!({"requestId": id})).await?;
        assert!(fake.paired_node(&node.device_id), "{version:?}: {answer}");
        let leaks = answer["payload"]["node"]["token"].is_string();
        assert_eq!(leaks, version < Version::V2026_9_6, "{version:?}: the node's secret");
        let sender = fake.raise_channel("telegram", "default", "111");
        let ask = json!({"channel": "telegram", "accountId": "default", "requestId": sender});
        let answer = wire.call("channels.pairing.approve", ask.clone()).await?;
        if version < Version::V2026_9_6 {
            assert_eq!(answer["error"]["message"], "unknown method: channels.pairing.approve", "{version:?}");
            continue;
        }
        assert_eq!(answer["payload"]["senderId"], "111");
        let again = wire.call("channels.pairing.approve", ask).await?;
        assert_eq!(again["error"]["message"], "pending DM access request no longer exists");
    }
    Ok(())
}

#[tokio::test]
async fn restart_stop_and_token_change_close_sessions_as_documented() -> anyhow::Result<()> {
    let fake = Fake::start(Version::V2026_9_6).await;
    let before = fake.boot_id();
    let mut wire = Wire::operator(&fake).await?;
    let restart = tokio::spawn({
        let fake = fake.clone();
        async move { fake.restart().await }
    });
    assert_eq!(wire.event("shutdown").await?["payload"]["reason"], "gateway restarting");
    assert_eq!(wire.end().await?, Seen::Close(1012, "service restart".into()));
    assert!(Wire::operator(&fake).await.is_err(), "nobody listens while it restarts");
    restart.await?;
    let mut wire = Wire::operator(&fake).await?;
    assert_ne!(fake.boot_id(), before);
    fake.set_token("another");
    assert_eq!(wire.end().await?, Seen::Close(4001, "gateway auth changed".into()));
    let mut wire = Wire::operator(&fake).await?;
    fake.crash().await;
    assert_eq!(wire.end().await?, Seen::Gone);
    fake.resume_listening().await;
    Wire::operator(&fake).await?;
    Ok(())
}

#[tokio::test]
async fn approve_faults_do_what_they_say() -> anyhow::Result<()> {
    let fake = Fake::start(Version::V2026_9_6).await;
    let raise = |fake: &Fake| {
        let spec = DeviceSpec::browser().with_scopes(&["operator.read"]);
        (fake.raise(&spec), spec.device_id)
    };
    let mut wire = Wire::operator(&fake).await?;

    fake.supersede_on_approve(Times::Next(1));
    let (id, device) = raise(&fake);
    let answer = wire.call("device.pair.approve", json!({"requestId": id})).await?;
    assert_eq!(answer["error"]["message"], "unknown requestId");
    let next = fake.pending_id(&device).expect("the device waits under a new id");
    assert_eq!(wire.call("device.pair.approve", json!({"requestId": next})).await?["ok"], true);

    fake.lie_approved(Lie::MoreScopes, Times::Next(1));
    let (id, device) = raise(&fake);
    let answer = wire.call("device.pair.approve", json!({"requestId": id})).await?;
    assert!(answer["payload"]["device"]["scopes"].to_string().contains("operator.admin"));
    assert_eq!(fake.truth(&device), None, "a lie pairs nobody");

    fake.lose_reply_on_approve(Times::Next(1));
    wire.send(
        json!({"type": "req", "id": "x", "method": "device.pair.approve", "params": {"requestId": id}}).to_string(),
    )
    .await?;
    assert_eq!(wire.end().await?, Seen::Gone);
    assert!(fake.truth(&device).is_some(), "the approve itself happened");
    assert_eq!(fake.approvals(&device)[0].by, Approver::Rpc);

    for (when, effect) in [(RestartIn::BeforeEffect, false), (RestartIn::AfterEffect, true)] {
        let mut wire = Wire::operator(&fake).await?;
        let (id, device) = raise(&fake);
        fake.restart_in_approve(when);
        let ask = json!({"type": "req", "id": "x", "method": "device.pair.approve", "params": {"requestId": id}});
        wire.send(ask.to_string()).await?;
        assert_eq!(wire.end().await?, Seen::Close(1012, "service restart".into()));
        assert_eq!(fake.truth(&device).is_some(), effect, "{when:?}");
        let end = Instant::now() + LIMIT;
        while Wire::operator(&fake).await.is_err() {
            assert!(Instant::now() < end, "it comes back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn transport_faults_do_what_they_say() -> anyhow::Result<()> {
    let fake = Fake::start(Version::V2026_9_6).await;
    let mut wire = Wire::operator(&fake).await?;
    // Its own arrival; whatever comes after this would break the silence.
    wire.event("presence").await?;
    fake.mute(Mute::Everything);
    wire.send(json!({"type": "req", "id": "x", "method": "health"}).to_string()).await?;
    fake.wait_for_call("health", 0, LIMIT).await?;
    assert!(tokio::time::timeout(Duration::from_millis(100), wire.see()).await.is_err(), "mute");
    fake.mute(Mute::Off);

    fake.half_open(true);
    wire.send(json!({"type": "req", "id": "y", "method": "health"}).to_string()).await?;
    assert!(tokio::time::timeout(Duration::from_millis(100), wire.see()).await.is_err(), "half open");
    fake.half_open(false);
    assert!(matches!(wire.see().await?, Seen::Frame(frame) if frame["id"] == "y"));

    fake.drip(Some(Duration::from_millis(1)));
    let started = Instant::now();
    wire.call("health", json!({})).await?;
    assert!(started.elapsed() > Duration::from_millis(50), "dripping takes a while");
    fake.drip(None);

    fake.flood(Some(Flood::PerSecond(1000)));
    let first = wire.event("agent").await?["seq"].as_u64();
    assert_eq!(wire.event("agent").await?["seq"].as_u64(), first.map(|seq| seq + 1));
    fake.flood(None);
    fake.send_malformed(Malformed::Oversize(2));
    assert!(wire.event("chat").await?.to_string().len() > 2 << 20);

    fake.reject_connect(Refusal::starting(), Times::Next(1));
    let mut early = Wire::open(&fake, &[]).await?;
    let refused = early.call("connect", early.signed(&Key::new(), operator(&fake.token()), "v2")).await?;
    assert_eq!(refused["error"]["details"]["reason"], "startup-sidecars");
    assert_eq!(early.end().await?, Seen::Close(1013, "gateway starting".into()));

    fake.strip_scopes(Times::Next(1));
    let mut powerless = Wire::operator(&fake).await?;
    let refused = powerless.call("device.pair.list", json!({})).await?;
    assert_eq!(refused["error"]["code"], "FORBIDDEN");
    Ok(())
}

#[tokio::test]
async fn churn_keeps_the_truth_and_repeats_by_seed() -> anyhow::Result<()> {
    let mut counts = Vec::new();
    for _ in 0..2 {
        let fake = Fake::start(Version::V2026_9_6).await;
        fake.churn(Some(7));
        let mut wire = Wire::operator(&fake).await?;
        for _ in 0..200 {
            let spec = DeviceSpec::browser().with_scopes(&["operator.read"]);
            let id = fake.raise(&spec);
            match wire.call("device.pair.approve", json!({"requestId": id})).await {
                Ok(answer) if answer["ok"] == true => {
                    assert!(fake.approvals(&spec.device_id).iter().any(|one| one.by == Approver::Rpc), "{answer}");
                }
                Ok(answer) => assert_eq!(answer["error"]["message"], "unknown requestId"),
                Err(_) => wire = Wire::operator(&fake).await?,
            }
            fake.remove(&spec.device_id);
        }
        counts.push(fake.churn_counts());
    }
    assert_eq!(counts[0], counts[1]);
    let met = &counts[0];
    assert!(met.superseded > 0 && met.widened > 0 && met.expired > 0 && met.replies_lost > 0, "{met:?}");
    Ok(())
}
