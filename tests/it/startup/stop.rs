//! The end: quick, orderly, and with an answer to whoever waits for one.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::auth_matrix::scene::{LIMIT, Scene};
use super::super::auth_matrix::wire::Wire;
use crate::support::sidecar::send_signal;

const STOP_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn both_signals_stop_it_with_streams_and_polls_open() -> anyhow::Result<()> {
    for signal in ["TERM", "INT"] {
        let mut scene = Scene::start_with(|builder| builder.edge().unix()).await?;
        let sidecar = &mut scene.sidecar;
        let mut stream = sidecar.client().events("/v1/events", None).await?;
        stream.next(LIMIT).await?;
        let mut idle = Wire::open(sidecar.edge_addr()).await?;
        assert!(idle.get("/v1/state", sidecar.support_token(), LIMIT).await?.is_some());
        let _silent = Wire::open(sidecar.edge_addr()).await?;
        let socket = sidecar.unix_path().to_owned();
        assert!(socket.exists());
        let started = Instant::now();
        sidecar.signal(signal).await?;
        let status = sidecar.wait(STOP_WITHIN).await?;
        assert_eq!(status.code(), Some(0), "SIG{signal} after {:?}", started.elapsed());
        assert!(!socket.exists(), "the socket stays after SIG{signal}");
        while let Ok(event) = stream.next(LIMIT).await {
            assert_ne!(event.event, "message");
        }
        assert!(idle.closes(LIMIT).await);
    }
    Ok(())
}

/// What was begun is finished, or refused in words: the caller must not be left to guess.
#[tokio::test]
async fn a_call_under_way_gets_its_answer() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    scene.fake.slow(Duration::from_secs(1));
    let (client, body) = (scene.sidecar.client(), json!({"kind": "device", "request_id": scene.request_id}));
    let before = scene.writes();
    let call = tokio::spawn(async move { client.post("/v1/pairing/approve", &body).await });
    scene.fake.wait_until("the approve", LIMIT, |core| core.calls.contains_key("device.pair.approve")).await?;
    assert!(scene.writes() > before);
    send_signal(scene.sidecar.pid(), "TERM").await?;
    let reply = call.await?;
    let status = scene.sidecar.wait(STOP_WITHIN).await?;
    assert_eq!(status.code(), Some(0));
    let reply = reply.map_err(|error| anyhow::anyhow!("the connection was cut without an answer: {error:#}"))?;
    assert!(reply.status == 200 || reply.json()["retryable"] == true, "{} {}", reply.status, reply.text());
    let audit = std::fs::read_to_string(scene.sidecar.state_dir().join("audit.jsonl"))?;
    let outcomes: Vec<&str> = audit.lines().filter(|line| line.contains("\"actor\":\"control\"")).collect();
    assert_eq!(outcomes.len(), 2, "the outcome is not on record:\n{audit}");
    Ok(())
}

/// The same for a caller that only waits for news.
#[tokio::test]
async fn a_long_poll_under_way_gets_its_answer_or_a_close_in_time() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    let (token, address) = (scene.sidecar.support_token().to_owned(), scene.sidecar.edge_addr());
    let mut wire = Wire::open(address).await?;
    let state = wire.get("/v1/state", &token, LIMIT).await?.expect("an answer");
    let state: serde_json::Value = serde_json::from_str(&state.body)?;
    let path = format!("/v1/state?timeout_s=60&wait_gen={}", state["generation"]);
    let poll = tokio::spawn(async move { wire.get(&path, &token, LIMIT).await });
    let started = Instant::now();
    scene.sidecar.signal("TERM").await?;
    assert_eq!(scene.sidecar.wait(STOP_WITHIN).await?.code(), Some(0), "after {:?}", started.elapsed());
    // An answer or a close, and no hanging connection.
    poll.await??;
    Ok(())
}

#[tokio::test]
async fn new_connections_are_not_taken_any_more() -> anyhow::Result<()> {
    let mut scene = Scene::start().await?;
    let address = scene.sidecar.edge_addr();
    scene.sidecar.signal("TERM").await?;
    scene.sidecar.wait(STOP_WITHIN).await?;
    assert!(Wire::open(address).await.is_err());
    assert!(scene.sidecar.log_text().contains("stopping"));
    Ok(())
}
