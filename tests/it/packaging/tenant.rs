//! The main job on a machine just booted, the same wherever it runs: a waiting browser is let in over HTTPS, and what
//! fails or is restarted comes back.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::{READY, until};
use crate::support::client::Client;
use crate::support::device::RemoteDevice;

/// A device's way in once it was let in, and a daemon's way back.
const SOON: Duration = Duration::from_secs(30);

/// Over HTTPS, with the certificate the daemon wrote into its folder.
pub(super) async fn client(folder: &Path, address: SocketAddr, token: &str) -> anyhow::Result<Client> {
    let path = folder.join("tls.crt");
    let read = || async { Ok(CertificateDer::from_pem_file(&path)?) };
    let certificate = until("the daemon's certificate", SOON, read).await?;
    let client = Client::tls(address, &certificate, Some(token));
    until("/livez", SOON, || client.get("/livez")).await?;
    Ok(client)
}

/// Waits until the gateway answers authenticated calls.
pub(super) async fn ready(client: &Client) -> anyhow::Result<Value> {
    until("/readyz", READY, || async {
        let reply = client.get("/readyz").await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        let state = client.get("/v1/state").await?.json();
        ensure!(state["phase"] == "ready", "phase {}", state["phase"]);
        Ok(state)
    })
    .await
}

/// Every layer that the daemon puts around itself holds here too.
pub(super) fn is_hardened(state: &Value) {
    let hardening = &state["sidecar"]["hardening"];
    assert_eq!(hardening["capabilities"], "none", "{hardening}");
    for layer in ["/no_new_privs", "/not_dumpable", "/no_core_dumps", "/landlock/files", "/landlock/tcp", "/seccomp"] {
        assert_eq!(hardening.pointer(layer), Some(&json!("on")), "{layer}: {hardening}");
    }
}

/// The token that was made for the gateway.
pub(super) fn gateway_token(volume: &Path) -> anyhow::Result<String> {
    let config: Value = serde_json::from_slice(&std::fs::read(volume.join("openclaw/openclaw.json"))?)?;
    Ok(config["gateway"]["auth"]["token"].as_str().context("no gateway.auth.token")?.to_owned())
}

/// A browser that has to wait is approved in one call, which answers when it is really in.
pub(super) async fn let_in(client: &Client, device: &mut RemoteDevice) -> anyhow::Result<()> {
    let waiting = device.attempt().await?;
    let request_id = waiting.request_id()?.to_owned();
    let body = json!({"kind": "device", "request_id": request_id, "expect": {"role": "operator"}});
    let approve = client.post("/v1/pairing/approve?wait_connected_s=20", &body);
    let (approved, entered) = tokio::join!(approve, device.connect_when_approved(SOON));
    let approved = approved?;
    assert_eq!(approved.status, 200, "{}", approved.text());
    assert_eq!(approved.json()["outcome"], "approved", "{}", approved.text());
    assert_eq!(approved.json()["connected"], true, "{}", approved.text());
    if let Some(token) = entered? {
        device.token = token;
    }
    Ok(())
}

/// Restarts the gateway over the API; the device comes back by itself.
pub(super) async fn restart_gateway(client: &Client, device: &mut RemoteDevice) -> anyhow::Result<()> {
    let before = gateway_pid(client).await?;
    let reply = client.post("/v1/gateway/restart", &json!({})).await?;
    assert!((200..300).contains(&reply.status), "{}", reply.text());
    let replaced = || async {
        let pid = gateway_pid(client).await?;
        ensure!(pid != before, "still process {before}");
        Ok(())
    };
    until("another gateway process", READY, replaced).await?;
    ready(client).await?;
    device.connect_when_approved(READY).await?;
    Ok(())
}

/// As the launcher sees it: a process id of the machine's own numbering.
pub(super) async fn gateway_pid(client: &Client) -> anyhow::Result<i64> {
    let state = client.get("/v1/state").await?.json();
    state["supervisor"]["pid"].as_i64().with_context(|| format!("no gateway process: {}", state["supervisor"]))
}
