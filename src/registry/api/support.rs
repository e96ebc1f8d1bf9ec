//! What support reads. Nothing here changes anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::sleep;

use super::{Answer, Call, Context, json, no_tenant, now, unavailable};
use crate::api::problem::Problem;
use crate::auth::Principal;
use crate::http::app::{App as _, Feed};
use crate::http::query::Query;
use crate::http::stream::PING;
use crate::registry::store::{Changed, Filter, Order, Unavailable};
use crate::registry::tenant::{Row, Status};
use crate::registry::view::{Fleet, Summary, TenantLine, TenantView, Timeline};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Lines on a page unless asked otherwise.
const USUAL_PAGE: usize = 50;
/// Changes close together are told together.
const GATHER: Duration = Duration::from_millis(100);

/// `/v1/support/summary`.
pub(super) async fn summary(context: &Context) -> Result<Answer, Problem> {
    json(StatusCode::OK, &read_summary(context).await.map_err(unavailable)?)
}

/// The fleet in numbers.
pub(super) async fn read_summary(context: &Context) -> Result<Summary, Unavailable> {
    let counts = context.store.counts().await?;
    Ok(Summary { at: now(), counts, blind: context.blind().to_vec() })
}

/// `/v1/support/tenants`.
pub(super) async fn tenants(context: &Context, query: &Query) -> Result<Answer, Problem> {
    let by_urgency = query.text("order") == Some("urgency");
    let fleet =
        read_fleet(context, filter(query), order(query, by_urgency)?, limit(query)).await.map_err(unavailable)?;
    json(StatusCode::OK, &fleet)
}

/// The filter that a query asks for.
pub(super) fn filter(query: &Query) -> Filter {
    let text = |name| query.text(name).map(str::to_owned);
    Filter {
        status: query.text("status").and_then(Status::parse),
        pairing: matches!(query.text("pairing"), Some("1" | "true")),
        finding: text("finding"),
        region: text("region"),
        version: text("version"),
        text: text("q"),
    }
}

/// How the list is ordered, and where the page begins.
pub(super) fn order(query: &Query, by_urgency: bool) -> Result<Order, Problem> {
    let after = query.text("after");
    if !by_urgency {
        return Ok(Order::Id(after.map(str::to_owned)));
    }
    let place = |after: &str| after.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
    let wrong = || Problem::new("invalid_query", "after is no `next` of a list by urgency; begin without it");
    after.map(|after| place(after).ok_or_else(wrong)).transpose().map(Order::Urgency)
}

/// The `after` of the page that begins after this row.
fn next_of(order: &Order, row: &Row) -> String {
    match order {
        Order::Id(_) => row.id.clone(),
        Order::Urgency(_) => format!("{}.{}", row.urgency(), row.id),
    }
}

/// How many lines it has.
fn limit(query: &Query) -> usize {
    query.number("limit").and_then(|n| n.try_into().ok()).unwrap_or(USUAL_PAGE)
}

/// A page of the fleet.
pub(super) async fn read_fleet(
    context: &Context,
    filter: Filter,
    order: Order,
    limit: usize,
) -> Result<Fleet, Unavailable> {
    let mut rows = context.store.list(filter, order.clone(), limit + 1).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let (at, blind) = (now(), context.blind());
    let next = rows.last().filter(|_| more).map(|row| next_of(&order, row));
    Ok(Fleet { at, tenants: rows.iter().map(|row| TenantLine::of(row, at, &blind)).collect(), next })
}

/// `/v1/support/tenants/{id}`.
pub(super) async fn tenant(context: &Context, call: &Call) -> Result<Answer, Problem> {
    let view = read_tenant(context, &call.name).await.map_err(unavailable)?;
    json(StatusCode::OK, &view.ok_or_else(|| no_tenant(&call.name))?)
}

/// One tenant, whole.
pub(super) async fn read_tenant(context: &Context, id: &str) -> Result<Option<TenantView>, Unavailable> {
    let found = context.store.tenant(id.to_owned()).await?;
    Ok(found.map(|(row, report)| TenantView::of(&row, report.as_deref(), now(), &context.blind())))
}

