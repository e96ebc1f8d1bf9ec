//! The registry as it is deployed: its unit on a booted machine, its image in a container.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;

use super::nspawn::Lab;
use super::podman::{Container, build};
use super::systemd::{QUICK, free_address, private, stops};
use super::{ready_for, until};
use crate::support::client::Client;
use crate::support::sidecar::{credential, new_token};

pub(super) const UNIT: &str = "openclaw-registry.service";
const STATE: &str = "/var/lib/openclaw-registry";
/// What the unit allows it, and what a container gets here.
const STOPS: Duration = Duration::from_secs(15);

/// A new tenant that has checked in.
async fn takes_a_tenant(admin: &Client) -> anyhow::Result<()> {
    let made = admin.post("/v1/admin/tenants", &json!({"id": "acme"})).await?;
    ensure!(made.status == 201, "{}", made.text());
    let machine = admin.with_token(made.json()["credential"].as_str());
    let state = json!({"phase": "ready", "gateway": {"version": super::GATEWAY}});
    let message = json!({"tenant": "acme", "epoch": 1, "boot_id": "b1", "seq": 1, "next_s": 300, "state": state});
    let reply = machine.post("/v1/agent/checkin", &message).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    knows_it(admin).await
}

async fn knows_it(admin: &Client) -> anyhow::Result<()> {
    let view = admin.get("/v1/support/tenants/acme").await?.json();
    ensure!(view["status"] == "ready" && view["gateway_version"] == super::GATEWAY, "{view}");
    Ok(())
}

#[tokio::test]
async fn the_registry_unit_serves_a_fleet() -> anyhow::Result<()> {
    if !ready_for("registry::the_registry_unit_serves_a_fleet").await? {
        return Ok(());
    }
    let (address, token) = (free_address()?, new_token());
    let etc = tempfile::Builder::new().prefix("registry-etc-").tempdir()?;
    private(&etc.path().join("secret"), &new_token())?;
    private(&etc.path().join("credentials.json"), &json!([credential("ops", &token, "dangerous")]).to_string())?;
    let settings = [format!("Environment='OPENCLAW_REGISTRY_LISTEN_TLS={address}'")];
    let lab = Lab::boot(&settings, &[(etc.path(), "/etc/openclaw-registry")]).await?;
    lab.explain(serves(&lab, address, &token).await).await?;
    lab.off().await
}

async fn serves(lab: &Lab, at: SocketAddr, token: &str) -> anyhow::Result<()> {
    lab.run(&["systemd-analyze", "verify", UNIT], QUICK).await?;
    // Comes back when it says that it is ready.
    lab.run(&["systemctl", "start", UNIT], QUICK).await?;
    assert_eq!(lab.property(UNIT, "ActiveState").await?, "active");
    let state = lab.path(STATE);
    let certificate = rustls::pki_types::pem::PemObject::from_pem_file(state.join("tls.crt"))?;
    let admin = Client::tls(at, &certificate, Some(token));
    assert_eq!(admin.get("/readyz").await?.status, 200);
    takes_a_tenant(&admin).await?;
    is_private(&state)?;

    lab.run(&["systemctl", "kill", "--kill-who=main", "--signal=KILL", UNIT], QUICK).await?;
    let restarted = || async {
        let count = lab.property(UNIT, "NRestarts").await?;
        ensure!(count == "1", "{count} restarts");
        Ok(())
    };
    until("a restart", QUICK, restarted).await?;
    admin.forget_connections();
    until("the registry", QUICK, || admin.get("/livez")).await?;
    knows_it(&admin).await?;
    stops(lab, UNIT, STOPS, "stopping").await
}

/// The database, the certificate's key and where they lie are its user's alone.
fn is_private(state: &Path) -> anyhow::Result<()> {
    let dir = std::fs::metadata(state)?;
    ensure!(dir.mode() & 0o7777 == 0o700 && dir.uid() != 0, "{:o} {}", dir.mode(), dir.uid());
    for file in ["registry.db", "registry.db-wal", "tls.pem"] {
        let file = std::fs::metadata(state.join(file))?;
        ensure!(file.mode() & 0o7777 == 0o600 && file.uid() == dir.uid(), "{:o} {}", file.mode(), file.uid());
    }
    Ok(())
}

#[tokio::test]
async fn the_registry_image_serves_from_nothing_but_the_binary() -> anyhow::Result<()> {
    if !ready_for("registry::the_registry_image_serves_from_nothing_but_the_binary").await? {
        return Ok(());
    }
    let name = build("registry").await?;
    let token = new_token();
    let credentials = json!([credential("ops", &token, "dangerous")]).to_string();
    let options = [
        "--read-only",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--memory=64m",
        "--pids-limit=64",
        "--publish=127.0.0.1::8080",
        "--env=OPENCLAW_REGISTRY_LISTEN_EDGE=[::]:8080",
        &format!("--env=OPENCLAW_REGISTRY_SECRET={}", new_token()),
        &format!("--env=OPENCLAW_REGISTRY_AUTH_CREDENTIALS={credentials}"),
        &format!("--volume={STATE}"),
    ];
    let container = Container::start(&options, &name).await?;
    container.explain(serves_contained(&container, &token).await).await
}

async fn serves_contained(container: &Container, token: &str) -> anyhow::Result<()> {
    let admin = Client::tcp(container.published("8080/tcp").await?, Some(token));
    until("the registry", QUICK, || admin.get("/livez")).await?;
    takes_a_tenant(&admin).await?;
    let began = Instant::now();
    assert_eq!(container.stop(STOPS).await?, 0);
    println!("stopped in {:.1?}", began.elapsed());
    Ok(())
}
