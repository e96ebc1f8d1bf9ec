//! A real gateway's ups and downs on one machine: killed, frozen, stopped, started and restarted by the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{NEWEST, SOON, done, last_exit, starts, until};
use crate::support::client::Client;
use crate::support::machine::{Machine, READY, proc};

/// Ten seconds, and what a busy machine adds until it is seen.
const DEGRADED: Duration = Duration::from_secs(12);
const REPLACED: Duration = Duration::from_secs(90);

#[tokio::test]
async fn a_real_gateway_is_kept_alive_and_obeys() -> anyhow::Result<()> {
    let machine = Machine::real(NEWEST)?.start().await?;
    machine.wait_phase("ready", READY).await?;
    killed_it_is_started_again(&machine).await?;
    frozen_it_is_replaced(&machine).await?;
    stopped_it_stays_so(&machine).await?;
    restarted_only_as_the_one_meant(&machine).await?;
    ensure!(machine.pids().overlaps().is_empty(), "{:?}", machine.pids().overlaps());
    machine.stop().await?;
    Ok(())
}

async fn killed_it_is_started_again(machine: &Machine) -> anyhow::Result<()> {
    let gateway = machine.gateway_pid().context("a gateway")?;
    let killed = Instant::now();
    proc::signal(gateway, Signal::SIGKILL)?;
    let again = |pid: Option<u32>| pid.is_some_and(|pid| pid != gateway);
    until("another gateway", SOON, || again(machine.gateway_pid())).await?;
    println!("started again {:?} after the kill", killed.elapsed());
    let state = machine.wait_phase("ready", READY).await?;
    ensure!(last_exit(&state)["signal"] == "SIGKILL" && last_exit(&state)["code"].is_null(), "{state}");
    ensure!(starts(&state) == 2, "{state}");
    Ok(())
}

/// The API answers all the while.
async fn frozen_it_is_replaced(machine: &Machine) -> anyhow::Result<()> {
    let gateway = machine.gateway_pid().context("a gateway")?;
    let (end, client) = (Arc::new(AtomicBool::new(false)), machine.client());
    let asking = tokio::spawn(slowest_answer(client, end.clone()));
    let frozen = Instant::now();
    proc::signal(gateway, Signal::SIGSTOP)?;
    machine.wait_phase("degraded", DEGRADED).await?;
    println!("degraded {:?} after SIGSTOP", frozen.elapsed());
    let replaced = |s: &Value| starts(s) == 3;
    machine.wait_state(replaced, REPLACED.saturating_sub(frozen.elapsed())).await?;
    println!("replaced {:?} after SIGSTOP", frozen.elapsed());
    ensure!(!proc::is_alive(gateway), "the frozen one is still there");
    machine.wait_phase("ready", READY).await?;
    end.store(true, Ordering::Relaxed);
    let slowest = asking.await??;
    println!("the slowest answer meanwhile took {slowest:?}");
    ensure!(slowest < Duration::from_secs(2), "{slowest:?}");
    Ok(())
}

async fn slowest_answer(client: Client, end: Arc<AtomicBool>) -> anyhow::Result<Duration> {
    let mut slowest = Duration::ZERO;
    while !end.load(Ordering::Relaxed) {
        let asked = Instant::now();
        ensure!(client.get("/v1/state").await?.status == 200);
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(slowest)
}

async fn stopped_it_stays_so(machine: &Machine) -> anyhow::Result<()> {
    let client = machine.client();
    done(&client, "/v1/gateway/stop", json!({})).await?;
    let state = machine.wait_phase("stopped", SOON).await?;
    ensure!(last_exit(&state)["code"] == 0, "it ended by itself: {state}");
    ensure!(machine.gateway_pid().is_none());
    let unready = client.get("/readyz").await?;
    ensure!(unready.status == 503 && unready.text().contains("stopped"), "{}", unready.text());
    machine.kill_daemon().await?;
    machine.wait_phase("stopped", SOON).await?;
    ensure!(machine.gateway_pid().is_none(), "a new daemon started it");
    // Calls that need it say so, and do not wait for what nobody starts.
    let client = machine.client();
    let body = json!({"kind": "device", "only_pending": true});
    let refused = client.post("/v1/pairing/approve?wait_s=2", &body).await?;
    ensure!(refused.status == 503 && refused.code() == "gateway_stopped", "{} {}", refused.status, refused.text());
    let started = client.post("/v1/gateway/start", &json!({})).await?;
    ensure!(matches!(started.status, 200 | 202), "{} {}", started.status, started.text());
    machine.wait_phase("ready", READY).await?;
    Ok(())
}

async fn restarted_only_as_the_one_meant(machine: &Machine) -> anyhow::Result<()> {
    let client = machine.client();
    let (state, gateway) = (machine.state().await?, machine.gateway_pid());
    let boot = state["gateway"]["boot_id"].as_str().context("this version names its boots")?.to_owned();
    let other = json!({"if_boot_id": "6f1c1c1e-0000-4000-8000-000000000000"});
    let refused = client.post("/v1/gateway/restart", &other).await?;
    ensure!(matches!(refused.status, 409 | 412), "{} {}", refused.status, refused.text());
    ensure!(machine.gateway_pid() == gateway, "restarted all the same");
    let meant = client.post("/v1/gateway/restart?wait_s=1", &json!({"if_boot_id": boot})).await?;
    println!("restart answered {} {}", meant.status, meant.text());
    let state = machine.wait_state(|s| s["phase"] == "ready" && s["gateway"]["boot_id"] != *boot, READY).await?;
    ensure!(machine.gateway_pid() != gateway, "{state}");
    // The same call again means a boot that is over.
    let late = client.post("/v1/gateway/restart", &json!({"if_boot_id": boot})).await?;
    ensure!(matches!(late.status, 409 | 412), "{} {}", late.status, late.text());
    Ok(())
}
