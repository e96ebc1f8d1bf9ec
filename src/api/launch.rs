//! The routes of launch mode: desired state, secrets, the gateway's life, the end of a tenant.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::handlers::{json, parse, patience};
use super::problem::Problem;
use super::routes::Endpoint;
use super::{Answer, Call, Context, Launch};
use crate::clock::UnixMs;
use crate::desired::document::Document;
use crate::desired::history::Outcome;
use crate::desired::plan::Change;
use crate::desired::secrets::SecretInfo;
use crate::http::query::Query;
use crate::http::serve::random_id;
use crate::launcher::verbs::{Ran, Tool};
use crate::op::Refused;
use crate::op::decommission::Asked;
use crate::op::desired::{IfMatch, shown};
use crate::op::lifecycle::Order;
use crate::op::pairing::Target;
use crate::secret::Secret;
use crate::state::Phase;

/// Answers a route that only a sidecar in launch mode has.
///
/// # Errors
/// A problem for the caller.
pub async fn answer(context: &Context, endpoint: Endpoint, query: &Query, call: &Call) -> Result<Answer, Problem> {
    let launch = context.launch.as_ref().ok_or(Refused::NeedsLaunchMode("this sidecar runs beside a gateway"))?;
    match endpoint {
        Endpoint::Desired => desired(launch, query),
        Endpoint::PutDesired => put_desired(context, launch, query, call).await,
        Endpoint::Secrets => json(StatusCode::OK, &SecretsBody { secrets: launch.secrets.list() }, None),
        Endpoint::PutSecret => put_secret(launch, call).await,
        Endpoint::DeleteSecret => {
            launch.secrets.remove(&call.name, &call.caller).await?;
            json(StatusCode::OK, &DoneReply { outcome: "deleted" }, None)
        }
        Endpoint::Start => order(context, launch, Order::Start, query, call).await,
        Endpoint::Stop => order(context, launch, Order::Stop, query, call).await,
        Endpoint::Restart => {
            let body: RestartBody = optional(call)?;
            order(context, launch, Order::Restart(body.if_boot_id), query, call).await
        }
        Endpoint::Sleep => {
            let body: SleepBody = optional(call)?;
            order(context, launch, Order::Sleep(body.force), query, call).await
        }
        Endpoint::Doctor => {
            let body: DoctorBody = optional(call)?;
            let ran = launch.lifecycle.doctor(body.fix, &call.caller).await?;
            json(StatusCode::OK, &DoctorReply::from(ran), None)
        }
        Endpoint::Access => access(launch, call).await,
        Endpoint::Decommission => decommission(launch, call).await,
        Endpoint::Grant => {
            launch.decommission.grant(&call.name, &call.caller).await?;
            json(StatusCode::OK, &DoneReply { outcome: "granted" }, None)
        }
        _ => Err(Problem::new("route_not_found", "no route of launch mode")),
    }
}

/// A request whose body may be left out.
fn optional<T: for<'de> Deserialize<'de> + Default>(call: &Call) -> Result<T, Problem> {
    if call.body.is_empty() { Ok(T::default()) } else { parse(&call.body) }
}

/// Body of `POST /v1/gateway/restart`; may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RestartBody {
    /// Restart only while the gateway still has this boot id, so that a repeated call restarts once.
    pub if_boot_id: Option<String>,
}

/// Body of `POST /v1/sleep`; may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SleepBody {
    /// Sleep even while the gateway says that work is under way.
    pub force: bool,
}

/// Body of `POST /v1/gateway/doctor`; may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DoctorBody {
    /// Repair what is found. It rewrites the gateway's configuration; a copy of what worked last is kept.
    pub fix: bool,
}

/// Body of `POST /v1/access`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AccessBody {
    /// What kind of link.
    pub kind: AccessKind,
}

/// Kinds of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AccessKind {
    /// Lets one browser in, once, without approval (gateway 2026.8 and later).
    Handoff,
}

/// Answer of `POST /v1/access`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AccessReply {
    /// The link, at the gateway's own address: put the public one in its place, in `gatewayUrl` too. Whoever has it is
    /// let in.
    pub url: String,
    /// When it lapses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMs>,
}

/// Body of `PUT /v1/secrets/{name}`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SecretBody {
    /// The secret itself; it is never shown again.
    value: Secret,
    /// When it stops being valid, RFC 3339.
    #[serde(default)]
    expires_at: Option<UnixMs>,
}

/// Answer of `GET /v1/desired`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DesiredBody {
    /// The generation shown; 0 when there is none.
    pub generation: u64,
    /// What became of it; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Outcome>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The document.
    pub document: serde_json::Value,
    /// The generations kept, oldest first.
    pub history: Vec<GenerationBody>,
}

