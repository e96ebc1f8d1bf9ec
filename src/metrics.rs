//! Counters, in the OpenMetrics text format. No label ever names a tenant, a device or a caller.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::api::{COMMIT, Context, VERSION};
use crate::state::Phase;

const PHASES: [Phase; 5] = [Phase::Starting, Phase::Ready, Phase::Degraded, Phase::Stopped, Phase::Unauthorized];

/// Labels of the request counter: the route of the table, never the raw path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckInLabels {
    outcome: &'static str,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    phases: Family<PhaseLabels, Gauge>,
    checkins: Family<CheckInLabels, Counter>,
    checkin_last_ok: Gauge,
    checkin_spool: Gauge,
    /// Connections open.
    pub connections: Gauge,
    /// Connections closed to make room for others.
    pub evicted: Counter,
    /// Requests without a valid credential.
    pub unauthorized: Counter,
    generation: Gauge,
    pending: Gauge,
    approved: Gauge,
    gateway_connects: Gauge,
    gateway_calls_ok: Gauge,
    gateway_calls_failed: Gauge,
    gateway_malformed: Gauge,
    gateway_rpc_us: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sidecar");
        let build = Info::new([("version", VERSION), ("commit", COMMIT)]);
        registry.register("build", "Version and commit", build);
        let requests = Family::default();
        registry.register("http_requests", "Requests answered, by route and status", requests.clone());
        let phases = Family::default();
        registry.register("gateway_phase", "1 for the phase the gateway is in", phases.clone());
        let checkins = Family::default();
        registry.register("checkins", "Check-ins with the registry, by what came of them", checkins.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let connections = gauge("http_connections", "Connections open");
        let generation = gauge("state_generation", "Generation of the published state");
        let pending = gauge("pairing_pending", "Requests that wait for approval");
        let approved = gauge("pairing_approved", "Devices and nodes that are paired");
        let gateway_connects = gauge("gateway_sessions_opened", "Sessions opened to the gateway since the start");
        let gateway_calls_ok = gauge("gateway_calls_answered", "Calls that the gateway answered since the start");
        let gateway_calls_failed = gauge("gateway_calls_failed", "Calls without a good answer since the start");
        let gateway_malformed = gauge("gateway_frames_malformed", "Frames of the gateway that could not be read");
        let gateway_rpc_us = gauge("gateway_rpc_microseconds", "How long the last answered call took");
        let checkin_last_ok = gauge("checkin_last_ok_seconds", "When the registry last took one, in Unix time");
        let checkin_spool = gauge("checkin_spool", "Audit records that the registry does not have yet");
        let evicted = Counter::default();
        registry.register("http_connections_evicted", "Connections closed to make room", evicted.clone());
        let unauthorized = Counter::default();
        registry.register("http_unauthorized", "Requests without a valid credential", unauthorized.clone());
        Self {
            registry: Mutex::new(registry),
            requests,
            phases,
            checkins,
            checkin_last_ok,
            checkin_spool,
            connections,
            evicted,
            unauthorized,
            generation,
            pending,
            approved,
            gateway_connects,
            gateway_calls_ok,
            gateway_calls_failed,
            gateway_malformed,
            gateway_rpc_us,
        }
    }
}

impl Metrics {
    /// Counts an answered request. `route` is the path of the table, or `other`.
    pub fn count(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
    }

    /// Counts a check-in: `ok`, or why it was not taken.
    pub fn checked_in(&self, outcome: &'static str) {
        self.checkins.get_or_create(&CheckInLabels { outcome }).inc();
    }

    /// The whole as text, with the gauges set to what is true now.
    pub fn encode(&self, context: &Context) -> String {
        let snapshot = context.state.now();
        let stats = context.gateway.stats();
        self.generation.set(signed(snapshot.generation));
        self.pending.set(signed(snapshot.pairing.pending.len() as u64));
        self.approved.set(signed(snapshot.pairing.approved.len() as u64));
        for (gauge, value) in [
            (&self.gateway_connects, &stats.connects),
            (&self.gateway_calls_ok, &stats.calls_ok),
            (&self.gateway_calls_failed, &stats.calls_failed),
            (&self.gateway_malformed, &stats.malformed_frames),
            (&self.gateway_rpc_us, &stats.last_rpc_us),
        ] {
            gauge.set(signed(AtomicU64::load(value, Ordering::Relaxed)));
        }
        let checkins = context.checkins.status();
        self.checkin_last_ok.set(signed(checkins.last_ok_at.map_or(0, |at| at.0 / 1000)));
        self.checkin_spool.set(signed(checkins.spooled as u64));
        for phase in PHASES {
            let labels = PhaseLabels { phase: phase.name() };
            self.phases.get_or_create(&labels).set(i64::from(phase == snapshot.phase));
        }
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
