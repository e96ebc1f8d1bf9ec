//! The units of `systemd/`: what systemd makes of them, and both of them on a booted machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio::process::Command;

use super::nspawn::Lab;
use super::registry::UNIT as REGISTRY;
use super::{READY, output, ready_for, repository, tenant, text, until};
use crate::support::client::Client;
use crate::support::device::{ORIGIN, RemoteDevice};
use crate::support::gateway::{Gateway, GatewayOptions};
use crate::support::sidecar::{credential, new_token};

const LAUNCH: &str = "openclaw-sidecar.service";
const ATTACH: &str = "openclaw-sidecar-attach.service";
pub(super) const UNITS: [&str; 3] = [LAUNCH, ATTACH, REGISTRY];

/// Exposure times ten, as `systemd-analyze security` counts it: of the units that hold nothing but the daemon or
/// the registry, and of the one that holds the gateway and its agents as well.
const EXPOSURE: [(&str, &str); 3] = [(ATTACH, "15"), (REGISTRY, "15"), (LAUNCH, "40")];
/// The units' own is 30 s; a test need not wait that long.
const WATCHDOG: &str = "WatchdogSec=3";
pub(super) const QUICK: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_units_expose_little() -> anyhow::Result<()> {
    if output(Command::new("systemd-analyze").arg("--version"), QUICK).await.is_err() {
        eprintln!("SKIPPED packaging::systemd::the_units_expose_little: needs systemd-analyze");
        return Ok(());
    }
    for (unit, most) in EXPOSURE {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--offline=true", "--no-pager", &format!("--threshold={most}")]);
        let result = output(analyze.arg(repository().join("systemd").join(unit)), QUICK).await?;
        let said = text(&result.stdout);
        println!("{}", said.lines().last().unwrap_or_default());
        assert!(result.status.success(), "{said}");
    }
    Ok(())
}

/// What an administrator writes: `/etc/openclaw-sidecar`, for root alone.
fn administered(token: &str) -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new().prefix("sidecar-etc-").tempdir()?;
    private(&dir.path().join("machine-secret"), &new_token())?;
    private(&dir.path().join("credentials.json"), &json!([credential("control", token, "dangerous")]).to_string())?;
    Ok(dir)
}

/// Put in place whole, as every careful writer does.
pub(super) fn private(path: &Path, content: &str) -> anyhow::Result<()> {
    let staged = path.with_extension("staged");
    std::fs::write(&staged, content)?;
    std::fs::set_permissions(&staged, PermissionsExt::from_mode(0o600))?;
    Ok(std::fs::rename(&staged, path)?)
}

pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn variable(name: &str, value: &str) -> String {
    format!("Environment='OPENCLAW_SIDECAR_{name}={value}'")
}

/// Stops its main process, which systemd has to notice and to mend.
async fn watchdog_mends(lab: &Lab, unit: &str, client: &Client) -> anyhow::Result<()> {
    lab.run(&["systemctl", "kill", "--kill-who=main", "--signal=STOP", unit], QUICK).await?;
    let restarted = || async {
        let count = lab.property(unit, "NRestarts").await?;
        ensure!(count == "1", "{count} restarts");
        Ok(())
    };
    until("a restart by the watchdog", QUICK, restarted).await?;
    client.forget_connections();
    until("the control API", QUICK, || client.get("/livez")).await?;
    tenant::ready(client).await?;
    Ok(())
}

pub(super) async fn stops(lab: &Lab, unit: &str, within: Duration, last_words: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    lab.run(&["systemctl", "stop", unit], QUICK).await?;
    let took = began.elapsed();
    println!("{unit} stopped in {took:.1?}");
    assert!(took < within, "stopping took {took:?}");
    assert_eq!(lab.property(unit, "Result").await?, "success");
    assert_eq!(lab.property(unit, "ActiveState").await?, "inactive");
    // Systemd also calls it a success when the signal itself ends the process.
    let said = lab.tell(&["journalctl", "--no-pager", "--output=cat", "--lines=20", "--unit", unit]).await?;
    assert!(said.contains(last_words), "it did not stop in order:\n{said}");
    Ok(())
}

