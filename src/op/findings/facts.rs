//! What a diagnosis is made from. Everything that comes from the gateway or its files was bounded and typed before.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::host::Room;
use crate::clock::UnixMs;
use crate::gateway::diagnosis::ChannelDown;
use crate::gateway::records::tidy;
use crate::state::{Code, Snapshot};

/// Origins and proxies looked at.
const MOST_NAMES: usize = 256;

/// All of it at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The wall clock.
    pub now: UnixMs,
    /// The newest snapshot.
    pub snapshot: Arc<Snapshot>,
    /// What the gateway's configuration says; absent where it cannot be had.
    pub config: Option<ConfigFacts>,
    /// Why it cannot be read.
    pub config_fault: Option<String>,
    /// What the gateway's log said lately.
    pub log: LogFacts,
    /// Channels that have been down for a minute.
    pub channels: Vec<ChannelDown>,
    /// How the gateway says that it authenticates.
    pub auth_mode: Option<String>,
    /// How long there has been no answer; absent before the first.
    pub silent_for: Option<Duration>,
    /// Whether its process is stopped by a signal, where it is known.
    pub process_stopped: Option<bool>,
    /// Why it counts as slow.
    pub slow: Option<Vec<(&'static str, String)>>,
    /// The gateway's port, and whose process listens there.
    pub port: u16,
    /// The user of that process.
    pub listener_uid: Option<u32>,
    /// The version before, and now.
    pub version_changed: Option<(String, String)>,
    /// Why it looks as if the platform had replaced the entrypoint.
    pub launched_around: Option<Vec<(&'static str, String)>>,
    /// The disks that state lies on.
    pub disks: Vec<Room>,
    /// The memory.
    pub memory: Option<Room>,
    /// The registry's clock minus ours, in milliseconds.
    pub registry_skew_ms: Option<i64>,
    /// Stored secrets that end, by name.
    pub secrets: Vec<(String, Validity)>,
    /// The certificate of the `tls` listener.
    pub certificate: Option<Validity>,
}

impl Facts {
    /// Whether a finding is open already.
    pub fn is_open(&self, code: Code) -> bool {
        self.snapshot.findings.iter().any(|finding| finding.code == code)
    }
}

/// What the gateway's configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFacts {
    /// `gateway.auth.mode`.
    pub auth_mode: Option<String>,
    /// `gateway.controlUi.allowedOrigins`.
    pub origins: Vec<String>,
    /// Whether `gateway.trustedProxies` names anybody.
    pub trusts_proxies: bool,
    /// Members that are ours and were changed, as dotted paths.
    pub drift: Vec<String>,
}

impl ConfigFacts {
    /// Takes from the configuration what a diagnosis needs.
    pub fn read(config: &Map<String, Value>, drift: &[String]) -> Self {
        let gateway = |path: &str| Value::pointer(config.get("gateway")?, path);
        let texts = |value: Option<&Value>| -> Vec<String> {
            let items = value.and_then(Value::as_array).into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).take(MOST_NAMES).collect()
        };
        Self {
            auth_mode: gateway("/auth/mode").and_then(Value::as_str).map(tidy),
            origins: texts(gateway("/controlUi/allowedOrigins")),
            trusts_proxies: !texts(gateway("/trustedProxies")).is_empty(),
            drift: drift.iter().map(|path| tidy(path)).collect(),
        }
    }
}

/// What the gateway's log said lately; the tenant's programs can write the same lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFacts {
    /// Origins that were refused, the newest last.
    pub origins: Vec<String>,
    /// Who sent forwarding headers that are not trusted.
    pub forwarding: Option<String>,
    /// Why a change of the configuration was passed over.
    pub config_refused: Option<String>,
}

/// From when until when something works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub from: UnixMs,
    /// The last one.
    pub until: UnixMs,
}

impl Validity {
    /// In milliseconds.
    pub fn length_ms(&self) -> u64 {
        self.until.0.saturating_sub(self.from.0)
    }
}

/// Where the machine runs, as far as its environment and first process tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// `fly` or `railway`.
    pub name: Option<&'static str>,
    /// The name of process 1.
    pub first_process: Option<String>,
}
