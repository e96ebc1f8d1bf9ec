//! Gathers the facts and publishes what follows from them: at every change of the state, and every half minute. All that
//! is asked of others has a deadline, and what they say is remembered within bounds.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::facts::{ConfigFacts, Facts, LogFacts, Validity};
use super::host::{self, Turns};
use super::{DIAGNOSED, WAITED, diagnose};
use crate::clock::{RegistryClock, UnixMs};
use crate::config;
use crate::desired::applied::Applied;
use crate::desired::drift::drift;
use crate::desired::openclaw_json;
use crate::gateway::diagnosis::{ChannelDown, Said};
use crate::gateway::{Gateway, Link, listener, secret};
use crate::launcher::handle::Handle;
use crate::launcher::machine::State as Launched;
use crate::launcher::process;
use crate::launcher::verbs::Verb;
use crate::op::secrets::Secrets;
use crate::pulse::{self, PULSE};
use crate::state::{Code, Phase, Snapshot, State};

/// Between two looks at the machine and the gateway.
const LOOK_EVERY: Duration = PULSE.saturating_mul(4);
/// The same while something is wrong that a person is likely to be correcting.
const LOOK_AGAIN: Duration = PULSE;
/// Codes of that kind.
const CORRECTED: [Code; 6] = [
    Code::GatewayAuthOff,
    Code::GatewayConfigInvalid,
    Code::ConfigChangeRefused,
    Code::ConfigDrift,
    Code::OriginNotAllowed,
    Code::ForwardingHeadersUntrusted,
];
/// Between two looks at what measures itself while something is wrong.
const SOON: Duration = Duration::from_secs(5);
/// Changes that come together are judged together.
const SETTLE: Duration = Duration::from_millis(200);
/// The gateway's answers are waited for so long: more than a throttled one needs for one call.
const ANSWER: Duration = Duration::from_secs(20);
/// What the log said counts for so long unless it is said again.
const LOG_COUNTS: Duration = Duration::from_secs(15 * 60);
const SLOW_CALL: Duration = Duration::from_secs(2);
const SLOW_PERCENT: u64 = 50;
/// Once slow, it counts as slow for so long: a state that flickers tells nobody anything.
const SLOW_COUNTS: Duration = Duration::from_secs(120);
const MOST_ORIGINS: usize = 8;

/// What the watch looks at.
pub struct Sources {
    /// The published snapshot.
    pub state: State,
    /// The gateway.
    pub gateway: Gateway,
    /// How it is reached, and where its configuration lies.
    pub config: config::Gateway,
    /// In launch mode, the launcher.
    pub launcher: Option<Handle>,
    /// In launch mode, the stored secrets.
    pub secrets: Option<Arc<Secrets>>,
    /// The life of the certificate in use.
    pub certificate: Box<dyn Fn() -> Option<Validity> + Send>,
    /// Directories whose disks must not fill.
    pub disks: Vec<PathBuf>,
    /// Why it looks as if the platform had replaced the entrypoint.
    pub launched_around: Option<Vec<(&'static str, String)>>,
    /// The registry's clock.
    pub registry_clock: RegistryClock,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sources")
    }
}