#[tokio::test]
async fn the_launch_unit_runs_a_tenant() -> anyhow::Result<()> {
    if !ready_for("systemd::the_launch_unit_runs_a_tenant").await? {
        return Ok(());
    }
    // Never started: it keeps a range of ports for the gateway in the machine.
    let ports = Gateway::prepare(super::GATEWAY, GatewayOptions::default())?;
    let address = free_address()?;
    let token = new_token();
    let etc = administered(&token)?;
    let desired = json!({
        "config": {"update": {"checkOnStart": false}},
        "gateway": {"bind": "loopback", "allowed_origins": [ORIGIN], "trusted_proxies": ["127.0.0.1"]},
    });
    let settings = [
        WATCHDOG.to_owned(),
        variable("LISTEN_TLS", &address.to_string()),
        variable("GATEWAY_ADDRESS", &ports.address().to_string()),
        variable("LAUNCH_DESIRED", &desired.to_string()),
        variable("LAUNCH_ENV_PASS", "npm_config_offline"),
        "Environment=OPENCLAW_SKIP_CHANNELS=1 npm_config_offline=true".to_owned(),
    ];
    let lab = Lab::boot(&settings, &[(etc.path(), "/etc/openclaw-sidecar")]).await?;
    lab.explain(launched(&lab, address, &token, &ports, etc.path()).await).await?;
    lab.off().await
}

async fn launched(lab: &Lab, at: SocketAddr, token: &str, ports: &Gateway, etc: &Path) -> anyhow::Result<()> {
    lab.run(&["systemd-analyze", "verify", LAUNCH, ATTACH], QUICK).await?;
    lab.run(&["systemctl", "start", LAUNCH], READY).await?;
    assert_eq!(lab.property(LAUNCH, "ActiveState").await?, "active");
    let volume = lab.path("/var/lib/openclaw");
    let client = tenant::client(&volume.join("sidecar"), at, token).await?;
    let state = tenant::ready(&client).await?;
    assert_eq!(state["supervisor"]["isolation"], "separate-uids", "{state}");
    tenant::is_hardened(&state);

    let mut browser = RemoteDevice::browser(ports.port(), &tenant::gateway_token(&volume)?);
    tenant::let_in(&client, &mut browser).await?;
    tenant::restart_gateway(&client, &mut browser).await?;
    credentials_rotate(&client, etc).await?;

    let client = client.with_token(Some(token));
    private(&etc.join("credentials.json"), &json!([credential("control", token, "dangerous")]).to_string())?;
    watchdog_mends(lab, LAUNCH, &client).await?;
    browser.connect_when_approved(READY).await?;
    stops(lab, LAUNCH, Duration::from_secs(20), "everything has stopped").await?;
    let left = lab.tell(&["systemctl", "status", "--no-pager", "--lines=0", LAUNCH]).await?;
    ensure!(!left.contains("openclaw-sidecar daemon") && !left.contains("node"), "{left}");
    // It opens what is sealed on the volume, so whoever copies the volume must not find it there.
    let found = holders(&volume, &std::fs::read(etc.join("machine-secret"))?)?;
    ensure!(found.is_empty(), "the machine's secret lies on the volume: {found:?}");
    Ok(())
}

/// The files below `dir` that hold `text`.
fn holders(dir: &Path, text: &[u8]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(holders(&entry.path(), text)?);
        } else if entry.file_type()?.is_file() {
            let content = std::fs::read(entry.path())?;
            found.extend(content.windows(text.len()).any(|part| part == text).then(|| entry.path()));
        }
    }
    Ok(found)
}

/// Another token is good within seconds, and neither gateway nor daemon is restarted for it.
async fn credentials_rotate(client: &Client, etc: &Path) -> anyhow::Result<()> {
    let gateway = tenant::gateway_pid(client).await?;
    let fresh = new_token();
    private(&etc.join("credentials.json"), &json!([credential("control", &fresh, "dangerous")]).to_string())?;
    let client = client.with_token(Some(&fresh));
    let accepted = || async {
        let reply = client.get("/v1/state").await?;
        ensure!(reply.status == 200, "{}", reply.text());
        Ok(())
    };
    until("the new credential", QUICK, accepted).await?;
    assert_eq!(tenant::gateway_pid(&client).await?, gateway, "the gateway was restarted");
    Ok(())
}

