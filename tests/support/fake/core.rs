//! Everything the fake knows behind one lock: the world, the open connections, what was received, the armed faults.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::churn::Churn;
use super::codec::{now_ms, uuid};
use super::faults::{Armed, Malformed, Mute};
use super::handshake::{Gate, Session};
use super::hello::HelloFacts;
use super::records::{covers, fill};
use super::version::Version;
use super::world::{Event, World};

/// Keeps a long run from growing without bound.
const MAX_LOG: usize = 50_000;

/// What a connection's writer is told.
#[derive(Debug)]
pub enum Out {
    Text(String),
    Binary(Vec<u8>),
    Close {
        code: u16,
        reason: String,
    },
    /// Drops the TCP connection without a word.
    Abort,
}

/// A frame somebody sent to the fake.
#[derive(Debug, Clone)]
pub struct Received {
    pub connection: u64,
    pub at_ms: u64,
    pub method: Option<String>,
    pub frame: Value,
}

#[derive(Debug)]
pub struct Connection {
    pub out: mpsc::UnboundedSender<Out>,
    pub queued: Arc<AtomicUsize>,
    pub session: Option<Session>,
    pub since_ms: u64,
    seq: u64,
}

#[derive(Debug)]
pub struct Core {
    pub world: World,
    pub gate: Gate,
    pub armed: Armed,
    pub churn: Option<Churn>,
    pub mute: Mute,
    pub tick: Duration,
    pub connections: BTreeMap<u64, Connection>,
    pub log: VecDeque<Received>,
    pub calls: HashMap<String, u64>,
    pub boot_id: String,
    /// Connections that completed a hello, ever.
    pub admitted: u64,
    /// TCP connections accepted, ever.
    pub accepted: u64,
    pub starting_until: Option<Instant>,
    presence_version: u64,
    health_version: u64,
    global_seq: u64,
    started: Instant,
    next_connection: u64,
}

impl Core {
    pub fn new(world: World, gate: Gate, tick: Duration) -> Self {
        Self {
            world,
            gate,
            armed: Armed::default(),
            churn: None,
            mute: Mute::Off,
            tick,
            connections: BTreeMap::new(),
            log: VecDeque::new(),
            calls: HashMap::new(),
            boot_id: uuid(),
            admitted: 0,
            accepted: 0,
            starting_until: None,
            presence_version: 1,
            health_version: 1,
            global_seq: 0,
            started: Instant::now(),
            next_connection: 0,
        }
    }

    pub fn open(&mut self, queued: Arc<AtomicUsize>) -> (u64, mpsc::UnboundedReceiver<Out>) {
        let (out, receiver) = mpsc::unbounded_channel();
        self.next_connection += 1;
        let connection = Connection { out, queued, session: None, since_ms: now_ms(), seq: 0 };
        self.connections.insert(self.next_connection, connection);
        (self.next_connection, receiver)
    }

    /// A connection ended: everybody else learns it from presence.
    pub fn closed(&mut self, id: u64) {
        let had_session = self.connections.remove(&id).is_some_and(|one| one.session.is_some());
        if had_session {
            self.announce_presence();
        }
    }

