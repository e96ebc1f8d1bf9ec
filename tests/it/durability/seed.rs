//! `seed` writes as the gateway's user, and nobody waits for its answer but the launcher: whatever happens in it, the
//! tenant's configuration is whole, its token stays, and the next start makes everything right.

use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::strace::{self, Fault, How, Plan, Trace};
use super::{order, temporary, watched};
use crate::support::machine::{GATEWAY_UID, SIDECAR_UID, binary, is_root};

const TOKEN: &str = "durability-token-0123456789abcdef0123456789abcdef";

/// A volume as a launcher prepared it, and a gateway whose whole work is to end well.
struct Tenant {
    root: tempfile::TempDir,
    document: Value,
}

/// How a run of `seed` ended.
#[derive(Debug)]
struct Run {
    killed: bool,
    succeeded: bool,
    /// What the launcher was told.
    report: Value,
    said: String,
}

impl Tenant {
    fn new() -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("durability-").tempdir()?;
        std::fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let tenant = Self { root, document: document(1) };
        tenant.begin_anew()?;
        Ok(tenant)
    }

    fn begin_anew(&self) -> anyhow::Result<()> {
        let _ = std::fs::remove_dir_all(self.volume());
        for (dir, owner) in [("", 0), ("openclaw", GATEWAY_UID), ("sidecar", SIDECAR_UID)] {
            std::fs::create_dir(self.volume().join(dir))?;
            give(&self.volume().join(dir), owner)?;
        }
        self.put("openclaw.json", &json!({"gateway": {"auth": {"mode": "token", "token": TOKEN}}}).to_string())
    }

    fn volume(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn gateway(&self, name: &str) -> PathBuf {
        self.volume().join("openclaw").join(name)
    }

    fn put(&self, name: &str, text: &str) -> anyhow::Result<()> {
        std::fs::write(self.gateway(name), text)?;
        give(&self.gateway(name), GATEWAY_UID)
    }

    fn plan(&self, paths: Vec<PathBuf>, fault: Option<Fault>) -> Plan {
        Plan { paths, fault, log: self.root.path().join("strace.log") }
    }

    /// The command, and the launcher's end of what it reports.
    fn command(&self, mission: &[&str], plan: Option<&Plan>) -> anyhow::Result<(Command, tokio::net::UnixStream)> {
        let mut command = plan.map_or_else(
            || Command::new(binary()),
            |plan| {
                let mut command = plan.command();
                command.arg(binary());
                command
            },
        );
        let (report, theirs) = std::os::unix::net::UnixStream::pair()?;
        report.set_nonblocking(true)?;
        let report = tokio::net::UnixStream::from_std(report)?;
        command.arg("seed").args(mission).args(["--", "/bin/true"]).env_clear();
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        for (key, value) in [
            ("LAUNCH_VOLUME", self.volume().display().to_string()),
            ("STATE_DIR", self.volume().join("sidecar").display().to_string()),
            ("LAUNCH_GATEWAY_USER", format!("{GATEWAY_UID}:{GATEWAY_UID}")),
            ("LAUNCH_SIDECAR_USER", format!("{SIDECAR_UID}:{SIDECAR_UID}")),
            ("LAUNCH_DESIRED", self.document.to_string()),
        ] {
            command.env(format!("OPENCLAW_SIDECAR_{key}"), value);
        }
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        Ok((command, report))
    }

    async fn seed(&self, mission: &[&str], plan: Option<&Plan>) -> anyhow::Result<Run> {
        let (command, mut report) = self.command(mission, plan)?;
        let mut text = Vec::new();
        let (finished, read) = tokio::join!(strace::finish(command), report.read_to_end(&mut text));
        let ((status, said), _) = (finished?, read?);
        let killed = status.signal() == Some(9) || status.code() == Some(128 + 9);
        let report: Value = serde_json::from_slice(&text).unwrap_or_default();
        // The launcher's part.
        if report["applied"].is_object() {
            std::fs::write(self.volume().join("sidecar/applied.json"), report["applied"].to_string())?;
        }
        Ok(Run { killed, succeeded: status.success(), report, said })
    }

    fn config(&self) -> anyhow::Result<Value> {
        let text = std::fs::read_to_string(self.gateway("openclaw.json"))?;
        serde_json::from_str(&text).with_context(|| format!("openclaw.json is garbled: {text}"))
    }

    /// Everything is as the document wants it.
    fn is_right(&self) -> anyhow::Result<()> {
        let config = self.config()?;
        ensure!(config["gateway"]["auth"]["token"] == TOKEN, "the token is another: {config}");
        ensure!(config["logging"]["level"] == self.document["config"]["logging"]["level"], "{config}");
        let file = std::fs::read_to_string(self.gateway("workspace/NOTE.md"))?;
        ensure!(self.document["files"][0]["content"] == file, "NOTE.md: {file:?}");
        Ok(())
    }

    /// Nothing is garbled, and nothing of the tenant's is lost, at whatever moment one looks.
    fn is_whole(&self, before: &Self) -> anyhow::Result<()> {
        let config = self.config()?;
        ensure!(config["gateway"]["auth"]["token"] == TOKEN, "the token is another: {config}");
        let file = std::fs::read_to_string(self.gateway("workspace/NOTE.md"))?;
        let wanted = [&self.document, &before.document].map(|document| &document["files"][0]["content"]);
        ensure!(wanted.iter().any(|wanted| **wanted == file), "NOTE.md: {file:?}");
        Ok(())
    }

    fn no_litter(&self, targets: &[PathBuf]) -> anyhow::Result<()> {
        for dir in ["", ".sidecar", "workspace"] {
            for entry in std::fs::read_dir(self.gateway(dir))? {
                let path = entry?.path();
                let known = targets.iter().any(|target| temporary(target) == path);
                ensure!(path.extension().is_none_or(|end| end != "new") || known, "{} was left", path.display());
            }
        }
        Ok(())
    }
}

