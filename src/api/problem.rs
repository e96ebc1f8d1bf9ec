//! Errors as the caller sees them: RFC 9457 `application/problem+json` with a stable code.
//!
//! Two texts per error: what the caller may read is here, what only the operator may read is in the log.

use hyper::StatusCode;
use serde::Serialize;

use super::body::PendingBody;
use crate::clock::UnixMs;
use crate::op::Refused;

/// One error answer.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// `urn:openclaw-sidecar:problem:<code>`.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// The same for every problem of a code.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The stable name to branch on.
    pub code: &'static str,
    /// What is wrong in this case; names the field where there is one.
    pub detail: String,
    /// Also in the log and the audit.
    #[serde(default)]
    pub request_id: String,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// What to do, in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// For `ambiguous` and `superseded`: the requests that wait now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<PendingBody>,
    /// Seconds for `Retry-After`.
    #[serde(skip)]
    pub retry_after_s: Option<u64>,
    /// Methods for `Allow`.
    #[serde(skip)]
    pub allow: Option<String>,
}

/// Every code there is: status, title, whether a retry makes sense, and the remedy.
const CODES: &[(&str, u16, &str, bool, Option<&str>)] = &[
    (
        "bad_request",
        400,
        "The request is malformed",
        false,
        Some("Correct what the detail names; a proxy in between may have changed the request."),
    ),
    (
        "invalid_body",
        400,
        "The body is not what this call takes",
        false,
        Some("Correct what the detail names; GET /openapi.json describes the body of each call."),
    ),
    (
        "invalid_query",
        400,
        "The query is not what this call takes",
        false,
        Some("Correct the parameter named; GET /openapi.json lists those of each call."),
    ),
    (
        "unauthorized",
        401,
        "A valid bearer credential is needed",
        false,
        Some(
            "Send exactly one header `Authorization: Bearer <token>` with a token whose SHA-256 the sidecar was given.",
        ),
    ),
    ("forbidden", 403, "This credential may not do this", false, Some("Call with a credential whose tier allows it.")),
    (
        "origin_refused",
        403,
        "Browsers may not call this API",
        false,
        Some("Call it from a server; requests with an Origin header are refused."),
    ),
    ("route_not_found", 404, "There is no such route", false, Some("GET /openapi.json lists the routes.")),
    ("no_pending_request", 404, "No such request waits", false, Some("GET /v1/pairing lists what waits now.")),
    ("not_found", 404, "No such device or node is paired", false, Some("GET /v1/pairing lists what is paired.")),
    (
        "method_not_allowed",
        405,
        "This route does not take this method",
        false,
        Some("Use one of the methods that the header Allow lists."),
    ),
    (
        "superseded",
        409,
        "The device asks for something else by now",
        false,
        Some("Look at the candidate and approve it by its request_id, or approve by device_id with an expectation."),
    ),
    (
        "ambiguous",
        409,
        "More than one request matches",
        false,
        Some("Approve one of the candidates by its request_id, or narrow `expect`."),
    ),
    ("expired", 410, "The request lapsed", false, Some("The device has to try again; reload the page.")),
    ("length_required", 411, "Transfer-Encoding is not accepted", false, Some("Send the body with a Content-Length.")),
    ("body_too_large", 413, "The body is too large", false, Some("Send less: the detail says how much is taken.")),
    ("uri_too_long", 414, "The URI is too long", false, Some("Shorten the query or the name in the path.")),
    (
        "unsupported_media_type",
        415,
        "The body is of another kind than this call takes",
        false,
        Some("Send `Content-Type: application/json` and no Content-Encoding."),
    ),
    (
        "misdirected",
        421,
        "This host name is not served here",
        false,
        Some("Add the name to tls.server_names, or call by IP address."),
    ),
    (
        "exceeds_expectation",
        422,
        "The request asks for more than expected",
        false,
        Some("Look at the request's scopes; approve it with a wider `expect` if they are wanted, else reject it."),
    ),
    (
        "invalid_desired",
        422,
        "The desired state contradicts itself or the machine",
        false,
        Some("Correct the field named; ?dry_run=true checks without keeping anything."),
    ),
    (
        "precondition_failed",
        412,
        "Somebody else changed the desired state meanwhile",
        false,
        Some("GET /v1/desired, look at what changed, and send its generation as If-Match."),
    ),
    (
        "precondition_required",
        428,
        "Say which generation you change",
        false,
        Some("Send If-Match with the ETag of GET /v1/desired (\"0\" when there is none yet)."),
    ),
    ("generation_not_found", 404, "This generation is not kept", false, Some("GET /v1/desired lists those kept.")),
    ("secret_not_found", 404, "No secret of this name is stored", false, Some("GET /v1/secrets lists the names.")),
    (
        "no_machine_secret",
        409,
        "The machine has no secret to seal with",
        false,
        Some("Give the machine a secret of its own: machine.secret (OPENCLAW_SIDECAR_MACHINE_SECRET)."),
    ),
    ("other_boot", 409, "The gateway was restarted meanwhile", false, Some("Look at /v1/state before trying again.")),
    (
        "gateway_busy",
        409,
        "Work is under way in the gateway",
        true,
        Some("Try again later, or send {\"force\":true} to interrupt it."),
    ),
    (
        "decommissioned",
        409,
        "This tenant was decommissioned",
        false,
        Some("Give the next tenant another volume, or remove `decommissioned` from the sidecar's state directory."),
    ),
    ("grant_not_found", 404, "Nothing waits for a grant under this id", false, Some("It may have lapsed: ask anew.")),
    (
        "same_person",
        403,
        "Who asked may not grant it",
        false,
        Some("Another credential marked as approver has to grant it."),
    ),
    (
        "too_many_grants",
        429,
        "Too many requests wait for a second person",
        true,
        Some("Grant one of those that wait, or let it lapse, then ask anew."),
    ),
    ("launcher_failed", 502, "The launcher could not do it", true, Some("See `supervisor` in /v1/state, and the log.")),
    (
        "state_not_written",
        507,
        "Our own state cannot be written durably",
        true,
        Some("Make room on the disk of state_dir."),
    ),
    ("too_many_streams", 429, "Too many event streams are open", true, Some("Close one, or use /v1/state?wait_gen=.")),
    ("internal", 500, "Something failed inside", true, Some("See the log for the request id.")),
    (
        "needs_launch_mode",
        501,
        "Only a sidecar that launches the gateway can do this",
        false,
        Some("Run the sidecar as the gateway's launcher: `openclaw-sidecar run -- <gateway command>`."),
    ),
    (
        "unsupported_by_gateway",
        501,
        "This version of the gateway cannot do this",
        false,
        Some("See the README's table of what each version can do; update the gateway."),
    ),
    (
        "missing_authority",
        502,
        "The gateway refuses the sidecar",
        false,
        Some("See `findings` in /v1/state: they say which side is stale."),
    ),
    ("gateway_error", 502, "The gateway answered something unexpected", false, Some("See the gateway's log.")),
    ("gateway_starting", 503, "The gateway boots or restarts", true, Some("Try again, or wait longer with ?wait_s=.")),
    ("gateway_stopped", 503, "No gateway listens", true, Some("Start the gateway, or correct gateway.address.")),
    (
        "gateway_unreachable",
        504,
        "The gateway did not answer in time",
        true,
        Some("Repeat the call: it is safe, and says already_paired if the first one took effect."),
    ),
    (
        "audit_unavailable",
        507,
        "The audit cannot be written, so nothing was done",
        true,
        Some("Make room on the disk of state_dir."),
    ),
];

