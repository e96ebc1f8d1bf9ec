//! The process that is disturbed: this test program once more, writing one state file through the daemon's own code.
//!
//! It says `ack <number>` when a write is to survive everything, as the daemon does by its answer, and `err <why>` when
//! it failed.

use std::fmt::Display;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use anyhow::{Context, anyhow, ensure};
use openclaw_sidecar::audit::Audit;
use openclaw_sidecar::audit::chain::{self, Entry};
use openclaw_sidecar::desired::document::Document;
use openclaw_sidecar::desired::history::{self, History};
use openclaw_sidecar::desired::secrets::{Store, Vault};
use openclaw_sidecar::files;
use openclaw_sidecar::gateway::identity::Identity;
use openclaw_sidecar::http::tls::Certificate;
use openclaw_sidecar::launcher::layout::{Layout, Owner};
use openclaw_sidecar::secret::Secret;
use serde_json::json;
use tokio::process::Command;

use super::strace::Plan;

const TARGET: &str = "DURABILITY_TARGET";
const DIR: &str = "DURABILITY_DIR";
/// The first and, where it goes on, the last number that is written.
const NUMBERS: &str = "DURABILITY_NUMBERS";

/// What is written, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Desired,
    Secrets,
    Audit,
    /// The audit when its file is full.
    Rotation,
    Identity,
    Certificate,
    Layout,
    /// Wrong in one way each: what looks for faults has to find these.
    Careless(Careless),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Careless {
    /// Truncates the file and writes it anew.
    InPlace,
    /// Never syncs the file.
    NoSync,
    /// Never syncs the directory.
    NoDirSync,
    /// Says that it is done before it is.
    EarlyAck,
    /// Another temporary name each time.
    Litter,
    /// Forgets an error.
    Deaf,
}

impl Target {
    fn named(name: &str) -> Option<Self> {
        use Careless::{Deaf, EarlyAck, InPlace, Litter, NoDirSync, NoSync};
        let careless = [InPlace, NoSync, NoDirSync, EarlyAck, Litter, Deaf].map(Target::Careless);
        let all = [Self::Desired, Self::Secrets, Self::Audit, Self::Rotation, Self::Identity, Self::Certificate];
        all.into_iter().chain([Self::Layout]).chain(careless).find(|target| format!("{target:?}") == name)
    }

    /// The files it writes; the first one is the one that counts.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::Desired => &["desired.json"],
            Self::Secrets => &["secrets.json"],
            Self::Audit | Self::Rotation => {
                &["audit.jsonl", "audit.1.jsonl", "audit.2.jsonl", "audit.3.jsonl", "audit.4.jsonl"]
            }
            Self::Identity => &["identity.pk8"],
            Self::Certificate => &["tls.pem", "tls.crt"],
            Self::Layout => &[".sidecar-layout", "openclaw", "sidecar"],
            Self::Careless(_) => &["careless.json"],
        }
    }

    /// It is made once and has no numbers.
    pub fn is_made_once(self) -> bool {
        matches!(self, Self::Identity | Self::Certificate | Self::Layout)
    }

    /// All that was ever acknowledged stays, not only the newest.
    pub fn keeps_all(self) -> bool {
        matches!(self, Self::Audit | Self::Rotation)
    }

    pub fn path(self, dir: &Path) -> PathBuf {
        dir.join(self.files()[0])
    }

    /// Writes `number`; what is returned is part of the acknowledgement.
    pub fn act(self, dir: &Path, number: u64) -> anyhow::Result<String> {
        let path = self.path(dir);
        match self {
            Self::Desired => desired(&path, number)?,
            Self::Secrets => secrets(&path, number)?,
            Self::Audit | Self::Rotation => record(dir, number)?,
            Self::Identity => return Ok(Identity::load_or_create(&path)?.device_id),
            Self::Certificate => return certificate(dir),
            Self::Layout => layout(dir)?,
            Self::Careless(how) => careless(how, &path, number)?,
        }
        Ok(number.to_string())
    }

    /// The numbers found.
    pub fn look(self, dir: &Path) -> anyhow::Result<Vec<u64>> {
        let path = self.path(dir);
        let number = match self {
            Self::Desired => {
                let history = read(&path)?;
                history.last().context("no generation")?.document.env.get("NUMBER").context("no number")?.parse()?
            }
            Self::Secrets => {
                let opened = Store::load(&path).and_then(|store| store.open_all(vault())).map_err(|e| anyhow!(e))?;
                opened.get("NUMBER").context("no number")?.expose().parse()?
            }
            Self::Audit | Self::Rotation => return recorded(dir),
            _ => serde_json::from_slice::<serde_json::Value>(&std::fs::read(&path)?)?["number"]
                .as_u64()
                .context("none")?,
        };
        Ok(vec![number])
    }
}

