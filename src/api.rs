//! The control API: one route table, typed bodies, one place where an outcome becomes a status.
//!
//! A request is parsed once into a typed command; that value is authorised and that value is carried out.

pub mod body;
pub mod events;
pub mod handlers;
pub mod launch;
pub mod problem;
pub mod routes;

#[cfg(test)]
pub(crate) mod openapi;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::auth::{Auth, Principal, Tier};
use crate::checkin::CheckIns;
use crate::gateway::Gateway;
use crate::harden;
use crate::http::app::{App, Found, Matched};
use crate::metrics::Metrics;
use crate::op::decommission::Decommission;
use crate::op::desired::Desired;
use crate::op::lifecycle::Lifecycle;
use crate::op::pairing::Pairings;
use crate::op::secrets::Secrets;
use crate::state::State;

pub use crate::http::app::{Answer, Call};
use problem::Problem;

/// Version, build and start of this process.
#[derive(Clone, Debug)]
pub struct About {
    /// When the process started, for the uptime.
    pub started: Instant,
    /// What the process did to itself before it began.
    pub hardening: harden::Report,
    /// Where it listens: `tls`, `edge` or `unix`, and the address.
    pub listeners: Vec<(&'static str, String)>,
    /// SHA-256 of the certificate served, for pinning; changes when it is reloaded.
    pub certificate_sha256: Arc<std::sync::Mutex<Option<String>>>,
}

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, where the build says so.
pub const COMMIT: &str = match option_env!("OPENCLAW_SIDECAR_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// What handlers work with.
#[derive(Debug)]
pub struct Context {
    /// The published snapshot.
    pub state: State,
    /// The gateway's connection, for its numbers.
    pub gateway: Gateway,
    /// The pairing operations.
    pub pairings: Arc<Pairings>,
    /// What only a sidecar that launches the gateway can do.
    pub launch: Option<Launch>,
    /// The audit.
    pub audit: Audit,
    /// The credentials, for what is wrong with them.
    pub auth: Auth,
    /// The check-ins, for how they are going.
    pub checkins: CheckIns,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// This process.
    pub about: About,
    /// Wakes calls that wait for news when the process ends.
    pub stopping: CancellationToken,
}

/// The operations of launch mode.
#[derive(Debug)]
pub struct Launch {
    /// Starting, stopping, repairing.
    pub lifecycle: Lifecycle,
    /// The desired state.
    pub desired: Arc<Desired>,
    /// The gateway's secrets.
    pub secrets: Arc<Secrets>,
    /// The end of a tenant.
    pub decommission: Decommission,
}

/// The control API as the HTTP server serves it.
#[derive(Debug)]
pub struct Control(pub Arc<Context>);

impl App for Control {
    fn find(&self, method: &Method, path: &str) -> Found {
        routes::TABLE.find(method, path)
    }

    fn admit<'a>(
        &'a self,
        route: Option<&'a Matched>,
        local: Option<&'a Principal>,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Option<Principal>, Problem>> {
        let tier = route.map_or(Tier::Safe, |route| routes::ROUTES[route.index].guard);
        let admitted = if tier == Tier::Public { Ok(None) } else { self.known(tier, local, headers).map(Some) };
        Box::pin(std::future::ready(admitted))
    }

    fn still_valid(&self, principal: &Principal) -> bool {
        self.0.auth.still_valid(principal)
    }

    fn answer(self: Arc<Self>, route: Matched, call: Call) -> BoxFuture<'static, Result<Answer, Problem>> {
        Box::pin(async move { handlers::answer(&self.0, &routes::ROUTES[route.index], call).await })
    }

    fn count(&self, route: &'static str, status: u16) {
        self.0.metrics.count(route, status);
    }
}

impl Control {
    fn known(&self, tier: Tier, local: Option<&Principal>, headers: &HeaderMap) -> Result<Principal, Problem> {
        let principal = match local {
            Some(local) if !headers.contains_key(AUTHORIZATION) => Some(local.clone()),
            _ => self.0.auth.authenticate(headers),
        };
        let principal = principal.ok_or_else(|| {
            self.0.metrics.unauthorized.inc();
            Problem::new("unauthorized", "no valid credential")
        })?;
        if principal.may(tier) {
            return Ok(principal);
        }
        let what = format!("credential {:?} is {}, this needs {}", principal.id, principal.tier.name(), tier.name());
        Err(Problem::new("forbidden", what))
    }
}
