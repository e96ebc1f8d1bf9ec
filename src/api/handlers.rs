//! One function per route: typed command in, operation, typed answer out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::body::{
    ApproveBody, ApproveReply, AuditBody, ChangeReply, GatewayBody, ListenerBody, PairingBody, PairingShort,
    PendingBody, RejectBody, RenameBody, RevokeBody, SidecarBody, StateBody,
};
use super::problem::Problem;
use super::routes::{Endpoint, Route};
use super::{Answer, COMMIT, Call, Context, VERSION};
use super::{events, launch};
use crate::clock::UnixMs;
use crate::http::query::Query;
use crate::json;
use crate::op::Patience;
use crate::op::pairing::{ChangeCommand, Target};
use crate::state::{Phase, Snapshot};

/// Answers an authorised call of a route.
///
/// # Errors
/// A problem for the caller.
pub async fn answer(context: &Arc<Context>, route: &Route, call: Call) -> Result<Answer, Problem> {
    let query = Query::parse(call.query.as_deref(), route.params)?;
    match route.endpoint {
        Endpoint::Livez => Ok(Answer::Text(StatusCode::OK, "text/plain", Bytes::from_static(b"live\n"))),
        Endpoint::Readyz => readyz(context),
        Endpoint::OpenApi => Ok(Answer::Text(StatusCode::OK, "application/json", Bytes::from_static(OPENAPI))),
        Endpoint::State => state(context, &query, &call).await,
        Endpoint::Events => Ok(Answer::Events(events::feed(context, &call))),
        Endpoint::Pairing => {
            let snapshot = context.state.now();
            json(StatusCode::OK, &PairingBody::of(snapshot.generation, &snapshot.pairing, UnixMs::now()), None)
        }
        Endpoint::Approve => {
            let command = parse::<ApproveBody>(&call.body)?.command(patience(&query))?;
            if matches!(command.target, Target::ChannelCode { .. }) {
                return launch::approve_code(context, command.target, &call).await;
            }
            let approval = context.pairings.approve(&command, &call.caller).await?;
            json(StatusCode::OK, &ApproveReply::from(approval), None)
        }
        Endpoint::Reject => change(context, parse::<RejectBody>(&call.body)?.command()?, &query, &call).await,
        Endpoint::Revoke => change(context, parse::<RevokeBody>(&call.body)?.command()?, &query, &call).await,
        Endpoint::Rename => change(context, parse::<RenameBody>(&call.body)?.command()?, &query, &call).await,
        Endpoint::Audit => audit(context, &query).await,
        Endpoint::Metrics => {
            let text = context.metrics.encode(context);
            Ok(Answer::Text(StatusCode::OK, OPENMETRICS, Bytes::from(text)))
        }
        endpoint => launch::answer(context, endpoint, &query, &call).await,
    }
}

const OPENAPI: &[u8] = include_bytes!("../../docs/openapi.json");
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn readyz(context: &Context) -> Result<Answer, Problem> {
    let phase = context.state.now().phase;
    let status = if phase == Phase::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &serde_json::json!({ "ready": phase == Phase::Ready, "phase": phase }), None)
}

async fn state(context: &Context, query: &Query, call: &Call) -> Result<Answer, Problem> {
    let snapshot = match query.number("wait_gen") {
        Some(seen) => newer_than(context, seen, query.number("timeout_s").unwrap_or(30)).await,
        None => context.state.now(),
    };
    // Weak: ages in the body move on while the generation stays.
    let tag = format!("W/\"{}.{}\"", context.state.boot(), snapshot.generation);
    if call.if_none_match.as_deref() == Some(&tag) {
        return Ok(Answer::NotModified(tag));
    }
    json(StatusCode::OK, &state_body(context, &snapshot), Some(tag))
}

