//! The main job on real gateways: every scenario on every installed version, in one process per version because a
//! gateway takes its time to boot. Each scenario puts its result on record for the README's table.

mod devices;
mod lifecycle;
mod nodes;

use std::time::Duration;

use serde_json::{Value, json};

use crate::compat::{Outcome, record};
use crate::support::client::{Client, Reply};
use crate::support::device::{Operator, RemoteDevice};
use crate::support::gateway::{Gateway, GatewayOptions};
use crate::support::sidecar::Sidecar;

/// A real gateway's answer may take a while on a machine that builds something beside it.
pub const SOON: Duration = Duration::from_secs(30);

/// A real gateway with the daemon beside it.
pub struct Lab {
    pub gateway: Gateway,
    pub sidecar: Sidecar,
    pub client: Client,
}

impl Lab {
    async fn start(version: &str) -> anyhow::Result<Self> {
        let gateway = Gateway::start(version, GatewayOptions::default()).await?;
        let builder = Sidecar::builder().gateway_config(gateway.port(), &gateway.config_path());
        let sidecar = builder.start().await?;
        let client = sidecar.client();
        client.wait_until("/v1/state", |s| s["phase"] == "ready", SOON).await?;
        Ok(Self { gateway, sidecar, client })
    }

    pub fn browser(&self) -> RemoteDevice {
        RemoteDevice::browser(self.gateway.port(), self.gateway.token())
    }

    pub async fn operator(&self) -> anyhow::Result<Operator> {
        Operator::connect(self.gateway.port(), self.gateway.token()).await
    }

    pub fn passed(&self, scenario: &str, outcome: Outcome) {
        println!("{} {scenario}: {outcome:?}", self.gateway.version());
        record(self.gateway.version(), "real", scenario, outcome);
    }

    /// Whether this gateway announced or showed that it has `method`.
    pub async fn has(&self, method: &str) -> anyhow::Result<bool> {
        let state = self.client.get("/v1/state").await?.json();
        let capabilities = state["gateway"]["capabilities"].as_array().cloned().unwrap_or_default();
        Ok(capabilities.iter().any(|c| c == method))
    }

    pub async fn approve(&self, body: Value) -> anyhow::Result<Reply> {
        self.client.post("/v1/pairing/approve", &body).await
    }

    /// Waits until the sidecar shows a request of this device, and returns it.
    pub async fn pending(&self, device: &RemoteDevice) -> anyhow::Result<Value> {
        self.pending_where(|p| p["device_id"] == device.device_id()).await
    }

    pub async fn pending_where(&self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let find = |body: &Value| body["pending"].as_array().and_then(|l| l.iter().find(|p| wanted(p)).cloned());
        let body = self.client.wait_until("/v1/pairing", |b| find(b).is_some(), SOON).await?;
        Ok(find(&body).expect("just found"))
    }

    /// Lets a fresh browser in by the API, waiting until it is connected.
    pub async fn let_in(&self, device: &mut RemoteDevice) -> anyhow::Result<()> {
        let request = device.attempt().await?.request_id()?.to_owned();
        self.pending(device).await?;
        let reply = self.approve(json!({"kind": "device", "request_id": request})).await?;
        anyhow::ensure!(reply.status == 200, "{}", reply.text());
        device.connect_when_approved(SOON).await?;
        Ok(())
    }
}

async fn suite(version: &str) -> anyhow::Result<()> {
    let mut lab = Lab::start(version).await?;
    devices::approve_lets_a_remote_browser_in(&lab).await?;
    devices::approving_again_says_already_paired(&lab).await?;
    devices::approve_by_device_and_only_pending(&lab).await?;
    devices::a_widened_request_is_not_approved_blindly(&lab).await?;
    devices::reject_turns_a_request_down(&lab).await?;
    devices::a_scope_upgrade_is_shown_and_approved(&lab).await?;
    devices::an_approval_behind_our_back_is_noticed(&lab).await?;
    devices::rename_gives_a_name(&lab).await?;
    devices::revoke_ends_the_session(&lab).await?;
    nodes::a_node_is_let_in_and_its_commands_allowed(&lab).await?;
    nodes::channel_requests_are_listed(&lab).await?;
    devices::our_own_device_is_in_no_list(&lab).await?;
    lifecycle::wrong_token_is_explained_and_followed(&mut lab).await?;
    lifecycle::a_call_waits_for_a_booting_gateway(&mut lab).await?;
    lifecycle::a_stopped_process_is_degraded_not_unknown(&lab).await?;
    lab.sidecar.stop().await?;
    lab.gateway.stop().await
}

#[tokio::test]
async fn on_2026_9_6() {
    suite("2026.9.6").await.unwrap();
}

#[tokio::test]
async fn on_2026_6_11() {
    suite("2026.6.11").await.unwrap();
}

#[tokio::test]
async fn on_2026_4_9() {
    suite("2026.4.9").await.unwrap();
}

/// Only where it was installed by hand: it needs a stand-in for a dependency that is not in the npm registry.
#[tokio::test]
async fn on_2026_2_9_where_installed() {
    if crate::support::gateway::installed("2026.2.9").is_ok() {
        suite("2026.2.9").await.unwrap();
    } else {
        println!("SKIPPED: gateway 2026.2.9 is not installed (tests/gateways/install 2026.2.9); see the replay tests");
    }
}
