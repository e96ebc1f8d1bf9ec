//! Containers and images, driven by argument vectors. Storage is private to the tests.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

use super::{output, prepared, repository, run, text};

const QUICK: Duration = Duration::from_secs(60);
const BUILD: Duration = Duration::from_secs(300);
/// Root may not raise limits everywhere, so none is left to the defaults.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"];

pub(super) fn podman(arguments: &[&str]) -> Command {
    let mut command = Command::new(repository().join("tests/packaging/podman"));
    command.args(arguments);
    command
}

/// Builds one stage of a Dockerfile around the binary built before; returns the image's name.
pub(super) async fn build(target: &str) -> anyhow::Result<String> {
    let name = format!("localhost/openclaw-sidecar-{target}:test");
    let dockerfile = if target == "registry" { "Dockerfile.registry" } else { "Dockerfile.sidecar" };
    let binary = format!("binary={}", prepared("bin").display());
    let mut build = podman(&["build", "--quiet", "--format", "docker", "--pull=never", "--network", "none"]);
    build.args(LIMITS).args(["--build-context", &binary, "--target", target, "--tag", &name]);
    build.args(["--build-arg", "GATEWAY_IMAGE=localhost/openclaw-stand-in"]);
    build.args(["--build-arg", &format!("GATEWAY_VERSION={}", super::GATEWAY)]);
    build.args(["--file", dockerfile, "."]).current_dir(repository());
    run(&mut build, BUILD).await?;
    Ok(name)
}

/// A running container; dropping it removes it.
#[derive(Debug)]
pub(super) struct Container {
    name: String,
}

impl Container {
    /// `options` of `podman run`, then the image.
    pub(super) async fn start(options: &[&str], image: &str) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let container = Self { name: format!("sidecar-test-{}-{count}", std::process::id()) };
        let mut start = podman(&["run", "--detach", "--name", &container.name]);
        run(start.args(LIMITS).args(options).arg(image), QUICK).await?;
        Ok(container)
    }

    /// Where the host reaches a published port.
    pub(super) async fn published(&self, port: &str) -> anyhow::Result<SocketAddr> {
        Ok(run(&mut podman(&["port", &self.name, port]), QUICK).await?.parse()?)
    }

    pub(super) async fn inspect(&self, format: &str) -> anyhow::Result<String> {
        run(&mut podman(&["inspect", "--format", format, &self.name]), QUICK).await
    }

    /// Runs a command in it, as root; whether it succeeded, and what it printed.
    pub(super) async fn exec(&self, words: &[&str]) -> anyhow::Result<(bool, String)> {
        let result = output(podman(&["exec", &self.name]).args(words), QUICK).await?;
        Ok((result.status.success(), text(&result.stdout) + &text(&result.stderr)))
    }

    /// What the image's HEALTHCHECK says now.
    pub(super) async fn is_healthy(&self) -> anyhow::Result<bool> {
        Ok(output(&mut podman(&["healthcheck", "run", &self.name]), QUICK).await?.status.success())
    }

    /// The process id, as the host sees it, of the one that was started by a command beginning with `words`.
    pub(super) async fn pid(&self, words: &str) -> anyhow::Result<i32> {
        let table = run(&mut podman(&["top", &self.name, "hpid", "args"]), QUICK).await?;
        let lines = table.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
        let found: Vec<&str> =
            lines.filter(|(_, command)| command.trim_start().starts_with(words)).map(|(pid, _)| pid).collect();
        ensure!(found.len() == 1, "one process is expected to be {words:?}:\n{table}");
        Ok(found[0].parse()?)
    }

    /// Asks it to stop as a platform does; returns its exit code.
    pub(super) async fn stop(&self, patience: Duration) -> anyhow::Result<i32> {
        let seconds = patience.as_secs().to_string();
        run(&mut podman(&["stop", "--time", &seconds, &self.name]), patience + QUICK).await?;
        let state = self.inspect("{{.State.Status}} {{.State.ExitCode}}").await?;
        let code = state.strip_prefix("exited ").with_context(|| format!("it is {state}"))?;
        Ok(code.parse()?)
    }

    pub(super) async fn logs(&self) -> String {
        match output(&mut podman(&["logs", "--tail", "80", &self.name]), QUICK).await {
            Ok(logs) => format!("{}\n{}", text(&logs.stdout), text(&logs.stderr)),
            Err(error) => format!("no logs: {error:#}"),
        }
    }

    /// Adds the container's last lines to an error.
    pub(super) async fn explain<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => Err(error.context(format!("--- the container's log ---\n{}", self.logs().await))),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Dropping cannot wait on the runtime, so this is the blocking form.
        let mut remove = std::process::Command::new(repository().join("tests/packaging/podman"));
        remove.args(["rm", "--force", "--time", "0", "--volumes", &self.name]);
        let _ = remove.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// One field of an image's description.
pub(super) async fn image(name: &str, format: &str) -> anyhow::Result<String> {
    let value = run(&mut podman(&["image", "inspect", "--format", format, name]), QUICK).await?;
    ensure!(!value.contains("<no value>"), "{name} has no {format}");
    Ok(value)
}
