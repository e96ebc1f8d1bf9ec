//! Senders that are slow on purpose: each phase of a request has a deadline.

use std::time::{Duration, Instant};

use openclaw_sidecar::http::{BODY, FIRST_HEAD, HANDSHAKE};

use super::super::auth_matrix::scene::Scene;
use super::super::auth_matrix::wire::Wire;

/// How much later than its deadline a connection may end.
const GRACE: Duration = Duration::from_secs(4);

/// Sends a byte of `text` every so often until the server closes or answers; returns the status, if any.
async fn trickle(wire: &mut Wire, text: &str, pause: Duration, limit: Duration) -> Option<u16> {
    let end = Instant::now() + limit;
    for byte in text.bytes().cycle() {
        if Instant::now() > end || wire.send(&[byte]).await.is_err() {
            break;
        }
        // An error is neither an answer nor a close yet.
        if let Ok(answer) = wire.answer(pause).await {
            return answer.map(|a| a.status);
        }
    }
    None
}

#[tokio::test]
async fn a_trickling_head_ends_at_its_deadline() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
    let started = Instant::now();
    wire.send(b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n").await?;
    let status = trickle(&mut wire, "X-A: b\r\n", Duration::from_millis(300), FIRST_HEAD + GRACE).await;
    assert!(status.is_none_or(|s| s == 408), "{status:?}");
    let took = started.elapsed();
    assert!(took < FIRST_HEAD + GRACE && took > FIRST_HEAD / 2, "ended after {took:?}");
    Ok(())
}

#[tokio::test]
async fn a_trickling_body_ends_at_its_deadline() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let before = scene.still().await?;
    let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
    let head = format!(
        "POST /v1/pairing/approve HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n",
        scene.sidecar.control_token()
    );
    let started = Instant::now();
    wire.send(head.as_bytes()).await?;
    let status = trickle(&mut wire, " ", Duration::from_millis(300), BODY + GRACE).await;
    assert_eq!(status, Some(400), "after {:?}", started.elapsed());
    assert!(started.elapsed() < BODY + GRACE && started.elapsed() > BODY / 2, "{:?}", started.elapsed());
    assert!(scene.still().await? == before);
    Ok(())
}

/// Without a credential not even the body's deadline is waited for.
#[tokio::test]
async fn a_stranger_is_refused_before_its_body_is_read() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
    let started = Instant::now();
    wire.send(
        b"POST /v1/pairing/approve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
          Content-Length: 60000\r\n\r\n",
    )
    .await?;
    assert_eq!(wire.answer(BODY).await?.map(|a| a.status), Some(401));
    assert!(wire.closes(BODY).await);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_silent_connection_is_closed() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    for (address, deadline) in [(scene.sidecar.tls_addr(), HANDSHAKE), (scene.sidecar.edge_addr(), FIRST_HEAD)] {
        let mut wire = Wire::open(address).await?;
        let started = Instant::now();
        assert!(wire.closes(deadline + GRACE).await, "still open after {:?}", started.elapsed());
        assert!(started.elapsed() > deadline / 2, "closed after {:?}", started.elapsed());
    }
    Ok(())
}