fn desired(path: &Path, number: u64) -> anyhow::Result<()> {
    let mut history = if path.exists() { read(path)? } else { History::default() };
    let document = json!({"env": {"NUMBER": number.to_string(), "FILLING": "x".repeat(500)}}).to_string();
    history.push(Document::parse(document.as_bytes()).map_err(|e| anyhow!(e))?, "driver");
    Ok(files::replace(path, &serde_json::to_vec(&history)?, 0o600)?)
}

fn read(path: &Path) -> anyhow::Result<History> {
    History::parse(&files::read_text(path, history::MAX_FILE)?).map_err(|e| anyhow!(e))
}

fn vault() -> &'static Vault {
    static VAULT: OnceLock<Vault> = OnceLock::new();
    VAULT.get_or_init(|| Vault::new(&Secret::new("m".repeat(40))).expect("long enough"))
}

fn secrets(path: &Path, number: u64) -> anyhow::Result<()> {
    let mut store = Store::load(path).map_err(|e| anyhow!(e))?;
    let value = Secret::new(number.to_string());
    store.set(vault(), "NUMBER", &value, None).map_err(|e| anyhow!(e))?;
    Ok(store.save(path)?)
}

fn entry(number: u64) -> Entry {
    Entry { verb: "driver.write".into(), target: number.to_string(), outcome: "intent".into(), ..Entry::default() }
}

/// Where many are written, it is opened once, as the daemon does.
static OPEN: Mutex<Option<Audit>> = Mutex::new(None);

fn record(dir: &Path, number: u64) -> anyhow::Result<()> {
    let open = OPEN.lock().map_err(|e| anyhow!("{e}"))?.clone();
    let append = async {
        let audit = open.map_or_else(|| Audit::open(dir), Ok)?;
        anyhow::Ok(audit.append(entry(number)).await?.wait().await?)
    };
    let run = || tokio::runtime::Builder::new_current_thread().build()?.block_on(append);
    if tokio::runtime::Handle::try_current().is_err() {
        return run();
    }
    // A test that calls this runs on a runtime of its own.
    std::thread::scope(|scope| scope.spawn(run).join()).map_err(|_| anyhow!("it panicked"))?
}

fn recorded(dir: &Path) -> anyhow::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let walked = chain::walk(&chain::segments(dir), |record| {
        numbers.extend(record.entry.target.parse::<u64>());
    })?;
    walked.map_err(|broken| anyhow!("the chain is broken: {broken:?}"))?;
    Ok(numbers)
}

/// A file that is full, so that the next record begins another.
pub fn fill_audit(dir: &Path) -> anyhow::Result<()> {
    let (mut text, mut head) = (String::new(), chain::Head::default());
    while text.len() < 4 * 1024 * 1024 {
        let (line, next) = head.append(&Entry { detail: "x".repeat(15_000), ..entry(1) })?;
        text.push_str(&line);
        head = next;
    }
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    std::fs::write(dir.join("audit.1.jsonl"), all[..1].concat())?;
    // A little more, for what went into the older one.
    let (line, _) = head.append(&Entry { detail: "x".repeat(15_000), ..entry(1) })?;
    Ok(std::fs::write(dir.join("audit.jsonl"), all[1..].concat() + &line)?)
}

