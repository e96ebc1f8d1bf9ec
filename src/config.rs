//! Configuration: one TOML file, every key also as an environment variable, all errors reported at once.
//!
//! A key `gateway.address` is the variable `OPENCLAW_SIDECAR_GATEWAY_ADDRESS`; the environment wins over the file.
//! The one table of keys is in [`keys`]: parsing, `config init`, the example file and the documentation come from it.

pub mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::files;
use crate::secret::Secret;
use keys::{Kind, SIDECAR};

/// Where the file is looked for when no `--config` is given. It may be absent: then the environment alone counts.
pub const DEFAULT_FILE: &str = "/etc/openclaw-sidecar/sidecar.toml";

/// The prefix of every variable of ours.
pub const ENV_PREFIX: &str = "OPENCLAW_SIDECAR_";

/// Ports above its base that the gateway claims for itself (observed on 2026.9.6: base, base+2, up to base+110).
const GATEWAY_PORT_SPAN: u16 = 110;

const MAX_FILE: u64 = 256 * 1024;

const STATE_DIR: &str = "/var/lib/openclaw-sidecar";

/// Docker waits 10 s before it kills, Fly Machines 5 s.
const STOP_BUDGET: Duration = Duration::from_secs(8);
const STOP_BUDGET_FLY: Duration = Duration::from_secs(4);

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory for identity, certificate, audit; mode 0700.
    pub state_dir: PathBuf,
    /// How to reach the gateway.
    pub gateway: Gateway,
    /// Where the control API listens.
    pub listen: Listen,
    /// The certificate of the `tls` listener.
    pub tls: Tls,
    /// Who may call.
    pub auth: Auth,
    /// How the gateway is launched; of no account in attach mode.
    pub launch: Launch,
    /// What seals secrets at rest.
    pub machine: Machine,
    /// Whom the machine's state is told to.
    pub registry: Registry,
    /// Whether every layer of hardening is a condition of running, not only reported.
    pub hardening_required: bool,
    /// Most connections open at once, over all listeners.
    pub max_connections: usize,
    /// How to log.
    pub log: Log,
}

/// How the gateway is launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The directory that survives the machine; holds a directory for the gateway and one for the sidecar.
    pub volume: PathBuf,
    /// The user the gateway runs as: a name or `uid:gid`.
    pub gateway_user: String,
    /// The user the daemon runs as: a name or `uid:gid`.
    pub sidecar_user: String,
    /// Names of variables the gateway gets besides the usual ones.
    pub env_pass: Vec<String>,
    /// Everything has ended so long after a signal to stop.
    pub stop_budget: Duration,
    /// The desired state of the first boot, as a file.
    pub desired_file: Option<PathBuf>,
    /// The same inline.
    pub desired: Option<String>,
    /// Whether a tenant whose files lie directly in the volume is moved into the layout.
    pub migrate: bool,
}

/// Whom the machine's state is told to.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// `https://...`; `None` turns check-ins off.
    pub url: Option<String>,
    /// The tenant's name there.
    pub tenant: Option<String>,
    /// The credential, instead of the one derived from the machine's secret.
    pub credential: Option<Secret>,
    /// A file that holds it.
    pub credential_file: Option<PathBuf>,
    /// What a registry gave at the tenant's creation, to be taken in again by one that lost its database.
    pub ticket: Option<Secret>,
    /// The authorities to trust, PEM, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the one certificate to trust.
    pub pin_sha256: Option<[u8; 32]>,
    /// Whether it may be at an address that is not public.
    pub allow_private: bool,
    /// Whether nothing is sent when nothing happens.
    pub quiet: bool,
}

/// What seals secrets at rest.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The machine's secret, given directly.
    pub secret: Option<Secret>,
    /// A file that holds it.
    pub secret_file: Option<PathBuf>,
}

impl Machine {
    /// The machine's secret, if the platform gives one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn find(&self) -> Result<Option<Secret>, String> {
        match (&self.secret, &self.secret_file) {
            (Some(secret), _) => Ok(Some(secret.clone())),
            (None, Some(path)) => {
                let text = files::read_text(path, MAX_FILE).map_err(|e| format!("machine.secret_file: {e}"))?;
                Ok(Some(Secret::new(text.trim().to_owned())))
            }
            (None, None) => Ok(None),
        }
    }
}

/// How to reach the gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Loopback address of the gateway's WebSocket.
    pub address: SocketAddr,
    /// The gateway's `openclaw.json`; its `gateway.auth` is read when no token is given here.
    pub config_path: Option<PathBuf>,
    /// The gateway's shared token, given directly.
    pub token: Option<Secret>,
    /// A file that holds the gateway's shared token.
    pub token_file: Option<PathBuf>,
}

/// Where the control API listens.
#[derive(Clone, Debug)]
pub struct Listen {
    /// HTTPS; `None` turns it off.
    pub tls: Option<SocketAddr>,
    /// Plain HTTP behind a platform edge that ends TLS; off by default.
    pub edge: Option<SocketAddr>,
    /// Local UNIX socket for the CLI; `None` turns it off.
    pub unix: Option<PathBuf>,
}

