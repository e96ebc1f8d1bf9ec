//! PID 1 of a container: it reaps what others leave behind, outlives its daemon, and ends in time.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use super::{NEWEST, SOON, last_exit, starts, until};
use crate::support::machine::script::{ORPHANS, THOUSAND_ORPHANS};
use crate::support::machine::{GATEWAY_UID, Machine, READY, needs_root, proc, run_as};

const BUDGET: Duration = Duration::from_secs(8);
/// What a busy machine may add to it.
const SLACK: Duration = Duration::from_secs(2);
const KILLS: usize = 100;

#[tokio::test]
async fn a_real_gateway_below_pid_1() -> anyhow::Result<()> {
    if !needs_root("launch::pid1") {
        return Ok(());
    }
    let builder = Machine::real(NEWEST)?.pid_namespace().setting("LAUNCH_STOP_BUDGET_S", "8");
    let machine = builder.start().await?;
    ensure!(proc::inner_pid(machine.launcher_pid()) == Some(1), "the launcher is PID 1");
    let state = machine.wait_phase("ready", READY).await?;
    let gateway = machine.gateway_pid().context("it is ready")?;
    ensure!(state["supervisor"]["pid"].as_u64() == proc::inner_pid(gateway).map(u64::from), "{state}");

    orphans_are_reaped(&machine).await?;
    the_daemon_dies_a_hundred_times(&machine).await?;

    proc::signal(gateway, Signal::SIGKILL)?;
    let seen = |s: &serde_json::Value| last_exit(s)["signal"] == "SIGKILL" && starts(s) == 2;
    machine.wait_state(seen, SOON).await?;
    machine.wait_phase("ready", READY).await?;
    ensure!(machine.pids().gateways().len() == 2, "{:?}", machine.pids().gateways());

    let again = ends_in_time(machine, Signal::SIGTERM).await?;
    let machine = again.start().await?;
    machine.wait_phase("ready", READY).await?;
    ends_in_time(machine, Signal::SIGINT).await?;
    Ok(())
}

/// A thousand processes lose their parent inside the namespace, as the gateway's user.
async fn orphans_are_reaped(machine: &Machine) -> anyhow::Result<()> {
    let (launcher, uid) = (machine.launcher_pid().to_string(), GATEWAY_UID.to_string());
    let inside = ["--target", &launcher, "--pid", "--mount", "--"];
    let user = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "--"];
    let args = [&inside[..], &user[..], &["/bin/sh", "-c", THOUSAND_ORPHANS]].concat();
    let ran = run_as(0, "nsenter", &args).await?;
    ensure!(ran.ok, "{ran:?}");
    all_reaped(machine, 100).await
}

/// That many were adopted, and in the end only the daemon and the gateway are left.
async fn all_reaped(machine: &Machine, at_least: usize) -> anyhow::Result<()> {
    let launcher = machine.launcher_pid();
    let adopted = proc::children(launcher).len();
    ensure!(adopted > at_least, "only {adopted} children: the orphans went to somebody else");
    let alone = || proc::zombies_of(launcher).is_empty() && proc::children(launcher).len() == 2;
    until("all orphans are reaped", SOON, alone).await.with_context(|| format!("{:?}", proc::zombies_of(launcher)))
}

/// The gateway does not notice, and the API is back at once.
async fn the_daemon_dies_a_hundred_times(machine: &Machine) -> anyhow::Result<()> {
    let gateway = machine.gateway_pid().and_then(proc::stat).context("it is ready")?;
    let mut away = Vec::with_capacity(KILLS);
    for _ in 0..KILLS {
        away.push(machine.kill_daemon().await?);
        let now = machine.gateway_pid().and_then(proc::stat).context("no gateway any more")?;
        ensure!((now.pid, now.started) == (gateway.pid, gateway.started), "another gateway: {now:?}");
    }
    away.sort();
    let (median, worst) = (away[KILLS / 2], away[KILLS - 1]);
    println!("the API was away for {median:?} in the median, {worst:?} at worst, of {KILLS} kills");
    ensure!(median < Duration::from_secs(1) && worst < Duration::from_secs(5), "{median:?}, at worst {worst:?}");
    let state = machine.wait_phase("ready", SOON).await?;
    ensure!(starts(&state) == 1, "{state}");
    ensure!(machine.pids().gateways().len() == 1, "{:?}", machine.pids().gateways());
    Ok(())
}

/// Whoever listens hears of it first; then everything ends, inside the budget.
async fn ends_in_time(mut machine: Machine, signal: Signal) -> anyhow::Result<crate::support::machine::Builder> {
    let daemon = machine.daemon_pid().context("a daemon")?;
    let mut events = machine.client().events("/v1/events", None).await?;
    events.next(SOON).await?;
    let started = Instant::now();
    machine.signal(signal)?;
    let drains =
        |event: &crate::support::client::Event| event.event == "gateway.phase" && event.json()["phase"] == "draining";
    events.wait_for(drains, BUDGET).await.with_context(|| format!("{signal}: {}", machine.last_words()))?;
    ensure!(machine.gateway_pid().is_some(), "{signal}: told only after the gateway had gone");
    let status = machine.wait_exit(BUDGET + SLACK).await.with_context(|| signal.to_string())?;
    println!("{signal}: everything ended after {:?}", started.elapsed());
    ensure!(status.code() == Some(0), "{signal}: {status}\n{}", machine.last_words());
    ensure!(!proc::is_alive(daemon), "{signal}: the daemon stays");
    ensure!(machine.survivors().is_empty(), "{signal}: {:?}", machine.survivors());
    ensure!(machine.pids().overlaps().is_empty(), "{:?}", machine.pids().overlaps());
    Ok(machine.again())
}

/// Below another init, the orphans of the gateway come to the launcher all the same.
#[tokio::test]
async fn orphans_are_reaped_without_being_pid_1() -> anyhow::Result<()> {
    let machine = Machine::script(ORPHANS)?.args(&["orphans", THOUSAND_ORPHANS]).start().await?;
    let flag = machine.place().gateway_dir().join("orphaned");
    until("the gateway made its orphans", SOON, || flag.exists()).await?;
    all_reaped(&machine, 100).await
}
