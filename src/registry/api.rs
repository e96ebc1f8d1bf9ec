//! The registry's routes: one table, an audience for each, and the calls behind them.

pub mod admin;
pub mod agent;
#[cfg(test)]
mod openapi;
pub mod pages;
pub mod routes;
pub mod support;

use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::callers::{Callers, Signer};
use super::ingest::Ingest;
use super::metrics::Metrics;
use super::store::{Blind, Store, Unavailable};
use super::webhooks::Outbound;
use crate::api::problem::Problem;
use crate::auth::{Principal, Tier};
use crate::checkin::wire;
use crate::clock::UnixMs;
use crate::http::app::{Answer, App, Call, Found, Matched};
use crate::http::query::Query;
use routes::{Audience, Endpoint, ROUTES, TABLE};

/// What handlers work with.
#[derive(Debug)]
pub struct Context {
    /// What is kept.
    pub store: Arc<dyn Store>,
    /// The way into it.
    pub ingest: Ingest,
    /// Who may call.
    pub callers: Callers,
    /// Signs tickets and names webhook secrets.
    pub signer: Arc<Signer>,
    /// When the registry was blind, lately; renewed by the sweep.
    pub blind: RwLock<Arc<Vec<Blind>>>,
    /// Why nothing can be written, as the last sweep found.
    pub unwritable: RwLock<Option<Unavailable>>,
    /// Counters.
    pub metrics: Metrics,
    /// How often a machine in which nothing happens checks in, in seconds.
    pub interval_s: u64,
    /// How webhooks are delivered.
    pub outbound: Outbound,
    /// Wakes calls that wait for news when the process ends.
    pub stopping: CancellationToken,
}

impl Context {
    /// When the registry was blind, lately.
    pub fn blind(&self) -> Arc<Vec<Blind>> {
        self.blind.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a failed write says of the store counts at once; the sweep finds out when it is over.
    fn unwritable(&self, why: Unavailable) -> Problem {
        *self.unwritable.write().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
        unavailable(why)
    }

    /// Whether check-ins can be taken: a database may be read and yet be locked, or its disk full.
    fn writable(&self) -> Result<(), Unavailable> {
        self.unwritable.read().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }
}

/// The registry as the HTTP server serves it.
#[derive(Debug)]
pub struct Registry(pub Arc<Context>);

impl App for Registry {
    fn find(&self, method: &Method, path: &str) -> Found {
        TABLE.find(method, path)
    }

    fn admit<'a>(
        &'a self,
        route: Option<&'a Matched>,
        _local: Option<&'a Principal>,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Option<Principal>, Problem>> {
        let audience = route.map(|route| ROUTES[route.index].guard);
        Box::pin(async move {
            let Some(audience) = audience else { return self.anybody(headers).await.map(Some) };
            match audience {
                Audience::Public => Ok(None),
                // Without a session a page shows the way to one.
                Audience::Page => Ok(self.0.callers.session(headers)),
                Audience::Agent => self.machine(headers).await.map(Some),
                Audience::Support => self.person(headers, Tier::Safe).map(Some),
                Audience::Admin => self.person(headers, Tier::Dangerous).map(Some),
            }
        })
    }

    fn still_valid(&self, principal: &Principal) -> bool {
        self.0.callers.still_valid(principal)
    }

    fn answer(self: Arc<Self>, route: Matched, call: Call) -> BoxFuture<'static, Result<Answer, Problem>> {
        Box::pin(async move { answer(&self.0, &route, call).await })
    }

    fn count(&self, route: &'static str, status: u16) {
        self.0.metrics.count(route, status);
    }

    fn page(&self, problem: &Problem) -> Option<Response<Bytes>> {
        Some(pages::problem_page(problem))
    }

    fn is_routine(&self, route: &'static str) -> bool {
        route == wire::PATH
    }
}

impl Registry {
    async fn machine(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let machine = self.0.callers.machine(headers).await.map_err(unavailable)?;
        let machine = machine.ok_or_else(|| self.unauthorized())?;
        Ok(Principal::known(machine.tenant, Tier::Public, machine.credential))
    }

