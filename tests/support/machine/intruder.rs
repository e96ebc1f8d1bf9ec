//! The adversary in the machine: programs run as any user, and a listener in the gateway's place.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::builder::node;
use super::place::Place;
use super::{POLL, is_root, script};

const LIMIT: Duration = Duration::from_secs(20);

/// What a program said and whether it succeeded.
#[derive(Debug)]
pub struct Ran {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

fn program_as(uid: u32, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir("/");
    if is_root() {
        // As root this also gives up every further group.
        command.uid(uid).gid(uid);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs `program` as this user; one that hangs is killed and counts as failed.
pub async fn run_as(uid: u32, program: &str, args: &[&str]) -> anyhow::Result<Ran> {
    let child = program_as(uid, program, args).spawn().with_context(|| format!("cannot run {program}"))?;
    let Ok(output) = timeout(LIMIT, child.wait_with_output()).await else {
        return Ok(Ran { ok: false, out: String::new(), err: format!("{program} {args:?} hangs") });
    };
    let output = output?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// Somebody else's listener on the gateway's port that answers like a gateway and writes down every byte it gets.
#[derive(Debug)]
pub struct Squatter {
    child: Child,
    record: PathBuf,
}

impl Squatter {
    /// Tries for the port until it is free, as this user.
    pub fn start(place: &Place, uid: u32, name: &str) -> anyhow::Result<Self> {
        let program = script::install(place, name, script::SQUATTER)?;
        let record = place.root().join(format!("{name}.record"));
        place.put(&record, "", uid, 0o600)?;
        let (program, port) = (program.to_str().context("UTF-8")?, place.port().to_string());
        let child = program_as(uid, &node()?, &[program, &port, record.to_str().context("UTF-8")?])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, record })
    }

    /// What it was sent so far, WebSocket frames unmasked.
    pub fn record(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.record).unwrap_or_default()).into_owned()
    }

    /// Begins the record anew.
    pub fn forget(&self) -> anyhow::Result<()> {
        Ok(std::fs::File::options().write(true).truncate(true).open(&self.record).map(drop)?)
    }

    fn has_the_port(&self) -> bool {
        self.record().contains("BOUND")
    }

    pub async fn wait_bound(&self, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        while !self.has_the_port() {
            ensure!(Instant::now() < end, "the squatter never got the port");
            sleep(POLL).await;
        }
        Ok(())
    }

    pub async fn leave(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }
}
