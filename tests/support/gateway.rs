//! Real OpenClaw gateways: installed once by `make gateways`, each started on its own port with its own state.
//!
//! Nothing here branches on a version except the folder it runs from; what differs between versions is found out
//! by asking (a gateway without `/readyz` is ready when it greets a WebSocket).

mod cli;
mod ports;
mod ready;

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

#[allow(unused_imports, reason = "not every binary measures the CLI")]
pub use cli::CliRun;
use ports::PortRange;

/// What `make gateways` installs and the tests run for real. The first is the one to use where one is enough.
pub const VERSIONS: [&str; 3] = ["2026.9.6", "2026.6.11", "2026.4.9"];
/// Installed only on request (`tests/gateways/install 2026.2.9`); the tests know it by its captured frames.
pub const OLDEST: &str = "2026.2.9";

/// A throttled or busy machine needs minutes for what takes ten seconds elsewhere.
const READY_DEADLINE: Duration = Duration::from_secs(180);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// A single probe may hang on a gateway that is busy booting.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// What a test may want different from the plain seed.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// `gateway.controlUi.allowedOrigins`.
    pub allowed_origins: Vec<String>,
    /// `gateway.trustedProxies`: whose forwarding headers count.
    pub trusted_proxies: Vec<String>,
    /// The shared token; a random one when absent.
    pub token: Option<String>,
    /// Merged over the seeded configuration (objects key by key, everything else replaced).
    pub config: Value,
    /// Added to the gateway's environment.
    pub env: Vec<(String, String)>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            allowed_origins: vec![super::device::ORIGIN.to_owned()],
            trusted_proxies: vec!["127.0.0.1".to_owned()],
            token: None,
            config: json!({}),
            env: Vec::new(),
        }
    }
}

/// A running gateway; dropping it kills its process group and removes its state.
#[derive(Debug)]
pub struct Gateway {
    version: String,
    token: String,
    env: Vec<(String, String)>,
    child: Option<Child>,
    ports: PortRange,
    dir: tempfile::TempDir,
}

impl Gateway {
    /// Starts `version` and returns once it serves.
    pub async fn start(version: &str, options: GatewayOptions) -> anyhow::Result<Self> {
        let mut gateway = Self::prepare(version, options)?;
        gateway.launch().await?;
        Ok(gateway)
    }

