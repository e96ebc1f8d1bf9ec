//! What the real daemon puts on record: the audit, and who approved which device.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use openclaw_sidecar::audit::chain;
use serde_json::{Value, json};

use super::super::auth_matrix::scene::Scene;
use super::daemon::{Daemon, KNOWN, LIMIT, is_an_answer, until};
use super::strace::{self, Fault, How, Plan};
use super::{no_litter, watched};
use crate::support::client::{Client, Reply};
use crate::support::fake::DeviceSpec;

/// What was acknowledged as on record, by the names it was about.
fn recorded(dir: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut targets = BTreeSet::new();
    let walked = chain::walk(&chain::segments(dir), |record| {
        targets.insert(record.entry.target);
    })?;
    walked.map_err(|broken| anyhow!("the chain is broken: {broken:?}"))?;
    Ok(targets)
}

async fn put_named(client: &Client, name: &str) -> anyhow::Result<Reply> {
    let headers = [("content-type", "application/json")];
    let body = json!({"value": "a value"}).to_string().into_bytes();
    client.request("PUT", &format!("/v1/secrets/{name}"), &headers, Some(body)).await
}

#[tokio::test]
async fn the_audit() -> anyhow::Result<()> {
    if !strace::is_here("durability::daemon") {
        return Ok(());
    }
    let daemon = Daemon::start().await?;
    let files = watched(&daemon.dir().join("audit.jsonl"));
    ensure!(put_named(daemon.client(), "FIRST").await?.status == 200);
    let mut acknowledged = BTreeSet::from(["FIRST".to_owned()]);
    let cases = ["ENOSPC", "EIO", "EDQUOT", "EROFS", "EINTR"].into_iter().map(How::Error).chain([How::Kill]);
    for (n, how) in cases.enumerate() {
        for calls in ["write", "fdatasync"] {
            let fault = Fault { calls, how, at: 1 };
            let (name, next) =
                (format!("CASE_{n}_{}", &calls[..5]).to_uppercase(), format!("NEXT_{n}_{}", &calls[..5]));
            let pid = daemon.pid()?;
            let strace = daemon.attach(files.clone(), Some(fault)).await?;
            let reply = put_named(daemon.client(), &name).await;
            let trace = strace.detach().await?;
            ensure!(trace.hit || how == How::Kill, "{fault} did not happen");
            match reply {
                Ok(reply) if reply.status == 200 => drop(acknowledged.insert(name)),
                Ok(reply) => is_an_answer(&reply).with_context(|| fault.to_string())?,
                Err(_) if how == How::Kill => daemon.comes_back(pid).await?,
                Err(error) => return Err(error.context(fault.to_string())),
            }
            let next = next.to_uppercase();
            let reply = put_named(daemon.client(), &next).await?;
            ensure!(reply.status == 200, "{fault}: the next one: {}", reply.text());
            acknowledged.insert(next);
            no_litter(&daemon.dir(), &[&KNOWN[..], &["audit.4.jsonl"]].concat())?;
        }
    }
    let lost: Vec<_> = acknowledged.difference(&recorded(&daemon.dir())?).cloned().collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    Ok(())
}

/// A disk that does not sync refuses changes, and takes nothing away from what was on record before.
#[tokio::test]
async fn a_disk_that_does_not_sync_takes_no_record_away() -> anyhow::Result<()> {
    if !strace::is_here("durability::daemon") {
        return Ok(());
    }
    let daemon = Daemon::start().await?;
    let audit = daemon.dir().join("audit.jsonl");
    // First the one file, then whatever else could be tried.
    for (round, paths) in [vec![audit.clone()], watched(&audit)].into_iter().enumerate() {
        let mut acknowledged = vec![format!("PRECIOUS_{round}")];
        ensure!(put_named(daemon.client(), &acknowledged[0]).await?.status == 200);
        let fault = Fault { calls: "fsync,fdatasync", how: How::ErrorFrom("EIO"), at: 1 };
        let strace = daemon.attach(paths, Some(fault)).await?;
        let mut refused = Vec::new();
        for n in 0..8 {
            let name = format!("ROUND_{round}_{n}");
            let reply = put_named(daemon.client(), &name).await?;
            is_an_answer(&reply)?;
            if reply.status == 200 { &mut acknowledged } else { &mut refused }.push(name);
        }
        ensure!(strace.detach().await?.hit, "the fault did not happen");
        ensure!(round == 0 || refused.len() == 8, "acknowledged all the same: {acknowledged:?}");
        let name = format!("AFTERWARDS_{round}");
        let reply = put_named(daemon.client(), &name).await?;
        ensure!(reply.status == 200, "{}", reply.text());
        acknowledged.push(name);
        let found = recorded(&daemon.dir())?;
        let lost: Vec<_> = acknowledged.iter().filter(|name| !found.contains(*name)).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}; {found:?} is all there is");
        let listed = daemon.client().get("/v1/secrets").await?.text();
        ensure!(refused.iter().all(|name| !listed.contains(name)), "done without a record: {listed}");
    }
    Ok(())
}