/// One generation, in the list.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GenerationBody {
    /// Its number.
    pub generation: u64,
    /// When it was set.
    pub set_at: UnixMs,
    /// Whose credential set it; `first_boot` for what the platform gave.
    pub set_by: String,
    /// What became of it.
    pub status: Outcome,
}

/// Answer of `PUT /v1/desired`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PutDesiredReply {
    /// `stored` (the next start uses it), `dry_run` (nothing was kept), `applied` (the gateway is ready with it),
    /// `under_way` (it restarts with it), or `rolled_back` (it did not become ready with it).
    pub outcome: &'static str,
    /// The new generation; for a dry run the newest one.
    pub generation: u64,
    /// What changes in the gateway's configuration as it is now.
    pub changes: Vec<Change>,
    /// Why it was rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer of `GET /v1/secrets`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SecretsBody {
    /// Names, times and fingerprints; never values.
    pub secrets: Vec<SecretInfo>,
}

/// Answer of changes that have nothing more to say.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DoneReply {
    /// What was done.
    pub outcome: &'static str,
}

/// Answer of orders to the gateway.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OrderReply {
    /// `done`, or `under_way` when it was not reached within `?wait_s=`.
    pub outcome: &'static str,
    /// What the gateway is doing now.
    pub phase: Phase,
    /// Why.
    pub reason: String,
}

/// Answer of `POST /v1/gateway/doctor`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DoctorReply {
    /// Its exit code; absent when it was ended.
    pub code: Option<i32>,
    /// What it printed, redacted, at most 64 KiB.
    pub output: String,
}

impl From<Ran> for DoctorReply {
    fn from(ran: Ran) -> Self {
        Self { code: ran.code, output: ran.output }
    }
}

/// Answer of `POST /v1/decommission` before a second person granted it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GrantBody {
    /// `needs_grant`.
    pub outcome: &'static str,
    /// Another credential, marked as approver, grants it with `POST /v1/grants/{id}`; then the same call acts.
    pub grant: String,
    /// When it lapses at the latest.
    pub expires_at: UnixMs,
}

fn desired(launch: &Launch, query: &Query) -> Result<Answer, Problem> {
    let all = launch.desired.generations();
    let newest = all.last().map_or(0, |g| g.generation);
    let found = match query.number("generation") {
        Some(wanted) => Some(
            all.iter()
                .find(|g| g.generation == wanted)
                .ok_or_else(|| Problem::new("generation_not_found", format!("generation {wanted} is not kept")))?,
        ),
        None => all.last(),
    };
    let body = DesiredBody {
        generation: found.map_or(0, |g| g.generation),
        status: found.map(|g| g.status),
        error: found.and_then(|g| g.error.clone()),
        document: shown(found),
        history: all
            .iter()
            .map(|g| GenerationBody {
                generation: g.generation,
                set_at: g.set_at,
                set_by: g.set_by.clone(),
                status: g.status,
            })
            .collect(),
    };
    // The tag is what a change has to name, whichever generation is shown.
    json(StatusCode::OK, &body, Some(format!("\"{newest}\"")))
}

fn if_match(call: &Call) -> Result<IfMatch, Problem> {
    let Some(text) = &call.if_match else {
        return Err(Problem::new("precondition_required", "the header If-Match is missing"));
    };
    let number = text.trim().strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse().ok());
    match (text.trim(), number) {
        ("*", _) => Ok(IfMatch::Any),
        (_, Some(generation)) => Ok(IfMatch::Generation(generation)),
        _ => Err(Problem::new("bad_request", "If-Match: must be a generation in quotes, such as \"3\", or *")),
    }
}

async fn put_desired(context: &Context, launch: &Launch, query: &Query, call: &Call) -> Result<Answer, Problem> {
    let if_match = if_match(call)?;
    if query.has("dry_run") && query.has("apply") {
        return Err(Problem::new("invalid_query", "dry_run and apply exclude each other"));
    }
    let document = Document::parse(&call.body).map_err(|e| Problem::new("invalid_body", e))?;
    if query.has("dry_run") {
        let put = launch.desired.dry_run(&document, if_match).await?;
        let reply =
            PutDesiredReply { outcome: "dry_run", generation: put.generation, changes: put.changes, error: None };
        return json(StatusCode::OK, &reply, None);
    }
    let put = launch.desired.put(document, if_match, &call.caller).await?;
    let mut reply =
        PutDesiredReply { outcome: "stored", generation: put.generation, changes: put.changes, error: None };
    if query.has("apply") {
        let deadline = Instant::now() + patience(query).gateway;
        let order = if context.state.now().phase == Phase::Stopped { Order::Start } else { Order::Restart(None) };
        let reached = launch.lifecycle.order(order, &call.caller, deadline).await?;
        let now = launch.desired.generations().into_iter().find(|g| g.generation == put.generation);
        let failed = now.filter(|g| g.status == Outcome::Failed);
        (reply.outcome, reply.error) = match failed {
            Some(generation) => ("rolled_back", generation.error),
            None if reached => ("applied", None),
            None => ("under_way", None),
        };
    }
    json(StatusCode::OK, &reply, Some(format!("\"{}\"", put.generation)))
}

