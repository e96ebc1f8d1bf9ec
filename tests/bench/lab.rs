//! What the rows share: one real gateway, daemons beside it, and devices that ask it to be let in.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::support::{
    client::Client,
    device::RemoteDevice,
    gateway::{Gateway, GatewayOptions, VERSIONS},
    machine::{self, Machine},
    sidecar::Sidecar,
};

const READY: Duration = Duration::from_secs(60);
/// The gateway's configuration is taken over soon after it is ready.
const TAKEN_OVER: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

pub struct Lab {
    /// `BENCH_QUICK=1`.
    pub quick: bool,
    gateway: Option<Gateway>,
}

impl Lab {
    pub fn new() -> Self {
        Self { quick: std::env::var("BENCH_QUICK").is_ok_and(|quick| quick == "1"), gateway: None }
    }

    /// The gateway, started when first asked for.
    pub async fn gateway(&mut self) -> anyhow::Result<&Gateway> {
        if self.gateway.is_none() {
            self.gateway = Some(Gateway::start(VERSIONS[0], GatewayOptions::default()).await?);
        }
        self.gateway.as_ref().context("just started")
    }

    /// The gateway and a new daemon that holds a session with it.
    pub async fn pair(&mut self) -> anyhow::Result<(&Gateway, Sidecar)> {
        let gateway = self.gateway().await?;
        let sidecar = Sidecar::builder().gateway_config(gateway.port(), &gateway.config_path()).start().await?;
        sidecar.client().wait_until("/v1/state", |state| state["phase"] == "ready", READY).await?;
        Ok((gateway, sidecar))
    }

    /// A machine that was booted by the launcher, its real gateway ready; each row has its own.
    pub async fn machine(&self) -> anyhow::Result<Machine> {
        let machine = Machine::real(VERSIONS[0])?.start().await?;
        let ready = |state: &Value| state["phase"] == "ready" && state["desired"]["status"] == "applied";
        machine.wait_state(ready, machine::READY).await?;
        let end = Instant::now() + TAKEN_OVER;
        while !machine.place().gateway_dir().join(".sidecar/last-good.json").exists() {
            ensure!(Instant::now() < end, "the gateway's configuration was not taken over");
            sleep(POLL).await;
        }
        Ok(machine)
    }

    /// `usual` runs, or `quick` ones.
    pub fn runs(&self, usual: usize, quick: usize) -> usize {
        if self.quick { quick } else { usual }
    }
}

/// A new remote browser that waits for approval.
pub async fn waiting_device(gateway: &Gateway) -> anyhow::Result<(RemoteDevice, String)> {
    let mut device = RemoteDevice::browser(gateway.port(), gateway.token());
    let request_id = device.attempt().await?.request_id()?.to_owned();
    Ok((device, request_id))
}

/// One GET that has to succeed.
pub async fn get(client: &Client, path: &str) -> anyhow::Result<()> {
    let reply = client.get(path).await?;
    ensure!(reply.status == 200, "GET {path}: {} {}", reply.status, reply.text());
    Ok(())
}
