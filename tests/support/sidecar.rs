//! Runs the real daemon binary for a test: environment, log, bound addresses, cost, end.

mod builder;
mod cost;
mod log;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::client::Client;
use log::Log;

#[allow(unused_imports, reason = "not every binary makes its own credentials")]
pub use builder::{Builder, binary, credential, new_token};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    pid: u32,
    log: Log,
    readers: Vec<tokio::task::JoinHandle<()>>,
    state_dir: PathBuf,
    unix_path: Option<PathBuf>,
    tls: Option<SocketAddr>,
    edge: Option<SocketAddr>,
    fingerprint: Option<String>,
    builder: Builder,
}

impl Sidecar {
    pub fn builder() -> Builder {
        Builder::new()
    }

    async fn wait_until_listening(&mut self) -> anyhow::Result<()> {
        self.tls = Some(self.listener("tls").await?);
        let line = self.listening_line("tls").await?;
        self.fingerprint = field(&line, "certificate_sha256").as_str().map(String::from);
        if self.builder.edge {
            self.edge = Some(self.listener("edge").await?);
        }
        if self.builder.unix {
            self.listening_line("unix").await?;
        }
        Ok(())
    }

    async fn listening_line(&mut self, name: &str) -> anyhow::Result<Value> {
        let wanted = |line: &Value| field(line, "message") == "listening" && field(line, "listener") == name;
        let log = self.log.clone();
        tokio::select! {
            line = log.wait(wanted, START_LIMIT) => line.with_context(|| format!("no `listening` line for {name}")),
            status = self.child.wait() => {
                self.readers_done().await;
                Err(anyhow!("it exited with {}", exit_code(status?)))
            }
        }
    }

    async fn listener(&mut self, name: &str) -> anyhow::Result<SocketAddr> {
        let line = self.listening_line(name).await?;
        let address = field(&line, "address").as_str().context("a `listening` line has an address")?;
        Ok(address.parse()?)
    }

    /// After the exit: the last lines are still in the pipes.
    async fn readers_done(&mut self) {
        for reader in self.readers.drain(..) {
            // A pipe held open by somebody else must not hang the test.
            let _ = timeout(Duration::from_secs(5), reader).await;
        }
    }

    pub fn tls_addr(&self) -> SocketAddr {
        self.tls.expect("a started sidecar listens for TLS")
    }

    pub fn edge_addr(&self) -> SocketAddr {
        self.edge.expect("ask for it with Builder::edge")
    }

    pub fn unix_path(&self) -> &Path {
        self.unix_path.as_deref().expect("ask for it with Builder::unix")
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// What the log says about the certificate.
    pub fn certificate_sha256(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    pub fn cert_path(&self) -> PathBuf {
        self.state_dir.join("tls.crt")
    }

    pub fn cert_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.cert_path()).expect("the daemon wrote its certificate")
    }

    pub fn control_token(&self) -> &str {
        &self.builder.control_token
    }

    pub fn support_token(&self) -> &str {
        &self.builder.support_token
    }

    /// As the control plane, over TLS.
    pub fn client(&self) -> Client {
        Client::tls(self.tls_addr(), &self.cert_der(), Some(self.control_token()))
    }

    /// As support staff, over TLS.
    pub fn support_client(&self) -> Client {
        self.client().with_token(Some(self.support_token()))
    }

    pub fn edge_client(&self) -> Client {
        Client::tcp(self.edge_addr(), Some(self.control_token()))
    }

    pub fn unix_client(&self) -> Client {
        Client::unix(self.unix_path(), None)
    }

    pub fn log_text(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Parsed log lines so far.
    pub fn log(&self) -> Vec<Value> {
        self.log.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub async fn wait_for_log(&self, wanted: impl Fn(&Value) -> bool, deadline: Duration) -> anyhow::Result<Value> {
        self.log.wait(wanted, deadline).await
    }

    pub async fn signal(&self, name: &str) -> anyhow::Result<()> {
        send_signal(self.pid, name).await
    }

    /// SIGTERM, then waits for the exit.
    pub async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM").await?;
        let waited = timeout(STOP_LIMIT, self.child.wait()).await;
        self.readers_done().await;
        Ok(waited.with_context(|| format!("still running {STOP_LIMIT:?} after SIGTERM\n{}", self.log_text()))??)
    }

    /// SIGKILL; what is left can be started again with `builder_again`.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts the same daemon again: state directory, tokens and environment stay.
    pub fn builder_again(&self) -> Builder {
        self.builder.clone()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The exit status, once it is there.
    pub async fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        Ok(timeout(deadline, self.child.wait()).await.context("still running")??)
    }
}

/// Through the shell's own `kill`, which every POSIX system has; the values are arguments, never program text.
pub async fn send_signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let script = r#"kill -s "$1" "$2""#;
    let status = Command::new("/bin/sh").args(["-c", script, "sh", name, &pid.to_string()]).status().await?;
    if status.success() { Ok(()) } else { bail!("could not send SIG{name} to {pid}") }
}

/// As a shell would say it: a signal is 128 and its number.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// A field of a log line, wherever the formatter put it.
pub fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    if line["fields"][name].is_null() { &line[name] } else { &line["fields"][name] }
}
