//! What the stream tells, and how soon.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::auth_matrix::scene::LIMIT;
use super::super::auth_matrix::wire::Wire;
use super::{TOLD_WITHIN, about, open, start};
use crate::support::fake::DeviceSpec;
use crate::support::fake::codec::now_ms;

#[tokio::test]
async fn it_begins_with_a_reset_and_tells_of_requests_at_once() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder.edge()).await?;
    for client in [sidecar.client(), sidecar.edge_client(), sidecar.support_client()] {
        let generation = client.get("/v1/state").await?.json()["generation"].clone();
        let mut stream = client.events("/v1/events", None).await?;
        assert_eq!(stream.headers["content-type"], "text/event-stream");
        assert_eq!(stream.headers["cache-control"], "no-store");
        let first = stream.next(LIMIT).await?;
        assert_eq!((first.event.as_str(), first.json()["reason"].as_str()), ("reset", Some("start")));
        assert_eq!(first.json()["generation"], generation);
        assert!(first.id.is_some());

        let spec = DeviceSpec::browser().named("a browser");
        let request_id = fake.raise(&spec);
        let told = about(&mut stream, "pairing.requested", &request_id, TOLD_WITHIN).await?;
        assert_eq!((&told["kind"], &told["device_id"]), (&json!("device"), &json!(spec.device_id)), "{told}");
        assert_eq!((&told["label"], &told["remote_ip"]), (&json!("a browser"), &json!("203.0.113.9")), "{told}");
        assert!(told["generation"].as_u64() > generation.as_u64() && told["at"].is_string(), "{told}");
    }
    Ok(())
}

#[tokio::test]
async fn every_decision_is_told() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let client = sidecar.client();
    let (mut stream, _) = open(&sidecar).await?;
    for (path, decision) in [("/v1/pairing/approve", "approved"), ("/v1/pairing/reject", "rejected")] {
        let id = fake.raise(&DeviceSpec::browser());
        about(&mut stream, "pairing.requested", &id, LIMIT).await?;
        let reply = client.post(path, &json!({"kind": "device", "request_id": id})).await?;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let told = about(&mut stream, "pairing.resolved", &id, TOLD_WITHIN).await?;
        assert_eq!(told["decision"], decision, "{told}");
    }
    for (approve, decision) in [(true, "approved"), (false, "rejected")] {
        let id = fake.raise(&DeviceSpec::browser());
        about(&mut stream, "pairing.requested", &id, LIMIT).await?;
        if approve {
            assert!(fake.approve_out_of_band(&id));
        } else {
            assert!(fake.reject_out_of_band(&id));
        }
        let told = about(&mut stream, "pairing.resolved", &id, TOLD_WITHIN).await?;
        assert_eq!(told["decision"], decision, "not by us: {told}");
    }
    stream.wait_for(|event| event.event == "pairing.out_of_band", LIMIT).await?;
    Ok(())
}

/// No event of the gateway tells of it; the list does.
#[tokio::test]
async fn a_lapsed_request_is_told_as_expired() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let (mut stream, _) = open(&sidecar).await?;
    let id = fake.raise(&DeviceSpec::browser());
    about(&mut stream, "pairing.requested", &id, LIMIT).await?;
    fake.expire(&id);
    let told = about(&mut stream, "pairing.resolved", &id, LIMIT).await?;
    assert_eq!(told["decision"], "withdrawn", "gone before its time: {told}");

    // One that has waited for nearly as long as it may when the sidecar first sees it.
    fake.drop_events(crate::support::fake::Times::Next(1));
    let id = fake.raise(&DeviceSpec::browser());
    fake.with(|core| core.world.pending.iter_mut().for_each(|p| p.ts = now_ms() - 299_000));
    about(&mut stream, "pairing.requested", &id, LIMIT).await?;
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        // The request's own time has to pass; the stream stays quiet meanwhile.
        let left = end.saturating_duration_since(Instant::now());
        let _ = stream.next(left).await;
    }
    fake.expire(&id);
    let told = about(&mut stream, "pairing.resolved", &id, LIMIT).await?;
    assert_eq!(told["decision"], "expired", "{told}");
    Ok(())
}

/// This version says `rejected` for the old request before it raises the new one.
#[tokio::test]
async fn a_replaced_request_is_told_as_superseded() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let (mut stream, _) = open(&sidecar).await?;
    let spec = DeviceSpec::browser().with_scopes(&["operator.read"]);
    let old = fake.raise(&spec);
    about(&mut stream, "pairing.requested", &old, LIMIT).await?;
    let new = fake.widen(&spec.device_id, &["operator.write"]);
    assert_ne!(old, new);
    let told = about(&mut stream, "pairing.resolved", &old, LIMIT).await?;
    assert_eq!((&told["decision"], &told["superseded_by"]), (&json!("superseded"), &json!(new)), "{told}");
    about(&mut stream, "pairing.requested", &new, TOLD_WITHIN).await?;
    Ok(())
}

#[tokio::test]
async fn phases_of_the_gateway_are_told() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let (mut stream, _) = open(&sidecar).await?;
    fake.crash().await;
    let left = stream.wait_for(|event| event.event == "gateway.phase", LIMIT).await?.json();
    assert_eq!(left["was"], "ready", "{left}");
    let stopped = |event: &crate::support::client::Event| event.json()["phase"] == "stopped";
    stream.wait_for(stopped, LIMIT).await?;
    fake.resume_listening().await;
    stream.wait_for(|event| event.json()["phase"] == "ready", LIMIT).await?;
    fake.restart().await;
    let starting = stream.wait_for(|event| event.event == "gateway.phase", LIMIT).await?.json();
    assert_eq!(starting["phase"], "starting", "{starting}");
    stream.wait_for(|event| event.json()["phase"] == "ready", LIMIT).await?;
    Ok(())
}

#[tokio::test]
async fn a_quiet_stream_is_kept_alive() -> anyhow::Result<()> {
    let (_fake, sidecar) = start(|builder| builder.edge()).await?;
    let mut wire = Wire::open(sidecar.edge_addr()).await?;
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        sidecar.support_token()
    );
    let started = Instant::now();
    wire.send(request.as_bytes()).await?;
    wire.read_until(": ping\n\n", Duration::from_secs(20)).await?;
    let first = started.elapsed();
    assert!(first > Duration::from_secs(5), "a ping after {first:?} wakes sleeping machines");
    Ok(())
}

#[tokio::test]
async fn too_many_streams_are_refused_and_places_come_back() -> anyhow::Result<()> {
    let (_fake, sidecar) = start(|builder| builder.env("OPENCLAW_SIDECAR_LIMITS_MAX_CONNECTIONS", "8")).await?;
    let (first, _) = open(&sidecar).await?;
    let (_second, _) = open(&sidecar).await?;
    let refused = sidecar.client().get("/v1/events").await?;
    assert_eq!((refused.status, refused.code().as_str()), (429, "too_many_streams"), "{}", refused.text());
    assert!(refused.header("retry-after").is_some() && refused.json()["retryable"] == true);
    assert_eq!(sidecar.client().get("/v1/state").await?.status, 200, "other calls go on");
    drop(first);
    let end = Instant::now() + LIMIT;
    while sidecar.client().events("/v1/events", None).await.is_err() {
        assert!(Instant::now() < end, "the place of a closed stream does not come back");
    }
    Ok(())
}
