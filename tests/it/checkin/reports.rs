//! What is sent, when, in which order, and what becomes of it across the ends of a process.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use super::{AT_ONCE, SOON, beside};
use crate::support::fake::codec::sha256_hex;
use crate::support::fake::{DeviceSpec, Fake, Version};
use crate::support::registry::{Does, Received, Registry};
use crate::support::sidecar::{Builder, Sidecar, binary};

fn ready(message: &Received) -> bool {
    message.json()["state"]["phase"] == "ready"
}

async fn fake_beside(registry: &Registry) -> (Fake, Builder) {
    let fake = Fake::start(Version::V2026_9_6).await;
    let builder = beside(registry, fake.port(), &fake.token());
    (fake, builder)
}

fn order(message: &Received) -> (u64, String, u64) {
    let m = message.json();
    let number = |name: &str| m[name].as_u64().unwrap_or_default();
    (number("epoch"), m["boot_id"].as_str().unwrap_or_default().to_owned(), number("seq"))
}

/// The credential is the machine's, every message is in order, and a killed process is followed by a later one.
#[tokio::test]
async fn messages_are_in_order_across_kills() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let (_fake, builder) = fake_beside(&registry).await;
    let builder = builder.env("OPENCLAW_SIDECAR_REGISTRY_TICKET", "a-ticket");
    let mut sidecar = builder.start().await?;
    let mut seen = 0;
    for epoch in 1..=4 {
        let first = registry.wait(seen, |m| m.has_reason("boot"), SOON).await?;
        let last = registry.wait(seen, ready, SOON).await?;
        ensure!(order(&first).0 == epoch && order(&first).2 == 1, "{}", first.text);
        ensure!(order(&last).0 == epoch && order(&last).2 >= 1 && order(&last).1 == order(&first).1, "{}", last.text);
        let booting = !ready(&first);
        ensure!(first.json()["tenant"] == "tenant-7", "{}", first.text);
        ensure!(first.json()["next_s"] == if booting { 75 } else { 375 }, "{}", first.text);
        let token = first.header("authorization").and_then(|v| v.strip_prefix("Bearer ")).context("a credential")?;
        ensure!(token.starts_with("ocr_") && printed(&["token", "registry"]).await? == sha256_hex(token.as_bytes()));
        ensure!(first.path == "/v1/agent/checkin" && first.header("x-openclaw-ticket") == Some("a-ticket"));
        seen = registry.received().len();
        let again = sidecar.builder_again().state_dir(sidecar.state_dir());
        sidecar.kill().await?;
        sidecar = again.start().await?;
    }
    let all = registry.received();
    ensure!(all.iter().all(|m| m.text.len() <= 8192));
    let orders: Vec<_> = all.iter().map(|m| (order(m).0, order(m).2)).collect();
    ensure!(orders.is_sorted() && orders.iter().collect::<std::collections::HashSet<_>>().len() == orders.len());
    sidecar.stop().await?;
    Ok(())
}

/// What the command line prints with the same machine secret.
async fn printed(args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(binary());
    command.args(args).env_clear().env("OPENCLAW_SIDECAR_MACHINE_SECRET", "m".repeat(40));
    let output = command.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[tokio::test]
async fn goodbye_is_said_with_its_reason_and_nothing_follows() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let (_fake, builder) = fake_beside(&registry).await;
    let sidecar = builder.start().await?;
    registry.wait(0, ready, SOON).await?;
    sidecar.stop().await?;
    let all = registry.received();
    let last = all.last().context("messages")?.json();
    ensure!(last["bye"] == json!({"intent": "stop", "reason": "SIGTERM"}), "{last}");
    ensure!(all.last().is_some_and(|m| m.has_reason("bye")) && last["next_s"].is_null(), "{last}");
    ensure!(all.iter().filter(|m| !m.json()["bye"].is_null()).count() == 1);
    Ok(())
}

