//! The order of calls that survives a power cut: write, fsync, rename, fsync of the directory, and only then the answer.
//!
//! No kill shows this: what was never synced survives a dead process. So the calls themselves are looked at.

use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::driver::{Careless, Target, traced};
use super::strace::{self, Call, Plan, Trace};
use super::temporary;

/// The way of one file from the first byte to the answer.
#[derive(Debug, Default)]
struct Way {
    written: bool,
    synced: bool,
    renamed: bool,
    kept: bool,
}

/// Checks every replacement of `target` in a trace. `is_answer` tells what acknowledges it; returns how many there were.
///
/// # Errors
/// A step is missing or comes too early.
pub fn check(trace: &Trace, target: &Path, is_answer: impl Fn(&Call) -> bool) -> anyhow::Result<usize> {
    let (file, temporary) = (shown(target), shown(&temporary(target)));
    let dir = shown(target.parent().context("a directory")?);
    let (mut way, mut count) = (Way::default(), 0);
    for call in trace.calls.iter().filter(|call| !call.failed) {
        let on = |path: &str| call.arguments.contains(path);
        let of = |path: &str| call.arguments.split_once('<').is_some_and(|(_, rest)| rest.starts_with(path));
        match call.name.as_str() {
            "write" | "writev" if of(&format!("{file}>")) => bail!("it is written in place"),
            "write" | "writev" if of(&format!("{temporary}>")) => way = Way { written: true, ..Way::default() },
            "fsync" | "fdatasync" if of(&format!("{temporary}>")) => way.synced = way.written,
            "rename" | "renameat" | "renameat2" if on(&format!("\"{file}\"")) => {
                ensure!(way.synced, "renamed before it was synced");
                way.renamed = true;
            }
            "fsync" | "fdatasync" if of(&format!("{dir}>")) && way.renamed && !way.kept => {
                way.kept = true;
                count += 1;
            }
            _ if is_answer(call) => {
                ensure!(!way.written || way.kept, "acknowledged before it was durable: {way:?}");
            }
            _ => {}
        }
    }
    ensure!(!way.written || way.kept, "never durable: {way:?}");
    Ok(count)
}

/// Checks that what is appended to `target` is synced before the answer; returns how many syncs there were.
///
/// # Errors
/// The answer comes too early.
pub fn check_append(trace: &Trace, target: &Path, is_answer: impl Fn(&Call) -> bool) -> anyhow::Result<usize> {
    let file = format!("{}>", shown(target));
    let (mut unsynced, mut count) = (false, 0);
    for call in trace.calls.iter().filter(|call| !call.failed) {
        let of = call.arguments.split_once('<').is_some_and(|(_, rest)| rest.starts_with(&file));
        match call.name.as_str() {
            "write" if of => unsynced = true,
            "fsync" | "fdatasync" if of => (unsynced, count) = (false, count + 1),
            _ if is_answer(call) => ensure!(!unsynced, "acknowledged before it was durable"),
            _ => {}
        }
    }
    Ok(count)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn says_so(call: &Call) -> bool {
    call.name == "write" && call.arguments.contains("\"\\nack ")
}

async fn of_the_driver(target: Target) -> anyhow::Result<Trace> {
    let root = tempfile::Builder::new().prefix("durability-").tempdir()?;
    let dir = root.path().join("state");
    std::fs::create_dir(&dir)?;
    let plan = Plan { paths: Vec::new(), fault: None, log: root.path().join("strace.log") };
    let (status, said) = strace::finish(traced(&plan, target, &dir, 7)?).await?;
    ensure!(status.success() && said.contains("ack "), "{said}");
    let trace = plan.trace()?;
    ensure!(trace.calls.iter().any(says_so), "the answer is not in the trace");
    for name in target.files().iter().filter(|_| target != Target::Layout && !target.keeps_all()) {
        let count = check(&trace, &dir.join(name), says_so).with_context(|| format!("{target:?}: {name}"))?;
        ensure!(count == 1, "{target:?}: {name} was written {count} times");
    }
    if target.keeps_all() {
        let count = check_append(&trace, &dir.join(target.files()[0]), says_so)?;
        ensure!(count >= 1, "{target:?}: {count} syncs");
        let path = shown(&dir);
        let dir_synced = trace.calls.iter().any(|c| c.name == "fsync" && c.arguments.contains(&format!("<{path}>")));
        ensure!(dir_synced, "the name of the first file is not durable");
    }
    if target == Target::Layout {
        ensure!(check(&trace, &dir.join(target.files()[0]), says_so)? == 1);
    }
    Ok(trace)
}

#[tokio::test]
async fn the_daemons_own_code_keeps_it() -> anyhow::Result<()> {
    if !strace::is_here("durability::order") {
        return Ok(());
    }
    use Target::{Audit, Certificate, Desired, Identity, Layout, Secrets};
    for target in [Desired, Secrets, Audit, Identity, Certificate, Layout] {
        of_the_driver(target).await.with_context(|| format!("{target:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn careless_writers_are_found() -> anyhow::Result<()> {
    if !strace::is_here("durability::order") {
        return Ok(());
    }
    for (how, said) in [
        (Careless::InPlace, "in place"),
        (Careless::NoSync, "before it was synced"),
        (Careless::NoDirSync, "before it was durable"),
        (Careless::EarlyAck, "before it was durable"),
    ] {
        let error = of_the_driver(Target::Careless(how)).await.expect_err("it is wrong");
        ensure!(format!("{error:#}").contains(said), "{how:?}: {error:#}");
    }
    Ok(())
}