    pub fn is_connected(&self, device_id: &str) -> bool {
        self.world.virtual_sessions.get(device_id).is_some_and(|count| *count > 0)
            || self.sessions().any(|session| session.has_device && session.spec.device_id == device_id)
    }

    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.connections.values().filter_map(|one| one.session.as_ref())
    }

    pub fn record(&mut self, connection: u64, frame: Value) {
        let method = frame["method"].as_str().map(String::from);
        if let Some(method) = &method {
            *self.calls.entry(method.clone()).or_default() += 1;
        }
        if self.log.len() == MAX_LOG {
            self.log.pop_front();
        }
        self.log.push_back(Received { connection, at_ms: now_ms(), method, frame });
    }

    pub fn send(&self, id: u64, out: Out) {
        if let Some(connection) = self.connections.get(&id) {
            connection.queued.fetch_add(1, Ordering::Relaxed);
            // The writer may have gone first; then nobody is waiting for this.
            let _ = connection.out.send(out);
        }
    }

    /// Answers `request`, unless a fault eats or garbles the answer.
    pub fn reply(&mut self, id: u64, request: &Value, body: &Result<Value, Value>) {
        if self.mute != Mute::Off {
            return;
        }
        let mut frame = json!({"type": "res", "id": request["id"]});
        match body {
            Ok(payload) => {
                frame["ok"] = json!(true);
                frame["payload"] = payload.clone();
            }
            Err(error) => {
                frame["ok"] = json!(false);
                frame["error"] = error.clone();
            }
        }
        match self.armed.malformed_answer.take() {
            Some(Malformed::DuplicateAnswer) => {
                self.send(id, Out::Text(frame.to_string()));
                self.send(id, Out::Text(frame.to_string()));
            }
            Some(kind) => self.send(id, kind.instead_of(&frame)),
            None => self.send(id, Out::Text(frame.to_string())),
        }
    }

    pub fn broadcast(&mut self, events: Vec<Event>) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for event in events {
            if self.world.version.counts_events_globally() {
                self.global_seq += 1;
            }
            for id in &ids {
                self.deliver(*id, &event);
            }
        }
    }

    /// Sends `event` to one connection, if its scopes allow it, under the next sequence number.
    pub fn deliver(&mut self, id: u64, event: &Event) {
        let global = self.world.version.counts_events_globally().then_some(self.global_seq);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(session) = &connection.session else { return };
        let allowed = event.scope.is_none_or(|scope| covers(&session.scopes, scope));
        if !allowed || self.mute == Mute::Everything {
            return;
        }
        connection.seq += 1;
        let seq = global.unwrap_or(connection.seq);
        // A dropped event leaves a hole in the numbering, like one the gateway drops for a slow reader.
        if self.armed.dropped_events.take().is_some() {
            return;
        }
        let mut frame = json!({"type": "event", "event": event.name, "payload": event.payload, "seq": seq});
        if let Some(versions) = &event.state_version {
            frame["stateVersion"] = versions.clone();
        }
        self.send(id, Out::Text(frame.to_string()));
    }

    /// For faults that flood one connection: numbered like any other event.
    pub fn deliver_next(&mut self, id: u64, event: &Event) {
        if self.world.version.counts_events_globally() {
            self.global_seq += 1;
        }
        self.deliver(id, event);
    }

    fn state_version(&self) -> Value {
        json!({"presence": self.presence_version, "health": self.health_version})
    }

    /// A client left: every version says so with the whole presence list.
    pub fn announce_presence(&mut self) {
        self.presence_version += 1;
        let payload = json!({"presence": self.presence()});
        let state_version = Some(self.state_version());
        self.broadcast(vec![Event { name: "presence", payload, scope: Some("operator.read"), state_version }]);
    }

    /// A client came: only 2026.9.6 sends presence; before, the health event carries a new presence version.
    pub fn announce_arrival(&mut self) {
        if self.world.version >= Version::V2026_9_6 {
            return self.announce_presence();
        }
        self.presence_version += 1;
        self.health_version += 1;
        let state_version = Some(self.state_version());
        let payload = self.health();
        self.broadcast(vec![Event { name: "health", payload, scope: None, state_version }]);
    }

    pub fn health(&self) -> Value {
        fill(&self.world.templates.health, vec![("ts", Some(json!(now_ms())))])
    }

    pub fn presence(&self) -> Vec<Value> {
        let templates = self.world.templates;
        let mut list = vec![fill(&templates.presence_self, vec![("ts", Some(json!(now_ms())))])];
        let real = self.sessions().filter(|session| session.has_device).map(|session| session.spec.clone());
        let pretended = self.world.virtual_sessions.iter().filter(|(_, count)| **count > 0);
        let pretended = pretended.filter_map(|(id, _)| self.world.paired.get(id)).map(|record| record.spec.clone());
        for spec in real.chain(pretended) {
            let fields = vec![
                ("host", Some(json!(spec.display_name.as_deref().unwrap_or(&spec.client_id)))),
                ("ip", spec.remote_ip.map(|ip| json!(ip))),
                ("platform", Some(json!(spec.platform))),
                ("mode", Some(json!(spec.client_mode))),
                ("deviceId", Some(json!(spec.device_id))),
                ("roles", Some(json!([spec.role]))),
                ("scopes", Some(json!(spec.scopes))),
                ("reason", Some(json!("connect"))),
                ("ts", Some(json!(now_ms()))),
            ];
            list.push(fill(&templates.presence_client, fields));
        }
        list
    }

    pub fn hello_facts(&self) -> HelloFacts {
        HelloFacts {
            boot_id: self.boot_id.clone(),
            presence: self.presence(),
            state_version: self.state_version(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            tick_ms: u64::try_from(self.tick.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub fn set_session(&mut self, id: u64, session: Session) {
        self.admitted += 1;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.session = Some(session);
        }
    }

    /// Ends the sessions `which` picks, with the close the gateway uses for them.
    pub fn close_sessions(&mut self, code: u16, reason: &str, which: impl Fn(&Session) -> bool) {
        let picked: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, one)| one.session.as_ref().is_some_and(&which))
            .map(|(id, _)| *id)
            .collect();
        for id in picked {
            self.send(id, Out::Close { code, reason: reason.to_owned() });
        }
    }

    pub fn send_to_all(&self, make: impl Fn() -> Out) {
        for id in self.connections.keys() {
            self.send(*id, make());
        }
    }

    /// A new process: sessions are gone, pairings stay.
    pub fn reboot(&mut self, starting_for: Duration) {
        self.boot_id = uuid();
        self.started = Instant::now();
        self.starting_until = (!starting_for.is_zero()).then(|| Instant::now() + starting_for);
        self.world.virtual_sessions.clear();
        self.global_seq = 0;
    }
}
