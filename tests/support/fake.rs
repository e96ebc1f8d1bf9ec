//! A fake OpenClaw gateway that speaks the real protocol of four versions, for faults and old frames.
//!
//! It listens on 127.0.0.1, checks a `connect` like the real one, keeps devices, nodes and channel requests, and
//! answers with captured records whose variable fields are replaced. `Fake` is a handle; clones share the gateway.

#![allow(unused_imports, reason = "each binary that includes this uses a part of the names")]

mod churn;
pub mod codec;
mod connection;
mod core;
mod devices;
mod drip;
mod faults;
mod handshake;
mod hello;
mod http;
mod nodes;
mod records;
mod refusal;
mod rpc;
mod schema;
mod server;
mod version;
mod world;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

pub use churn::ChurnCounts;
pub use core::{Core, Received};
pub use faults::{Flood, Lie, Malformed, Mute, RestartIn, Switches, Times};
pub use records::{DeviceSpec, PairedScopes};
pub use refusal::Refusal;
pub use version::Version;
pub use world::{Approval, Approver};

use handshake::Gate;
use records::{Paired, Pending};
use world::World;

#[derive(Debug, Clone)]
pub struct Options {
    pub token: String,
    pub pending_ttl: Duration,
    /// Period of the `tick` event, announced in the hello.
    pub tick: Duration,
    /// `None` accepts every origin.
    pub allowed_origins: Option<Vec<String>>,
    /// How long a restart refuses connections.
    pub restart_pause: Duration,
    /// How long after a (re)start connects are answered with `UNAVAILABLE`.
    pub starting_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: format!("fake-{}", codec::hex(&codec::random_bytes::<16>())),
            pending_ttl: Duration::from_secs(300),
            tick: Duration::from_secs(30),
            allowed_origins: None,
            restart_pause: Duration::from_millis(300),
            starting_for: Duration::ZERO,
        }
    }
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    options: Options,
    version: Version,
    port: u16,
    switches: watch::Sender<Switches>,
    listening: watch::Sender<bool>,
    bound: watch::Sender<bool>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
pub struct Fake {
    shared: Arc<Shared>,
}

impl Fake {
    pub async fn start(version: Version) -> Self {
        Self::start_with(version, Options::default()).await
    }

    pub async fn start_with(version: Version, options: Options) -> Self {
        let world = World::new(version, options.pending_ttl);
        Self::launch(world, options).await
    }

    /// Starts with the pending requests and paired devices of the captured session of `version`, under their captured
    /// ids; only the times are moved to now.
    pub async fn replay(version: Version) -> Self {
        let options = Options::default();
        let mut world = World::new(version, options.pending_ttl);
        let captured = &version.templates().first_list;
        let records = |key: &str| captured[key].as_array().cloned().unwrap_or_default();
        for record in records("pending").iter().rev() {
            let (order, spec) = (world.next_order(), DeviceSpec::from_record(record));
            let request_id = record["requestId"].as_str().unwrap_or_default().to_owned();
            let is_repair = record["isRepair"] == true;
            let (ts, renewed) = (codec::now_ms(), Instant::now());
            world.pending.push(Pending { request_id, spec, is_repair, ts, renewed, order });
        }
        for record in records("paired").iter().rev() {
            let order = world.next_order();
            let paired = Paired::from_record(version, record, order);
            world.paired.insert(paired.spec.device_id.clone(), paired);
        }
        Self::launch(world, options).await
    }