    /// Whoever is known here, for whatever audience.
    async fn anybody(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        if let Some(principal) = self.0.callers.session(headers) {
            return Ok(principal);
        }
        match self.person(headers, Tier::Safe) {
            Ok(principal) => Ok(principal),
            Err(_) => self.machine(headers).await,
        }
    }

    fn person(&self, headers: &HeaderMap, tier: Tier) -> Result<Principal, Problem> {
        let principal = self.0.callers.person(headers).ok_or_else(|| self.unauthorized())?;
        if principal.may(tier) {
            return Ok(principal);
        }
        Err(Problem::new("forbidden", format!("key {:?} reads only; this needs an admin key", principal.id)))
    }

    fn unauthorized(&self) -> Problem {
        self.0.metrics.unauthorized.inc();
        Problem::new("registry_unauthorized", "no valid credential for this audience")
    }
}

async fn answer(context: &Arc<Context>, route: &Matched, call: Call) -> Result<Answer, Problem> {
    let route = &ROUTES[route.index];
    let query = match Query::decode(call.query.as_deref().unwrap_or_default().as_bytes(), route.params) {
        Ok(query) => query,
        Err(problem) if route.guard == Audience::Page => return Ok(pages::shown(&problem)),
        Err(problem) => return Err(problem),
    };
    let endpoint = route.endpoint;
    match endpoint {
        Endpoint::Livez => Ok(text(StatusCode::OK, "live\n")),
        Endpoint::Readyz => {
            context.store.leads().await.and_then(|_| context.writable()).map_err(unavailable)?;
            Ok(text(StatusCode::OK, "ready\n"))
        }
        Endpoint::OpenApi => Ok(Answer::Text(StatusCode::OK, "application/json", Bytes::from_static(OPENAPI))),
        Endpoint::CheckIn => agent::check_in(context, &call).await,
        Endpoint::Metrics => support::metrics(context).await,
        Endpoint::Summary => support::summary(context).await,
        Endpoint::Tenants => support::tenants(context, &query).await,
        Endpoint::Tenant => support::tenant(context, &call).await,
        Endpoint::Timeline => support::timeline(context, &call, &query).await,
        Endpoint::Events => Ok(support::events(context, &call, None)),
        Endpoint::TenantEvents => support::tenant_events(context, &call, &call.name).await,
        Endpoint::CreateTenant => admin::create_tenant(context, &call).await,
        Endpoint::RetireTenant => admin::retire_tenant(context, &call).await,
        Endpoint::SetCredentials => admin::set_credentials(context, &call).await,
        Endpoint::Keys => admin::keys(context).await,
        Endpoint::CreateKey => admin::create_key(context, &call).await,
        Endpoint::DropKey => admin::drop_key(context, &call).await,
        Endpoint::Webhooks => admin::webhooks(context).await,
        Endpoint::PutWebhook => admin::put_webhook(context, &call).await,
        Endpoint::DropWebhook => admin::drop_webhook(context, &call).await,
        _ => pages::answer(context, endpoint, &call, &query).await,
    }
}

const OPENAPI: &[u8] = include_bytes!("../../docs/registry-openapi.json");

fn text(status: StatusCode, text: &'static str) -> Answer {
    Answer::Text(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

/// JSON of a body of ours.
fn json(status: StatusCode, body: &impl serde::Serialize) -> Result<Answer, Problem> {
    let bytes = serde_json::to_vec(body).map_err(|e| Problem::new("internal", e.to_string()))?;
    Ok(Answer::Json(status, bytes.into(), None))
}

/// The store cannot do it now.
fn unavailable(why: Unavailable) -> Problem {
    tracing::warn!(error = %why, "the store is not available");
    Problem::new("store_unavailable", why.0)
}

fn no_tenant(id: &str) -> Problem {
    Problem::new("tenant_not_found", format!("there is no tenant {id:?}"))
}

fn now() -> UnixMs {
    UnixMs::now()
}