/// The certificate of the `tls` listener.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM chain; `None` means a self-signed certificate kept in the state directory.
    pub cert_file: Option<PathBuf>,
    /// PEM private key belonging to `cert_file`.
    pub key_file: Option<PathBuf>,
    /// Names callers use in the URL, besides localhost and IP addresses.
    pub server_names: Vec<String>,
}

/// Who may call.
#[derive(Clone, Debug)]
pub struct Auth {
    /// JSON file with credential entries; reloaded when it changes.
    pub credentials_file: Option<PathBuf>,
    /// The same JSON inline, for platforms without files.
    pub credentials: Option<String>,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Least severe level that is written.
    pub level: tracing::Level,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: STATE_DIR.into(),
            gateway: Gateway {
                address: SocketAddr::from(([127, 0, 0, 1], 18789)),
                config_path: None,
                token: None,
                token_file: None,
            },
            listen: Listen {
                tls: Some(SocketAddr::from(([0u16; 8], 9443))),
                edge: None,
                unix: Some("/run/openclaw-sidecar/control.sock".into()),
            },
            tls: Tls { cert_file: None, key_file: None, server_names: Vec::new() },
            auth: Auth { credentials_file: None, credentials: None },
            launch: Launch {
                volume: "/data".into(),
                gateway_user: "node".to_owned(),
                sidecar_user: "openclaw-sidecar".to_owned(),
                env_pass: Vec::new(),
                stop_budget: STOP_BUDGET,
                desired_file: None,
                desired: None,
                migrate: true,
            },
            machine: Machine::default(),
            registry: Registry::default(),
            hardening_required: false,
            max_connections: 128,
            log: Log { level: tracing::Level::INFO, json: false },
        }
    }
}

/// One thing wrong with the configuration: which key, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, as in the file (`listen.tls`), or the file's path for an error that has no key.
    pub key: String,
    /// What is wrong and the remedy.
    pub what: String,
}

impl Fault {
    /// One that was put into words with its key first.
    pub fn said(text: &str) -> Self {
        let (key, what) = text.split_once(": ").unwrap_or(("configuration", text));
        fault(key, what)
    }
}

/// Everything wrong with the configuration, at once.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            let line_end = if n == 0 { "" } else { "\n" };
            write!(f, "{line_end}{}: {}", fault.key, fault.what)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// The environment, injectable so that tests never touch the process's own.
pub type Env = BTreeMap<String, String>;