/// The codes that only the registry answers, besides those above.
#[cfg(feature = "registry")]
const REGISTRY_CODES: &[(&str, u16, &str, bool, Option<&str>)] = &[
    (
        "registry_unauthorized",
        401,
        "A valid credential for this audience is needed",
        false,
        Some("Machines send their registry credential, support and admins one of their keys, as `Bearer <token>`."),
    ),
    ("other_tenant", 403, "The credential is another tenant's", false, Some("Set registry.tenant to its own tenant.")),
    ("tenant_retired", 410, "This tenant was retired", false, Some("Create a tenant with another id.")),
    ("tenant_not_found", 404, "There is no such tenant", false, Some("GET /v1/support/tenants lists them.")),
    (
        "tenant_exists",
        409,
        "A tenant of this id exists",
        false,
        Some("Take another id, or PUT its credentials with /v1/admin/tenants/{id}/credentials."),
    ),
    ("credential_taken", 409, "Another tenant holds this credential", false, Some("Give each tenant its own.")),
    ("key_exists", 409, "A key of this name exists", false, Some("Take another name, or DELETE it first.")),
    ("key_not_found", 404, "There is no such key", false, Some("Keys from the configuration are removed there.")),
    ("webhook_not_found", 404, "There is no such webhook", false, Some("GET /v1/admin/webhooks lists them.")),
    ("too_many", 409, "There are too many of these", false, Some("Remove one that is not needed any more.")),
    (
        "store_unavailable",
        503,
        "The database cannot be used now",
        true,
        Some(
            "Correct what the detail says; until then it is tried again by itself, and machines tell later what they cannot tell now.",
        ),
    ),
];