/// Through the control API one repairs what keeps the gateway down, so the unit must be up without it: neither late, nor
/// ended for being late, nor an obstacle to the machine's boot.
#[tokio::test]
async fn the_launch_unit_is_up_while_its_gateway_cannot_start() -> anyhow::Result<()> {
    if !ready_for("systemd::the_launch_unit_is_up_while_its_gateway_cannot_start").await? {
        return Ok(());
    }
    let address = free_address()?;
    let token = new_token();
    let etc = administered(&token)?;
    let settings = [
        variable("LISTEN_TLS", &address.to_string()),
        "ExecStart=".to_owned(),
        "ExecStart=/usr/local/bin/openclaw-sidecar run -- /nonexistent/openclaw gateway".to_owned(),
    ];
    let lab = Lab::boot(&settings, &[(etc.path(), "/etc/openclaw-sidecar")]).await?;
    lab.explain(up_without_gateway(&lab, address, &token).await).await?;
    lab.off().await
}

async fn up_without_gateway(lab: &Lab, at: SocketAddr, token: &str) -> anyhow::Result<()> {
    lab.run(&["systemctl", "start", "--no-block", LAUNCH], QUICK).await?;
    let client = tenant::client(&lab.path("/var/lib/openclaw/sidecar"), at, token).await?;
    let ready = client.get("/readyz").await?;
    assert_eq!(ready.status, 503, "{}", ready.text());
    let says_why = || async {
        let state = client.get("/v1/state").await?.json();
        let reason = state["supervisor"]["reason"].as_str().unwrap_or_default().to_owned();
        ensure!(reason.contains("/nonexistent/openclaw"), "{}", state["supervisor"]);
        Ok(())
    };
    until("the reason", QUICK, says_why).await?;
    let active = || async {
        let state = lab.property(LAUNCH, "ActiveState").await?;
        ensure!(state == "active", "{state}");
        Ok(())
    };
    until("an active unit", Duration::from_secs(20), active).await?;
    stops(lab, LAUNCH, Duration::from_secs(20), "everything has stopped").await
}

#[tokio::test]
async fn the_attach_unit_serves_beside_a_gateway() -> anyhow::Result<()> {
    if !ready_for("systemd::the_attach_unit_serves_beside_a_gateway").await? {
        return Ok(());
    }
    let gateway = Gateway::start(super::GATEWAY, GatewayOptions::default()).await?;
    let address = free_address()?;
    let token = new_token();
    let etc = administered(&token)?;
    let settings = [
        WATCHDOG.to_owned(),
        variable("LISTEN_TLS", &address.to_string()),
        variable("GATEWAY_ADDRESS", &gateway.address().to_string()),
    ];
    let config = gateway.config_path();
    let mounts = [(etc.path(), "/etc/openclaw-sidecar"), (&*config, "/home/openclaw/.openclaw/openclaw.json")];
    let lab = Lab::boot(&settings, &mounts).await?;
    lab.explain(attached(&lab, address, &token, &gateway).await).await?;
    lab.off().await
}

async fn attached(lab: &Lab, at: SocketAddr, token: &str, gateway: &Gateway) -> anyhow::Result<()> {
    lab.run(&["systemctl", "start", ATTACH], QUICK).await?;
    let client = tenant::client(&lab.path("/var/lib/openclaw-sidecar"), at, token).await?;
    let state = tenant::ready(&client).await?;
    assert_eq!(state["mode"], "attach", "{state}");
    tenant::is_hardened(&state);
    lab.run(&["openclaw-sidecar", "status", "--quiet"], QUICK).await?;

    let mut browser = RemoteDevice::browser(gateway.port(), gateway.token());
    tenant::let_in(&client, &mut browser).await?;
    watchdog_mends(lab, ATTACH, &client).await?;
    ensure!(browser.is_connected(), "the gateway has nothing to do with it");
    stops(lab, ATTACH, Duration::from_secs(10), "stopping").await
}