/// `/v1/support/tenants/{id}/timeline`.
pub(super) async fn timeline(context: &Context, call: &Call, query: &Query) -> Result<Answer, Problem> {
    if context.store.tenant(call.name.clone()).await.map_err(unavailable)?.is_none() {
        return Err(no_tenant(&call.name));
    }
    let read = read_timeline(context, &call.name, query.number("before"), limit(query));
    json(StatusCode::OK, &read.await.map_err(unavailable)?)
}

/// A page of a tenant's history.
pub(super) async fn read_timeline(
    context: &Context,
    id: &str,
    before: Option<u64>,
    limit: usize,
) -> Result<Timeline, Unavailable> {
    let mut entries = context.store.timeline(Some(id.to_owned()), before, limit + 1).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().filter(|_| more).map(|entry| entry.seq);
    Ok(Timeline { at: now(), entries, next })
}

/// `/metrics`.
pub(super) async fn metrics(context: &Context) -> Result<Answer, Problem> {
    let counts = context.store.counts().await.map_err(unavailable)?;
    let text = context.metrics.encode(&counts);
    Ok(Answer::Text(StatusCode::OK, OPENMETRICS, Bytes::from(text)))
}

/// `/v1/support/tenants/{id}/events`.
pub(super) async fn tenant_events(context: &Arc<Context>, call: &Call, id: &str) -> Result<Answer, Problem> {
    let there = context.store.tenant(id.to_owned()).await.map_err(unavailable)?.is_some();
    if there { Ok(events(context, call, Some(id.to_owned()))) } else { Err(no_tenant(id)) }
}

/// A stream that tells which tenants changed: of the fleet, or one only.
pub(super) fn events(context: &Arc<Context>, call: &Call, tenant: Option<String>) -> Answer {
    let (context, principal) = (context.clone(), call.principal.clone());
    Answer::Events(Feed(Box::new(move |pieces| {
        async move {
            let changes = context.store.changes();
            tell(&super::Registry(context), changes, tenant, principal, &pieces).await;
        }
        .boxed()
    })))
}

async fn tell(
    registry: &super::Registry,
    mut changes: broadcast::Receiver<Changed>,
    tenant: Option<String>,
    principal: Option<Principal>,
    pieces: &mpsc::Sender<Bytes>,
) {
    let mut text = String::from("retry: 2000\nevent: hello\ndata: {}\n\n");
    loop {
        if !principal.as_ref().is_some_and(|caller| registry.still_valid(caller)) {
            return;
        }
        if !text.is_empty() && pieces.send(Bytes::from(std::mem::take(&mut text))).await.is_err() {
            return;
        }
        text = tokio::select! {
            () = pieces.closed() => return,
            () = sleep(PING) => ": ping\n\n".to_owned(),
            first = changes.recv() => match first {
                Ok(changed) => gathered(changed, &mut changes, tenant.as_deref()).await,
                Err(RecvError::Lagged(_)) => changed_text(""),
                Err(RecvError::Closed) => return,
            }
        };
    }
}

/// What changed within a moment, each tenant once.
async fn gathered(first: Changed, changes: &mut broadcast::Receiver<Changed>, only: Option<&str>) -> String {
    let concerns = |changed: &Changed| only.is_none_or(|id| changed.tenant.is_empty() || changed.tenant == id);
    let mut tenants = BTreeSet::new();
    if concerns(&first) {
        tenants.insert(first.tenant);
        sleep(GATHER).await;
    }
    loop {
        match changes.try_recv() {
            Ok(changed) => {
                if concerns(&changed) && tenants.len() < 256 {
                    tenants.insert(changed.tenant);
                }
            }
            Err(broadcast::error::TryRecvError::Lagged(_)) => {
                tenants.insert(String::new());
            }
            Err(_) => return tenants.iter().map(|id| changed_text(id)).collect(),
        }
    }
}

/// An empty id: anything may have changed.
fn changed_text(tenant: &str) -> String {
    format!("event: changed\ndata: {}\n\n", serde_json::json!({ "tenant": tenant }))
}
