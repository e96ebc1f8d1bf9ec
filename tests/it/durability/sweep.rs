//! Every call of the kernel fails once with each error, and once the process dies there.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use anyhow::{Context, ensure};

use super::driver::{Careless, Target, acknowledged, fill_audit, traced};
use super::strace::{self, ERRORS, Fault, How, Plan};
use super::{no_litter, temporary};

/// What was found wrong, and how many cases there were.
#[derive(Debug, Default)]
struct Found {
    cases: usize,
    wrong: Vec<String>,
}

/// The directory under test, and beside it what is not.
struct Scene {
    target: Target,
    root: tempfile::TempDir,
    /// Numbers that were acknowledged, oldest first.
    acknowledged: Vec<u64>,
    next: u64,
}

impl Scene {
    fn new(target: Target) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("durability-").tempdir()?;
        let scene = Self { target, root, acknowledged: Vec::new(), next: 1 };
        scene.begin_anew()?;
        Ok(scene)
    }

    fn dir(&self) -> std::path::PathBuf {
        self.root.path().join("state")
    }

    fn begin_anew(&self) -> anyhow::Result<()> {
        let _ = std::fs::remove_dir_all(self.dir());
        std::fs::create_dir(self.dir())?;
        Ok(())
    }

    fn plan(&self, fault: Option<Fault>) -> Plan {
        let dir = self.dir();
        let files = self.target.files().iter().map(|name| dir.join(name));
        let mut paths: Vec<_> = files.flat_map(|path| [temporary(&path), path]).collect();
        // Where each write has another one.
        paths.push(dir.join(format!(".careless.json.{}", self.next)));
        paths.push(dir);
        Plan { paths, fault, log: self.root.path().join("strace.log") }
    }

    /// One write in a process of its own.
    async fn write(&mut self, fault: Option<Fault>) -> anyhow::Result<(bool, String, strace::Trace)> {
        let number = self.next;
        let plan = self.plan(fault);
        self.next += 1;
        let (status, said) = strace::finish(traced(&plan, self.target, &self.dir(), number)?).await?;
        let killed = status.signal() == Some(9) || status.code() == Some(128 + 9);
        ensure!(killed || status.success(), "it ended with {status}: {said}");
        let trace = plan.trace()?;
        ensure!(killed || acknowledged(&said).is_some() || said.contains("err "), "it said nothing: {said}");
        Ok((killed, said, trace))
    }

    /// One case, from a state that is whole to one that has to be.
    async fn case(&mut self, fault: Fault) -> anyhow::Result<()> {
        let number = self.next;
        let (killed, said, trace) = self.write(Some(fault)).await?;
        ensure!(trace.hit || killed, "the fault did not happen");
        ensure!(killed == (fault.how == How::Kill), "killed: {killed}");
        if acknowledged(&said).is_some() {
            self.acknowledged.push(number);
        }
        self.is_whole(number)?;
        let next = self.next;
        self.next += 1;
        self.target.act(&self.dir(), next).context("the next write")?;
        self.acknowledged.push(next);
        self.is_whole(next)?;
        no_litter(&self.dir(), self.target.files())
    }

    fn is_whole(&self, tried: u64) -> anyhow::Result<()> {
        let found = self.target.look(&self.dir()).context("garbled")?;
        let newest = self.acknowledged.last().copied().unwrap_or_default();
        if self.target.keeps_all() {
            // The file that was there at the beginning has others.
            let lost: Vec<_> = self.acknowledged.iter().filter(|n| !found.contains(n)).collect();
            ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        } else {
            ensure!(
                found == [newest] || found == [tried],
                "{newest} was acknowledged, {tried} tried, {found:?} is there"
            );
        }
        Ok(())
    }
}

