//! Nodes and messenger channels.

use anyhow::ensure;
use serde_json::{Value, json};

use super::{Lab, SOON};
use crate::compat::Outcome;
use crate::support::device::{Attempt, RemoteDevice};

/// Two steps on new gateways: the device is let in, and on its next connect its commands have to be allowed.
pub async fn a_node_is_let_in_and_its_commands_allowed(lab: &Lab) -> anyhow::Result<()> {
    let mut node = RemoteDevice::node(lab.gateway.port(), lab.gateway.token());
    if let Attempt::Refused { code, message, .. } = node.attempt().await? {
        anyhow::bail!("the node was refused: {code} {message}");
    }
    let shown = lab.pending(&node).await?;
    ensure!(shown["role"] == "node", "{shown}");
    let refused = json!({"kind": "device", "device_id": node.device_id(), "expect": {"role": "operator"}});
    let refused = lab.approve(refused).await?;
    ensure!(refused.status == 422, "{}", refused.text());
    let reply = lab.approve(json!({"kind": "device", "device_id": node.device_id()})).await?;
    ensure!(reply.json()["outcome"] == "approved", "{}", reply.text());
    lab.passed("let a node in", Outcome::Works);
    node.connect_when_approved(SOON).await?;
    if lab.gateway.version() == "2026.2.9" {
        lab.passed("allow a node's commands", Outcome::Unsupported);
        return Ok(());
    }
    // 2026.6.11 does not name the commands until they are approved.
    let named = lab.gateway.version() != "2026.6.11";
    let asks = |p: &Value| p["device_id"] == node.device_id() && (!named || p["commands"] == json!(["system.run"]));
    let request = lab.pending_where(|p| p["kind"] == "node" && asks(p)).await?;
    let reply = lab.approve(json!({"kind": "node", "request_id": request["request_id"]})).await?;
    ensure!(reply.json()["outcome"] == "approved", "{}", reply.text());
    ensure!(reply.json()["device"]["kind"] == "node", "{}", reply.text());
    ensure!(!reply.text().contains("token"), "a node's record carries its secret on old versions: {}", reply.text());
    lab.passed("allow a node's commands", Outcome::Works);

    let body = json!({"kind": "node", "device_id": node.device_id()});
    let revoked = lab.client.post("/v1/pairing/revoke", &body).await?;
    if lab.has("node.pair.remove").await? {
        ensure!(revoked.json()["outcome"] == "revoked", "{}", revoked.text());
        lab.passed("revoke a node", Outcome::Works);
    } else {
        ensure!(revoked.status == 501 && revoked.code() == "unsupported_by_gateway", "{}", revoked.text());
        lab.passed("revoke a node", Outcome::Unsupported);
    }
    Ok(())
}

pub async fn channel_requests_are_listed(lab: &Lab) -> anyhow::Result<()> {
    let unknown = json!({"kind": "channel", "channel": "telegram", "account": "default", "request_id": "nope"});
    let reply = lab.approve(unknown).await?;
    if lab.has("channels.pairing.list").await? {
        ensure!(matches!(reply.status, 404 | 502), "{}", reply.text());
        lab.passed("approve messenger requests", Outcome::Works);
    } else {
        ensure!(reply.status == 501 && reply.code() == "unsupported_by_gateway", "{}", reply.text());
        lab.passed("approve messenger requests", Outcome::Unsupported);
    }
    let by_code = lab.approve(json!({"kind": "channel", "channel": "telegram", "code": "ABCD2345"})).await?;
    ensure!(by_code.status == 501 && by_code.code() == "needs_launch_mode", "{}", by_code.text());
    Ok(())
}
