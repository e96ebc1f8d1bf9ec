//! A repository that only root can look into (a clone in root's home): gateway and sidecar run as users of their own,
//! who cannot reach their programs there. They are lent from another place until the demo ends.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{ExitCode, Stdio},
};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::{
    interruption,
    support::{
        gateway::{VERSIONS, gateways_dir, installed},
        machine::{GATEWAY_UID, SIDECAR_UID, binary, is_root, proc},
        service,
    },
    terminal::say,
};

/// Set for the demo that runs with lent programs.
const LENT: &str = "OPENCLAW_DEMO_LENT";

/// Whether the users of the demo cannot reach their programs.
pub async fn is_needed() -> anyhow::Result<bool> {
    installed(VERSIONS[0])?;
    if !is_root() {
        return Ok(false);
    }
    let reach = runs_as(GATEWAY_UID, &gateways_dir().join("node/node")).await && runs_as(SIDECAR_UID, &binary()).await;
    ensure!(
        reach || std::env::var_os(LENT).is_none(),
        "other users may not read what was built and installed: chmod -R go+rX {} {}",
        gateways_dir().display(),
        binary().display()
    );
    Ok(!reach)
}

async fn runs_as(uid: u32, program: &Path) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").uid(uid).gid(uid).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// The whole demo again, with programs that everybody can reach.
pub async fn run() -> anyhow::Result<ExitCode> {
    // Not /tmp, which often lies in memory.
    let dir = tempfile::Builder::new().prefix("openclaw-demo-").tempdir_in("/var/tmp")?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let (gateways, sidecar) = (dir.path().join("gateways"), dir.path().join("openclaw-sidecar"));
    fs::create_dir(&gateways)?;
    fs::copy(binary(), &sidecar)?;
    fs::copy(service::binary(), dir.path().join("openclaw-registry"))?;
    let demo = std::env::current_exe()?;
    let mut demo = if mounted("/bin/true".as_ref(), &gateways).status().await.is_ok_and(|status| status.success()) {
        mounted(&demo, &gateways)
    } else {
        say("Only root can look into this repository: what the gateway's user runs is copied to another place first.");
        copy(&gateways).await?;
        Command::new(demo)
    };
    demo.env("OPENCLAW_TEST_GATEWAYS", &gateways).env("SIDECAR_BIN", &sidecar).env(LENT, "1");
    let mut demo = demo.spawn().context("cannot start the demo again")?;
    loop {
        tokio::select! {
            status = demo.wait() => {
                return Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            // It cleans up and ends; what was lent stays until then.
            interrupted = interruption() => {
                interrupted?;
                let pid = demo.id().context("it has just ended")?;
                proc::signal(pid, Signal::SIGTERM)?;
            }
        }
    }
}

/// `program` in a mount namespace in which the gateways are seen at `place` too; containers seldom allow it.
fn mounted(program: &Path, place: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = r#"mount --bind -- "$1" "$2" && exec "$3""#;
    command.args(["--mount", "--propagation", "private", "--", "/bin/sh", "-c", script, "sh"]);
    command.args([&gateways_dir(), place, program]);
    command.stderr(if program.ends_with("true") { Stdio::null() } else { Stdio::inherit() });
    command
}

/// Copies, not hard links: the gateway refuses files with a second name.
async fn copy(to: &Path) -> anyhow::Result<()> {
    for name in ["node", VERSIONS[0]] {
        let mut cp = Command::new("cp");
        cp.args(["--archive", "--reflink=auto", "--"]).arg(gateways_dir().join(name)).arg(to).stdin(Stdio::null());
        ensure!(cp.status().await?.success(), "cannot copy {name} to {}", to.display());
    }
    Ok(())
}
