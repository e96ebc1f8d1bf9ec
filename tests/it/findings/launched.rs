//! A launched machine with a real gateway: what is ours is changed, time and processor run out, the port is taken.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::super::launch::until;
use super::{LOOKED, found, gone};
use crate::support::client::Client;
use crate::support::machine::throttle::Throttle;
use crate::support::machine::{Machine, READY, STRANGER_UID, Squatter, needs_root};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_launched_gateway_with_everything_wrong_around_it() -> anyhow::Result<()> {
    if !needs_root("findings::launched") {
        return Ok(());
    }
    let throttle = Throttle::prepare("findings::launched");
    let machine = Machine::real("2026.9.6")?.start().await?;
    let applied = |state: &Value| state["phase"] == "ready" && state["desired"]["status"] == "applied";
    let state = machine.wait_state(applied, READY).await?;
    ensure!(state["findings"] == json!([]), "a healthy machine: {}", state["findings"]);
    // Before that, a change counts as the gateway's own.
    let notes = machine.place().sidecar_dir().join("applied.json");
    until("it was adopted", SOON, || std::fs::read_to_string(&notes).is_ok_and(|text| text.contains("kept"))).await?;
    somebody_changes_what_is_ours(&machine)?;
    a_secret_ends(&machine).await?;
    let paths = ["path=update.checkOnStart", "path=gateway.controlUi.allowedOrigins", "changed=2"];
    found(&machine.client(), "config_drift", &paths, LOOKED).await?;
    if let Some(throttle) = throttle {
        the_machine_is_throttled(&machine, &throttle).await?;
    }
    its_port_is_taken(&machine).await?;
    machine.stop().await.map(drop)
}

async fn put_secret(client: &Client, expires_at: &str) -> anyhow::Result<()> {
    let body = json!({"value": "sk-findings-0123456789", "expires_at": expires_at}).to_string().into_bytes();
    let headers = [("content-type", "application/json")];
    let reply = client.request("PUT", "/v1/secrets/PROXY_TOKEN", &headers, Some(body)).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(())
}

async fn a_secret_ends(machine: &Machine) -> anyhow::Result<()> {
    let client = machine.client();
    put_secret(&client, "2026-11-02T00:00:00Z").await?;
    found(&client, "secret_expiring", &["name=PROXY_TOKEN", "expires_at=2026-11-02"], LOOKED).await?;
    put_secret(&client, "2096-11-02T00:00:00Z").await?;
    gone(&client, "secret_expiring", LOOKED).await?;
    Ok(())
}

/// The tenant edits the file of the running gateway, which takes it.
fn somebody_changes_what_is_ours(machine: &Machine) -> anyhow::Result<()> {
    let mut config = machine.config()?;
    config["update"]["checkOnStart"] = json!(true);
    config["gateway"]["controlUi"]["allowedOrigins"] = json!(["https://theirs.example"]);
    let text = serde_json::to_string_pretty(&config)?;
    machine.place().poison_config(&text)
}

/// A sixteenth of a core, and somebody who asks all the time.
async fn the_machine_is_throttled(machine: &Machine, throttle: &Throttle) -> anyhow::Result<()> {
    let client = machine.client();
    let mut operator = machine.operator().await?;
    throttle.slow_down(machine)?;
    let busy = tokio::spawn(async move { while operator.call("channels.status", json!({})).await.is_ok() {} });
    let slow = found(&client, "gateway_slow", &["="], Duration::from_secs(120)).await;
    busy.abort();
    throttle.lift()?;
    slow?;
    machine.wait_phase("ready", READY).await?;
    Ok(())
}

/// Restarted, it finds another user's process in its place; what became of the new generation cannot be written either.
async fn its_port_is_taken(machine: &Machine) -> anyhow::Result<()> {
    let client = machine.client();
    let headers = [("content-type", "application/json"), ("if-match", "\"1\"")];
    let mut document = crate::support::machine::hosted_document();
    document["env"] = json!({"FINDINGS": "1"});
    let reply = client.request("PUT", "/v1/desired", &headers, Some(document.to_string().into_bytes())).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let blocked = machine.place().sidecar_dir().join(".desired.json.new");
    std::fs::create_dir(&blocked)?;

    let stranger = Squatter::start(machine.place(), STRANGER_UID, "stranger")?;
    let restarting = client.clone();
    let restart = tokio::spawn(async move { restarting.post("/v1/gateway/restart?wait_s=1", &json!({})).await });
    stranger.wait_bound(READY).await?;
    let (port, uid) = (format!("port={}", machine.port()), format!("uid={STRANGER_UID}"));
    let one = found(&client, "gateway_port_taken", &[&port, &uid], READY).await?;
    ensure!(one["severity"] == "error", "{one}");
    restart.await??;
    stranger.leave().await?;
    machine.wait_phase("ready", READY).await?;
    gone(&client, "gateway_port_taken", SOON).await?;
    gone(&client, "config_drift", LOOKED).await?;
    found(&client, "desired_not_written", &[], SOON).await?;
    std::fs::remove_dir(&blocked)?;
    Ok(())
}