fn give(path: &Path, owner: u32) -> anyhow::Result<()> {
    if is_root() {
        chown(path, Some(owner), Some(owner))?;
    }
    Ok(())
}

/// Different with every number, in each of the files that are written.
fn document(number: usize) -> Value {
    let level = ["info", "debug"][number % 2];
    json!({
        "config": {"logging": {"level": level}},
        "files": [{"path": "workspace/NOTE.md", "content": format!("note {number}\n")}],
        "env": {"NUMBER": number.to_string()},
    })
}

fn targets(tenant: &Tenant) -> Vec<PathBuf> {
    ["openclaw.json", "workspace/NOTE.md"].map(|name| tenant.gateway(name)).into()
}

#[tokio::test]
async fn a_start_that_is_disturbed_loses_nothing() -> anyhow::Result<()> {
    if !strace::is_here("durability::seed") {
        return Ok(());
    }
    let mut tenant = Tenant::new()?;
    let (mut number, mut cases, mut wrong) = (1, 0, Vec::new());
    let run = tenant.seed(&["launch"], None).await?;
    ensure!(run.succeeded, "{run:?}");
    tenant.is_right()?;
    for target in targets(&tenant) {
        number += 1;
        tenant.document = document(number);
        let plan = tenant.plan(watched(&target), None);
        let run = tenant.seed(&["launch"], Some(&plan)).await?;
        ensure!(run.succeeded, "{run:?}");
        tenant.is_right()?;
        for fault in strace::faults(&plan.trace()?, &["ENOSPC", "EIO"]).into_iter().chain(in_turn(&plan.trace()?)) {
            number += 1;
            cases += 1;
            let before = Tenant { document: tenant.document.clone(), root: tempfile::tempdir()? };
            tenant.document = document(number);
            if let Err(error) = disturbed(&tenant, &before, &target, fault).await {
                let name = target.file_name().unwrap_or_default();
                wrong.push(format!("{name:?}: {fault}: {error:#}"));
                tenant.begin_anew()?;
                tenant.seed(&["launch"], None).await?;
            }
        }
    }
    println!("{cases} cases");
    ensure!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(cases >= 50, "only {cases} cases");
    Ok(())
}

/// The errors that do not have a case of their own for every call.
fn in_turn(trace: &Trace) -> Vec<Fault> {
    let others = |fault: &Fault| !matches!(fault.how, How::Error("ENOSPC" | "EIO") | How::Kill);
    strace::a_handful(trace).into_iter().filter(others).collect()
}

async fn disturbed(tenant: &Tenant, before: &Tenant, target: &Path, fault: Fault) -> anyhow::Result<()> {
    let plan = tenant.plan(watched(target), Some(fault));
    let run = tenant.seed(&["launch"], Some(&plan)).await?;
    ensure!(plan.trace()?.hit || run.killed, "the fault did not happen");
    ensure!(run.killed == (fault.how == How::Kill), "{run:?}");
    tenant.is_whole(before)?;
    tenant.no_litter(&targets(tenant))?;
    let failed = run.report["failed"].as_str();
    if run.succeeded {
        // The gateway runs: then with what was wanted.
        ensure!(failed.is_none(), "{run:?}");
        tenant.is_right()?;
    } else if !run.killed {
        ensure!(failed.is_some_and(|why| !why.is_empty()), "the launcher was not told why: {run:?}");
    }
    let run = tenant.seed(&["launch"], None).await?;
    ensure!(run.succeeded && run.report["failed"].is_null(), "the next start: {run:?}");
    tenant.is_right()
}