/// The environment of this process; variables that are not UTF-8 are left out.
pub fn process_env() -> Env {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

impl Config {
    /// Reads `file` (or [`DEFAULT_FILE`] if that exists), lays the environment over it, and checks the whole.
    ///
    /// # Errors
    /// All faults at once, each with its key.
    pub fn load(file: Option<&Path>, env: &Env) -> Result<Self, Faults> {
        Self::load_for(file, env, |_| Vec::new())
    }

    /// As [`Config::load`], with the faults that `more` finds in what could be read: all of them at once.
    ///
    /// # Errors
    /// All faults at once, each with its key.
    pub fn load_for(file: Option<&Path>, env: &Env, more: impl FnOnce(&Self) -> Vec<Fault>) -> Result<Self, Faults> {
        let (config, mut faults) = Self::read(&text_of(file)?, env);
        faults.extend(more(&config));
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    /// As [`Config::load`], from text.
    ///
    /// # Errors
    /// All faults at once, each with its key.
    pub fn parse(text: &str, env: &Env) -> Result<Self, Faults> {
        let (config, faults) = Self::read(text, env);
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    /// What could be read, and everything wrong with it.
    fn read(text: &str, env: &Env) -> (Self, Vec<Fault>) {
        let mut config = Self::default();
        if env.contains_key("FLY_MACHINE_ID") {
            config.launch.stop_budget = STOP_BUDGET_FLY;
        }
        let mut faults = SIDECAR.read(text, env, &mut config);
        faults.extend(config.contradictions());
        (config, faults)
    }

    /// The same for a sidecar that launches the gateway: its state lies on the volume, unless set elsewhere.
    #[must_use]
    pub fn for_launch(mut self) -> Self {
        if self.state_dir == Path::new(STATE_DIR) {
            self.state_dir = self.launch.volume.join("sidecar");
        }
        self
    }

    /// Whether anything is set that only a launched gateway needs.
    pub fn launch_is_set_up(&self) -> bool {
        let usual = Launch { stop_budget: self.launch.stop_budget, ..Self::default().launch };
        self.launch != usual
    }

    /// Where the state of this machine lies: of a launched gateway's sidecar, if there is one.
    pub fn state_dir_in_use(&self) -> PathBuf {
        let launched = self.clone().for_launch().state_dir;
        if files::exists(&launched) { launched } else { self.state_dir.clone() }
    }

    /// As [`Config::load`] for the launcher: what only the daemon needs may be wrong, it then says so itself while the
    /// gateway runs.
    ///
    /// # Errors
    /// All faults that concern the launcher.
    pub fn load_to_launch(file: Option<&Path>, env: &Env) -> Result<(Self, Faults), Faults> {
        let (config, faults) = Self::read(&text_of(file)?, env);
        let concerns = |fault: &Fault| {
            let key = fault.key.as_str();
            key == "TOML" || ["launch", "state_dir", "gateway", "machine"].iter().any(|own| key.starts_with(own))
        };
        let (own, others): (Vec<_>, Vec<_>) = faults.into_iter().partition(concerns);
        if own.is_empty() { Ok((config.for_launch(), Faults(others))) } else { Err(Faults(own)) }
    }

    fn contradictions(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !self.gateway.address.ip().is_loopback() {
            faults.push(fault("gateway.address", "must be a loopback address: the gateway's token is sent in clear"));
        }
        if self.gateway.token.is_some() && self.gateway.token_file.is_some() {
            faults.push(fault("gateway.token_file", "is set together with gateway.token; keep one of the two"));
        }
        for (name, listener) in [("listen.tls", self.listen.tls), ("listen.edge", self.listen.edge)] {
            if let Some(address) = listener.filter(|a| self.gateway_claims(a.port())) {
                faults.push(fault(
                    name,
                    &format!(
                        "port {} lies in the range {}..={} that the gateway claims; choose a port outside it",
                        address.port(),
                        self.gateway.address.port(),
                        self.gateway.address.port().saturating_add(GATEWAY_PORT_SPAN)
                    ),
                ));
            }
        }
        if self.listen.tls.is_none() && self.listen.edge.is_none() && self.listen.unix.is_none() {
            faults.push(fault("listen", "every listener is off; set listen.tls, listen.edge or listen.unix"));
        }
        faults.extend(keys::same_port(self.listen.tls, self.listen.edge));
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            faults.push(fault("tls.cert_file", "tls.cert_file and tls.key_file go together; set both or neither"));
        }
        if self.machine.secret.is_some() && self.machine.secret_file.is_some() {
            faults.push(fault("machine.secret_file", "is set together with machine.secret; keep one of the two"));
        }
        if self.registry.credential.is_some() && self.registry.credential_file.is_some() {
            faults.push(fault(
                "registry.credential_file",
                "is set together with registry.credential; keep one of the two",
            ));
        }
        if self.registry.url.is_some() && self.registry.tenant.is_none() {
            faults.push(fault("registry.tenant", "is needed with registry.url; set it to the tenant's name there"));
        }
        if self.registry.ca_file.is_some() && self.registry.pin_sha256.is_some() {
            faults.push(fault("registry.pin_sha256", "is set together with registry.ca_file; keep one of the two"));
        }
        if self.launch.desired.is_some() && self.launch.desired_file.is_some() {
            faults.push(fault("launch.desired_file", "is set together with launch.desired; keep one of the two"));
        }
        if self.auth.credentials.is_some() && self.auth.credentials_file.is_some() {
            faults.push(fault("auth.credentials", "is set together with auth.credentials_file; keep one of the two"));
        }
        faults
    }

    fn gateway_claims(&self, port: u16) -> bool {
        let base = self.gateway.address.port();
        port != 0 && (base..=base.saturating_add(GATEWAY_PORT_SPAN)).contains(&port)
    }
}

fn text_of(file: Option<&Path>) -> Result<String, Faults> {
    match file {
        Some(path) => read_file(path),
        None if Path::new(DEFAULT_FILE).exists() => read_file(Path::new(DEFAULT_FILE)),
        None => Ok(String::new()),
    }
}

fn read_file(path: &Path) -> Result<String, Faults> {
    files::read_text(path, MAX_FILE).map_err(|e| Faults(vec![fault(&path.display().to_string(), &e.to_string())]))
}

fn flatten(prefix: &str, table: toml::Table, values: &mut BTreeMap<String, toml::Value>) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, values),
            other => {
                values.insert(path, other);
            }
        }
    }
}

/// The value as the text that the environment would have given, so that both go through one parser.
fn as_text(value: &toml::Value, kind: Kind) -> Result<String, String> {
    match (kind, value) {
        (Kind::Text, toml::Value::String(text)) => Ok(text.clone()),
        (Kind::Number, toml::Value::Integer(number)) => Ok(number.to_string()),
        (Kind::Bool, toml::Value::Boolean(set)) => Ok(set.to_string()),
        (Kind::List, toml::Value::Array(items)) => {
            let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            texts.map(|t| t.join(",")).ok_or_else(|| "must be a list of texts".to_owned())
        }
        (kind, other) => Err(format!("must be {}, not {}", kind.noun(), other.type_str())),
    }
}

/// One fault.
pub fn fault(key: &str, what: &str) -> Fault {
    Fault { key: key.to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests;
