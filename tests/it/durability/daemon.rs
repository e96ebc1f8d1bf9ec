//! A handful of faults for each state file of the real daemon, through its API: every call of the kernel fails once,
//! each with another error, and the daemon is killed at each.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use openclaw_sidecar::desired::history::History;
use openclaw_sidecar::desired::secrets::{Store, Vault};
use openclaw_sidecar::secret::Secret;
use serde_json::json;
use tokio::time::sleep;

use super::strace::{self, Call, Fault, How, Plan, Trace};
use super::{no_litter, order, watched};
use crate::support::client::{Client, Reply};
use crate::support::machine::Machine;
use crate::support::machine::script::OBEDIENT;

const MACHINE_SECRET: &str = "durability-machine-secret-0123456789";
pub const LIMIT: Duration = Duration::from_secs(20);
/// Everything the daemon may keep there.
pub const KNOWN: [&str; 12] = [
    "applied.json",
    "desired.json",
    "secrets.json",
    "approvals.json",
    "audit.jsonl",
    "audit.1.jsonl",
    "audit.2.jsonl",
    "audit.3.jsonl",
    "identity.pk8",
    "tls.pem",
    "tls.crt",
    "lock",
];

/// What is put, with a number in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Desired,
    Secret,
}

pub struct Daemon {
    machine: Machine,
    client: Client,
    logs: tempfile::TempDir,
}

impl Daemon {
    pub async fn start() -> anyhow::Result<Self> {
        let machine = Machine::script(OBEDIENT)?.setting("MACHINE_SECRET", MACHINE_SECRET).start().await?;
        let client = machine.client();
        Ok(Self { machine, client, logs: tempfile::tempdir()? })
    }

    pub fn dir(&self) -> PathBuf {
        self.machine.place().sidecar_dir()
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn pid(&self) -> anyhow::Result<u32> {
        self.machine.daemon_pid().context("no daemon")
    }

    fn plan(&self, paths: Vec<PathBuf>, fault: Option<Fault>) -> Plan {
        Plan { paths, fault, log: self.logs.path().join("strace.log") }
    }

    pub async fn attach(&self, paths: Vec<PathBuf>, fault: Option<Fault>) -> anyhow::Result<strace::Attached> {
        self.plan(paths, fault).attach(self.pid()?).await
    }

    /// The API is there again, from another process.
    pub async fn comes_back(&self, killed: u32) -> anyhow::Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            let another = self.machine.daemon_pid().is_some_and(|pid| pid != killed);
            if another && self.client.get("/livez").await.is_ok_and(|reply| reply.status == 200) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the daemon does not come back\n{}", self.machine.last_words());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn put(&self, what: What, number: u64) -> anyhow::Result<Reply> {
        let (path, body) = match what {
            What::Desired => ("/v1/desired", json!({"env": {"NUMBER": number.to_string()}})),
            What::Secret => ("/v1/secrets/NUMBER", json!({"value": number.to_string()})),
        };
        let headers = [("content-type", "application/json"), ("if-match", "*")];
        self.client.request("PUT", path, &headers, Some(body.to_string().into_bytes())).await
    }

    /// The number as a start of the gateway would find it.
    fn on_disk(&self, what: What) -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(self.dir().join(what.file()))?;
        match what {
            What::Desired => {
                let history = History::parse(&text).map_err(|e| anyhow!("garbled: {e}"))?;
                Ok(history.last().and_then(|g| g.document.env.get("NUMBER")).context("no number")?.parse()?)
            }
            What::Secret => {
                let vault = Vault::new(&Secret::new(MACHINE_SECRET.to_owned())).map_err(|e| anyhow!(e))?;
                let store = Store::load(&self.dir().join(what.file())).map_err(|e| anyhow!("garbled: {e}"))?;
                let opened = store.open_all(&vault).map_err(|e| anyhow!("garbled: {e}"))?;
                Ok(opened.get("NUMBER").context("no number")?.expose().parse()?)
            }
        }
    }

    /// Whether the API tells what a start of the gateway would find.
    async fn tells_the_truth(&self, what: What) -> anyhow::Result<()> {
        let told = self.client.get(what.route()).await?.json();
        let (shown, found) = match what {
            What::Desired => {
                let found = self.on_disk(what)?.to_string();
                (told["document"]["env"]["NUMBER"].clone(), json!(found))
            }
            What::Secret => {
                let store = Store::load(&self.dir().join(what.file())).map_err(|e| anyhow!(e))?;
                (told["secrets"].clone(), serde_json::to_value(store.list())?)
            }
        };
        ensure!(shown == found, "the API tells {shown}, and the next start would find {found}");
        Ok(())
    }

    async fn case(&self, what: What, number: u64, fault: Fault) -> anyhow::Result<()> {
        let before = self.on_disk(what)?;
        let pid = self.pid()?;
        let strace = self.attach(watched(&self.dir().join(what.file())), Some(fault)).await?;
        let reply = self.put(what, number).await;
        let trace = strace.detach().await?;
        ensure!(trace.hit || fault.how == How::Kill, "the fault did not happen");
        match (fault.how, &reply) {
            (How::Kill, Err(_)) => self.comes_back(pid).await?,
            (How::Kill, Ok(reply)) => ensure!(false, "killed, and yet: {} {}", reply.status, reply.text()),
            (_, Ok(reply)) => is_an_answer(reply)?,
            (_, Err(error)) => ensure!(false, "no answer: {error:#}"),
        }
        let found = self.on_disk(what)?;
        let acknowledged = reply.is_ok_and(|reply| reply.status == 200);
        ensure!(found == number || (found == before && !acknowledged), "{number} was put, {found} is there");
        self.tells_the_truth(what).await
    }

    async fn next_write_works(&self, what: What, number: u64) -> anyhow::Result<()> {
        let reply = self.put(what, number).await?;
        ensure!(reply.status == 200, "the next write: {} {}", reply.status, reply.text());
        ensure!(self.on_disk(what)? == number, "the next write is not there");
        self.tells_the_truth(what).await?;
        no_litter(&self.dir(), &KNOWN)
    }
}