    /// Everything but the process: a port, a state directory and a configuration, for tests that start it later.
    pub fn prepare(version: &str, options: GatewayOptions) -> anyhow::Result<Self> {
        installed(version)?;
        let dir = tempfile::Builder::new().prefix("openclaw-gateway-").tempdir()?;
        let token = options.token.clone().unwrap_or_else(super::device::random_token);
        let gateway = Self {
            version: version.to_owned(),
            token,
            env: options.env.clone(),
            child: None,
            ports: PortRange::take()?,
            dir,
        };
        for private in [gateway.state_dir(), gateway.home()] {
            fs::DirBuilder::new().mode(0o700).create(private)?;
        }
        gateway.write_config(&gateway.seed(&options))?;
        Ok(gateway)
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn port(&self) -> u16 {
        self.ports.base()
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port()).into()
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn config_path(&self) -> PathBuf {
        self.state_dir().join("openclaw.json")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Everything the gateway wrote to stdout and stderr.
    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("output.log")
    }

    /// The gateway's process id, which is also its process group.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Puts another configuration in place, as a private file written whole.
    pub fn write_config(&self, config: &Value) -> anyhow::Result<()> {
        let staged = self.state_dir().join("openclaw.json.staged");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        serde_json::to_writer_pretty(&mut file, config)?;
        fs::rename(&staged, self.config_path())?;
        Ok(())
    }

    pub fn read_config(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.config_path())?)?)
    }

    /// Starts the process of a prepared or stopped gateway and waits until it serves.
    pub async fn launch(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.wait_ready(READY_DEADLINE).await
    }

    /// Starts the process without waiting, for tests that watch it boot.
    pub fn spawn(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "this gateway runs already");
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let child = self
            .openclaw()?
            .args(["gateway", "--port", &self.port().to_string()])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the gateway")?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until the gateway answers as ready; says what it printed last when it does not.
    pub async fn wait_ready(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        let address = self.address();
        loop {
            if let Some(status) = self.exited()? {
                bail!("gateway {} ended with {status} before it was ready:\n{}", self.version, self.last_output());
            }
            if timeout(PROBE_DEADLINE, ready::is_ready(address)).await.unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("gateway {} is not ready after {deadline:?}:\n{}", self.version, self.last_output());
            }
            sleep(POLL).await;
        }
    }

    /// Sends one signal (a name such as `STOP` or `TERM`) to the gateway's process group.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.pid().context("the gateway does not run")?;
        signal_group(pid, name)
    }

    /// Stops the process politely, by force when it takes too long; the state stays.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if self.child.is_none() {
            return Ok(());
        }
        self.signal("TERM")?;
        let end = Instant::now() + STOP_DEADLINE;
        while self.exited()?.is_none() && Instant::now() < end {
            sleep(POLL).await;
        }
        self.kill();
        Ok(())
    }

    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// Runs this version's own `openclaw <args>` against this gateway and measures it.
    pub async fn cli(&self, args: &[&str]) -> anyhow::Result<CliRun> {
        let mut command = self.openclaw()?;
        command.args(args);
        let scratch = self.dir.path().to_owned();
        tokio::task::spawn_blocking(move || cli::run(command, &scratch)).await?
    }

    /// The last lines of its output, for error messages.
    pub fn last_output(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("the gateway does not run")?;
        Ok(child.try_wait()?)
    }

    /// Ends the whole process group at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The group may be gone already; reaping is what matters then.
            let _ = signal_group(child.id(), "KILL");
            let _ = child.wait();
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// `openclaw` in its own process group with nothing of the caller's environment but PATH.
    fn openclaw(&self) -> anyhow::Result<Command> {
        let installed = installed(&self.version)?;
        // Shared by all runs of a version: the compiled-code cache lives there, and a cold one costs seconds.
        let scratch = gateways_dir().join(&self.version).join("tmp");
        fs::create_dir_all(&scratch)?;
        let mut command = Command::new(gateways_dir().join("node/node"));
        command
            .arg(installed)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home())
            .env("TMPDIR", scratch)
            .env("OPENCLAW_HOME", self.home())
            .env("OPENCLAW_STATE_DIR", self.state_dir())
            .env("OPENCLAW_CONFIG_PATH", self.config_path())
            .env("OPENCLAW_NO_RESPAWN", "1")
            .env("OPENCLAW_DISABLE_BONJOUR", "1")
            .env("OPENCLAW_SKIP_CHANNELS", "1")
            // 2026.4.9 fetches a plugin's helper with npx in the background.
            .env("npm_config_offline", "true")
            .env("NO_COLOR", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home())
            .stdin(Stdio::null())
            .process_group(0);
        Ok(command)
    }

    fn seed(&self, options: &GatewayOptions) -> Value {
        let mut config = json!({
            "gateway": {
                "mode": "local",
                "port": self.port(),
                "bind": "loopback",
                "trustedProxies": options.trusted_proxies,
                "auth": { "mode": "token", "token": self.token },
                "controlUi": { "allowedOrigins": options.allowed_origins },
            },
            "agents": { "defaults": { "workspace": self.dir.path().join("workspace") } },
            // The default file is shared by every gateway of the machine.
            "logging": { "level": "info", "file": self.dir.path().join("gateway.jsonl") },
            "update": { "checkOnStart": false },
        });
        merge(&mut config, &options.config);
        config
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where `tests/gateways/install` puts what it installs.
pub fn gateways_dir() -> PathBuf {
    std::env::var_os("OPENCLAW_TEST_GATEWAYS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/gateways"), PathBuf::from)
}

/// The program of an installed version, or how to get it.
pub fn installed(version: &str) -> anyhow::Result<PathBuf> {
    let dir = gateways_dir();
    for name in [version, "node"] {
        ensure!(
            dir.join(name).join(".complete").is_file(),
            "{name} is not installed: run `tests/gateways/install node {version}` (or `make gateways`)"
        );
    }
    Ok(dir.join(version).join("node_modules/openclaw/openclaw.mjs"))
}

/// Signals a process group, by the shell's own `kill`; the values are arguments, never program text.
pub(super) fn signal_group(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", r#"kill -s "$1" -- "-$2""#, "sh", name, &pid.to_string()])
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "cannot send {name} to process group {pid}");
    Ok(())
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
