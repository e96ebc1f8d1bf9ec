//! The binary as somebody on the machine uses it.

#[path = "cli/audit.rs"]
mod audit;
#[path = "cli/pairing.rs"]
mod pairing;
#[path = "cli/setup.rs"]
mod setup;
#[path = "cli/status.rs"]
mod status;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::sidecar::{Sidecar, binary, exit_code};

const OK: i32 = 0;
const NO: i32 = 1;
const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const TRY_LATER: i32 = 75;
const CONFIG: i32 = 78;

/// What one call printed and returned.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8 output");
        Self { code: exit_code(output.status), out: text(output.stdout), err: text(output.stderr) }
    }
}

async fn finish(mut command: Command, input: &str) -> anyhow::Result<Ran> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // One that does not read its input may have closed it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    Ok(timeout(Duration::from_secs(30), child.wait_with_output()).await??.into())
}

/// Runs it with nothing configured.
async fn bare(args: &[&str]) -> anyhow::Result<Ran> {
    with_env(args, &[]).await
}

async fn with_env(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Ran> {
    let mut command = Command::new(binary());
    command.args(args).env_clear().envs(env.iter().copied());
    finish(command, "").await
}

/// Runs it against the socket of a daemon.
async fn local(sidecar: &Sidecar, args: &[&str]) -> anyhow::Result<Ran> {
    at(sidecar.unix_path(), args).await
}

async fn at(socket: &Path, args: &[&str]) -> anyhow::Result<Ran> {
    with_env(args, &[("OPENCLAW_SIDECAR_LISTEN_UNIX", socket.to_str().expect("a UTF-8 path"))]).await
}