impl What {
    fn file(self) -> &'static str {
        match self {
            Self::Desired => "desired.json",
            Self::Secret => "secrets.json",
        }
    }

    fn route(self) -> &'static str {
        match self {
            Self::Desired => "/v1/desired",
            Self::Secret => "/v1/secrets",
        }
    }
}

/// A success, or an error that says what to do.
pub fn is_an_answer(reply: &Reply) -> anyhow::Result<()> {
    let full = reply.status == 507 && !reply.code().is_empty() && reply.json()["retryable"] == true;
    ensure!(reply.status == 200 || full, "{} {}", reply.status, reply.text());
    Ok(())
}

async fn over_https(what: What) -> anyhow::Result<()> {
    if !strace::is_here("durability::daemon") {
        return Ok(());
    }
    let daemon = Daemon::start().await?;
    let mut number = 1;
    daemon.next_write_works(what, number).await?;
    let strace = daemon.attach(watched(&daemon.dir().join(what.file())), None).await?;
    daemon.next_write_works(what, 2).await?;
    let faults = strace::a_handful(&strace.detach().await?);
    ensure!(faults.len() >= 16, "{faults:?}");
    let mut wrong = Vec::new();
    for fault in &faults {
        number += 2;
        if let Err(error) = daemon.case(what, number, *fault).await {
            wrong.push(format!("{fault}: {error:#}"));
        }
        daemon.next_write_works(what, number + 1).await.with_context(|| format!("{fault}; before: {wrong:?}"))?;
    }
    println!("{what:?}: {} cases", faults.len());
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), faults.len(), wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn the_desired_state() -> anyhow::Result<()> {
    over_https(What::Desired).await
}

#[tokio::test]
async fn the_secrets() -> anyhow::Result<()> {
    over_https(What::Secret).await
}

fn is_sent(call: &Call) -> bool {
    matches!(call.name.as_str(), "write" | "writev" | "sendto" | "sendmsg")
        && (call.arguments.contains("<TCP") || call.arguments.contains("<socket:"))
}

/// Intent on record, then the effect, then the answer: each durable before the next begins.
#[tokio::test]
async fn the_order_of_an_acknowledged_call() -> anyhow::Result<()> {
    if !strace::is_here("durability::daemon") {
        return Ok(());
    }
    let daemon = Daemon::start().await?;
    for (number, what) in [(1, What::Desired), (2, What::Secret), (3, What::Desired), (4, What::Secret)] {
        let strace = daemon.attach(Vec::new(), None).await?;
        let reply = daemon.put(what, number).await?;
        let trace = strace.detach().await?;
        ensure!(reply.status == 200 && trace.calls.iter().any(is_sent), "{}", reply.text());
        let target = daemon.dir().join(what.file());
        ensure!(order::check(&trace, &target, is_sent)? == 1);
        in_order(&trace, &daemon.dir().join("audit.jsonl"), &super::temporary(&target))?;
    }
    Ok(())
}

/// The intent is durable before the effect begins. (The outcome may follow with the next record.)
fn in_order(trace: &Trace, audit: &Path, temporary: &Path) -> anyhow::Result<()> {
    let at = |name: &str, path: &Path| {
        let path = path.display().to_string();
        trace.calls.iter().position(|call| call.name == name && call.arguments.contains(&path)).context("not there")
    };
    let (intent, durable, effect) = (at("write", audit)?, at("fdatasync", audit)?, at("openat", temporary)?);
    ensure!(intent < durable && durable < effect, "intent {intent}, durable {durable}, effect {effect}");
    Ok(())
}

pub async fn until(mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + LIMIT;
    while !condition() {
        ensure!(Instant::now() < end, "not within {LIMIT:?}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
