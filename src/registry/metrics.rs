//! Counters of the fleet and of this instance, in the OpenMetrics text format. No label ever names a tenant.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::store::Counts;
use super::tenant::Status;
use crate::api::{COMMIT, VERSION};

/// Most values of one label: versions, regions and codes come from machines.
const MOST_VALUES: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Value {
    value: String,
}

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    check_ins: Family<Value, Counter>,
    durable: Histogram,
    statuses: Family<Value, Gauge>,
    versions: Family<Value, Gauge>,
    regions: Family<Value, Gauge>,
    findings: Family<Value, Gauge>,
    pairing: Gauge,
    /// Connections open.
    pub connections: Gauge,
    /// Connections closed to make room for others.
    pub evicted: Counter,
    /// Requests without a valid credential.
    pub unauthorized: Counter,
    /// Webhook deliveries that were taken.
    pub delivered: Counter,
    /// Webhook deliveries that failed.
    pub undelivered: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("registry");
        registry.register("build", "Version and commit", Info::new([("version", VERSION), ("commit", COMMIT)]));
        let requests = Family::default();
        registry.register("http_requests", "Requests answered, by route and status", requests.clone());
        let check_ins = Family::default();
        registry.register("checkins", "Check-ins answered, by what became of them", check_ins.clone());
        let durable = Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]);
        registry.register("checkin_seconds", "From a check-in's body to its commit", durable.clone());
        let mut family = |name: &str, help: &str| {
            let family = Family::<Value, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        let statuses = family("tenants", "Tenants by status");
        let versions = family("tenants_by_gateway_version", "Tenants by the version of their gateway");
        let regions = family("tenants_by_region", "Tenants by region");
        let findings = family("findings", "Tenants with a finding open, by its code");
        let pairing = Gauge::default();
        registry.register("tenants_pairing", "Tenants in which somebody waits to be let in", pairing.clone());
        let connections = Gauge::default();
        registry.register("http_connections", "Connections open", connections.clone());
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let evicted = counter("http_connections_evicted", "Connections closed to make room");
        let unauthorized = counter("http_unauthorized", "Requests without a valid credential");
        let delivered = counter("webhooks_delivered", "Webhook deliveries that were taken");
        let undelivered = counter("webhooks_failed", "Webhook deliveries that failed");
        Self {
            registry: Mutex::new(registry),
            requests,
            check_ins,
            durable,
            statuses,
            versions,
            regions,
            findings,
            pairing,
            connections,
            evicted,
            unauthorized,
            delivered,
            undelivered,
        }
    }
}

impl Metrics {
    /// Counts an answer.
    pub fn count(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&Answered { route, status }).inc();
    }

    /// Counts a check-in and how long it took to be durable.
    pub fn checked_in(&self, outcome: &str, took: Duration) {
        self.check_ins.get_or_create(&Value { value: outcome.to_owned() }).inc();
        self.durable.observe(took.as_secs_f64());
    }

    /// Everything as text, with the fleet as it is now.
    pub fn encode(&self, counts: &Counts) -> String {
        fill(&self.versions, counts.version.iter().map(|(k, v)| (k.as_str(), *v)));
        fill(&self.regions, counts.region.iter().map(|(k, v)| (k.as_str(), *v)));
        fill(&self.findings, counts.finding.iter().map(|(k, v)| (k.as_str(), *v)));
        let of = |status: Status| (status.name(), counts.status.get(status.name()).copied().unwrap_or(0));
        fill(&self.statuses, Status::ALL.into_iter().map(of));
        self.pairing.set(i64::try_from(counts.pairing).unwrap_or(i64::MAX));
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

fn fill<'a>(family: &Family<Value, Gauge>, values: impl Iterator<Item = (&'a str, u64)>) {
    family.clear();
    for (value, count) in values.take(MOST_VALUES) {
        let value = if value.is_empty() { "unknown" } else { value };
        family.get_or_create(&Value { value: value.to_owned() }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