async fn newer_than(context: &Context, seen: u64, timeout_s: u64) -> Arc<Snapshot> {
    let deadline = Instant::now() + Duration::from_secs(timeout_s);
    let mut watch = context.state.watch();
    loop {
        let snapshot = watch.borrow_and_update().clone();
        if snapshot.generation > seen {
            return snapshot;
        }
        let news = tokio::select! {
            news = tokio::time::timeout_at(deadline, watch.changed()) => matches!(news, Ok(Ok(()))),
            () = context.stopping.cancelled() => false,
        };
        if !news {
            return snapshot;
        }
    }
}

fn state_body(context: &Context, snapshot: &Snapshot) -> StateBody {
    let now = UnixMs::now();
    let stats = context.gateway.stats();
    let about = &context.about;
    let certificate = about.certificate_sha256.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let listeners =
        about.listeners.iter().map(|(kind, address)| ListenerBody { kind, address: address.clone() }).collect();
    #[expect(clippy::cast_precision_loss, reason = "a latency in microseconds is far below 2^52")]
    let rpc_ms = stats.last_rpc_us.load(Ordering::Relaxed) as f64 / 1000.0;
    let pairing = &snapshot.pairing;
    StateBody {
        generation: snapshot.generation,
        mode: if context.launch.is_some() { "launch" } else { "attach" },
        phase: snapshot.phase,
        phase_since: snapshot.phase_since,
        phase_reason: snapshot.phase_reason.clone(),
        sidecar: SidecarBody {
            version: VERSION,
            commit: COMMIT,
            boot_id: context.state.boot().to_owned(),
            uptime_s: about.started.elapsed().as_secs(),
            device_id: context.gateway.device_id().to_owned(),
            certificate_sha256: certificate,
            listeners,
            hardening: about.hardening.clone(),
        },
        supervisor: snapshot.supervisor.as_deref().cloned(),
        desired: context.launch.as_ref().map(|_| snapshot.desired.clone()),
        gateway: snapshot.gateway.clone().map(|info| GatewayBody {
            info,
            rpc_ms,
            last_answer_s: stats.since_last_ok().map(|ago| ago.as_secs()),
        }),
        pairing: PairingShort {
            posture: "manual",
            pending: pairing.pending.iter().map(|p| PendingBody::of(p, now)).collect(),
            approved_count: pairing.approved.len(),
            connected_count: pairing.approved.iter().filter(|a| a.connected == Some(true)).count(),
            last_out_of_band: pairing.last_out_of_band.clone(),
        },
        registry: context.checkins.status(),
        findings: snapshot.findings.clone(),
    }
}

async fn change(context: &Context, command: ChangeCommand, query: &Query, call: &Call) -> Result<Answer, Problem> {
    let changed = context.pairings.change(&command, patience(query), &call.caller).await?;
    json(StatusCode::OK, &ChangeReply { outcome: changed.name() }, None)
}

async fn audit(context: &Context, query: &Query) -> Result<Answer, Problem> {
    let limit = usize::try_from(query.number("limit").unwrap_or(100)).unwrap_or(100).max(1);
    let page = context.audit.page(query.number("after"), limit).await.map_err(|e| {
        tracing::error!(error = %e, "the audit cannot be read");
        Problem::new("internal", e.to_string())
    })?;
    let next_after = page.records.last().map(|r| r.n).filter(|_| page.more);
    json(StatusCode::OK, &AuditBody { head: page.head, records: page.records, next_after }, None)
}

pub(super) fn patience(query: &Query) -> Patience {
    let default = Patience::default();
    Patience {
        // Even who does not want to wait wants an answer from a gateway that is there.
        gateway: query.number("wait_s").map_or(default.gateway, |s| Duration::from_secs(s.max(1))),
        connected: query.number("wait_connected_s").map_or(default.connected, Duration::from_secs),
    }
}

pub(super) fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Problem> {
    json::parse(body).map_err(|e| Problem::new("invalid_body", e))
}

pub(super) fn json(status: StatusCode, body: &impl Serialize, tag: Option<String>) -> Result<Answer, Problem> {
    let text = serde_json::to_vec(body).map_err(|e| Problem::new("internal", e.to_string()))?;
    Ok(Answer::Json(status, Bytes::from(text), tag))
}
