//! What manages the fleet: tenants, keys, webhooks. Secrets are shown once, in the answer that makes them.

use std::sync::Arc;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER_PERMISSIVE};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json as value;
use sha2::{Digest as _, Sha256};

use super::{Answer, Call, Context, json, no_tenant, now, unavailable};
use crate::api::problem::Problem;
use crate::auth::credentials::Token;
use crate::clock::UnixMs;
use crate::registry::rules::History;
use crate::registry::store::{Change, Key, Outcome, Webhook, Work};
use crate::registry::tenant::{Digest, EntryKind, MAX_CREDENTIALS, Row, is_id};
use crate::registry::webhooks;

/// Every credential made here begins so.
const CREDENTIAL_PREFIX: &str = "ocr_";
const MAX_LABEL: usize = 200;
const MAX_KEYS: usize = 200;
const MAX_WEBHOOKS: usize = 20;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NewTenant {
    id: String,
    #[serde(default)]
    label: String,
    /// SHA-256 of the credential; without it one is made.
    #[serde(default)]
    credential_sha256: Option<String>,
}

/// What becomes of a tenant that was created, or had its credentials changed.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct TenantReply {
    id: String,
    outcome: &'static str,
    /// Shown once, and only where it was made here.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    /// One for each credential, in their order.
    tickets: Vec<String>,
}

pub(super) async fn create_tenant(context: &Arc<Context>, call: &Call) -> Result<Answer, Problem> {
    let body: NewTenant = parse(call)?;
    named_id("id", &body.id)?;
    if body.label.len() > MAX_LABEL || body.label.chars().any(char::is_control) {
        return Err(invalid(&format!("label: must be at most {MAX_LABEL} bytes without control characters")));
    }
    let (digest, credential) = match &body.credential_sha256 {
        Some(text) => (digest("credential_sha256", text)?, None),
        None => made().map(|(credential, digest)| (digest, Some(credential)))?,
    };
    let (id, label, at, actor) = (body.id.clone(), body.label, now(), call.caller.actor.clone());
    let act = move |row: Option<&Row>| match row {
        None => {
            let row = Row::new(&id, &label, vec![digest], at);
            let mut history = History::new(&row, at);
            history.add(EntryKind::Created, format!("created by {actor}"), value!({ "by": actor }));
            history.finish(row, at, &[], None)
        }
        Some(row) if row.retired_at.is_some() => outcome(Outcome::Retired),
        Some(row) if row.credentials.contains(&digest) => outcome(Outcome::Unchanged),
        Some(_) => outcome(Outcome::Exists),
    };
    let done = amend(context, &body.id, act).await?;
    let tickets = vec![context.signer.ticket(&body.id, &digest)];
    let reply = |outcome| TenantReply { id: body.id.clone(), outcome, credential: credential.clone(), tickets };
    match done {
        Outcome::Done => json(StatusCode::CREATED, &reply("created")),
        Outcome::Unchanged => json(StatusCode::OK, &reply("exists")),
        Outcome::CredentialTaken => Err(Problem::new("credential_taken", "credential_sha256 is another tenant's")),
        Outcome::Retired => Err(Problem::new("tenant_retired", "a tenant of this id was retired; take another id")),
        _ => Err(Problem::new("tenant_exists", "a tenant of this id exists with another credential")),
    }
}

/// What became of a thing that was named in the path.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DoneReply<'a> {
    id: &'a str,
    outcome: &'static str,
}

