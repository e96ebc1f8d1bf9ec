//! How a machine is configured and booted.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::super::device::{ORIGIN, random_token};
use super::super::gateway::{gateways_dir, installed};
use super::super::sidecar::{credential, new_token};
use super::place::{Place, scratch};
use super::{GATEWAY_UID, Machine, POLL, PidLog, SIDECAR_UID, proc, script};

pub use super::super::sidecar::binary;

/// What a hosting platform would want of a tenant behind its proxy.
pub fn hosted_document() -> Value {
    json!({
        "config": {"update": {"checkOnStart": false}},
        "gateway": {"bind": "loopback", "allowed_origins": [ORIGIN], "trusted_proxies": ["127.0.0.1"]},
    })
}

/// How callers of the API are told to the sidecar.
#[derive(Debug, Clone, Copy)]
enum Credentials {
    None,
    Inline,
    File,
}

/// Cloned and started again it is the same machine after a restart.
#[derive(Debug, Clone)]
pub struct Builder {
    place: Arc<Place>,
    command: Vec<String>,
    env: Vec<(String, String)>,
    document: Option<Value>,
    pub(super) control_token: String,
    pub(super) support_token: String,
    pub(super) approver_token: String,
    approver: bool,
    credentials: Credentials,
    namespace: bool,
    stalled: bool,
}

impl Builder {
    pub(super) fn real(version: &str) -> anyhow::Result<Self> {
        let program = installed(version)?;
        let mut builder = Self::new(&[])?;
        let port = builder.place.port().to_string();
        builder.command = [node()?, text(program)?, "gateway".into(), "--port".into(), port].into();
        builder.document = Some(hosted_document());
        let scratch = text(scratch(version)?)?;
        // No channels and no downloads in tests; the compiled code is kept.
        let env = [("OPENCLAW_SKIP_CHANNELS", "1"), ("npm_config_offline", "true"), ("NO_COLOR", "1")];
        let builder = env.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
        let pass = "TMPDIR,npm_config_offline,NO_COLOR";
        Ok(builder.env("TMPDIR", &scratch).env("OPENCLAW_SIDECAR_LAUNCH_ENV_PASS", pass))
    }

    pub(super) fn script(source: &str) -> anyhow::Result<Self> {
        let mut builder = Self::new(&[])?;
        let port = builder.place.port().to_string();
        let path = script::install(&builder.place, "gateway", source)?;
        builder.command = [node()?, text(path)?, "gateway".into(), "--port".into(), port].into();
        Ok(builder)
    }

    pub(super) fn command(words: &[&str]) -> anyhow::Result<Self> {
        Self::new(words)
    }

