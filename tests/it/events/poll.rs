//! The long poll of the state and its entity tag.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::timeout;

use super::super::auth_matrix::scene::LIMIT;
use super::{TOLD_WITHIN, start};
use crate::support::fake::DeviceSpec;
use crate::support::sidecar::Sidecar;

async fn generation(sidecar: &Sidecar) -> anyhow::Result<u64> {
    Ok(sidecar.client().get("/v1/state").await?.json()["generation"].as_u64().expect("a generation"))
}

#[tokio::test]
async fn it_answers_when_something_changes() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let now = generation(&sidecar).await?;
    let mut polls: Vec<_> = [sidecar.client(), sidecar.support_client()]
        .into_iter()
        .map(|client| tokio::spawn(async move { client.get(&format!("/v1/state?wait_gen={now}&timeout_s=30")).await }))
        .collect();
    for poll in &mut polls {
        assert!(timeout(Duration::from_millis(300), poll).await.is_err(), "answered without news");
    }
    let raised = Instant::now();
    let request_id = fake.raise(&DeviceSpec::browser());
    for poll in polls {
        let reply = poll.await??;
        assert_eq!(reply.status, 200);
        let state: Value = reply.json();
        assert!(state["generation"].as_u64() > Some(now));
        assert_eq!(state["pairing"]["pending"][0]["request_id"], request_id.as_str());
    }
    assert!(raised.elapsed() < TOLD_WITHIN, "{:?}", raised.elapsed());
    Ok(())
}

#[tokio::test]
async fn it_answers_after_its_time_and_at_once_for_an_old_generation() -> anyhow::Result<()> {
    let (_fake, sidecar) = start(|builder| builder).await?;
    let (now, client) = (generation(&sidecar).await?, sidecar.client());
    for (query, least, most) in [
        (format!("wait_gen={now}&timeout_s=2"), 2, 3),
        (format!("timeout_s=1&wait_gen={}", u64::MAX), 1, 2),
        (format!("wait_gen={now}&timeout_s=0"), 0, 1),
        (format!("wait_gen={}&timeout_s=30", now - 1), 0, 1),
        ("wait_gen=0".to_owned(), 0, 1),
        ("timeout_s=30".to_owned(), 0, 1),
    ] {
        let started = Instant::now();
        let reply = client.get(&format!("/v1/state?{query}")).await?;
        let took = started.elapsed();
        assert_eq!((reply.status, reply.json()["generation"].as_u64()), (200, Some(now)), "{query}");
        assert!(took >= Duration::from_secs(least) && took < Duration::from_secs(most), "{query}: {took:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_unchanged_state_is_not_sent_again() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder.edge()).await?;
    let client = sidecar.client();
    let first = client.get("/v1/state").await?;
    let tag = first.header("etag").expect("a tag").to_owned();
    for client in [sidecar.client(), sidecar.support_client(), sidecar.edge_client()] {
        let same = client.request("GET", "/v1/state", &[("if-none-match", &tag)], None).await?;
        assert_eq!((same.status, same.header("etag"), same.body.len()), (304, Some(tag.as_str()), 0));
        assert_eq!(client.get("/v1/state").await?.status, 200, "the connection goes on");
    }
    let other = client.request("GET", "/v1/state", &[("if-none-match", "W/\"other.1\"")], None).await?;
    assert_eq!(other.status, 200);
    let refused = client.with_token(None).request("GET", "/v1/state", &[("if-none-match", &tag)], None).await?;
    assert_eq!(refused.status, 401, "a tag is no credential");
    fake.raise(&DeviceSpec::browser());
    client.wait_until("/v1/state", |state| state["pairing"]["pending"][0].is_object(), LIMIT).await?;
    let changed = client.request("GET", "/v1/state", &[("if-none-match", &tag)], None).await?;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
    Ok(())
}