async fn put_secret(launch: &Launch, call: &Call) -> Result<Answer, Problem> {
    // The parser's own words may quote the value.
    let body: SecretBody = parse(&call.body)
        .map_err(|_| Problem::new("invalid_body", "must be {\"value\": \"…\", \"expires_at\"?: \"RFC 3339\"}"))?;
    let info = launch.secrets.put(&call.name, &body.value, body.expires_at, &call.caller).await?;
    json(StatusCode::OK, &info, None)
}

async fn order(
    context: &Context,
    launch: &Launch,
    order: Order,
    query: &Query,
    call: &Call,
) -> Result<Answer, Problem> {
    let deadline = Instant::now() + patience(query).gateway;
    let reached = launch.lifecycle.order(order, &call.caller, deadline).await?;
    let snapshot = context.state.now();
    let outcome = if reached { "done" } else { "under_way" };
    json(StatusCode::OK, &OrderReply { outcome, phase: snapshot.phase, reason: snapshot.phase_reason.clone() }, None)
}

/// What versions without such links say (2026.4.9, 2026.6.11).
const NO_SUCH_OPTION: [&str; 2] = ["unknown option", "does not recognize option"];

async fn access(launch: &Launch, call: &Call) -> Result<Answer, Problem> {
    let AccessBody { kind: AccessKind::Handoff } = parse(&call.body)?;
    let lifecycle = &launch.lifecycle;
    let made = crate::op::recorded(&lifecycle.audit, &call.caller, "access.handoff", "browser", async {
        let ran = lifecycle.tool(Tool::Handoff).await?;
        let said = ran.output.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let link = said.as_ref().and_then(|said| Some((said["browserUrl"].as_str()?.to_owned(), said)));
        match link {
            Some((url, said)) => Ok((url, said["browserBootstrapExpiresAtMs"].as_u64().map(UnixMs))),
            None if NO_SUCH_OPTION.iter().any(|text| ran.output.contains(text)) => {
                Err(Refused::UnsupportedByGateway("this gateway makes no such links; approve the browser instead"))
            }
            // What it printed may hold the token.
            None => Err(Refused::GatewayError(format!("its tool ended with {:?} and no link", ran.code))),
        }
    });
    let (url, expires_at) = made.await?;
    json(StatusCode::OK, &AccessReply { url, expires_at }, None)
}

async fn decommission(launch: &Launch, call: &Call) -> Result<Answer, Problem> {
    if !call.body.is_empty() {
        return Err(Problem::new("invalid_body", "this call takes no body"));
    }
    let request = Sha256::digest(b"POST /v1/decommission").into();
    match launch.decommission.ask(request, random_id, &call.caller).await? {
        Asked::Waits(grant, expires_at) => {
            json(StatusCode::ACCEPTED, &GrantBody { outcome: "needs_grant", grant, expires_at }, None)
        }
        Asked::Granted(by) => {
            launch.decommission.wipe(&by, &call.caller).await?;
            json(StatusCode::OK, &DoneReply { outcome: "decommissioned" }, None)
        }
    }
}

/// Lets a messenger's sender in by the code that was shown: no call of the gateway takes it, its own tool does.
///
/// # Errors
/// A problem for the caller.
pub async fn approve_code(context: &Context, target: Target, call: &Call) -> Result<Answer, Problem> {
    let launch =
        context.launch.as_ref().ok_or(Refused::NeedsLaunchMode("approving by code runs a tool of the gateway"))?;
    let Target::ChannelCode { channel, account, code } = target else {
        return Err(Problem::new("invalid_body", "code: is missing"));
    };
    let tool = Tool::ChannelApprove { channel: channel.clone(), code, account };
    tool.arguments().map_err(|e| Problem::new("invalid_body", e))?;
    let target = format!("channel:{channel}");
    let approve = crate::op::recorded(&context.audit, &call.caller, "pairing.approve", &target, async {
        let ran = launch.lifecycle.tool(tool).await?;
        match ran.code {
            Some(0) => Ok(()),
            _ if ran.output.contains("No pending pairing request") => {
                Err(Refused::NoPendingRequest("no sender of this channel waits with this code".to_owned()))
            }
            code => Err(Refused::GatewayError(format!("its tool ended with {code:?}: {}", last_line(&ran.output)))),
        }
    });
    approve.await?;
    json(StatusCode::OK, &DoneReply { outcome: "approved" }, None)
}

fn last_line(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing")
}
