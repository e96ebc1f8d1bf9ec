//! What the launcher itself writes: copies of what the platform gives to root, and what was applied last.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::daemon::until;
use super::strace::{self, Fault, How, Plan};
use super::{no_litter, watched};
use crate::support::machine::script::OBEDIENT;
use crate::support::machine::{Machine, Place, needs_root};

/// A stand-in for a gateway is never ready, so nothing here waits for one.
const LIMIT: Duration = Duration::from_secs(20);
const NAME: &str = "OPENCLAW_SIDECAR_AUTH_CREDENTIALS_FILE";

/// The platform replaces its file: the same callers, in other words.
fn renew(place: &Place, number: usize) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(place.credentials())?;
    let text = format!("{}\n{}", text.trim(), "\n".repeat(number));
    let staged = place.root().join("credentials.staged");
    place.put(&staged, &text, 0, 0o600)?;
    std::fs::rename(staged, place.credentials())?;
    Ok(text)
}

async fn attach(machine: &Machine, log: &Path, copy: &Path, fault: Option<Fault>) -> anyhow::Result<strace::Attached> {
    let plan = Plan { paths: watched(copy), fault, log: log.to_owned() };
    plan.attach(machine.launcher_pid()).await
}

#[tokio::test]
async fn copies_for_the_daemon_are_whole() -> anyhow::Result<()> {
    if !needs_root("durability::given") || !strace::is_here("durability::given") {
        return Ok(());
    }
    let machine = Machine::script(OBEDIENT)?.credentials_file().start().await?;
    let dir = machine.place().root().join("run-given");
    let (copy, logs) = (dir.join(NAME), tempfile::tempdir()?);
    let log = logs.path().join("strace.log");
    let there = |text: &str| std::fs::read_to_string(&copy).is_ok_and(|found| found == text);

    let mut before = renew(machine.place(), 1)?;
    until(|| there(&before)).await.context("the first renewal")?;
    let strace = attach(&machine, &log, &copy, None).await?;
    before = renew(machine.place(), 2)?;
    until(|| there(&before) && std::fs::read_to_string(&log).is_ok_and(|log| log.matches("fsync").count() == 2))
        .await?;
    let faults = strace::a_handful(&strace.detach().await?);
    ensure!(faults.iter().any(|fault| fault.calls.contains("fchown")), "{faults:?}");
    // Whoever kills the launcher kills the machine.
    for (n, fault) in faults.iter().filter(|fault| fault.how != How::Kill).enumerate() {
        let strace = attach(&machine, &log, &copy, Some(*fault)).await?;
        let wanted = renew(machine.place(), n + 3)?;
        let hit = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("(INJECTED)"));
        until(hit).await.with_context(|| format!("{fault} did not happen"))?;
        strace.detach().await?;
        let found = std::fs::read_to_string(&copy)?;
        ensure!(found == before || found == wanted, "{fault}: garbled: {found:?}");
        serde_json::from_str::<Value>(&found)?;
        ensure!(machine.client().get("/v1/state").await?.status == 200, "{fault}: nobody is let in any more");
        machine.signal(Signal::SIGHUP)?;
        until(|| there(&wanted)).await.with_context(|| format!("{fault}: the next renewal"))?;
        no_litter(&dir, &[NAME]).with_context(|| fault.to_string())?;
        before = wanted;
    }
    Ok(())
}

/// What of the gateway's configuration is ours is kept at each start; a start is never kept waiting for it.
#[tokio::test]
async fn what_was_applied_is_whole() -> anyhow::Result<()> {
    if !strace::is_here("durability::given") {
        return Ok(());
    }
    let machine = Machine::script(OBEDIENT)?.start().await?;
    machine.wait_phase("starting", LIMIT).await?;
    let (file, logs) = (machine.place().sidecar_dir().join("applied.json"), tempfile::tempdir()?);
    let log = logs.path().join("strace.log");
    let generation = || {
        let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let applied: Value = serde_json::from_slice(&text).context("garbled")?;
        applied["generation"].as_u64().context("no generation")
    };
    until(|| file.exists()).await?;
    let first = wish(&machine).await?;
    let strace = attach(&machine, &log, &file, None).await?;
    restart(&machine).await?;
    until(|| generation().is_ok_and(|n| n == first)).await?;
    let faults = strace::a_handful(&strace.detach().await?);
    for fault in faults.iter().filter(|fault| fault.how != How::Kill) {
        let (before, wanted) = (generation()?, wish(&machine).await?);
        let strace = attach(&machine, &log, &file, Some(*fault)).await?;
        restart(&machine).await?;
        let hit = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("(INJECTED)"));
        until(hit).await.with_context(|| format!("{fault} did not happen"))?;
        machine.wait_state(|state| state["supervisor"]["generation"] == wanted, LIMIT).await?;
        strace.detach().await?;
        let found = generation().with_context(|| fault.to_string())?;
        ensure!(found == before || found == wanted, "{fault}: {found}");
        let next = wish(&machine).await?;
        restart(&machine).await?;
        until(|| generation().is_ok_and(|n| n == next)).await.with_context(|| format!("{fault}: the next start"))?;
    }
    let known = ["desired.json", "applied.json", "audit.jsonl", "identity.pk8", "tls.pem", "tls.crt", "lock"];
    no_litter(&machine.place().sidecar_dir(), &known)
}

/// Stores another generation, which the next start uses.
async fn wish(machine: &Machine) -> anyhow::Result<u64> {
    let headers = [("content-type", "application/json"), ("if-match", "*")];
    let put = machine.client().request("PUT", "/v1/desired", &headers, Some(b"{}".to_vec())).await?;
    ensure!(put.status == 200, "{}", put.text());
    put.json()["generation"].as_u64().context("a generation")
}

async fn restart(machine: &Machine) -> anyhow::Result<()> {
    let restart = machine.client().post("/v1/gateway/restart?wait_s=0", &json!({})).await?;
    ensure!(restart.status < 400, "{}", restart.text());
    Ok(())
}