    fn new(words: &[&str]) -> anyhow::Result<Self> {
        let place = Arc::new(Place::new()?);
        let home = text(place.home())?;
        let builder = Self {
            command: words.iter().map(|&word| word.to_owned()).collect(),
            env: Vec::new(),
            document: None,
            control_token: new_token(),
            support_token: new_token(),
            approver_token: new_token(),
            approver: false,
            credentials: Credentials::Inline,
            namespace: false,
            stalled: false,
            place,
        };
        let user = |uid: u32| format!("{uid}:{uid}");
        let volume = text(builder.place.volume())?;
        let gateway = format!("127.0.0.1:{}", builder.place.port());
        let tls = builder.place.tls_address().to_string();
        let socket = text(builder.place.socket())?;
        Ok(builder
            .env("PATH", &std::env::var("PATH").unwrap_or_default())
            .env("HOME", &home)
            .setting("LAUNCH_VOLUME", &volume)
            .setting("LAUNCH_GATEWAY_USER", &user(GATEWAY_UID))
            .setting("LAUNCH_SIDECAR_USER", &user(SIDECAR_UID))
            .setting("GATEWAY_ADDRESS", &gateway)
            .setting("LISTEN_TLS", &tls)
            .setting("LISTEN_UNIX", &socket)
            .setting("MACHINE_SECRET", &random_token())
            .setting("LOG_FORMAT", "json"))
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The Node that gateways run with.
    pub fn node(&self) -> anyhow::Result<String> {
        node()
    }

    /// The container's variables, without the sidecar's own.
    pub fn variables(&self) -> Vec<(String, String)> {
        let foreign = |(name, _): &&(String, String)| !name.starts_with("OPENCLAW_SIDECAR_");
        self.env.iter().filter(foreign).cloned().collect()
    }

    /// A variable of the container.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A configuration key of the sidecar, as the rest of its variable's name.
    #[must_use]
    pub fn setting(self, key: &str, value: &str) -> Self {
        self.env(&format!("OPENCLAW_SIDECAR_{key}"), value)
    }

    /// The initial desired document.
    #[must_use]
    pub fn document(mut self, document: Value) -> Self {
        self.document = Some(document);
        self
    }

    /// Further arguments for the gateway.
    #[must_use]
    pub fn args(mut self, words: &[&str]) -> Self {
        self.command.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Adds the credential of a second person.
    #[must_use]
    pub fn approver(mut self) -> Self {
        self.approver = true;
        self
    }

    /// Credentials in a file of root's, as platforms put them there, instead of the environment.
    #[must_use]
    pub fn credentials_file(mut self) -> Self {
        self.credentials = Credentials::File;
        self
    }

    /// Nobody may call the API.
    #[must_use]
    pub fn without_credentials(mut self) -> Self {
        self.credentials = Credentials::None;
        self
    }

    /// The launcher is PID 1.
    #[must_use]
    pub fn pid_namespace(mut self) -> Self {
        self.namespace = true;
        self
    }

    /// Nobody reads what the machine prints, as when a log driver hangs.
    #[must_use]
    pub fn stalled_output(mut self) -> Self {
        self.stalled = true;
        self
    }

    /// Boots, and waits for the API.
    pub async fn start(self) -> anyhow::Result<Machine> {
        let mut machine = self.spawn().await?;
        machine.wait_listening().await?;
        Ok(machine)
    }

    /// Boots without waiting for anything but the process.
    pub async fn spawn(self) -> anyhow::Result<Machine> {
        let logs = self.place.next_logs();
        let mut command = self.program(self.namespace)?;
        command.arg("run").arg("--").args(&self.command);
        if self.stalled {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        } else {
            command.stderr(File::create(&logs.0)?).stdout(File::create(&logs.1)?);
        }
        let child = command.spawn().with_context(|| format!("starting {}", binary().display()))?;
        let outer = child.id().context("it has already gone")?;
        let launcher = if self.namespace { only_child(outer).await? } else { outer };
        Ok(Machine { child, launcher, pids: PidLog::start(launcher), logs, builder: self })
    }

    /// One of the binary's other subcommands, configured like the launcher.
    pub async fn cli(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.program(false)?;
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = timeout(Duration::from_secs(60), command.output()).await;
        Ok(output.with_context(|| format!("{args:?} hangs"))??)
    }

    fn program(&self, namespace: bool) -> anyhow::Result<Command> {
        let mut command = if namespace {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]).arg(binary());
            command
        } else {
            Command::new(binary())
        };
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        self.give_credentials(&mut command)?;
        if let Some(document) = &self.document {
            command.env("OPENCLAW_SIDECAR_LAUNCH_DESIRED", document.to_string());
        }
        command.current_dir(self.place.root()).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        Ok(command)
    }

    fn give_credentials(&self, command: &mut Command) -> anyhow::Result<()> {
        let mut list = vec![
            credential("control", &self.control_token, "dangerous"),
            credential("support", &self.support_token, "safe"),
        ];
        if self.approver {
            let mut second = credential("second", &self.approver_token, "dangerous");
            second["approver"] = json!(true);
            list.push(second);
        }
        let list = Value::Array(list).to_string();
        match self.credentials {
            Credentials::None => {}
            Credentials::Inline => drop(command.env("OPENCLAW_SIDECAR_AUTH_CREDENTIALS", list)),
            Credentials::File => {
                let path = self.place.credentials();
                self.place.put(&path, &list, 0, 0o600)?;
                command.env("OPENCLAW_SIDECAR_AUTH_CREDENTIALS_FILE", path);
            }
        }
        Ok(())
    }
}

/// The Node that the real gateways run with.
pub(super) fn node() -> anyhow::Result<String> {
    installed(super::super::gateway::VERSIONS[0])?;
    text(gateways_dir().join("node/node").canonicalize()?)
}

fn text(path: PathBuf) -> anyhow::Result<String> {
    path.into_os_string().into_string().map_err(|path| anyhow::anyhow!("{path:?} is not UTF-8"))
}

/// What `unshare` forked, once it has become our program.
async fn only_child(parent: u32) -> anyhow::Result<u32> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let ours = |pid: &u32| proc::command_line(*pid).get(1).is_some_and(|word| word == "run");
        if let Some(pid) = proc::children(parent).into_iter().find(ours) {
            return Ok(pid);
        }
        ensure!(Instant::now() < end, "unshare started nothing; are namespaces allowed here?");
        sleep(POLL).await;
    }
}