/// The goodbye reaches a registry that hangs, and the end does not wait for it.
#[tokio::test]
async fn a_registry_that_hangs_holds_no_end_up() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    registry.does(Does::Hangs);
    let (_fake, builder) = fake_beside(&registry).await;
    let sidecar = builder.start().await?;
    registry.wait(0, |_| true, SOON).await?;
    let began = std::time::Instant::now();
    sidecar.stop().await?;
    let took = began.elapsed();
    println!("ended {took:?} after SIGTERM");
    ensure!(took < Duration::from_secs(4), "{took:?}");
    let bye = registry.received().last().context("messages")?.json();
    ensure!(bye["bye"]["reason"] == "SIGTERM" && bye["seq"] == 2, "{bye}");
    Ok(())
}

/// What was on record and not taken yet is sent by the next process.
#[tokio::test]
async fn audit_records_arrive_also_after_a_kill() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let (fake, builder) = fake_beside(&registry).await;
    let sidecar = builder.start().await?;
    registry.wait(0, ready, SOON).await?;
    approve(&sidecar, &fake.raise(&DeviceSpec::browser())).await?;
    let done = |m: &Received| events(m).iter().any(|e| e["outcome"] == "approved");
    let message = registry.wait(0, done, SOON).await?;
    let event = events(&message).into_iter().find(|e| e["outcome"] == "approved").context("just seen")?;
    ensure!(event["verb"] == "pairing.approve" && event["actor"] == "control", "{event}");
    let newest = event["seq"].as_u64().context("a number")?;
    ensure!(message.json()["audit"]["seq"].as_u64() >= Some(newest), "{}", message.text);

    registry.does(Does::Writes(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec()));
    approve(&sidecar, &fake.raise(&DeviceSpec::browser())).await?;
    let seen = registry.received().len();
    let again = sidecar.builder_again().state_dir(sidecar.state_dir());
    sidecar.kill().await?;
    registry.does(Does::Takes { next_s: 300 });
    let sidecar = again.start().await?;
    let message = registry.wait(seen, done, SOON).await?;
    ensure!(order(&message).0 == 2 && events(&message)[0]["seq"] == newest + 1, "each once: {}", message.text);
    sidecar.stop().await?;
    Ok(())
}

fn events(message: &Received) -> Vec<Value> {
    message.json()["events"].as_array().cloned().unwrap_or_default()
}

async fn approve(sidecar: &Sidecar, request: &str) -> anyhow::Result<()> {
    let listed = |p: &Value| p["pending"].to_string().contains(request);
    sidecar.client().wait_until("/v1/pairing", listed, SOON).await?;
    let body = json!({"kind": "device", "request_id": request});
    let reply = sidecar.client().post("/v1/pairing/approve", &body).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(())
}

/// The registry is away: everything else goes on, the state says so, and it ends by itself.
#[tokio::test]
async fn without_a_registry_everything_else_goes_on() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    registry.does(Does::Writes(Vec::new()));
    let (fake, builder) = fake_beside(&registry).await;
    let sidecar = builder.start().await?;
    let client = sidecar.client();
    let has = |code: &'static str| move |s: &Value| s["findings"].to_string().contains(code);
    let state = client.wait_until("/v1/state", has("registry_unreachable"), SOON).await?;
    ensure!(state["phase"] == "ready" && state["registry"]["last_error"].is_string(), "{state}");
    ensure!(state["registry"]["configured"] == true && state["registry"]["last_ok_at"].is_null(), "{state}");
    approve(&sidecar, &fake.raise(&DeviceSpec::browser())).await?;
    let metrics = client.get("/metrics").await?.text();
    ensure!(metrics.contains("sidecar_checkins_total{outcome=\"network\"}"), "{metrics}");

    registry.does(Does::Takes { next_s: 300 });
    let told = registry.wait(registry.received().len(), |_| true, Duration::from_secs(40)).await?;
    ensure!(!told.text.contains("registry_unreachable"), "{}", told.text);
    client.wait_until("/v1/state", |s| !has("registry_unreachable")(s), SOON).await?;
    let state = client.get("/v1/state").await?.json();
    ensure!(state["registry"]["last_ok_at"].is_string() && state["registry"]["last_error"].is_null(), "{state}");
    sidecar.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_registry_that_refuses_us_is_a_finding_and_is_left_alone() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    registry.does(Does::Writes(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_vec()));
    let (fake, builder) = fake_beside(&registry).await;
    let sidecar = builder.start().await?;
    let client = sidecar.client();
    let refused = |s: &Value| s["findings"].to_string().contains("registry_refuses_us") && s["phase"] == "ready";
    client.wait_until("/v1/state", refused, SOON).await?;
    for _ in 0..5 {
        approve(&sidecar, &fake.raise(&DeviceSpec::browser())).await?;
    }
    let state = client.get("/v1/state").await?.json();
    ensure!(state["registry"]["next_s"].as_u64() > Some(30), "{}", state["registry"]);
    ensure!(registry.accepted() == 1, "{} connections", registry.accepted());
    sidecar.stop().await?;
    Ok(())
}

