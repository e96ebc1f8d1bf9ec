//! Phoning home: the machine's whole state to the registry, on change and from time to time.
//!
//! Nothing in the machine depends on it. A thread of its own talks to the registry; the rest of the program leaves news
//! in its inbox and goes on. The registry's answer schedules the next check-in and can do nothing else.

pub mod credential;
pub mod destination;
pub mod memory;
pub mod report;
pub mod schedule;
pub mod send;
pub mod spool;
mod thread;
pub mod tls;
pub mod wire;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::audit::chain::Record;
use crate::clock::{RegistryClock, UnixMs};
use crate::config::{Config, Env};
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::state::{Code, State};
use destination::{Destination, Names, SystemNames};
use memory::Memory;
use report::{Surroundings, Watched};
use send::Sender;
use spool::Spool;
use wire::{AuditHead, Bye, CheckIn, Intent};

/// The finding while the registry does not answer.
pub const UNREACHABLE: Code = Code::RegistryUnreachable;
/// The finding while the registry does not take our credential.
pub const REFUSED: Code = Code::RegistryRefusesUs;

/// A goodbye takes no longer, whatever the registry does.
pub const BYE: Duration = Duration::from_millis(1500);

/// What would keep check-ins from ever working.
///
/// # Errors
/// The key and, in plain words, what is wrong with it.
pub fn faults(config: &Config) -> Vec<(&'static str, String)> {
    let registry = &config.registry;
    let Some(url) = &registry.url else { return Vec::new() };
    let url = Destination::parse(url, registry.allow_private).err().map(|why| ("registry.url", why));
    let machine = config.machine.secret.is_some() || config.machine.secret_file.is_some();
    let given = registry.credential.is_some() || registry.credential_file.is_some();
    let remedy = "there is no credential for it; set machine.secret, from which one is derived, or registry.credential";
    let credential = (!machine && !given).then(|| ("registry.url", remedy.to_owned()));
    // Files may come and go while the machine runs; a credential that is written down cannot become right.
    let inline = registry.credential.is_some().then(|| credential::Credential::find(config).err()).flatten();
    url.into_iter().chain(credential).chain(inline.map(|why| ("registry.credential", why))).collect()
}

/// How check-ins are going, for the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// Whether there is a registry to check in with.
    pub configured: bool,
    /// When the registry last took a check-in, by this machine's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_ok_at: Option<UnixMs>,
    /// Why the last one was not taken; absent when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Seconds until the next one, if nothing happens; absent while nothing is planned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_s: Option<u64>,
    /// Audit records that the registry does not have yet.
    #[serde(skip)]
    pub spooled: usize,
}

/// Handle to the check-ins; cheap to clone. Where no registry is configured, everything it does is nothing.
#[derive(Clone, Debug, Default)]
pub struct CheckIns(Option<Arc<Shared>>);

/// What the thread and the rest of the program share.
#[derive(Debug)]
struct Shared {
    config: Config,
    state: State,
    gateway: Gateway,
    metrics: Arc<Metrics>,
    certificate: Arc<Mutex<Option<String>>>,
    platform: wire::Platform,
    launched: bool,
    volume: PathBuf,
    started: Instant,
    names: Arc<dyn Names>,
    registry_clock: RegistryClock,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    status: Mutex<(Status, Option<Duration>)>,
    sender: Mutex<Option<Sender>>,
}

/// What waits to be told.
#[derive(Debug)]
struct Inbox {
    watched: Watched,
    reasons: BTreeSet<&'static str>,
    news: bool,
    resumed: bool,
    /// Goodbye was said: nothing follows.
    silent: bool,
    spool: Spool,
    /// What the registry had of the audit when this process began.
    audit_sent: u64,
    epoch: u64,
    seq: u64,
}

