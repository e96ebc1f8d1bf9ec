//! Killed at any moment, two hundred times: what was acknowledged is there, and nothing is garbled or left behind.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::driver::{Target, command};
use super::{no_litter, temporary};

const ROUNDS: u64 = 200;
const TARGETS: [Target; 3] = [Target::Desired, Target::Secrets, Target::Audit];
const LIMIT: Duration = Duration::from_secs(30);

/// The numbers each target acknowledged, the newest last.
type Acknowledged = [Vec<u64>; 3];

#[tokio::test]
async fn two_hundred_times() -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("durability-").tempdir()?;
    let known: Vec<&str> = TARGETS.iter().flat_map(|target| target.files()).copied().collect();
    let mut acknowledged = Acknowledged::default();
    let (mut next, mut hits) = (1, 0);
    for round in 0..ROUNDS {
        // Different moments in every round, the same in every run.
        let moment = (1 + round % 7, Duration::from_micros(round.wrapping_mul(7919) % 12_000));
        let before: u64 = acknowledged.iter().map(|all| all.len() as u64).sum();
        next = killed_after(dir.path(), next, moment, &mut acknowledged).await? + 1;
        let after: u64 = acknowledged.iter().map(|all| all.len() as u64).sum();
        ensure!(after > before, "round {round}: nothing was written before the kill");
        for (target, acknowledged) in TARGETS.iter().zip(&acknowledged) {
            is_kept(*target, dir.path(), acknowledged).with_context(|| format!("round {round}, {target:?}"))?;
        }
        no_litter(dir.path(), &known).with_context(|| format!("round {round}"))?;
        hits += usize::from(hit_a_write(dir.path(), &acknowledged));
    }
    println!("{} writes, {hits} of {ROUNDS} kills in the middle of one", acknowledged[0].len());
    ensure!(hits > 0, "no kill ever hit a write");
    Ok(())
}

/// A temporary file was left, or something is there that was not acknowledged.
fn hit_a_write(dir: &Path, acknowledged: &Acknowledged) -> bool {
    TARGETS.iter().zip(acknowledged).any(|(target, acknowledged)| {
        temporary(&target.path(dir)).exists() || target.look(dir).is_ok_and(|found| found.last() > acknowledged.last())
    })
}

/// Kills it after so many writes and so long; returns the highest number that may have been tried.
async fn killed_after(dir: &Path, first: u64, moment: (u64, Duration), all: &mut Acknowledged) -> anyhow::Result<u64> {
    let start = Command::new(std::env::current_exe()?);
    let mut child = command(start, &TARGETS, dir, (first, first + 100_000))?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let mut newest = first;
    // So many writes, and a moment more: how fast it writes depends on the machine.
    let mut left = moment.0;
    while left > 0 {
        let line = timeout(LIMIT, lines.next_line()).await??.context("it ended by itself")?;
        left -= u64::from(take(&line, &mut newest, all)?);
    }
    let end = Instant::now() + moment.1;
    while let Ok(line) = timeout_at(end, lines.next_line()).await {
        take(&line?.context("it ended by itself")?, &mut newest, all)?;
    }
    child.start_kill()?;
    rest(&mut lines, &mut newest, all).await?;
    timeout(LIMIT, child.wait()).await??;
    Ok(newest + 1)
}

/// What it said before it died counts.
async fn rest(
    lines: &mut Lines<BufReader<ChildStdout>>,
    newest: &mut u64,
    all: &mut Acknowledged,
) -> anyhow::Result<()> {
    while let Some(line) = timeout(LIMIT, lines.next_line()).await?? {
        take(&line, newest, all)?;
    }
    Ok(())
}

/// Whether a line acknowledges something.
fn take(line: &str, newest: &mut u64, all: &mut Acknowledged) -> anyhow::Result<bool> {
    ensure!(!line.starts_with("err "), "{line}");
    let Some((name, number)) = line.strip_prefix("ack ").and_then(|rest| rest.split_once(' ')) else {
        return Ok(false);
    };
    let number = number.parse()?;
    let at = TARGETS.iter().position(|target| format!("{target:?}") == name).context("another target")?;
    all[at].push(number);
    *newest = number.max(*newest);
    Ok(true)
}

fn is_kept(target: Target, dir: &Path, acknowledged: &[u64]) -> anyhow::Result<()> {
    let Some(newest) = acknowledged.last() else { return Ok(()) };
    let found = target.look(dir).context("garbled")?;
    if target.keeps_all() {
        // In the order in which they were acknowledged; one that was not may be there too.
        let mut found = found.iter();
        let lost: Vec<_> = acknowledged.iter().filter(|number| !found.any(|n| n == *number)).collect();
        ensure!(lost.is_empty(), "lost: {lost:?}");
    } else {
        let next = *newest + 1;
        ensure!(found == [*newest] || found.first().is_some_and(|n| *n >= next), "{newest}, but {found:?} is there");
    }
    Ok(())
}