    async fn launch(world: World, options: Options) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let gate = Gate { token: options.token.clone(), allowed_origins: options.allowed_origins.clone() };
        let version = world.version;
        let mut core = Core::new(world, gate, options.tick);
        core.reboot(options.starting_for);
        let shared = Shared {
            core: Mutex::new(core),
            options,
            version,
            port,
            switches: watch::Sender::new(Switches::default()),
            listening: watch::Sender::new(true),
            bound: watch::Sender::new(true),
            changed: watch::Sender::new(0),
        };
        let fake = Self { shared: Arc::new(shared) };
        let listening = fake.shared.listening.subscribe();
        tokio::spawn(server::accept_loop(fake.clone(), listener, listening));
        fake
    }

    /// Looks at or changes anything; whoever waits looks again afterwards.
    pub fn with<R>(&self, work: impl FnOnce(&mut Core) -> R) -> R {
        let result = work(&mut self.shared.core.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.send_modify(|count| *count += 1);
        result
    }

    fn switch(&self, change: impl FnOnce(&mut Switches)) {
        self.shared.switches.send_modify(change);
    }

    fn switches(&self) -> watch::Receiver<Switches> {
        self.shared.switches.subscribe()
    }

    fn options(&self) -> &Options {
        &self.shared.options
    }

    pub fn version(&self) -> Version {
        self.shared.version
    }

    pub fn port(&self) -> u16 {
        self.shared.port
    }

    pub fn token(&self) -> String {
        self.with(|core| core.gate.token.clone())
    }

    pub fn boot_id(&self) -> String {
        self.with(|core| core.boot_id.clone())
    }

    fn is_starting(&self) -> bool {
        self.with(|core| core.starting_until.is_some_and(|until| Instant::now() < until))
    }

    /// The part of openclaw.json that a sidecar reads, written in place of the file.
    pub fn write_config(&self, path: &Path) -> std::io::Result<()> {
        let auth = json!({"mode": "token", "token": self.token()});
        let config = json!({"gateway": {"mode": "local", "port": self.port(), "bind": "loopback", "auth": auth}});
        let next = path.with_extension("next");
        std::fs::write(&next, format!("{config:#}\n"))?;
        std::fs::rename(next, path)
    }

    /// A new shared token: whoever came with the old one is closed.
    pub fn set_token(&self, token: &str) {
        self.with(|core| {
            core.gate.token = token.to_owned();
            core.close_sessions(4001, "gateway auth changed", |session| session.by_shared_secret);
        });
    }

    /// Open connections that have a session.
    pub fn connections(&self) -> usize {
        self.with(|core| core.sessions().count())
    }

    /// TCP connections and completed connects since the start.
    pub fn totals(&self) -> (u64, u64) {
        self.with(|core| (core.accepted, core.admitted))
    }

    pub fn calls(&self, method: &str) -> u64 {
        self.with(|core| core.calls.get(method).copied().unwrap_or_default())
    }

    /// Received frames in order.
    pub fn log(&self) -> Vec<Received> {
        self.with(|core| core.log.iter().cloned().collect())
    }

    /// The parameters of the last `connect`.
    pub fn last_connect(&self) -> Option<Value> {
        let is_connect = |one: &&Received| one.method.as_deref() == Some("connect");
        self.with(|core| core.log.iter().rev().find(is_connect).map(|one| one.frame["params"].clone()))
    }

    pub async fn wait_for_connection(&self, deadline: Duration) -> anyhow::Result<()> {
        self.wait_until("a session", deadline, |core| core.sessions().next().is_some()).await
    }

    /// Waits until `method` was called more often than `than` times.
    pub async fn wait_for_call(&self, method: &str, than: u64, deadline: Duration) -> anyhow::Result<()> {
        let called = |core: &Core| core.calls.get(method).copied().unwrap_or_default() > than;
        self.wait_until(method, deadline, called).await
    }

    pub async fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Core) -> bool,
    ) -> anyhow::Result<()> {
        let mut changed = self.shared.changed.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if wanted(&self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)) {
                    return;
                }
                // Some conditions come true by time alone.
                let _ = timeout(Duration::from_millis(50), changed.changed()).await;
            }
        };
        timeout(deadline, wait).await.map_err(|_| anyhow::anyhow!("{what}: not seen by the fake within {deadline:?}"))
    }
}
