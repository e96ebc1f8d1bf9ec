//! A real gateway: somebody who asks to be let in is seen by the registry at once, and so is the approval.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::json;

use super::{AT_ONCE, SOON, beside};
use crate::support::device::RemoteDevice;
use crate::support::gateway::{Gateway, GatewayOptions};
use crate::support::registry::Registry;

#[tokio::test]
async fn a_browser_that_waits_is_seen_at_once_and_its_approval_too() -> anyhow::Result<()> {
    let registry = Registry::start().await?;
    let mut gateway = Gateway::start("2026.9.6", GatewayOptions::default()).await?;
    let builder = beside(&registry, gateway.port(), gateway.token());
    let sidecar = builder.start().await?;
    let ready = registry.wait(0, |m| m.json()["state"]["phase"] == "ready", SOON).await?;
    let state = &ready.json()["state"];
    ensure!(state["gateway"]["version"] == "2026.9.6" && state["mode"] == "attach", "{state}");
    ensure!(state["sidecar"]["certificate_sha256"] == *sidecar.certificate_sha256().context("served")?, "{state}");

    let mut browser = RemoteDevice::browser(gateway.port(), gateway.token());
    let (seen, asked) = (registry.received().len(), Instant::now());
    let request = browser.attempt().await?.request_id()?.to_owned();
    let shown = |m: &crate::support::registry::Received| m.json()["state"]["pairing"]["pending"].to_string();
    let message = registry.wait(seen, |m| shown(m).contains(&request), SOON).await?;
    let took = message.at - asked;
    println!("the registry saw the request {took:?} after the browser asked");
    ensure!(took <= AT_ONCE && message.has_reason("pairing"), "{took:?} {}", message.text);

    let (seen, approved) = (registry.received().len(), Instant::now());
    let reply = sidecar.client().post("/v1/pairing/approve", &json!({"kind": "device", "request_id": request})).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    let gone = |m: &crate::support::registry::Received| {
        let pairing = &m.json()["state"]["pairing"];
        pairing["pending_count"] == 0 && pairing["approved_count"] == 1
    };
    let message = registry.wait(seen, gone, SOON).await?;
    let took = message.at - approved;
    println!("the registry saw the approval {took:?} after the call");
    ensure!(took <= AT_ONCE, "{took:?} {}", message.text);
    sidecar.stop().await?;
    gateway.stop().await
}
