//! The gateway's life: rotated tokens, restarts, a frozen process.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::{Lab, SOON};
use crate::compat::Outcome;

/// The gateway is restarted with another token while our configuration still names the old one, then follows.
pub async fn wrong_token_is_explained_and_followed(lab: &mut Lab) -> anyhow::Result<()> {
    lab.gateway.stop().await?;
    lab.client.wait_until("/v1/state", |s| s["phase"] == "stopped", SOON).await?;
    let stopped =
        lab.client.post("/v1/pairing/approve?wait_s=1", &json!({"kind": "device", "only_pending": true})).await?;
    ensure!(stopped.status == 503 && stopped.code() == "gateway_stopped", "{}", stopped.text());
    let config = lab.gateway.read_config()?;
    let mut other = config.clone();
    other["gateway"]["auth"]["token"] = "another-token-0123456789abcdef".into();
    lab.gateway.write_config(&other)?;
    lab.gateway.launch().await?;
    // The running gateway has the other token; the file, which the sidecar reads, has the first one again. Gateways
    // follow a changed file too, so the sidecar's view of it is a copy.
    let copy = lab.sidecar.state_dir().join("stale.json");
    std::fs::write(&copy, serde_json::to_vec(&config)?)?;
    let stale = crate::support::sidecar::Sidecar::builder().gateway_config(lab.gateway.port(), &copy).start().await?;
    let state = stale.client().wait_until("/v1/state", |s| s["phase"] == "unauthorized", SOON).await?;
    let finding = state["findings"].as_array().and_then(|f| f.first()).cloned().unwrap_or_default();
    ensure!(finding["code"] == "gateway_token_mismatch", "{state}");
    let refused = stale.client().post("/v1/pairing/approve", &json!({"kind": "device", "only_pending": true})).await?;
    ensure!(refused.status == 502 && refused.code() == "missing_authority", "{}", refused.text());
    std::fs::write(&copy, serde_json::to_vec(&other)?)?;
    stale.client().wait_until("/v1/state", |s| s["phase"] == "ready", SOON).await?;
    stale.stop().await?;
    // Ours reads the gateway's own file and simply follows.
    lab.client.wait_until("/v1/state", |s| s["phase"] == "ready", SOON).await?;
    lab.passed("follow a rotated token", Outcome::Works);
    lab.gateway.stop().await?;
    lab.gateway.write_config(&config)
}

/// A call made while the gateway boots waits and then acts; a request survives the restart.
pub async fn a_call_waits_for_a_booting_gateway(lab: &mut Lab) -> anyhow::Result<()> {
    lab.gateway.launch().await?;
    lab.client.wait_until("/v1/state", |s| s["phase"] == "ready", SOON).await?;
    let mut browser = lab.browser();
    browser.attempt().await?.request_id()?;
    lab.pending(&browser).await?;
    lab.gateway.stop().await?;
    lab.client.wait_until("/v1/state", |s| s["phase"] == "stopped", SOON).await?;
    lab.gateway.spawn()?;
    let body = json!({"kind": "device", "device_id": browser.device_id()});
    let reply = lab.client.post("/v1/pairing/approve?wait_s=60", &body).await?;
    ensure!(reply.json()["outcome"] == "approved", "{}", reply.text());
    lab.gateway.wait_ready(Duration::from_secs(120)).await?;
    browser.connect_when_approved(SOON).await?;
    lab.passed("wait for a booting gateway", Outcome::Works);
    Ok(())
}

/// A frozen gateway still accepts connections: only an authenticated answer proves life.
pub async fn a_stopped_process_is_degraded_not_unknown(lab: &Lab) -> anyhow::Result<()> {
    lab.gateway.signal("STOP")?;
    let degraded = lab.client.wait_until("/v1/state", |s| s["phase"] == "degraded", Duration::from_secs(25)).await;
    let typed = lab.client.post("/v1/pairing/approve?wait_s=1", &json!({"kind": "device", "only_pending": true})).await;
    lab.gateway.signal("CONT")?;
    degraded?;
    let typed = typed?;
    ensure!(typed.status == 504 && typed.code() == "gateway_unreachable", "{}", typed.text());
    lab.client.wait_until("/v1/state", |s| s["phase"] == "ready", SOON).await?;
    lab.passed("tell a frozen gateway", Outcome::Works);
    Ok(())
}