/// What check-ins are made of, besides the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Our environment, for the platform.
    pub env: &'a Env,
    /// The published snapshot.
    pub state: &'a State,
    /// The gateway, for its numbers.
    pub gateway: &'a Gateway,
    /// Counters.
    pub metrics: &'a Arc<Metrics>,
    /// SHA-256 of the certificate that is served.
    pub certificate: &'a Arc<Mutex<Option<String>>>,
    /// Learns what time it is at the registry.
    pub registry_clock: &'a RegistryClock,
}

impl CheckIns {
    /// Starts the thread, if a registry is configured. The first message says `boot`.
    pub fn start(config: &Config, sources: Sources<'_>, launched: bool) -> Self {
        if config.registry.url.is_none() {
            return Self::default();
        }
        let memory = Memory::raise(&config.state_dir);
        let certificate = sources.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let inbox = Inbox {
            watched: Watched::of(&sources.state.now(), certificate.as_deref()),
            reasons: BTreeSet::from(["boot"]),
            news: true,
            resumed: false,
            silent: false,
            spool: Spool::default(),
            audit_sent: memory.audit_sent(),
            epoch: memory.epoch(),
            seq: 0,
        };
        let shared = Arc::new(Shared {
            config: config.clone(),
            state: sources.state.clone(),
            gateway: sources.gateway.clone(),
            metrics: sources.metrics.clone(),
            certificate: sources.certificate.clone(),
            platform: report::platform(sources.env),
            launched,
            volume: config.state_dir.clone(),
            started: Instant::now(),
            names: Arc::new(SystemNames::default()),
            registry_clock: sources.registry_clock.clone(),
            inbox: Mutex::new(inbox),
            wake: Condvar::new(),
            status: Mutex::new((Status { configured: true, ..Status::default() }, None)),
            sender: Mutex::new(None),
        });
        let of_thread = shared.clone();
        let spawned =
            std::thread::Builder::new().name("checkin".to_owned()).spawn(move || thread::run(&of_thread, memory));
        if let Err(e) = spawned {
            tracing::error!(error = %e, "no thread for check-ins: the registry hears nothing of this machine");
            return Self::default();
        }
        Self(Some(shared))
    }