pub(super) async fn retire_tenant(context: &Arc<Context>, call: &Call) -> Result<Answer, Problem> {
    let (at, actor) = (now(), call.caller.actor.clone());
    let act = move |row: Option<&Row>| match row {
        None => outcome(Outcome::NoTenant),
        Some(row) if row.retired_at.is_some() => outcome(Outcome::Unchanged),
        Some(row) => {
            let mut history = History::new(row, at);
            history.add(EntryKind::Retired, format!("retired by {actor}"), value!({ "by": actor }));
            history.finish(Row { retired_at: Some(at), ..row.clone() }, at, &[], None)
        }
    };
    match amend(context, &call.name, act).await? {
        Outcome::NoTenant => Err(no_tenant(&call.name)),
        Outcome::Unchanged => json(StatusCode::OK, &DoneReply { id: &call.name, outcome: "retired_before" }),
        _ => json(StatusCode::OK, &DoneReply { id: &call.name, outcome: "retired" }),
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NewCredentials {
    /// SHA-256 of each credential that counts from now on: the one in use and, for a rotation, the next.
    credentials_sha256: Vec<String>,
}

pub(super) async fn set_credentials(context: &Arc<Context>, call: &Call) -> Result<Answer, Problem> {
    let body: NewCredentials = parse(call)?;
    let texts = &body.credentials_sha256;
    if texts.is_empty() || texts.len() > MAX_CREDENTIALS {
        return Err(invalid(&format!("credentials_sha256: give 1 to {MAX_CREDENTIALS}")));
    }
    let digests: Vec<Digest> = texts.iter().map(|t| digest("credentials_sha256", t)).collect::<Result<_, _>>()?;
    let tickets = digests.iter().map(|digest| context.signer.ticket(&call.name, digest)).collect();
    let (at, actor) = (now(), call.caller.actor.clone());
    let act = move |row: Option<&Row>| match row {
        None => outcome(Outcome::NoTenant),
        Some(row) if row.retired_at.is_some() => outcome(Outcome::Retired),
        Some(row) if row.credentials == digests => outcome(Outcome::Unchanged),
        Some(row) => {
            let mut history = History::new(row, at);
            let text = format!("credentials changed by {actor}: {} count now", digests.len());
            history.add(EntryKind::CredentialChanged, text, value!({ "by": actor }));
            let row = Row { credentials: digests.clone(), ..row.clone() };
            Change { row: Some(row), ..history.only() }
        }
    };
    match amend(context, &call.name, act).await? {
        Outcome::NoTenant => Err(no_tenant(&call.name)),
        Outcome::Retired => Err(Problem::new("tenant_retired", "this tenant was retired")),
        Outcome::CredentialTaken => Err(Problem::new("credential_taken", "one of them is another tenant's")),
        _ => {
            let id = call.name.clone();
            json(StatusCode::OK, &TenantReply { id, outcome: "set", credential: None, tickets })
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct KeyLine {
    id: String,
    admin: bool,
    created_at: UnixMs,
    expires_at: Option<UnixMs>,
}

/// The keys made here; those in the configuration are not among them.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct KeysReply {
    keys: Vec<KeyLine>,
}

pub(super) async fn keys(context: &Context) -> Result<Answer, Problem> {
    let keys = context.store.keys().await.map_err(unavailable)?;
    let line =
        |key: Key| KeyLine { id: key.id, admin: key.admin, created_at: key.created_at, expires_at: key.expires_at };
    json(StatusCode::OK, &KeysReply { keys: keys.into_iter().map(line).collect() })
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    id: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    expires_at: Option<UnixMs>,
}

/// A new key, shown this once.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct KeyReply<'a> {
    id: &'a str,
    key: &'a str,
    admin: bool,
}

pub(super) async fn create_key(context: &Context, call: &Call) -> Result<Answer, Problem> {
    let body: NewKey = parse(call)?;
    named_id("id", &body.id)?;
    if body.expires_at.is_some_and(|at| at <= now()) {
        return Err(invalid("expires_at: lies in the past"));
    }
    let taken = || Problem::new("key_exists", format!("a key named {:?} exists", body.id));
    if context.callers.is_configured(&body.id) {
        return Err(taken());
    }
    if context.store.keys().await.map_err(unavailable)?.len() >= MAX_KEYS {
        return Err(Problem::new("too_many", format!("there are {MAX_KEYS} keys; take one back first")));
    }
    let token = Token::random().map_err(|why| Problem::new("internal", why))?;
    let key = Key {
        id: body.id.clone(),
        digest: Sha256::digest(token.expose().as_bytes()).into(),
        admin: body.admin,
        created_at: now(),
        expires_at: body.expires_at,
    };
    if !context.store.put_key(key).await.map_err(unavailable)? {
        return Err(taken());
    }
    context.callers.refresh().await.map_err(unavailable)?;
    json(StatusCode::CREATED, &KeyReply { id: &body.id, key: token.expose(), admin: body.admin })
}

pub(super) async fn drop_key(context: &Context, call: &Call) -> Result<Answer, Problem> {
    if !context.store.drop_key(call.name.clone()).await.map_err(unavailable)? {
        return Err(Problem::new("key_not_found", format!("no key named {:?} was made here", call.name)));
    }
    context.callers.refresh().await.map_err(unavailable)?;
    json(StatusCode::OK, &DoneReply { id: &call.name, outcome: "removed" })
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct WebhookLine {
    id: String,
    url: String,
    kinds: Vec<EntryKind>,
    created_at: UnixMs,
    delivered_through: u64,
    failures: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_error: String,
}

/// The webhooks and how they do.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct WebhooksReply {
    webhooks: Vec<WebhookLine>,
}

pub(super) async fn webhooks(context: &Context) -> Result<Answer, Problem> {
    let webhooks = context.store.webhooks().await.map_err(unavailable)?;
    let line = |webhook: Webhook| WebhookLine {
        id: webhook.id,
        url: webhook.url,
        kinds: webhook.kinds,
        created_at: webhook.created_at,
        delivered_through: webhook.cursor,
        failures: webhook.failures,
        last_error: webhook.last_error,
    };
    json(StatusCode::OK, &WebhooksReply { webhooks: webhooks.into_iter().map(line).collect() })
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhook {
    url: String,
    /// Kinds of history lines; the usual ones without it.
    #[serde(default)]
    kinds: Vec<String>,
}

/// A webhook, and the secret that signs its deliveries.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct WebhookReply {
    id: String,
    kinds: Vec<EntryKind>,
    secret: String,
}

pub(super) async fn put_webhook(context: &Context, call: &Call) -> Result<Answer, Problem> {
    let body: NewWebhook = parse(call)?;
    webhooks::check_url(&body.url, context.outbound.private).map_err(|why| invalid(&format!("url: {why}")))?;
    let kinds = body.kinds.iter().map(|name| EntryKind::parse(name).ok_or(name));
    let kinds: Vec<EntryKind> = kinds.collect::<Result<_, _>>().map_err(|name| {
        let known: Vec<&str> = EntryKind::ALL.iter().map(|kind| kind.name()).collect();
        invalid(&format!("kinds: {name:?} is none of {}", known.join(", ")))
    })?;
    let known = context.store.webhooks().await.map_err(unavailable)?;
    if known.len() >= MAX_WEBHOOKS && !known.iter().any(|webhook| webhook.id == call.name) {
        return Err(Problem::new("too_many", format!("there are {MAX_WEBHOOKS} webhooks; remove one first")));
    }
    let webhook = Webhook {
        id: call.name.clone(),
        url: body.url,
        kinds: if kinds.is_empty() { webhooks::USUAL.to_vec() } else { kinds },
        created_at: now(),
        cursor: 0,
        failures: 0,
        next_at: now(),
        last_error: String::new(),
    };
    let secret = webhooks::secret(&context.signer, &webhook);
    let shown = WebhookReply { id: webhook.id.clone(), kinds: webhook.kinds.clone(), secret };
    context.store.put_webhook(webhook).await.map_err(unavailable)?;
    json(StatusCode::OK, &shown)
}

pub(super) async fn drop_webhook(context: &Context, call: &Call) -> Result<Answer, Problem> {
    if !context.store.drop_webhook(call.name.clone()).await.map_err(unavailable)? {
        return Err(Problem::new("webhook_not_found", format!("there is no webhook {:?}", call.name)));
    }
    json(StatusCode::OK, &DoneReply { id: &call.name, outcome: "removed" })
}

async fn amend(
    context: &Context,
    tenant: &str,
    act: impl Fn(Option<&Row>) -> Change + Send + Sync + 'static,
) -> Result<Outcome, Problem> {
    context.ingest.amend(Work { tenant: tenant.to_owned(), act: Box::new(act) }).await.map_err(unavailable)
}

fn outcome(outcome: Outcome) -> Change {
    Change { outcome, ..Change::default() }
}

fn parse<T: serde::de::DeserializeOwned>(call: &Call) -> Result<T, Problem> {
    crate::json::parse(&call.body).map_err(|why| invalid(&why))
}

fn invalid(what: &str) -> Problem {
    Problem::new("invalid_body", what)
}

fn named_id(field: &str, id: &str) -> Result<(), Problem> {
    if is_id(id) {
        return Ok(());
    }
    let wanted = "must be 1 to 64 letters, digits, dots, dashes or underscores, not beginning with a dot";
    Err(invalid(&format!("{field}: {wanted}")))
}

fn digest(field: &str, text: &str) -> Result<Digest, Problem> {
    let digest = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| Digest::try_from(bytes).ok());
    let digest = digest.ok_or_else(|| invalid(&format!("{field}: must be 64 hexadecimal digits")))?;
    if digest == <Digest>::from(Sha256::digest("")) {
        return Err(invalid(&format!("{field}: is the digest of no credential at all")));
    }
    Ok(digest)
}

/// A new credential and its digest.
fn made() -> Result<(String, Digest), Problem> {
    let mut bytes = zeroize::Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| Problem::new("internal", "the system's random source failed"))?;
    let credential = format!("{CREDENTIAL_PREFIX}{}", BASE64URL_NOPAD.encode(&*bytes));
    let digest = Sha256::digest(credential.as_bytes()).into();
    Ok((credential, digest))
}
