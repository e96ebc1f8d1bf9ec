//! A registry that was taken over, or is none: nothing it says does anything, costs anything or leads anywhere.

use std::time::Duration;

use anyhow::ensure;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use tokio::net::TcpListener;

use super::{SOON, beside};
use crate::support::client::Client;
use crate::support::fake::{Fake, Version};
use crate::support::registry::{Does, Registry};

/// What a hostile registry may cost, in KiB: allocators keep what they had once.
const GROWTH: u64 = 4096;

fn head(rest: &str) -> Does {
    Does::Writes(format!("HTTP/1.1 {rest}\r\n\r\n").into_bytes())
}

fn pours(head: &str) -> Does {
    Does::Pours { head: format!("HTTP/1.1 {head}\r\n\r\n"), bytes: 10 << 30 }
}

fn attacks(elsewhere: u16) -> Vec<(&'static str, Does)> {
    let says = |text: &str| Does::Says(text.to_owned());
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let garbage = std::iter::repeat_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    });
    let redirect = |status: &str, to: &str| head(&format!("{status}\r\nlocation: {to}\r\ncontent-length: 0"));
    let there = format!("https://localhost:{elsewhere}/");
    vec![
        ("nothing", Does::Writes(Vec::new())),
        ("garbage", Does::Writes(garbage.take(100_000).collect())),
        ("no JSON", says("<html>It works!</html>")),
        ("cut JSON", says(r#"{"ack":{"boot_id":"{boot_id}","seq":"#)),
        ("deep JSON", says(&"[".repeat(4000))),
        ("another's acknowledgement", says(r#"{"ack":{"boot_id":"x","seq":{seq}},"next_s":300}"#)),
        ("a long body", pours("200 OK\r\ncontent-length: 10737418240")),
        ("an endless body", pours("200 OK\r\nconnection: close")),
        ("an endless error", pours("500 Oops\r\nconnection: close")),
        ("an endless head", Does::Pours { head: "HTTP/1.1 200 OK\r\nx: ".to_owned(), bytes: 10 << 30 }),
        ("a body that is not there", head("200 OK\r\ncontent-length: 100")),
        ("a broken chunk", head("200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nx")),
        ("two lengths", head("200 OK\r\ncontent-length: 1\r\ncontent-length: 2")),
        ("an upgrade", head("101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade")),
        ("100 for ever", Does::Writes(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))),
        ("a redirect to metadata", redirect("302 Found", "http://169.254.169.254/latest/meta-data")),
        ("a redirect elsewhere", redirect("307 Temporary Redirect", &there)),
        ("a permanent one", redirect("308 Permanent Redirect", &there)),
        ("no content", head("204 No Content")),
        ("an error", head("500 Oops\r\ncontent-length: 0")),
    ]
}

/// The machine's state, without what moves by itself and what is said of the registry.
fn essence(mut state: Value) -> Value {
    for moving in ["generation", "registry", "findings"] {
        state[moving] = Value::Null;
    }
    state["sidecar"]["uptime_s"] = Value::Null;
    state["gateway"]["rpc_ms"] = Value::Null;
    state["gateway"]["last_answer_s"] = Value::Null;
    state
}

async fn state(client: &Client) -> anyhow::Result<Value> {
    Ok(essence(client.get("/v1/state").await?.json()))
}

#[tokio::test]
async fn whatever_the_registry_answers_nothing_happens() -> anyhow::Result<()> {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await?;
    let attacks = attacks(elsewhere.local_addr()?.port()).into_iter();
    // Most of it is waiting between attempts.
    let all = stream::iter(attacks.map(|(what, does)| survives(what, does))).buffer_unordered(7);
    all.try_collect::<()>().await?;
    let nobody = tokio::time::timeout(Duration::from_millis(1), elsewhere.accept()).await;
    ensure!(nobody.is_err(), "somebody followed a redirect");
    Ok(())
}

async fn survives(what: &str, does: Does) -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    registry.does(does);
    let fake = Fake::start(Version::V2026_9_6).await;
    let mut sidecar = beside(&registry, fake.port(), &fake.token()).start().await?;
    let client = sidecar.client();
    let failed = |s: &Value| s["registry"]["last_error"].is_string() && s["phase"] == "ready";
    client.wait_until("/v1/state", failed, SOON).await?;
    let (before, rss) = (state(&client).await?, sidecar.rss_kib());
    // Pauses between attempts begin below two seconds.
    registry.wait_accepted(4, Duration::from_secs(60)).await?;
    let third = |s: &Value| s["findings"].to_string().contains("registry_unreachable");
    let reply = client.wait_until("/v1/state", third, SOON).await?;
    let after = state(&client).await?;
    ensure!(before == after, "{what}: {before}\n{after}");
    let grown = sidecar.rss_kib().saturating_sub(rss);
    println!("{what}: {grown} KiB; {}", reply["registry"]["last_error"]);
    ensure!(grown <= GROWTH, "{what}: {grown} KiB");
    ensure!(registry.accepted().abs_diff(registry.received().len()) <= 1, "{what}: one message a connection");
    ensure!(sidecar.is_running(), "{what}");
    sidecar.kill().await
}

/// An answer that holds more than an answer is one, and the rest of it is passed over.
#[tokio::test]
async fn commands_in_an_answer_are_passed_over() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let more = r#""command":"decommission","config":{"x":1},"url":"https://localhost:1","next_s":15"#;
    registry.does(Does::Says(format!(r#"{{"ack":{{"boot_id":"{{boot_id}}","seq":{{seq}},"events":9}},{more}}}"#)));
    let fake = Fake::start(Version::V2026_9_6).await;
    let sidecar = beside(&registry, fake.port(), &fake.token()).start().await?;
    registry.wait(0, |m| m.json()["state"]["phase"] == "ready", SOON).await?;
    let before = state(&sidecar.client()).await?;
    // The next one comes when it was asked for, and tells the same.
    registry.wait(registry.received().len(), |m| m.has_reason("interval"), Duration::from_secs(30)).await?;
    ensure!(before == state(&sidecar.client()).await?);
    let reply = sidecar.client().get("/v1/state").await?.json();
    ensure!(reply["registry"]["last_error"].is_null(), "{}", reply["registry"]);
    sidecar.stop().await?;
    Ok(())
}

/// One byte a second is no answer in time; the API does not notice.
#[tokio::test]
async fn a_registry_that_drips_is_given_up() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    registry.does(Does::Drips(Duration::from_secs(1)));
    let fake = Fake::start(Version::V2026_9_6).await;
    let sidecar = beside(&registry, fake.port(), &fake.token()).start().await?;
    let failed = |s: &Value| s["registry"]["last_error"].as_str().is_some_and(|why| why.contains("timeout"));
    let state = sidecar.client().wait_until("/v1/state", failed, SOON).await?;
    ensure!(state["phase"] == "ready", "{state}");
    sidecar.stop().await?;
    Ok(())
}

/// "Come back in a thousand years" means an hour.
#[tokio::test]
async fn a_registry_cannot_send_us_away_for_ever() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    registry.does(head("503 Busy\r\nretry-after: 31536000000\r\ncontent-length: 0"));
    let fake = Fake::start(Version::V2026_9_6).await;
    let sidecar = beside(&registry, fake.port(), &fake.token()).start().await?;
    let failed = |s: &Value| s["registry"]["last_error"].is_string() && s["registry"]["next_s"].as_u64() > Some(3000);
    let state = sidecar.client().wait_until("/v1/state", failed, SOON).await?;
    ensure!(state["registry"]["next_s"].as_u64() <= Some(4500), "{}", state["registry"]);
    sidecar.stop().await?;
    Ok(())
}