/// The task.
#[derive(Debug)]
pub struct Watch {
    sources: Sources,
    looked: Option<(Instant, Option<u64>)>,
    config: Option<ConfigFacts>,
    config_fault: Option<String>,
    /// Tells whether the file is another one than before.
    config_text: String,
    cursor: Option<u64>,
    origins: Vec<(String, UnixMs)>,
    forwarding: Option<String>,
    /// With the text that was refused: another one is not.
    config_refused: Option<(String, String)>,
    channels: BTreeMap<String, (Instant, ChannelDown)>,
    turns: Option<(Instant, Turns)>,
    slow: Option<(Instant, Vec<(&'static str, String)>)>,
    version: Option<String>,
    version_changed: Option<(String, String)>,
}

impl Watch {
    /// A watch that has seen nothing yet.
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            looked: None,
            config: None,
            config_fault: None,
            config_text: String::new(),
            cursor: None,
            origins: Vec::new(),
            forwarding: None,
            config_refused: None,
            channels: BTreeMap::new(),
            turns: None,
            slow: None,
            version: None,
            version_changed: None,
        }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut news = self.sources.state.watch();
        loop {
            let snapshot = news.borrow_and_update().clone();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look_if_due(&snapshot) => {}
            }
            let wait = self.publish();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = news.changed() => match changed {
                    Ok(()) => tokio::time::sleep(SETTLE).await,
                    Err(_) => return,
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Looks when it is time, and once for every new session of the gateway.
    async fn look_if_due(&mut self, snapshot: &Snapshot) {
        let session = match self.sources.gateway.link() {
            Link::Up(session) if snapshot.phase == Phase::Ready => Some(session.number),
            _ => None,
        };
        let every = look_every(snapshot);
        let due = |(at, of): (Instant, Option<u64>)| at.elapsed() >= every || (session.is_some() && of != session);
        if !self.looked.is_none_or(due) {
            return;
        }
        // Counted from the pulse, so that the next look comes with one.
        self.looked = Some((pulse::last(PULSE), session));
        self.look_for_slowness();
        self.read_config(snapshot).await;
        if session.is_some() {
            self.ask_gateway().await;
        }
    }

    /// Whether it is slow, from what the kernel counts and from how long the last call took.
    fn look_for_slowness(&mut self) {
        let mut why = Vec::new();
        if let Some(turns) = host::turns() {
            let waited = self.turns.and_then(|(_, before)| turns.waited_percent(before));
            // In tens, so that the text does not change all the time.
            let much = waited.filter(|percent| *percent >= SLOW_PERCENT).map(|percent| percent / 10 * 10);
            why.extend(much.map(|percent| ("throttled_percent", percent.to_string())));
            self.turns = Some((Instant::now(), turns));
        }
        let call = Duration::from_micros(self.sources.gateway.stats().last_rpc_us.load(Ordering::Relaxed));
        why.extend((call >= SLOW_CALL).then(|| ("rpc_s", call.as_secs().to_string())));
        if !why.is_empty() {
            let known = self.slow.take().map(|(_, known)| known);
            self.slow = Some((Instant::now(), known.unwrap_or(why)));
        }
    }

    async fn read_config(&mut self, snapshot: &Snapshot) {
        let (text, applied) = match &self.sources.launcher {
            Some(launcher) => match launcher.ask(Verb::ReadConfig).await {
                Ok(read) => (read["config"].as_str().map(|text| Ok(text.to_owned())), read["applied"].clone()),
                Err(_) => return,
            },
            None => (secret::config_text(&self.sources.config), Value::Null),
        };
        let Some(text) = text else {
            (self.config, self.config_fault) = (None, None);
            return;
        };
        // What keeps it from being read at all, the search for the token says.
        let Ok(text) = text else { return };
        match openclaw_json::read(&text) {
            Ok(found) => {
                let settled = snapshot.supervisor.as_ref().is_some_and(|s| s.state == Launched::Ready);
                let applied: Option<Applied> = applied.as_str().and_then(|text| serde_json::from_str(text).ok());
                let drift = applied.filter(|_| settled).map(|applied| drift(&found, &applied)).unwrap_or_default();
                self.config = Some(ConfigFacts::read(&found, &drift));
                self.config_fault = None;
            }
            Err(why) => self.config_fault = Some(why),
        }
        self.config_text = text;
    }

    async fn ask_gateway(&mut self) {
        let deadline = Instant::now() + ANSWER;
        let gateway = &self.sources.gateway;
        let (channels, tail) = tokio::join!(gateway.channels_down(deadline), gateway.log_tail(self.cursor, deadline));
        if let Ok(down) = channels {
            let names: HashSet<&String> = down.iter().map(|down| &down.name).collect();
            self.channels.retain(|name, _| names.contains(name));
            for down in down {
                self.channels.entry(down.name.clone()).or_insert_with(|| (Instant::now(), down));
            }
        }
        if let Ok(tail) = tail {
            self.cursor = tail.cursor;
            for (at, said) in tail.said.into_iter().filter(|(at, _)| counts(*at)) {
                self.take(at, said);
            }
        }
    }

    fn take(&mut self, at: UnixMs, said: Said) {
        match said {
            Said::OriginRefused(origin) => {
                self.origins.retain(|(known, _)| *known != origin);
                self.origins.push((origin, at));
                let most = self.origins.len().saturating_sub(MOST_ORIGINS);
                self.origins.drain(..most);
            }
            // Said once for each start of the gateway, so it counts until the configuration names a proxy.
            Said::ForwardingIgnored(peer) => self.forwarding = Some(peer),
            Said::ConfigRefused(why) => self.config_refused = Some((why, self.config_text.clone())),
        }
    }

    /// Publishes what follows now, and returns when to do it again at the latest.
    fn publish(&mut self) -> Duration {
        let facts = self.facts();
        let found = diagnose(&facts);
        let redact = |text: &str| match &self.sources.secrets {
            Some(secrets) => secrets.redact(text),
            None => text.to_owned(),
        };
        // In launch mode the launcher tells what the gateway refuses.
        let attached = self.sources.launcher.is_none().then_some(Code::GatewayConfigInvalid);
        self.sources.state.publish(|draft| {
            for code in DIAGNOSED.into_iter().chain(attached) {
                if !found.iter().any(|(other, _)| *other == code) {
                    draft.snapshot.set_finding(code, None);
                }
            }
            for (code, found) in found {
                draft.snapshot.set_finding(code, Some(found.redacted(redact)));
            }
        });
        self.wait(&facts)
    }

    fn wait(&self, facts: &Facts) -> Duration {
        let every = look_every(&facts.snapshot);
        let look = self.looked.map_or(Duration::ZERO, |(at, _)| every.saturating_sub(at.elapsed()));
        let measured = [Code::DiskLow, Code::MemoryLow].into_iter().any(|code| facts.is_open(code));
        let unsettled = measured || facts.snapshot.phase != Phase::Ready;
        let waiting = facts.snapshot.pairing.pending.iter().filter_map(|p| {
            let due = p.requested_at.plus_ms(u64::try_from(WAITED.as_millis()).unwrap_or(0));
            (due > facts.now).then(|| Duration::from_millis(due.0 - facts.now.0))
        });
        let soon = unsettled.then_some(SOON);
        waiting.chain(soon).min().unwrap_or(look).min(look).max(SETTLE)
    }

    fn facts(&mut self) -> Facts {
        let snapshot = self.sources.state.now();
        let config_text = &self.config_text;
        self.config_refused.take_if(|(_, refused)| refused != config_text);
        self.origins.retain(|(_, at)| counts(*at));
        self.forwarding.take_if(|_| self.config.as_ref().is_some_and(|config| config.trusts_proxies));
        self.slow.take_if(|(at, _)| at.elapsed() >= SLOW_COUNTS);
        self.note_version(&snapshot);
        let supervisor = snapshot.supervisor.as_deref();
        let degraded = snapshot.phase == Phase::Degraded;
        let pid = supervisor.and_then(|status| status.pid).filter(|_| degraded);
        let retried = supervisor.is_some_and(|s| matches!(s.state, Launched::Backoff | Launched::CrashLoop));
        let address = self.sources.config.address;
        let down = self.channels.values().filter(|(since, _)| since.elapsed() >= WAITED);
        Facts {
            now: UnixMs::now(),
            config: self.config.clone(),
            config_fault: self.config_fault.clone(),
            log: LogFacts {
                origins: self.origins.iter().map(|(origin, _)| origin.clone()).collect(),
                forwarding: self.forwarding.clone(),
                config_refused: self.config_refused.as_ref().map(|(why, _)| why.clone()),
            },
            channels: down.map(|(_, down)| down.clone()).collect(),
            auth_mode: match self.sources.gateway.link() {
                Link::Up(session) => Some(session.auth_mode.clone()),
                Link::Down(_) => None,
            },
            silent_for: self.sources.gateway.stats().since_last_ok(),
            process_stopped: pid.and_then(|pid| process::look(Pid::from_raw(pid))).map(|(stopped, _)| stopped),
            slow: self.slow.as_ref().map(|(_, why)| why.clone()),
            port: address.port(),
            listener_uid: if retried { listener::owner(address) } else { None },
            version_changed: self.version_changed.clone(),
            launched_around: self.sources.launched_around.clone(),
            disks: self.sources.disks.iter().filter_map(|dir| host::disk(dir)).collect(),
            memory: host::memory(),
            registry_skew_ms: self.sources.registry_clock.skew_ms(),
            secrets: self.secrets(),
            certificate: (self.sources.certificate)(),
            snapshot,
        }
    }

    /// A new version is seen by the launcher before the start, and by the connection when the gateway replaced itself.
    fn note_version(&mut self, snapshot: &Snapshot) {
        let before = snapshot.supervisor.as_ref().and_then(|s| s.previous_version.clone().zip(s.version.clone()));
        if before.is_some() {
            self.version_changed = before;
        }
        let Some(now) = snapshot.gateway.as_ref().map(|gateway| gateway.version.clone()) else { return };
        match self.version.replace(now.clone()) {
            Some(was) if was != now => self.version_changed = Some((was, now)),
            _ => {}
        }
    }

    fn secrets(&self) -> Vec<(String, Validity)> {
        let listed = self.sources.secrets.iter().flat_map(|secrets| secrets.list());
        let life = |from, until| Validity { from, until };
        listed.filter_map(|info| Some((info.name, life(info.set_at, info.expires_at?)))).collect()
    }
}

fn look_every(snapshot: &Snapshot) -> Duration {
    let corrected = snapshot.findings.iter().any(|finding| CORRECTED.contains(&finding.code));
    if corrected { LOOK_AGAIN } else { LOOK_EVERY }
}

fn counts(at: UnixMs) -> bool {
    at.seconds_until(UnixMs::now()) < LOG_COUNTS.as_secs()
}
