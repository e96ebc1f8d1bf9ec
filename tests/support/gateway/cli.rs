//! Runs one `openclaw` command and measures what it costs: the yardstick for the RPC that replaces it.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

const DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(1);

/// What one CLI call printed and cost.
#[derive(Debug, Clone)]
pub struct CliRun {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub wall: Duration,
    /// User and system time of the process and the children it waited for; counted by the kernel in 10 ms steps.
    pub cpu: Duration,
    /// Largest resident set.
    pub peak_rss_kib: u64,
}

/// Runs on a thread of its own: it must see the process as a zombie, when its CPU time is final, before it is reaped.
pub(super) fn run(mut command: Command, scratch: &Path) -> anyhow::Result<CliRun> {
    let dir = tempfile::tempdir_in(scratch)?;
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    // Files, not pipes: nobody has to drain them while the clock runs.
    command.stdout(File::create(&out)?).stderr(File::create(&err)?);
    let started = Instant::now();
    let mut child = command.spawn().context("cannot run openclaw")?;
    let measured = watch(&child, started);
    let _ = super::signal_group(child.id(), "KILL");
    let status = child.wait()?;
    let (wall, ticks, peak_rss_kib) = measured?;
    Ok(CliRun {
        status,
        stdout: String::from_utf8_lossy(&fs::read(&out)?).into_owned(),
        stderr: String::from_utf8_lossy(&fs::read(&err)?).into_owned(),
        wall,
        // The kernel shows process times in units of 1/100 s whatever its own tick is.
        cpu: Duration::from_millis(ticks * 10),
        peak_rss_kib,
    })
}

fn watch(child: &Child, started: Instant) -> anyhow::Result<(Duration, u64, u64)> {
    let pid = child.id();
    let mut peak = 0;
    loop {
        let (state, ticks) = stat(pid)?;
        if state == 'Z' {
            return Ok((started.elapsed(), ticks, peak));
        }
        peak = peak.max(high_water_kib(pid).unwrap_or(0));
        if started.elapsed() > DEADLINE {
            bail!("openclaw did not end within {DEADLINE:?}");
        }
        thread::sleep(POLL);
    }
}

/// State and CPU ticks (own and waited-for children, user and system) from `/proc/<pid>/stat`.
fn stat(pid: u32) -> anyhow::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold spaces and parentheses, so count from its last one.
    let (_, rest) = text.rsplit_once(") ").context("odd /proc/<pid>/stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let state = fields.first().and_then(|field| field.chars().next()).context("no state")?;
    let ticks = fields.get(11..15).context("no times")?.iter().map(|field| field.parse().unwrap_or(0)).sum();
    Ok((state, ticks))
}

fn high_water_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
