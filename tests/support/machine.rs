//! A tenant's machine in small: a volume, a user for the gateway and one for the sidecar, and
//! `openclaw-sidecar run -- <gateway command>` as what it boots, alone or as PID 1 of a PID namespace of its own.

mod builder;
mod intruder;
mod pid_log;
mod place;
#[path = "gateway/ports.rs"]
mod ports;
pub mod proc;
pub mod script;
pub mod throttle;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::device::{Operator, RemoteDevice};
use super::sidecar::field;

pub use builder::{Builder, binary, hosted_document};
pub use intruder::{Ran, Squatter, run_as};
pub use pid_log::PidLog;
pub use place::Place;

/// Who the gateway, the sidecar and somebody unconcerned run as. No account has these numbers.
pub const GATEWAY_UID: u32 = 12_001;
pub const SIDECAR_UID: u32 = 12_002;
pub const STRANGER_UID: u32 = 12_003;

/// A real gateway's boot on a machine that compiles something beside it.
pub const READY: Duration = Duration::from_secs(180);
const LISTENING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Whether two users can be had; says loudly which test goes without.
pub fn needs_root(test: &str) -> bool {
    let root = is_root();
    if !root {
        println!("SKIPPED: {test} needs root: gateway and sidecar must be different users");
    }
    root
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A running launcher with what it started. Dropping it kills all of it.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    /// Differs from the child's in a namespace, where `unshare` stands before it.
    launcher: u32,
    builder: Builder,
    pids: PidLog,
    /// Its own log (and the daemon's), and what it forwards of the gateway.
    logs: (PathBuf, PathBuf),
}

impl Machine {
    /// A machine with a real gateway; the caller names its program, never its version.
    pub fn real(version: &str) -> anyhow::Result<Builder> {
        Builder::real(version)
    }

    /// A machine whose gateway is a stand-in of `script`.
    pub fn script(source: &str) -> anyhow::Result<Builder> {
        Builder::script(source)
    }

    /// A machine that is told to start this, whatever it is.
    pub fn command(words: &[&str]) -> anyhow::Result<Builder> {
        Builder::command(words)
    }

    pub fn place(&self) -> &Place {
        self.builder.place()
    }

    pub fn volume(&self) -> PathBuf {
        self.place().volume()
    }

    pub fn port(&self) -> u16 {
        self.place().port()
    }

    pub fn launcher_pid(&self) -> u32 {
        self.launcher
    }

    pub fn daemon_pid(&self) -> Option<u32> {
        proc::children(self.launcher).into_iter().find(|pid| pid_log::is_daemon(*pid))
    }

    /// The gateway as the process table has it, from its seeding on.
    pub fn gateway_pid(&self) -> Option<u32> {
        pid_log::gateways(self.launcher).first().copied()
    }

    /// Every gateway process seen since the start.
    pub fn pids(&self) -> &PidLog {
        &self.pids
    }

