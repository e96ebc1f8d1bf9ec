//! A daemon that is stopped and cannot say so: another one takes its place, and the gateway does not notice.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;

use super::{NEWEST, SOON, starts, until};
use crate::support::client::Client;
use crate::support::machine::{Machine, READY, needs_root, proc};

const REPLACED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_stopped_daemon_is_replaced() -> anyhow::Result<()> {
    if !needs_root("launch::frozen") {
        return Ok(());
    }
    let mut machine = Machine::real(NEWEST)?.start().await?;
    machine.wait_phase("ready", READY).await?;
    let gateway = machine.gateway_pid().and_then(proc::stat).context("it is ready")?;
    let daemon = machine.daemon_pid().context("it answers")?;

    let stopped = Instant::now();
    proc::signal(daemon, Signal::SIGSTOP)?;
    until("the daemon is stopped", SOON, || proc::stat(daemon).is_some_and(|stat| stat.state == 'T')).await?;
    let another = || machine.daemon_pid().is_some_and(|pid| pid != daemon);
    until("another daemon", REPLACED, another).await.with_context(|| machine.last_words())?;
    println!("another daemon {:?} after SIGSTOP", stopped.elapsed());
    machine.wait_listening().await?;
    println!("the API was away for {:?}", stopped.elapsed());
    ensure!(stopped.elapsed() < REPLACED, "{:?}", stopped.elapsed());

    ensure!(!proc::is_alive(daemon), "the stopped one is still there");
    let state = machine.wait_phase("ready", SOON).await?;
    let now = machine.gateway_pid().and_then(proc::stat).context("no gateway any more")?;
    ensure!((now.pid, now.started) == (gateway.pid, gateway.started), "another gateway: {now:?}");
    ensure!(starts(&state) == 1 && state["supervisor"]["last_exit"].is_null(), "{state}");
    // The stopped one held the local socket too.
    let local = Client::unix(&machine.place().socket(), None).get("/livez").await?;
    ensure!(local.status == 200, "{} {}", local.status, local.text());
    ensure!(machine.client().get("/v1/pairing").await?.status == 200);
    machine.stop().await?;
    Ok(())
}
