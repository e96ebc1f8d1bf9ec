//! What is shipped, run as it is deployed: the images of `Dockerfile.sidecar` in containers, the units of `systemd/` in a
//! booted machine. The gateway in them is real; the image it comes from is a stand-in for the official one.

#[path = "packaging/container.rs"]
mod container;
#[path = "packaging/image.rs"]
mod image;
#[path = "packaging/nspawn.rs"]
mod nspawn;
#[path = "packaging/podman.rs"]
mod podman;
#[path = "packaging/registry.rs"]
mod registry;
#[path = "packaging/systemd.rs"]
mod systemd;
#[path = "packaging/tenant.rs"]
mod tenant;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// The gateway in the stand-in image; `tests/packaging/install` names the same.
const GATEWAY: &str = "2026.9.6";
/// Fetching a Debian tree and building the static binary, the first time.
const PREPARED: Duration = Duration::from_secs(1500);
/// A real gateway's boot while everything else of the machine is busy.
const READY: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file that `tests/packaging/install` made.
fn prepared(name: &str) -> PathBuf {
    repository().join("target/packaging").join(name)
}

/// Makes everything the test needs. `false` on a machine that cannot run it, which is said by the test's name.
async fn ready_for(test: &str) -> anyhow::Result<bool> {
    let install = repository().join("tests/packaging/install");
    let check = output(Command::new(&install).arg("check"), PREPARED).await?;
    if !check.status.success() {
        eprintln!("SKIPPED packaging::{test}: needs {}", text(&check.stdout));
        return Ok(false);
    }
    run(&mut Command::new(&install), PREPARED).await?;
    Ok(true)
}

/// Runs a command to its end, whatever that is.
async fn output(command: &mut Command, deadline: Duration) -> anyhow::Result<Output> {
    let command = command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    timeout(deadline, command.output())
        .await
        .with_context(|| format!("still running after {deadline:?}: {command:?}"))?
        .with_context(|| format!("cannot run {command:?}"))
}

/// Runs a command that has to succeed; returns what it printed.
async fn run(command: &mut Command, deadline: Duration) -> anyhow::Result<String> {
    let output = output(command, deadline).await?;
    if !output.status.success() {
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        bail!("{command:?} ended with {}:\n{out}\n{err}", output.status);
    }
    Ok(text(&output.stdout))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// Asks again until there is an answer; the last refusal is the error.
async fn until<T, F>(what: &str, deadline: Duration, mut ask: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let end = Instant::now() + deadline;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("{what}: not within {deadline:?}")));
            }
            Err(_) => sleep(POLL).await,
        }
    }
}
