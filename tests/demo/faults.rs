//! What breaks, and what comes of it.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    let_in::{PAGE_DEADLINE, is_connected, picture},
    support::{
        chromium::Page,
        machine::{READY, is_root, proc},
    },
    tenant::Tenant,
    terminal::{self, command, done, say, step},
    wishes,
};

const SOON: Duration = Duration::from_secs(30);

pub async fn daemon_killed(tenant: &Tenant, device_id: &str) -> anyhow::Result<()> {
    step("The sidecar's daemon is killed");
    let gateway = tenant.machine.gateway_pid().context("no gateway runs")?;
    command(&format!("kill -9 {}", tenant.daemon()?.0));
    let away = tenant.machine.kill_daemon().await?;
    done("the API answers again", away);
    ensure!(tenant.machine.gateway_pid() == Some(gateway), "the gateway is another one");
    is_connected(tenant, device_id).await?;
    say(&format!("The gateway is still process {gateway}, and the browser is still connected: they noticed nothing."));
    tenant.wait(|state| state["phase"] == "ready", SOON).await?;
    Ok(())
}

pub async fn gateway_killed(tenant: &Tenant, page: &mut Page<'_>, device_id: &str) -> anyhow::Result<()> {
    step("The gateway is killed");
    let old = tenant.machine.gateway_pid().context("no gateway runs")?;
    command(&format!("kill -9 {old}"));
    let clock = Instant::now();
    proc::signal(old, Signal::SIGKILL)?;
    let state = tenant.wait(|state| state["supervisor"]["starts"] == 2, SOON).await?;
    ensure!(state["supervisor"]["last_exit"]["signal"] == "SIGKILL", "{}", state["supervisor"]);
    done("noticed, and started again", clock.elapsed());
    let applied = |state: &Value| {
        state["phase"] == "ready" && state["desired"]["generation"] == 2 && state["desired"]["status"] == "applied"
    };
    tenant.wait(applied, READY).await?;
    done("ready again, with what was wanted since", clock.elapsed());
    check_wishes(tenant)?;

    let back = |pairing: &Value| {
        let approved = pairing["approved"].as_array().into_iter().flatten();
        approved.filter(|device| device["device_id"] == device_id).any(|device| device["connected"] == true)
    };
    tenant.client().wait_until("/v1/pairing", back, PAGE_DEADLINE).await?;
    is_connected(tenant, device_id).await?;
    done("the browser is in again by itself: it is still approved", clock.elapsed());
    picture(page, "3-back-again.png").await
}

/// The secret, the domain and the file are where they belong.
fn check_wishes(tenant: &Tenant) -> anyhow::Result<()> {
    let environment = tenant.machine.gateway_environment()?;
    ensure!(environment.contains_key(wishes::SECRET), "the secret did not reach the gateway");
    let config = tenant.machine.config()?;
    let origins = config["gateway"]["controlUi"]["allowedOrigins"].to_string();
    ensure!(origins.contains(wishes::DOMAIN), "the domain did not reach the gateway: {origins}");
    let identity = fs::read_to_string(tenant.machine.place().gateway_dir().join("workspace/IDENTITY.md"))?;
    ensure!(identity == wishes::IDENTITY, "the agent's name did not reach the workspace: {identity}");
    say(&format!("Its environment has {}, its configuration the domain, its workspace the name.", wishes::SECRET));
    Ok(())
}

pub async fn status(tenant: &Tenant) -> anyhow::Result<()> {
    if !is_root() {
        return state(tenant).await;
    }
    step("On the machine itself, one command says how things are");
    command("openclaw-sidecar status");
    let ran = tenant.machine.again().cli(&["status"]).await?;
    let text = String::from_utf8_lossy(&ran.stdout);
    terminal::output(&text);
    let complaint = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success() && text.contains("ready"), "{} {text}{complaint}", ran.status);
    Ok(())
}

/// Where the gateway is the same user as the sidecar, the local socket is for root alone.
async fn state(tenant: &Tenant) -> anyhow::Result<()> {
    step("One answer says how things are");
    say("(On the machine, root gets it by `openclaw-sidecar status`.)");
    let state = tenant.control_plane.get("/v1/state").await?;
    terminal::json(&json!({
        "phase": state["phase"],
        "supervisor": { "starts": state["supervisor"]["starts"], "last_exit": state["supervisor"]["last_exit"]["reason"] },
        "desired": state["desired"],
        "pairing": { "approved": state["pairing"]["approved_count"], "connected": state["pairing"]["connected_count"] },
    }));
    ensure!(state["phase"] == "ready", "not ready: {state}");
    Ok(())
}