fn certificate(dir: &Path) -> anyhow::Result<String> {
    let tls = openclaw_sidecar::config::Tls { cert_file: None, key_file: None, server_names: Vec::new() };
    let certificate = Certificate::load(&tls, dir).map_err(|e| anyhow!(e))?;
    let fingerprint = certificate.fingerprint();
    let fingerprint = fingerprint.lock().map_err(|e| anyhow!("{e}"))?.clone();
    let both = std::fs::read_to_string(dir.join("tls.pem"))?;
    ensure!(both.ends_with(&std::fs::read_to_string(dir.join("tls.crt"))?), "the copy is of another certificate");
    fingerprint.context("no fingerprint")
}

fn layout(dir: &Path) -> anyhow::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let owner = Owner { uid, gid };
    Layout::new(dir).prepare(owner, owner, true)?;
    ensure!(std::fs::read_to_string(dir.join(".sidecar-layout"))? == "done\n");
    Ok(())
}

fn careless(how: Careless, path: &Path, number: u64) -> anyhow::Result<()> {
    let name =
        if how == Careless::Litter { format!(".careless.json.{number}") } else { ".careless.json.new".to_owned() };
    let temporary = path.with_file_name(name);
    let place = if how == Careless::InPlace { path } else { &temporary };
    let mut file = File::create(place)?;
    let written = file.write_all(json!({"number": number, "filling": "x".repeat(10_000)}).to_string().as_bytes());
    if how != Careless::Deaf {
        written?;
    }
    if how != Careless::NoSync {
        file.sync_all()?;
    }
    if how != Careless::InPlace {
        std::fs::rename(&temporary, path)?;
    }
    if how == Careless::EarlyAck {
        say("ack", &number);
    }
    if how != Careless::NoDirSync {
        File::open(path.parent().context("a directory")?)?.sync_all()?;
    }
    Ok(())
}

/// In one call of the kernel, so that a reader sees all of it or nothing.
fn say(what: &str, more: &dyn Display) {
    let mut out = std::io::stdout();
    let _ = out.write_all(format!("\n{what} {more}\n").as_bytes()).and_then(|()| out.flush());
}

#[test]
fn driver() {
    let variable = |name: &str| std::env::var(name).ok();
    let (Some(target), Some(dir), Some(numbers)) = (variable(TARGET), variable(DIR), variable(NUMBERS)) else {
        return;
    };
    let (first, last) = numbers.split_once('-').expect("two numbers");
    let (first, last): (u64, u64) = (first.parse().expect("a number"), last.parse().expect("a number"));
    let targets: Vec<Target> = target.split(',').map(|name| Target::named(name).expect("a target")).collect();
    if first < last {
        *OPEN.lock().expect("nobody else") = Some(Audit::open(Path::new(&dir)).expect("an audit"));
    }
    for number in first..=last {
        for target in &targets {
            match target.act(Path::new(&dir), number) {
                Ok(acknowledged) if targets.len() == 1 => say("ack", &acknowledged),
                Ok(acknowledged) => say("ack", &format!("{target:?} {acknowledged}")),
                Err(why) => say("err", &format!("{why:#}")),
            }
        }
    }
}

/// The words that make this program the driver.
pub fn command(start: Command, targets: &[Target], dir: &Path, numbers: (u64, u64)) -> anyhow::Result<Command> {
    let targets: Vec<String> = targets.iter().map(|target| format!("{target:?}")).collect();
    let mut command = start;
    command.args(["--exact", "it::durability::driver::driver", "--nocapture", "--test-threads=1"]);
    command.env(TARGET, targets.join(",")).env(DIR, dir).env(NUMBERS, format!("{}-{}", numbers.0, numbers.1));
    Ok(command)
}

/// The same under `strace`.
pub fn traced(plan: &Plan, target: Target, dir: &Path, number: u64) -> anyhow::Result<Command> {
    let mut start = plan.command();
    start.arg(std::env::current_exe()?);
    command(start, &[target], dir, (number, number))
}

/// What it acknowledged.
pub fn acknowledged(said: &str) -> Option<String> {
    said.lines().find_map(|line| line.strip_prefix("ack ")).map(str::to_owned)
}
