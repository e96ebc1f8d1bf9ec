//! Gateways that cannot be worked with: each is explained in plain words, and none can hold the machine up.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{SOON, last_exit, starts, supervisor_says, until};
use crate::support::machine::script::{EXITS, FLOOD, INVALID, OBEDIENT, REPAIR_HANGS, STUBBORN};
use crate::support::machine::{Machine, proc};

/// Five exits with growing pauses between them.
const LOOPING: Duration = Duration::from_secs(60);

#[tokio::test]
async fn one_that_ends_at_once_is_retried_and_then_called_a_loop() -> anyhow::Result<()> {
    let machine = Machine::script(EXITS)?.start().await?;
    let state = machine.wait_phase("backoff", SOON).await?;
    ensure!(last_exit(&state)["code"] == 3 && last_exit(&state)["oom"] == false, "{state}");
    ensure!(supervisor_says(&state, &["code 3", "the database is gone"]), "{state}");
    let state = machine.wait_phase("crash_loop", LOOPING).await?;
    let reason = state["supervisor"]["reason"].as_str().unwrap_or_default();
    ensure!(reason.contains("5 times") && reason.contains("code 3"), "{reason}");
    ensure!(supervisor_says(&state, &["the database is gone"]), "{state}");
    ensure!(starts(&state) == 5, "{state}");
    // Whoever asks by hand is not made to wait.
    machine.client().post("/v1/gateway/start?wait_s=1", &json!({})).await?;
    machine.wait_state(|s| starts(s) > 5, SOON).await?;
    ensure!(machine.pids().overlaps().is_empty(), "{:?}", machine.pids().overlaps());
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named() -> anyhow::Result<()> {
    let machine = Machine::command(&["/nowhere/bin/openclaw", "gateway"])?.start().await?;
    let explained = |s: &Value| supervisor_says(s, &["/nowhere/bin/openclaw", "does not exist"]);
    let state = machine.wait_state(explained, SOON).await?;
    ensure!(matches!(state["phase"].as_str(), Some("backoff" | "crash_loop" | "seeding")), "{state}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_may_not_be_run_is_named() -> anyhow::Result<()> {
    let builder = Machine::command(&["./bin/openclaw", "gateway"])?;
    let program = builder.place().programs().join("openclaw");
    std::fs::write(&program, "#!/bin/sh\n")?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o644))?;
    let machine = builder.start().await?;
    machine.wait_state(|s| supervisor_says(s, &["bin/openclaw", "not executable"]), SOON).await?;
    Ok(())
}

/// Also when it has children that are no better.
#[tokio::test]
async fn one_that_ignores_sigterm_is_killed_inside_the_budget() -> anyhow::Result<()> {
    let budget = Duration::from_secs(4);
    let mut machine = Machine::script(STUBBORN)?.setting("LAUNCH_STOP_BUDGET_S", "4").start().await?;
    machine.wait_phase("starting", SOON).await?;
    let gateway = machine.gateway_pid().context("a gateway")?;
    let both = || machine.output_text().matches("it runs").count() == 2;
    until("the gateway and its child run", SOON, both).await?;
    let children = proc::children(gateway);
    ensure!(children.len() == 1, "{children:?}");
    let started = Instant::now();
    machine.signal(Signal::SIGTERM)?;
    let status = machine.wait_exit(budget + Duration::from_secs(1)).await?;
    println!("ended after {:?}", started.elapsed());
    ensure!(status.code() == Some(0), "{status}");
    ensure!(machine.output_text().contains("ignored SIGTERM"), "it was asked politely first");
    ensure!(machine.survivors().is_empty(), "{:?}", machine.survivors());
    Ok(())
}

/// Nobody reads the machine's output: neither the gateway nor the API notices.
#[tokio::test]
async fn a_flood_of_output_never_blocks() -> anyhow::Result<()> {
    let machine = Machine::script(FLOOD)?.stalled_output().start().await?;
    let (client, flag) = (machine.client(), machine.place().gateway_dir().join("flooded"));
    let mut slowest = Duration::ZERO;
    let end = Instant::now() + LOOPING;
    while !flag.exists() {
        let asked = Instant::now();
        ensure!(client.get("/v1/state").await?.status == 200);
        slowest = slowest.max(asked.elapsed());
        ensure!(Instant::now() < end, "the gateway is held up by its output");
    }
    println!("the slowest answer during the flood took {slowest:?}");
    ensure!(slowest < Duration::from_secs(2), "{slowest:?}");
    let state = machine.wait_state(|s| s["supervisor"]["output_dropped"].as_u64() > Some(100_000), SOON).await?;
    ensure!(state["phase"] == "starting", "{state}");
    machine.kill_daemon().await?;
    machine.stop().await?;
    Ok(())
}

