//! A machine that boots systemd: the prepared Debian tree under systemd-nspawn, changes kept in memory, the network
//! shared with the host.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{output, prepared, repository, run, until};
use crate::support::gateway::gateways_dir;

const BOOTED: Duration = Duration::from_secs(60);
const OFF: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(30);

/// A booted machine. Dropping it cuts its power.
#[derive(Debug)]
pub(super) struct Lab {
    child: Child,
    /// PID 1 of the machine, as the host numbers it.
    init: i32,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Lab {
    /// Boots with what is shipped in its place: the binaries, the units with `settings` as a drop-in of each, the users,
    /// a gateway installed as npm does it; and `mounts`, paths of the host and of the machine.
    pub(super) async fn boot(settings: &[String], mounts: &[(&Path, &str)]) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("sidecar-lab-").tempdir()?;
        let drop_in = dir.path().join("test.conf");
        std::fs::write(&drop_in, format!("[Service]\n{}\n", settings.join("\n")))?;
        let log = dir.path().join("console.log");
        let console = std::fs::File::create(&log)?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("--machine=sidecar-test-{}-{count}", std::process::id());
        let mut boot = Command::new("systemd-nspawn");
        boot.args(["--quiet", "--boot", "--volatile=overlay", "--register=no", "--keep-unit", "--console=pipe", &name]);
        // Root may not raise limits everywhere, so none is left to the defaults.
        boot.args(["--rlimit=RLIMIT_NOFILE=4096", "--rlimit=RLIMIT_NPROC=4096"]);
        // Its own filter is older than Landlock; a real machine has none.
        boot.arg("--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self");
        boot.arg("--directory").arg(prepared("tree")).args(shipped(&drop_in)?);
        boot.args(mounts.iter().map(|(from, to)| bind(from, to)));
        boot.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).process_group(0).kill_on_drop(true);
        let child = boot.spawn().context("cannot run systemd-nspawn")?;
        let mut lab = Self { child, init: 0, log, _dir: dir };
        lab.wait_until_booted().await.with_context(|| lab.console())?;
        Ok(lab)
    }

    async fn wait_until_booted(&mut self) -> anyhow::Result<()> {
        let nspawn = self.child.id().context("it has already gone")?;
        let children = format!("/proc/{nspawn}/task/{nspawn}/children");
        let first = || async {
            let pids = std::fs::read_to_string(&children)?;
            let pid = pids.split_whitespace().next().context("no process in it")?.parse()?;
            // Before it is systemd, it is still being set up.
            ensure!(std::fs::read_to_string(format!("/proc/{pid}/comm"))?.trim() == "systemd", "not booted");
            Ok(pid)
        };
        self.init = until("PID 1", BOOTED, first).await?;
        let lab = &*self;
        let running = || async {
            let state = lab.tell(&["systemctl", "is-system-running"]).await?;
            ensure!(state == "running", "{state}");
            Ok(())
        };
        until("a running system", BOOTED, running).await
    }

    fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.init.to_string();
        command
            .args(["--target", &target, "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--"])
            .args(words);
        command
    }

    /// Runs a command in it that may take `deadline` and has to succeed.
    pub(super) async fn run(&self, words: &[&str], deadline: Duration) -> anyhow::Result<String> {
        run(&mut self.inside(words), deadline).await
    }

    /// What a command prints, however it ends.
    pub(super) async fn tell(&self, words: &[&str]) -> anyhow::Result<String> {
        Ok(super::text(&output(&mut self.inside(words), ANSWER).await?.stdout))
    }

    /// A property of a unit.
    pub(super) async fn property(&self, unit: &str, name: &str) -> anyhow::Result<String> {
        self.run(&["systemctl", "show", "--value", "--property", name, unit], ANSWER).await
    }

    /// A path of the machine, as the host sees it.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    fn console(&self) -> String {
        format!("--- the machine's console ---\n{}", std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Adds the journal's end to an error.
    pub(super) async fn explain<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let Err(error) = result else { return result };
        let journal = self.tell(&["journalctl", "--no-pager", "--lines", "80", "--output", "cat"]).await;
        Err(error.context(format!("--- the machine's journal ---\n{}", journal.unwrap_or_default())))
    }

    /// Shuts down in order.
    pub(super) async fn off(mut self) -> anyhow::Result<()> {
        self.run(&["systemctl", "poweroff"], ANSWER).await?;
        let status = timeout(OFF, self.child.wait()).await.context("still on")??;
        ensure!(status.success(), "{status}\n{}", self.console());
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) && self.init > 1 {
            // The end of its PID 1 is the end of everything in it; gone already is fine too.
            let _ = kill(Pid::from_raw(self.init), Signal::SIGKILL);
        }
    }
}

fn bind(from: &Path, to: &str) -> String {
    format!("--bind-ro={}:{to}", from.display())
}

fn shipped(drop_in: &Path) -> anyhow::Result<Vec<String>> {
    std::fs::set_permissions(drop_in, PermissionsExt::from_mode(0o644))?;
    let gateways = std::fs::canonicalize(gateways_dir())?;
    let modules = gateways.join(super::GATEWAY).join("node_modules");
    let units = repository().join("systemd");
    let mut mounts = vec![
        bind(&std::fs::canonicalize(gateways.join("node/node"))?, "/usr/bin/node"),
        bind(&modules, "/usr/lib/node_modules"),
    ];
    for program in ["openclaw-sidecar", "openclaw-registry"] {
        let users = format!("sysusers.d/{program}.conf");
        mounts.push(bind(&prepared("bin").join(program), &format!("/usr/local/bin/{program}")));
        mounts.push(bind(&units.join(&users), &format!("/usr/lib/{users}")));
    }
    for unit in super::systemd::UNITS {
        mounts.push(bind(&units.join(unit), &format!("/usr/lib/systemd/system/{unit}")));
        mounts.push(bind(drop_in, &format!("/etc/systemd/system/{unit}.d/test.conf")));
    }
    Ok(mounts)
}