/// Who approved what is written a moment after the answer; the audit was before it, so nothing is lost in between.
#[tokio::test]
async fn the_approvals() -> anyhow::Result<()> {
    if !strace::is_here("durability::daemon") {
        return Ok(());
    }
    let state = tempfile::tempdir()?;
    let state_dir = state.path().join("state");
    let mut scene = Scene::start_with(|builder| builder.state_dir(&state_dir)).await?;
    let file = state_dir.join("approvals.json");
    let mut acknowledged = Vec::new();
    let cases = [
        ("write", How::Error("ENOSPC"), 1),
        ("fsync,fdatasync", How::Error("EIO"), 1),
        ("fsync,fdatasync", How::Error("EDQUOT"), 2),
        ("openat", How::Error("EMFILE"), 1),
        ("?rename,?renameat,?renameat2", How::Kill, 1),
        ("fsync,fdatasync", How::Kill, 2),
    ];
    for (n, (calls, how, at)) in cases.into_iter().enumerate() {
        let fault = Fault { calls, how, at };
        let log = state.path().join("strace.log");
        let plan = Plan { paths: watched(&file), fault: Some(fault), log: log.clone() };
        let strace = plan.attach(scene.sidecar.pid()).await?;
        acknowledged.push(approve(&scene, n).await?);
        until(|| happened(&log, how) || !scene.sidecar.is_running()).await.with_context(|| fault.to_string())?;
        strace.detach().await?;
        if file.exists() {
            let text = std::fs::read(&file)?;
            serde_json::from_slice::<Value>(&text).with_context(|| format!("{fault}: garbled"))?;
        }
        if how == How::Kill {
            let _ = scene.sidecar.wait(LIMIT).await?;
            scene.sidecar = scene.sidecar.builder_again().start().await?;
        }
        // The next one, of which nothing fails, writes everything.
        acknowledged.push(approve(&scene, n + 100).await?);
        let all = || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            acknowledged.iter().all(|device| text.contains(device))
        };
        until(all).await.with_context(|| format!("{fault}: approvals.json is never whole again"))?;
        let credited = |body: &Value| {
            let all = body["approved"].as_array().cloned().unwrap_or_default();
            let ours =
                |device: &String| all.iter().any(|a| a["device_id"] == **device && a["approved_by"] == "control");
            acknowledged.iter().all(ours)
        };
        scene.sidecar.client().wait_until("/v1/pairing", credited, LIMIT).await.with_context(|| fault.to_string())?;
        let healthy = |state: &Value| !state["findings"].to_string().contains("state_not_written");
        scene.sidecar.client().wait_until("/v1/state", healthy, LIMIT).await.with_context(|| fault.to_string())?;
    }
    no_litter(&state_dir, &KNOWN)
}

async fn approve(scene: &Scene, n: usize) -> anyhow::Result<String> {
    let device = DeviceSpec::browser().named(&format!("device {n}"));
    let request = scene.fake.raise(&device);
    let body = json!({"kind": "device", "request_id": request});
    let reply = scene.sidecar.client().post("/v1/pairing/approve?wait_s=10", &body).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(device.device_id)
}

fn happened(log: &Path, how: How) -> bool {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.contains("(INJECTED)") || (how == How::Kill && text.contains("killed by SIGKILL"))
}