/// One repair by its own means, then nothing more until somebody changes something.
#[tokio::test]
async fn one_that_refuses_its_configuration_is_repaired_once() -> anyhow::Result<()> {
    let machine = Machine::script(INVALID)?.start().await?;
    let dir = machine.place().gateway_dir();
    until("its own repair was tried", SOON, || dir.join("doctored").exists()).await?;
    let given_up = |s: &Value| {
        let why = s["supervisor"]["reason"].as_str().unwrap_or_default();
        s["phase"] == "config_invalid" && s["supervisor"]["pid"].is_null() && why.contains("bananas")
    };
    let state = machine.wait_state(given_up, SOON).await?;
    let doctored = std::fs::read_to_string(dir.join("doctored"))?;
    ensure!(doctored.lines().count() == 1 && doctored.starts_with("doctor --fix"), "{doctored}");
    ensure!(supervisor_says(&state, &["config invalid"]), "{state}");
    let before = starts(&state);
    machine.place().put(&dir.join("repaired"), "", crate::support::machine::GATEWAY_UID, 0o600)?;
    machine.client().post("/v1/gateway/start?wait_s=1", &json!({})).await?;
    let state = machine.wait_state(|s| s["phase"] == "starting" && !s["supervisor"]["pid"].is_null(), SOON).await?;
    ensure!(starts(&state) > before, "{state}");
    Ok(())
}

/// The tenant's programs end with the machine, whatever they are at.
#[tokio::test]
async fn a_repair_that_hangs_ends_with_the_machine() -> anyhow::Result<()> {
    let mut machine = Machine::script(REPAIR_HANGS)?.start().await?;
    let flag = machine.place().gateway_dir().join("doctored");
    until("its own repair runs", SOON, || flag.exists()).await?;
    machine.signal(Signal::SIGTERM)?;
    let status = machine.wait_exit(SOON).await?;
    ensure!(status.code() == Some(0), "{status}\n{}", machine.last_words());
    ensure!(machine.survivors().is_empty(), "{:?}", machine.survivors());
    Ok(())
}

/// What somebody stopped stays stopped, whatever happens to the daemon; asleep, the machine ends with success.
#[tokio::test]
async fn stop_outlives_the_daemon_and_sleep_ends_the_machine() -> anyhow::Result<()> {
    let machine = Machine::script(OBEDIENT)?.start().await?;
    // Before that it cannot have taken the signal over.
    until("the gateway runs", SOON, || machine.output_text().contains("it runs")).await?;
    let stopped = machine.client().post("/v1/gateway/stop", &json!({})).await?;
    ensure!(stopped.status == 200, "{} {}", stopped.status, stopped.text());
    machine.wait_phase("stopped", SOON).await?;
    ensure!(machine.gateway_pid().is_none() && last_exit(&machine.state().await?)["code"] == 0);
    machine.kill_daemon().await?;
    let state = machine.wait_phase("stopped", SOON).await?;
    ensure!(starts(&state) == 1 && machine.gateway_pid().is_none(), "{state}");
    let again = machine.client().post("/v1/gateway/stop", &json!({})).await?;
    ensure!(again.status == 200, "stopping twice is no error: {} {}", again.status, again.text());
    machine.client().post("/v1/gateway/start?wait_s=1", &json!({})).await?;
    machine.wait_phase("starting", SOON).await?;
    sleeps(machine).await?;
    Ok(())
}

async fn sleeps(mut machine: Machine) -> anyhow::Result<()> {
    let slept = machine.client().post("/v1/sleep", &json!({})).await?;
    ensure!(matches!(slept.status, 200 | 202), "{} {}", slept.status, slept.text());
    let status = machine.wait_exit(SOON).await?;
    ensure!(status.code() == Some(0) && machine.survivors().is_empty(), "{status} {:?}", machine.survivors());
    // Woken up, it runs.
    let machine = machine.again().start().await?;
    machine.wait_phase("starting", SOON).await?;
    ensure!(machine.gateway_pid().is_some());
    machine.stop().await?;
    Ok(())
}

/// Its own configuration is wrong: an exit code that says so, and no gateway.
#[tokio::test]
async fn a_wrong_configuration_ends_the_launcher_with_78() -> anyhow::Result<()> {
    let mut machine = Machine::script(OBEDIENT)?.setting("LAUNCH_VOLUME", "/nowhere/data").spawn().await?;
    let status = machine.wait_exit(SOON).await?;
    ensure!(status.code() == Some(78), "{status}\n{}", machine.last_words());
    ensure!(machine.log_text().contains("/nowhere"), "{}", machine.log_text());
    ensure!(machine.pids().gateways().is_empty());
    Ok(())
}

/// A daemon that may not start says what to do, and costs the tenant nothing.
#[tokio::test]
async fn without_a_credential_the_gateway_runs_all_the_same() -> anyhow::Result<()> {
    let machine = Machine::script(OBEDIENT)?.without_credentials().spawn().await?;
    until("the gateway runs", SOON, || machine.output_text().contains("it runs")).await?;
    machine.wait_log(&["credential"], SOON).await?;
    until("the daemon gave up", SOON, || machine.daemon_pid().is_none()).await?;
    ensure!(machine.gateway_pid().is_some(), "{}", machine.last_words());
    machine.stop().await?;
    Ok(())
}
