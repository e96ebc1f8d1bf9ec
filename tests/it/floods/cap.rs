//! The cap on connections and who gives way at it.

use std::time::{Duration, Instant};

use tokio::time::interval;

use super::super::auth_matrix::scene::{LIMIT, Scene};
use super::super::auth_matrix::wire::Wire;
use super::descriptors;

/// Refused at once, not left to wait.
const FAST: Duration = Duration::from_secs(2);

/// A scene with room for eight connections, none of them taken.
async fn eight() -> anyhow::Result<Scene> {
    Scene::start_with(|builder| builder.edge().env("OPENCLAW_SIDECAR_LIMITS_MAX_CONNECTIONS", "8")).await
}

fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// Eight connections with a call under way on each.
async fn busy(scene: &Scene) -> anyhow::Result<Vec<Wire>> {
    let token = scene.sidecar.support_token();
    let mut wires = Vec::new();
    for _ in 0..8 {
        let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
        // Sent as one: once the first is answered, the second is under way.
        let poll = get(&format!("/v1/state?timeout_s=60&wait_gen={}", u64::MAX), token);
        wire.send(format!("{}{poll}", get("/v1/state", token)).as_bytes()).await?;
        assert_eq!(wire.answer(LIMIT).await?.map(|a| a.status), Some(200));
        wires.push(wire);
    }
    Ok(wires)
}

#[tokio::test]
async fn at_the_cap_the_oldest_idle_one_gives_way() -> anyhow::Result<()> {
    let scene = eight().await?;
    let token = scene.sidecar.support_token();
    let mut wires = Vec::new();
    for _ in 0..8 {
        let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
        assert_eq!(wire.get("/v1/state", token, LIMIT).await?.map(|a| a.status), Some(200));
        wires.push(wire);
    }
    let mut ninth = Wire::open(scene.sidecar.edge_addr()).await?;
    assert_eq!(ninth.get("/v1/state", token, FAST).await?.map(|a| a.status), Some(200), "a new caller");
    assert!(wires.remove(0).closes(FAST).await, "the oldest one gave way");
    for wire in &mut wires {
        assert_eq!(wire.get("/v1/state", token, LIMIT).await?.map(|a| a.status), Some(200), "the others stay");
    }
    Ok(())
}

/// Strangers give way before anybody who is known, however old.
#[tokio::test]
async fn at_the_cap_strangers_give_way_first() -> anyhow::Result<()> {
    let scene = eight().await?;
    let token = scene.sidecar.support_token();
    let mut known = Wire::open(scene.sidecar.edge_addr()).await?;
    assert_eq!(known.get("/v1/state", token, LIMIT).await?.map(|a| a.status), Some(200));
    let mut strangers = Vec::new();
    for _ in 0..40 {
        let mut stranger = Wire::open(scene.sidecar.edge_addr()).await?;
        // What anybody may ask does not make anybody known.
        assert_eq!(stranger.get("/livez", "nobody", LIMIT).await?.map(|a| a.status), Some(200));
        strangers.push(stranger);
    }
    assert_eq!(known.get("/v1/state", token, LIMIT).await?.map(|a| a.status), Some(200));
    assert!(strangers.remove(0).closes(FAST).await);
    Ok(())
}

#[tokio::test]
async fn with_every_place_busy_a_new_caller_is_refused_at_once() -> anyhow::Result<()> {
    let scene = eight().await?;
    let mut wires = busy(&scene).await?;
    let (token, started) = (scene.sidecar.control_token(), Instant::now());
    let mut ninth = Wire::open(scene.sidecar.edge_addr()).await?;
    let answer = ninth.get("/v1/state", token, FAST).await?;
    assert!(answer.is_none_or(|a| a.status == 503), "let in beside eight busy ones");
    assert!(started.elapsed() < FAST);
    // A place that is given up is had at once by the next one.
    drop(wires.pop());
    let end = Instant::now() + LIMIT;
    loop {
        let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
        if wire.get("/v1/state", token, FAST).await?.is_some_and(|a| a.status == 200) {
            break;
        }
        assert!(Instant::now() < end, "the place does not come back");
    }
    Ok(())
}

/// Whoever watches this number must be able to believe it.
#[tokio::test]
async fn the_number_of_connections_goes_down_again() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let token = scene.sidecar.support_token().to_owned();
    let mut watcher = Wire::open(scene.sidecar.edge_addr()).await?;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
        assert!(wire.get("/livez", "", LIMIT).await?.is_some());
        crowd.push(wire);
    }
    drop(crowd);
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let page = watcher.get("/metrics", &token, LIMIT).await?.expect("an answer").body;
        let line = page.lines().find(|line| line.starts_with("sidecar_http_connections ")).expect("the number");
        let count: u64 = line.rsplit(' ').next().unwrap_or_default().parse()?;
        // Besides the watcher, the client that waited for the start may still be open.
        if count <= 3 {
            return Ok(());
        }
        assert!(
            Instant::now() < end,
            "{count} connections are said to be open, {} descriptors",
            descriptors(&scene.sidecar)
        );
    }
}

/// Asks for much and reads nothing: the write's deadline ends it.
#[tokio::test]
async fn a_reader_that_does_not_read_is_cut() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
    assert!(wire.get("/livez", "", LIMIT).await?.is_some());
    let one = get("/openapi.json", "");
    wire.send(one.repeat(300).as_bytes()).await?;
    let started = Instant::now();
    let mut looks = interval(Duration::from_millis(100));
    // Clients that waited for the start may still be closing; then only this connection is left to go.
    let (mut open, mut same) = (descriptors(&scene.sidecar), 0);
    loop {
        looks.tick().await;
        let now = descriptors(&scene.sidecar);
        if now < open && same >= 10 {
            break;
        }
        same = if now == open { same + 1 } else { 0 };
        open = now;
        assert!(started.elapsed() < Duration::from_secs(25), "still open after {:?}", started.elapsed());
    }
    assert!(started.elapsed() > openclaw_sidecar::http::WRITE / 2, "cut after {:?}", started.elapsed());
    assert!(scene.sidecar.rss_kib() < 64 * 1024, "{} KiB resident", scene.sidecar.rss_kib());
    Ok(())
}