    /// Follows state and audit until `stop`.
    pub async fn follow(self, audit: Audit, stop: CancellationToken) {
        let Some(shared) = self.0 else { return };
        let (mut records, mut state) = (audit.follow(), shared.state.watch());
        match audit.page(None, spool::MOST).await {
            Ok(page) => shared.begin(&AuditHead { seq: page.head.n, hash: page.head.hash }, &page.records),
            Err(e) => tracing::error!(error = %e, "the audit cannot be read; the registry gets what comes from now on"),
        }
        loop {
            shared.look();
            tokio::select! {
                () = stop.cancelled() => return,
                changed = state.changed() => if changed.is_err() { return },
                record = records.recv() => match record {
                    Ok(record) => shared.record(&record),
                    Err(RecvError::Lagged(lost)) => shared.locked().spool.lost(lost),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    /// Something changed that the snapshot does not show, such as the certificate.
    pub fn look(&self) {
        self.0.iter().for_each(|shared| shared.look());
    }

    /// The machine was suspended and goes on.
    pub fn resumed(&self) {
        let Some(shared) = &self.0 else { return };
        let mut inbox = shared.locked();
        inbox.resumed = true;
        inbox.reasons.insert("resume");
        shared.wake.notify_all();
    }

    /// Says goodbye, once, and returns when that was heard or `within` is over. Nothing is sent after it.
    pub async fn bye(&self, intent: Intent, reason: &str, within: Duration) {
        let Some(shared) = self.0.clone() else { return };
        let limit = within.min(BYE);
        let message = {
            let mut inbox = shared.locked();
            if std::mem::replace(&mut inbox.silent, true) {
                return;
            }
            let bye = Bye { intent, reason: report::cut(reason, 128) };
            inbox.reasons.insert("bye");
            report::encode(&mut shared.message(&mut inbox, Some(bye), None))
        };
        shared.wake.notify_all();
        let (told, heard) = oneshot::channel();
        // A thread of its own: the other one may be waiting for the registry.
        let spawned = std::thread::Builder::new().name("bye".to_owned()).spawn(move || {
            let sent = shared.sender().and_then(|sender| sender.send(&message, Some(limit)).map_err(|f| f.why));
            shared.metrics.checked_in(if sent.is_ok() { "ok" } else { "bye_failed" });
            let _ = told.send(sent.map(|_| ()));
        });
        let heard = async { spawned.map(|_| heard).ok()?.await.ok() };
        match timeout(limit, heard).await {
            Ok(Some(Ok(()))) => tracing::info!("the registry heard the goodbye"),
            Ok(Some(Err(why))) => tracing::warn!(why, "the registry did not hear the goodbye"),
            _ => tracing::warn!("the registry did not hear the goodbye in time"),
        }
    }

    /// How it is going.
    pub fn status(&self) -> Status {
        let Some(shared) = &self.0 else { return Status::default() };
        let spooled = shared.locked().spool.len();
        let (mut status, due) = shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        status.next_s = due.map(|due| due.saturating_sub(shared.now()).as_secs());
        Status { spooled, ..status }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn certificate(&self) -> Option<String> {
        self.certificate.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Wakes the thread if what is true now is worth a message.
    fn look(&self) {
        let watched = Watched::of(&self.state.now(), self.certificate().as_deref());
        let mut inbox = self.locked();
        let reasons: Vec<_> = watched.since(&inbox.watched).collect();
        inbox.watched = watched;
        if !reasons.is_empty() {
            inbox.tell(reasons, &self.wake);
        }
    }

    fn begin(&self, head: &AuditHead, newest: &[Record]) {
        let mut inbox = self.locked();
        let sent = inbox.audit_sent;
        inbox.spool.begin(sent, head, newest);
        if !inbox.spool.is_empty() {
            inbox.tell(["audit"], &self.wake);
        }
    }

    fn record(&self, record: &Record) {
        let mut inbox = self.locked();
        inbox.spool.push(record);
        inbox.tell(["audit"], &self.wake);
    }

    /// The next message, with everything that waits.
    fn message(&self, inbox: &mut Inbox, bye: Option<Bye>, next_s: Option<u64>) -> CheckIn {
        inbox.seq += 1;
        let around = Surroundings {
            launched: self.launched,
            uptime_s: self.now().as_secs(),
            certificate_sha256: self.certificate(),
            rpc_ms: self.gateway.stats().last_rpc_us.load(Ordering::Relaxed) / 1000,
            platform: self.platform.clone(),
            host: report::host(&self.volume),
        };
        let mut reason: Vec<_> = inbox.reasons.iter().map(|reason| (*reason).to_owned()).collect();
        if reason.is_empty() {
            reason.push("interval".to_owned());
        }
        CheckIn {
            tenant: self.config.registry.tenant.clone().unwrap_or_default(),
            epoch: inbox.epoch,
            boot_id: self.state.boot().to_owned(),
            seq: inbox.seq,
            reason,
            bye,
            next_s,
            state: report::report(&self.state.now(), &around, UnixMs::now()),
            audit: inbox.spool.head().cloned(),
            events: inbox.spool.oldest(),
            dropped: inbox.spool.dropped(),
        }
    }

    /// What sends; kept until something goes wrong with it.
    fn sender(&self) -> Result<Sender, String> {
        let mut kept = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*kept {
            return Ok(sender.clone());
        }
        let sender = Sender::new(&self.config, self.names.clone())?.with_clock(self.registry_clock.clone());
        *kept = Some(sender.clone());
        Ok(sender)
    }

    /// Files are read anew for the next message.
    fn forget_sender(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Inbox {
    fn tell(&mut self, reasons: impl IntoIterator<Item = &'static str>, wake: &Condvar) {
        self.reasons.extend(reasons);
        self.news = true;
        wake.notify_all();
    }
}

#[cfg(test)]
mod tests;
