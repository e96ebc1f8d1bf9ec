//! What the rows share: one real gateway, daemons beside it, and devices that ask it to be let in.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::support::{
    client::Client,
    device::RemoteDevice,
    gateway::{Gateway, GatewayOptions, VERSIONS},
    sidecar::Sidecar,
};

const READY: Duration = Duration::from_secs(60);

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