async fn sweep(target: Target, errors: &[&'static str]) -> anyhow::Result<Found> {
    let mut scene = Scene::new(target)?;
    scene.target.act(&scene.dir(), 1)?;
    (scene.acknowledged, scene.next) = (vec![1], 2);
    let (_, said, trace) = scene.write(None).await?;
    ensure!(acknowledged(&said).is_some(), "{said}");
    scene.acknowledged.push(2);
    let mut found = Found::default();
    for fault in strace::faults(&trace, errors) {
        found.cases += 1;
        if let Err(error) = scene.case(fault).await {
            found.wrong.push(format!("{fault}: {error:#}"));
            // What is broken now is no fault of the next case.
            scene.begin_anew()?;
            scene.target.act(&scene.dir(), scene.next)?;
            scene.acknowledged = vec![scene.next];
            scene.next += 1;
        }
    }
    println!("{target:?}: {} cases", found.cases);
    Ok(found)
}

/// What is made at the first start and then kept.
async fn sweep_making(target: Target) -> anyhow::Result<Found> {
    let mut scene = Scene::new(target)?;
    let (_, said, trace) = scene.write(None).await?;
    ensure!(acknowledged(&said).is_some(), "{said}");
    let mut found = Found::default();
    for fault in strace::faults(&trace, &ERRORS) {
        found.cases += 1;
        scene.begin_anew()?;
        if let Err(error) = made_once(&mut scene, fault).await {
            found.wrong.push(format!("{fault}: {error:#}"));
        }
    }
    println!("{target:?}: {} cases", found.cases);
    Ok(found)
}

async fn made_once(scene: &mut Scene, fault: Fault) -> anyhow::Result<()> {
    let (killed, said, trace) = scene.write(Some(fault)).await?;
    ensure!(trace.hit || killed, "the fault did not happen");
    let made = scene.target.act(&scene.dir(), 0).context("the next start")?;
    if let Some(first) = acknowledged(&said) {
        ensure!(made == first || scene.target == Target::Layout, "{first} was acknowledged, and it is {made} now");
    }
    ensure!(scene.target.act(&scene.dir(), 0)? == made, "it changes at each start");
    no_litter(&scene.dir(), scene.target.files())
}

async fn is_durable(target: Target, errors: &[&'static str]) -> anyhow::Result<()> {
    if !strace::is_here("durability::sweep") {
        return Ok(());
    }
    let found = if target.is_made_once() { sweep_making(target).await? } else { sweep(target, errors).await? };
    ensure!(found.wrong.is_empty(), "{} of {} cases:\n{}", found.wrong.len(), found.cases, found.wrong.join("\n"));
    ensure!(found.cases >= 12, "only {} cases", found.cases);
    Ok(())
}

#[tokio::test]
async fn the_desired_state() -> anyhow::Result<()> {
    is_durable(Target::Desired, &ERRORS).await
}

#[tokio::test]
async fn the_secrets() -> anyhow::Result<()> {
    is_durable(Target::Secrets, &ERRORS).await
}

#[tokio::test]
async fn the_audit() -> anyhow::Result<()> {
    is_durable(Target::Audit, &ERRORS).await
}

#[tokio::test]
async fn the_identity() -> anyhow::Result<()> {
    is_durable(Target::Identity, &ERRORS).await
}

#[tokio::test]
async fn the_certificate() -> anyhow::Result<()> {
    is_durable(Target::Certificate, &ERRORS).await
}

#[tokio::test]
async fn the_mark_of_the_layout() -> anyhow::Result<()> {
    is_durable(Target::Layout, &ERRORS).await
}

/// The record that begins a new file moves the older ones.
#[tokio::test]
async fn the_audit_when_its_file_is_full() -> anyhow::Result<()> {
    if !strace::is_here("durability::sweep") {
        return Ok(());
    }
    let mut scene = Scene::new(Target::Rotation)?;
    fill_audit(&scene.dir())?;
    let full = scene.root.path().join("full");
    copy(&scene.dir(), &full)?;
    let before = Target::Rotation.look(&full)?.len();
    scene.next = 2;
    let (_, said, trace) = scene.write(None).await?;
    ensure!(acknowledged(&said).is_some() && scene.dir().join("audit.2.jsonl").exists(), "{said}");
    for fault in strace::a_handful(&trace) {
        scene.begin_anew()?;
        copy(&full, &scene.dir())?;
        (scene.acknowledged, scene.next) = (Vec::new(), 2);
        scene.case(fault).await.with_context(|| fault.to_string())?;
        let after = Target::Rotation.look(&scene.dir())?.len();
        ensure!(after > before, "{fault}: of {before} records before, only {after} are left");
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// What is wrong in a known way is found.
#[tokio::test]
async fn careless_writers_are_found() -> anyhow::Result<()> {
    if !strace::is_here("durability::sweep") {
        return Ok(());
    }
    for (how, said) in [(Careless::InPlace, "garbled"), (Careless::Deaf, "garbled"), (Careless::Litter, "was left in")]
    {
        let found = sweep(Target::Careless(how), &["ENOSPC"]).await?;
        ensure!(found.wrong.iter().any(|wrong| wrong.contains(said)), "{how:?} passed: {:?}", found.wrong);
    }
    // No error and no kill shows that nothing is ever synced: only the order of the calls does.
    let found = sweep(Target::Careless(Careless::NoSync), &["ENOSPC"]).await?;
    ensure!(found.wrong.is_empty(), "{:?}", found.wrong);
    Ok(())
}