    fn certificate(&self) -> anyhow::Result<CertificateDer<'static>> {
        Ok(CertificateDer::from_pem_file(self.place().sidecar_dir().join("tls.crt"))?)
    }

    /// As the control plane, over HTTPS.
    pub fn client(&self) -> Client {
        let certificate = self.certificate().expect("the daemon wrote its certificate");
        Client::tls(self.place().tls_address(), &certificate, Some(&self.builder.control_token))
    }

    /// As support staff.
    pub fn support_client(&self) -> Client {
        self.client().with_token(Some(&self.builder.support_token))
    }

    /// As the second person.
    pub fn approver_client(&self) -> Client {
        self.client().with_token(Some(&self.builder.approver_token))
    }

    pub async fn state(&self) -> anyhow::Result<Value> {
        let reply = self.client().get("/v1/state").await?;
        ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
        Ok(reply.json())
    }

    pub async fn wait_state(&self, wanted: impl Fn(&Value) -> bool, deadline: Duration) -> anyhow::Result<Value> {
        match self.client().wait_until("/v1/state", wanted, deadline).await {
            Ok(state) => Ok(state),
            Err(error) => bail!("{error:#}\n{}", self.last_words()),
        }
    }

    pub async fn wait_phase(&self, phase: &str, deadline: Duration) -> anyhow::Result<Value> {
        self.wait_state(|state| state["phase"] == phase, deadline).await.with_context(|| format!("waiting for {phase}"))
    }

    /// Waits until the daemon serves: its line in the log, and an answer.
    pub async fn wait_listening(&mut self) -> anyhow::Result<()> {
        self.wait_listening_within(LISTENING).await
    }

    /// The same on a machine that is slow on purpose.
    pub async fn wait_listening_within(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        loop {
            if self.serves().await {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the launcher ended with {status}\n{}", self.last_words());
            }
            ensure!(Instant::now() < end, "no API after {deadline:?}\n{}", self.last_words());
            sleep(POLL).await;
        }
    }

    async fn serves(&self) -> bool {
        let Ok(certificate) = self.certificate() else { return false };
        let client = Client::tls(self.place().tls_address(), &certificate, None);
        matches!(timeout(Duration::from_secs(1), client.get("/livez")).await, Ok(Ok(reply)) if reply.status == 200)
    }

    /// SIGKILL to the daemon; how long the API was away.
    pub async fn kill_daemon(&self) -> anyhow::Result<Duration> {
        let old = self.daemon_pid().context("no daemon runs")?;
        let killed = Instant::now();
        proc::signal(old, Signal::SIGKILL)?;
        while !(self.daemon_pid().is_some_and(|pid| pid != old) && self.serves().await) {
            ensure!(killed.elapsed() < LISTENING, "no API {LISTENING:?} after the kill\n{}", self.last_words());
            sleep(POLL).await;
        }
        Ok(killed.elapsed())
    }

    /// A signal to the launcher, as the platform sends it.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        proc::signal(self.launcher, signal)
    }

    /// The launcher's exit status.
    pub async fn wait_exit(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        match timeout(deadline, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("the launcher still runs after {deadline:?}\n{}", self.last_words()),
        }
    }

    /// SIGTERM, and the end of everything; the machine can be started again.
    pub async fn stop(mut self) -> anyhow::Result<Builder> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait_exit(Duration::from_secs(30)).await?;
        ensure!(status.code() == Some(0), "the launcher ended with {status}\n{}", self.last_words());
        Ok(self.again())
    }

    /// How to start the same machine again: volume, users, ports, tokens.
    pub fn again(&self) -> Builder {
        self.builder.clone()
    }

    /// Processes of this machine that are alive, by pid and command line.
    pub fn survivors(&self) -> Vec<(u32, String)> {
        let named = |pid: u32| (pid, proc::command_line(pid).join(" "));
        proc::of_machine(self.place().id()).into_iter().filter(|pid| *pid != self.launcher).map(named).collect()
    }

    pub fn config(&self) -> anyhow::Result<Value> {
        let path = self.place().config_path();
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The shared token as it stands in the gateway's configuration.
    pub fn gateway_token(&self) -> anyhow::Result<String> {
        let token = self.config()?["gateway"]["auth"]["token"].as_str().map(str::to_owned);
        token.context("openclaw.json has no gateway.auth.token")
    }

    /// The environment the running gateway was started with.
    pub fn gateway_environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let pid = self.gateway_pid().context("no gateway runs")?;
        proc::environment(pid).with_context(|| format!("no environment of {pid}"))
    }

    /// A remote browser that wants in with the shared token.
    pub fn browser(&self) -> anyhow::Result<RemoteDevice> {
        Ok(RemoteDevice::browser(self.port(), &self.gateway_token()?))
    }

    pub async fn operator(&self) -> anyhow::Result<Operator> {
        Operator::connect(self.port(), &self.gateway_token()?).await
    }

    /// What launcher and daemon logged in this run.
    pub fn log_text(&self) -> String {
        read_lossy(&self.logs.0)
    }

    /// What was forwarded of the gateway in this run.
    pub fn output_text(&self) -> String {
        read_lossy(&self.logs.1)
    }

    /// Log lines that are JSON.
    pub fn log(&self) -> Vec<Value> {
        self.log_text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a log line whose text contains all of `parts`.
    pub async fn wait_log(&self, parts: &[&str], deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        while !self.log_text().lines().any(|line| parts.iter().all(|part| line.contains(part))) {
            ensure!(Instant::now() < end, "no log line with {parts:?}\n{}", self.last_words());
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether a `listening` line for this listener was logged.
    pub fn logged_listener(&self, name: &str) -> bool {
        self.log().iter().any(|line| field(line, "message") == "listening" && field(line, "listener") == name)
    }

    /// The ends of both logs, for error messages.
    pub fn last_words(&self) -> String {
        let end = |text: String| {
            let lines: Vec<String> = text.lines().map(|line| line.chars().take(600).collect()).collect();
            lines[lines.len().saturating_sub(30)..].join("\n")
        };
        format!("--- log ---\n{}\n--- the gateway ---\n{}", end(self.log_text()), end(self.output_text()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.pids.stop();
        // Stopped first, so that it starts nothing while the list is made.
        let _ = proc::signal(self.launcher, Signal::SIGSTOP);
        let mut doomed = proc::descendants(self.launcher);
        doomed.extend(proc::of_machine(self.place().id()));
        let _ = proc::signal(self.launcher, Signal::SIGKILL);
        for pid in &doomed {
            let _ = proc::signal(*pid, Signal::SIGKILL);
        }
        // Who still dies may still write, and the directory could not be removed.
        let end = Instant::now() + Duration::from_secs(5);
        while doomed.iter().any(|pid| proc::is_alive(*pid)) && Instant::now() < end {
            std::thread::sleep(POLL);
        }
        let _ = self.child.start_kill();
        if std::thread::panicking() {
            eprintln!("{}", self.last_words());
        }
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
