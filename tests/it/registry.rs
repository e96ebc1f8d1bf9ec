//! The real registry, and real machines that phone home to it.

mod access;
#[cfg(feature = "postgres")]
mod cluster;
mod console;
mod dump;
mod fleet;
mod life;
mod speakers;
mod sqlite;
mod webhooks;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::client::{Client, Reply};
use crate::support::service::Service;

const CHECK_IN: &str = "/v1/agent/checkin";
const SOON: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// What a machine whose gateway is ready says.
fn message(tenant: &str, seq: u64) -> Value {
    json!({
        "tenant": tenant, "epoch": 1, "boot_id": "b1", "seq": seq, "next_s": 300,
        "state": {"phase": "ready", "gateway": {"version": "2026.9.6"}},
    })
}

/// Asks again until it holds; how long that took.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while !holds().await.with_context(|| what.to_owned())? {
        ensure!(began.elapsed() < SOON, "{what}: not within {SOON:?}");
        sleep(POLL).await;
    }
    println!("{what}: after {:?}", began.elapsed());
    Ok(began.elapsed())
}

/// "Come back later": what a machine is told while the database cannot be used.
fn come_back_later(reply: &Reply, why: &str) -> anyhow::Result<()> {
    let after = reply.header("retry-after").and_then(|text| text.parse::<u64>().ok());
    ensure!(reply.status == 503 && reply.code() == "store_unavailable", "{}", reply.text());
    ensure!(after.is_some_and(|seconds| seconds > 0), "no Retry-After");
    ensure!(reply.header("content-type") == Some("application/problem+json"), "{:?}", reply.headers);
    ensure!(reply.json()["detail"].as_str().is_some_and(|text| text.contains(why)), "{}", reply.text());
    Ok(())
}

/// Takes check-ins again, by itself.
async fn recovers(service: &Service, machine: &Client, message: &Value) -> anyhow::Result<()> {
    let public = service.public();
    until("ready again", async || Ok(public.get("/readyz").await?.status == 200)).await?;
    let reply = machine.post(CHECK_IN, message).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(())
}

/// The audit records in a tenant's history, oldest first.
async fn records(service: &Service, tenant: &str) -> anyhow::Result<Vec<u64>> {
    let lines = service.timeline(tenant).await?.into_iter().rev();
    Ok(lines.filter(|line| line["kind"] == "audit").filter_map(|line| line["data"]["seq"].as_u64()).collect())
}
