//! How a daemon under test is configured and started.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use super::super::fake::codec::{base64url, random_bytes, sha256_hex};
use super::log::Log;
use super::{START_LIMIT, Sidecar, exit_code};

/// The daemon's executable: `SIDECAR_BIN`, what cargo built for this test, or the one beside this executable.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("SIDECAR_BIN") {
        return path.into();
    }
    if let Some(path) = option_env!("CARGO_BIN_EXE_openclaw-sidecar") {
        return path.into();
    }
    let here = std::env::current_exe().expect("an executable has a path");
    let profile = here.ancestors().nth(2).expect("target/<profile>/<examples or deps>/<executable>");
    profile.join("openclaw-sidecar")
}

/// A control token: fixed prefix and 256 random bits.
pub fn new_token() -> String {
    format!("ocs_{}", base64url(&random_bytes::<32>()))
}

/// An entry of the credential list.
pub fn credential(id: &str, token: &str, tier: &str) -> Value {
    json!({"id": id, "sha256": sha256_hex(token.as_bytes()), "tier": tier})
}

/// How to start a daemon. Cloned and started again with the same `state_dir`, it is the same one after a restart.
#[derive(Debug, Clone)]
pub struct Builder {
    env: Vec<(String, String)>,
    state_dir: Option<PathBuf>,
    credentials: Option<Value>,
    pub(super) control_token: String,
    pub(super) support_token: String,
    listen_tls: String,
    pub(super) edge: bool,
    pub(super) unix: bool,
    sandbox: Option<Arc<TempDir>>,
}

impl Builder {
    pub fn new() -> Self {
        Self {
            env: Vec::new(),
            state_dir: None,
            credentials: None,
            control_token: new_token(),
            support_token: new_token(),
            listen_tls: "127.0.0.1:0".into(),
            edge: false,
            unix: false,
            sandbox: None,
        }
    }

    /// The gateway's loopback port and shared token.
    #[must_use]
    pub fn gateway(self, port: u16, token: &str) -> Self {
        self.gateway_address(port).env("OPENCLAW_SIDECAR_GATEWAY_TOKEN", token)
    }

    /// The token is read from the gateway's own configuration file.
    #[must_use]
    pub fn gateway_config(self, port: u16, path: &Path) -> Self {
        let path = path.to_str().expect("a UTF-8 path");
        self.gateway_address(port).env("OPENCLAW_SIDECAR_GATEWAY_CONFIG_PATH", path)
    }

    #[must_use]
    pub fn gateway_address(self, port: u16) -> Self {
        self.env("OPENCLAW_SIDECAR_GATEWAY_ADDRESS", &format!("127.0.0.1:{port}"))
    }

    /// A directory that outlives the daemon; without it a temporary one is made.
    #[must_use]
    pub fn state_dir(mut self, path: &Path) -> Self {
        self.state_dir = Some(path.to_owned());
        self
    }

    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != key);
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Instead of the two entries `control` (dangerous) and `support` (safe); `null` configures none.
    #[must_use]
    pub fn credentials(mut self, list: Value) -> Self {
        self.credentials = Some(list);
        self
    }

    #[must_use]
    pub fn credentials_file(self, path: &Path) -> Self {
        let path = path.to_str().expect("a UTF-8 path");
        self.credentials(Value::Null).env("OPENCLAW_SIDECAR_AUTH_CREDENTIALS_FILE", path)
    }

    /// Where to listen for TLS; by default any free port.
    #[must_use]
    pub fn listen_tls(mut self, address: &str) -> Self {
        self.listen_tls = address.to_owned();
        self
    }

    /// Also listens for plain HTTP.
    #[must_use]
    pub fn edge(mut self) -> Self {
        self.edge = true;
        self
    }

    /// Also listens on a UNIX socket.
    #[must_use]
    pub fn unix(mut self) -> Self {
        self.unix = true;
        self
    }

    pub fn control_token(&self) -> &str {
        &self.control_token
    }

    pub fn support_token(&self) -> &str {
        &self.support_token
    }

    /// The default credential list, for tests that write it to a file.
    pub fn default_credentials(&self) -> Value {
        json!([
            credential("control", &self.control_token, "dangerous"),
            credential("support", &self.support_token, "safe"),
        ])
    }

    pub async fn start(self) -> anyhow::Result<Sidecar> {
        let mut sidecar = self.spawn()?;
        if let Err(error) = sidecar.wait_until_listening().await {
            bail!("the sidecar did not start: {error:#}\n--- its log ---\n{}", sidecar.log_text());
        }
        Ok(sidecar)
    }

    /// For daemons that must not start: exit code and log.
    pub async fn start_expect_exit(self) -> anyhow::Result<(i32, String)> {
        let mut sidecar = self.spawn()?;
        let waited = timeout(START_LIMIT, sidecar.child.wait()).await;
        let Ok(status) = waited else {
            bail!("the sidecar runs, but should have exited\n--- its log ---\n{}", sidecar.log_text());
        };
        sidecar.readers_done().await;
        Ok((exit_code(status?), sidecar.log_text()))
    }

    fn spawn(mut self) -> anyhow::Result<Sidecar> {
        let sandbox = match &self.sandbox {
            Some(sandbox) => sandbox.clone(),
            None => Arc::new(tempfile::Builder::new().prefix("sidecar-").tempdir()?),
        };
        let state_dir = self.state_dir.clone().unwrap_or_else(|| sandbox.path().join("state"));
        std::fs::create_dir_all(&state_dir)?;
        std::fs::set_permissions(&state_dir, std::fs::Permissions::from_mode(0o700))?;
        // A socket path is at most 107 bytes, so it gets a directory of its own near the root of the sandbox.
        let unix_path = self.unix.then(|| sandbox.path().join("control.sock"));
        self.sandbox = Some(sandbox);
        let mut command = Command::new(binary());
        command.arg("run").env_clear().envs(self.variables(&state_dir, unix_path.as_deref()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("starting {}", binary().display()))?;
        let log = Log::default();
        let readers = vec![
            tokio::spawn(log.clone().follow(child.stderr.take().expect("stderr is piped"))),
            tokio::spawn(log.clone().follow(child.stdout.take().expect("stdout is piped"))),
        ];
        let pid = child.id().context("it has already gone")?;
        let (tls, edge, fingerprint) = (None, None, None);
        Ok(Sidecar { child, pid, log, readers, state_dir, unix_path, tls, edge, fingerprint, builder: self })
    }

    fn variables(&self, state_dir: &Path, unix: Option<&Path>) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a UTF-8 path").to_owned();
        let credentials = self.credentials.clone().unwrap_or_else(|| self.default_credentials());
        let mut variables = vec![
            ("STATE_DIR", text(state_dir)),
            ("LISTEN_TLS", self.listen_tls.clone()),
            ("LOG_FORMAT", "json".to_owned()),
        ];
        variables.extend((!credentials.is_null()).then(|| ("AUTH_CREDENTIALS", credentials.to_string())));
        variables.extend(self.edge.then(|| ("LISTEN_EDGE", "127.0.0.1:0".to_owned())));
        // Never the default path: daemons of other tests would fight over it.
        variables.push(("LISTEN_UNIX", unix.map_or_else(String::new, text)));
        let named = variables.into_iter().map(|(key, value)| (format!("OPENCLAW_SIDECAR_{key}"), value));
        let given = self.env.iter().cloned();
        // The last one counts, so a test can replace any of them.
        named.chain(given).collect()
    }
}