/// The one that is pinned is believed without an authority; any other one is not, and learns nothing.
#[tokio::test]
async fn only_the_right_certificate_is_believed() -> anyhow::Result<()> {
    let (registry, other) = (Registry::start().await?, Registry::start().await?);
    let fake = Fake::start(Version::V2026_9_6).await;
    let base = beside(&registry, fake.port(), &fake.token());
    let with = |key: &str, value: &str| {
        let none = base.clone().env("OPENCLAW_SIDECAR_REGISTRY_CA_FILE", "");
        none.env(&format!("OPENCLAW_SIDECAR_REGISTRY_{key}"), value)
    };
    let ca = other.ca_file().display().to_string();
    // Nor does the environment change whom we trust, or through whom we go.
    let system = with("MODE", "interval")
        .env("SSL_CERT_FILE", registry.ca_file().to_str().context("a path")?)
        .env("HTTPS_PROXY", &other.url())
        .env("ALL_PROXY", &other.url());
    for builder in [with("CA_FILE", &ca), with("PIN_SHA256", other.leaf_sha256()), system] {
        let sidecar = builder.start().await?;
        let failed = |s: &Value| s["registry"]["last_error"].is_string();
        let state = sidecar.client().wait_until("/v1/state", failed, SOON).await?;
        println!("{}", state["registry"]);
        sidecar.stop().await?;
        ensure!(registry.received().is_empty() && other.accepted() == 0, "{:?}", registry.received());
    }
    let sidecar = with("PIN_SHA256", registry.leaf_sha256()).start().await?;
    registry.wait(0, ready, SOON).await?;
    sidecar.stop().await?;
    Ok(())
}

/// In quiet mode nothing promises a next message.
#[tokio::test]
async fn quiet_says_what_happens_and_promises_nothing() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let (fake, builder) = fake_beside(&registry).await;
    let sidecar = builder.env("OPENCLAW_SIDECAR_REGISTRY_MODE", "quiet").start().await?;
    let message = registry.wait(0, ready, SOON).await?;
    ensure!(message.json()["next_s"].is_null(), "{}", message.text);
    let (seen, asked) = (registry.received().len(), std::time::Instant::now());
    fake.raise(&DeviceSpec::browser());
    let message = registry.wait(seen, |m| m.json()["state"]["pairing"]["pending_count"] == 1, SOON).await?;
    ensure!(message.at - asked <= AT_ONCE && message.has_reason("pairing"), "{}", message.text);
    let state = sidecar.client().wait_until("/v1/state", |s| s["registry"]["last_ok_at"].is_string(), SOON).await?;
    ensure!(state["registry"]["next_s"].is_null(), "{}", state["registry"]);
    sidecar.stop().await?;
    Ok(())
}