#[cfg(not(feature = "registry"))]
const REGISTRY_CODES: &[(&str, u16, &str, bool, Option<&str>)] = &[];

impl Problem {
    /// A problem by its code.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        // An unknown code cannot be written: the table is searched by a test for every code in the source.
        let (code, status, title, retryable, remedy) = CODES
            .iter()
            .chain(REGISTRY_CODES)
            .find(|(c, ..)| *c == code)
            .copied()
            .unwrap_or((code, 500, "Something failed inside", false, None));
        Self {
            type_uri: format!("urn:openclaw-sidecar:problem:{code}"),
            title,
            status,
            code,
            detail: detail.into(),
            request_id: String::new(),
            retryable,
            remedy: remedy.map(str::to_owned),
            candidates: Vec::new(),
            retry_after_s: matches!(status, 503 | 507 | 429).then_some(5),
            allow: None,
        }
    }

    /// The status as hyper has it.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let code = refused.code();
        let now = UnixMs::now();
        match refused {
            Refused::NoPendingRequest(what)
            | Refused::NotFound(what)
            | Refused::Expired(what)
            | Refused::ExceedsExpectation(what)
            | Refused::MissingAuthority(what)
            | Refused::GatewayError(what)
            | Refused::InvalidDesired(what)
            | Refused::InvalidSecret(what)
            | Refused::NoSuchSecret(what)
            | Refused::LauncherFailed(what)
            | Refused::NoSuchGrant(what)
            | Refused::StateNotWritten(what)
            | Refused::AuditUnavailable(what) => Self::new(code, what),
            Refused::PreconditionFailed(newest) => Self::new(code, format!("the newest generation is {newest}")),
            Refused::NoMachineSecret => Self::new(code, "machine.secret is not set"),
            Refused::OtherBoot(now) => Self::new(code, format!("its boot id is {now} now")),
            Refused::GatewayBusy => Self::new(code, "it says that work is under way"),
            Refused::Decommissioned => Self::new(code, "its state was wiped and the gateway stays stopped"),
            Refused::SamePerson => Self::new(code, "the same credential asked for it"),
            Refused::TooManyGrants => Self::new(code, "too many wait already"),
            Refused::UnsupportedByGateway(what) | Refused::NeedsLaunchMode(what) => Self::new(code, what),
            Refused::Superseded(what, newer) => {
                let detail = format!("{what}; it waits now as {}", newer.request_id);
                Self { candidates: vec![PendingBody::of(&newer, now)], ..Self::new(code, detail) }
            }
            Refused::Ambiguous(candidates) => {
                let detail = format!("{} requests wait", candidates.len());
                let candidates = candidates.iter().take(20).map(|p| PendingBody::of(p, now)).collect();
                Self { candidates, ..Self::new(code, detail) }
            }
            Refused::CredentialGone => Self::new(code, "the credential was removed while the call waited"),
            Refused::GatewayStarting => Self::new(code, "the gateway was not ready within the time given"),
            Refused::GatewayStopped => Self::new(code, "nothing listened at the gateway's address"),
            Refused::GatewayUnreachable { sent: true } => {
                Self::new(code, "the gateway got the request but did not answer: it may still take effect")
            }
            Refused::GatewayUnreachable { sent: false } => {
                Self::new(code, "the gateway did not answer; nothing was done")
            }
        }
    }
}

/// All codes, for the description of the API.
#[cfg(test)]
pub(crate) fn codes() -> impl Iterator<Item = (&'static str, u16, &'static str)> {
    CODES.iter().map(|(code, status, title, ..)| (*code, *status, *title))
}

/// Those of the registry alone.
#[cfg(all(test, feature = "registry"))]
pub(crate) fn registry_codes() -> impl Iterator<Item = (&'static str, u16, &'static str)> {
    REGISTRY_CODES.iter().map(|(code, status, title, ..)| (*code, *status, *title))
}

#[cfg(test)]
mod tests;