/// What the gateway works with is kept, to go back to; it is never lost for a newer one.
#[tokio::test]
async fn the_last_good_configuration_is_replaced_whole() -> anyhow::Result<()> {
    if !strace::is_here("durability::seed") {
        return Ok(());
    }
    let tenant = Tenant::new()?;
    let run = tenant.seed(&["launch"], None).await?;
    ensure!(run.succeeded, "{run:?}");
    let good = tenant.gateway(".sidecar/last-good.json");
    let mut number = 0;
    let mut change = || -> anyhow::Result<String> {
        number += 1;
        let mut config = tenant.config()?;
        config["tenant"] = json!(number);
        tenant.put("openclaw.json", &config.to_string())?;
        Ok(config.to_string())
    };
    let mut kept = change()?;
    ensure!(tenant.seed(&["adopt"], None).await?.succeeded && std::fs::read_to_string(&good)? == kept);
    let mut wanted = change()?;
    let plan = tenant.plan(watched(&good), None);
    ensure!(tenant.seed(&["adopt"], Some(&plan)).await?.succeeded && std::fs::read_to_string(&good)? == wanted);
    for fault in strace::a_handful(&plan.trace()?) {
        (kept, wanted) = (std::mem::take(&mut wanted), change()?);
        let run = tenant.seed(&["adopt"], Some(&tenant.plan(watched(&good), Some(fault)))).await?;
        let found = std::fs::read_to_string(&good)?;
        ensure!(found == wanted || (found == kept && !run.succeeded), "{fault}: {run:?}: {found}");
        ensure!(tenant.seed(&["adopt"], None).await?.succeeded, "{fault}: the next one");
        ensure!(std::fs::read_to_string(&good)? == wanted, "{fault}");
    }
    Ok(())
}

/// A configuration that cannot be used is set aside for one that can. Between the two there must be no moment at which
/// the next start finds nothing, and begins a new tenant with a new token.
async fn put_back_from(good: &str) -> anyhow::Result<()> {
    if !strace::is_here("durability::seed") {
        return Ok(());
    }
    let tenant = Tenant::new()?;
    let target = tenant.gateway("openclaw.json");
    let mut wrong = Vec::new();
    break_it(&tenant, good).await?;
    let plan = tenant.plan(watched(&target), None);
    let run = tenant.seed(&["launch"], Some(&plan)).await?;
    ensure!(run.succeeded, "{run:?}");
    tenant.is_right()?;
    // The close of a directory that is listed cannot fail, and must not be made to.
    let listed = |fault: &Fault| fault.calls == "close" && fault.how != How::Kill;
    for fault in strace::faults(&plan.trace()?, &["ENOSPC"]).into_iter().filter(|fault| !listed(fault)) {
        break_it(&tenant, good).await?;
        let run = tenant.seed(&["launch"], Some(&tenant.plan(watched(&target), Some(fault)))).await?;
        let again = tenant.seed(&["launch"], None).await?;
        ensure!(again.succeeded, "{fault}: the next start: {again:?}");
        if let Err(error) = tenant.is_right() {
            wrong.push(format!("{fault} ({}): {error:#}", run.said.trim()));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A tenant whose one usable configuration is this copy.
async fn break_it(tenant: &Tenant, good: &str) -> anyhow::Result<()> {
    tenant.begin_anew()?;
    ensure!(tenant.seed(&["launch"], None).await?.succeeded);
    std::fs::rename(tenant.gateway("openclaw.json"), tenant.gateway(good))?;
    tenant.put("openclaw.json", "{ this is no JSON")
}

#[tokio::test]
async fn putting_the_last_good_one_back_is_disturbed() -> anyhow::Result<()> {
    put_back_from(".sidecar/last-good.json").await
}

#[tokio::test]
async fn putting_the_gateways_own_backup_back_is_disturbed() -> anyhow::Result<()> {
    put_back_from("openclaw.json.bak").await
}

/// The launcher is told, and the gateway begins, only when everything is durable.
#[tokio::test]
async fn everything_is_durable_before_the_gateway_begins() -> anyhow::Result<()> {
    if !strace::is_here("durability::seed") {
        return Ok(());
    }
    let tenant = Tenant::new()?;
    let plan = tenant.plan(Vec::new(), None);
    let run = tenant.seed(&["launch"], Some(&plan)).await?;
    ensure!(run.succeeded, "{run:?}");
    let trace = plan.trace()?;
    let reports = |call: &strace::Call| {
        matches!(call.name.as_str(), "write" | "sendto")
            && call.arguments.contains("{\\\"generation\\\":")
            && call.arguments.contains("<UNIX")
    };
    ensure!(trace.calls.iter().any(reports), "the report is not in the trace");
    for target in targets(&tenant) {
        let count = order::check(&trace, &target, reports).with_context(|| target.display().to_string())?;
        ensure!(count == 1, "{} was written {count} times", target.display());
    }
    Ok(())
}

/// However long its report is.
#[tokio::test]
async fn a_large_wish_is_adopted() -> anyhow::Result<()> {
    let tenant = Tenant::new()?;
    ensure!(tenant.seed(&["launch"], None).await?.succeeded);
    let owned = |n: usize| json!({"path": ["plugins", n.to_string()], "value": "x".repeat(1000), "wrote": true});
    let applied = json!({"generation": 1, "owned": (0..600).map(owned).collect::<Vec<_>>()});
    std::fs::write(tenant.volume().join("sidecar/applied.json"), applied.to_string())?;
    let run = tenant.seed(&["adopt"], None).await.context("it waits for somebody to read its report")?;
    ensure!(run.succeeded && run.report["applied"]["owned"].as_array().is_some_and(|all| all.len() == 600), "{run:?}");
    Ok(())
}
