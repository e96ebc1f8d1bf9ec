//! What the API can do: decide first, as far as possible in pure functions, then act on the gateway.
//!
//! Nothing here knows HTTP. Every refusal is one variant of [`Refused`]; the API turns it into a status.

pub mod decommission;
pub mod desired;
pub mod findings;
pub mod lifecycle;
pub mod pairing;
pub mod secrets;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::Audit;
use crate::audit::chain::Entry;
use crate::clock::UnixMs;
use crate::gateway::records::tidy;
use crate::gateway::{CallError, Down};
use crate::state::Pending;

/// Who asks, for the audit.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// A credential's id or `local:<uid>`.
    pub actor: String,
    /// The request's id, as in the answer and the log.
    pub request_id: String,
    /// The caller's `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// The caller's `traceparent`.
    pub traceparent: Option<String>,
    /// Whether it still may; `None` where that cannot change.
    pub standing: Option<Standing>,
}

impl Caller {
    /// A call may have waited for the gateway: its credential must still hold when it acts.
    fn check_standing(&self) -> Result<(), Refused> {
        match &self.standing {
            Some(standing) if !(standing.0)() => Err(Refused::CredentialGone),
            _ => Ok(()),
        }
    }
}

/// Tells whether a caller still may do what it was let in for.
#[derive(Clone)]
pub struct Standing(pub Arc<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standing")
    }
}

/// Why an operation was not done. Every variant is a stable code of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// No such request waits.
    NoPendingRequest(String),
    /// No such device or node is paired.
    NotFound(String),
    /// The request waited too long and lapsed.
    Expired(String),
    /// The device asked again, for something else, under this new request id.
    Superseded(String, Box<Pending>),
    /// More than one request matches.
    Ambiguous(Vec<Pending>),
    /// The request asks for more than the caller expects.
    ExceedsExpectation(String),
    /// The gateway boots or restarts.
    GatewayStarting,
    /// Nothing listens at the gateway's address.
    GatewayStopped,
    /// The gateway did not answer in time; `sent` when the request may still take effect.
    GatewayUnreachable {
        /// The gateway had received it: it may still take effect, and repeating it is safe.
        sent: bool,
    },
    /// The gateway refuses the sidecar.
    MissingAuthority(String),
    /// This gateway's version has no such method.
    UnsupportedByGateway(&'static str),
    /// Only a sidecar that launches the gateway can do this.
    NeedsLaunchMode(&'static str),
    /// The gateway answered something unexpected.
    GatewayError(String),
    /// The audit cannot be written, so nothing was done.
    AuditUnavailable(String),
    /// The caller's credential was taken away while the call waited.
    CredentialGone,
    /// The desired state contradicts the machine.
    InvalidDesired(String),
    /// The caller saw another generation than the newest, which is this.
    PreconditionFailed(u64),
    /// Our own state cannot be written durably; whether the change is there, the state tells.
    StateNotWritten(String),
    /// A secret's name or value cannot be used.
    InvalidSecret(String),
    /// No secret of this name is stored.
    NoSuchSecret(String),
    /// The platform gives no machine secret, so nothing can be sealed.
    NoMachineSecret,
    /// The gateway was restarted meanwhile; this is its boot id.
    OtherBoot(String),
    /// Work is under way in the gateway.
    GatewayBusy,
    /// The launcher could not do it.
    LauncherFailed(String),
    /// The tenant was decommissioned: nothing starts any more.
    Decommissioned,
    /// Nothing waits for a grant under this id.
    NoSuchGrant(String),
    /// Who asked may not grant it to himself.
    SamePerson,
    /// Too many requests wait for a second person.
    TooManyGrants,
}

impl Refused {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoPendingRequest(_) => "no_pending_request",
            Self::NotFound(_) => "not_found",
            Self::Expired(_) => "expired",
            Self::Superseded(..) => "superseded",
            Self::Ambiguous(_) => "ambiguous",
            Self::ExceedsExpectation(_) => "exceeds_expectation",
            Self::GatewayStarting => "gateway_starting",
            Self::GatewayStopped => "gateway_stopped",
            Self::GatewayUnreachable { .. } => "gateway_unreachable",
            Self::MissingAuthority(_) => "missing_authority",
            Self::UnsupportedByGateway(_) => "unsupported_by_gateway",
            Self::NeedsLaunchMode(_) => "needs_launch_mode",
            Self::GatewayError(_) => "gateway_error",
            Self::AuditUnavailable(_) => "audit_unavailable",
            Self::CredentialGone => "unauthorized",
            Self::InvalidDesired(_) => "invalid_desired",
            Self::PreconditionFailed(_) => "precondition_failed",
            Self::StateNotWritten(_) => "state_not_written",
            Self::InvalidSecret(_) => "invalid_body",
            Self::NoSuchSecret(_) => "secret_not_found",
            Self::NoMachineSecret => "no_machine_secret",
            Self::OtherBoot(_) => "other_boot",
            Self::GatewayBusy => "gateway_busy",
            Self::LauncherFailed(_) => "launcher_failed",
            Self::Decommissioned => "decommissioned",
            Self::NoSuchGrant(_) => "grant_not_found",
            Self::SamePerson => "same_person",
            Self::TooManyGrants => "too_many_grants",
        }
    }
}

impl From<Down> for Refused {
    fn from(down: Down) -> Self {
        match down {
            Down::Stopped => Self::GatewayStopped,
            Down::Connecting | Down::Starting => Self::GatewayStarting,
            Down::Mute | Down::Lost(_) => Self::GatewayUnreachable { sent: false },
            Down::Unauthorized(refusal) => Self::MissingAuthority(refusal.summary),
        }
    }
}

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Down(down) => down.into(),
            CallError::Unsupported => Self::UnsupportedByGateway("the method this needs does not exist there"),
            CallError::Lost | CallError::TimedOut => Self::GatewayUnreachable { sent: true },
            CallError::Rejected(error) if error.is_starting() => Self::GatewayStarting,
            CallError::Rejected(error) if error.is_missing_scope() => Self::MissingAuthority(tidy(&error.message)),
            CallError::Rejected(error) => {
                Self::GatewayError(format!("{}: {}", tidy(&error.code), tidy(&error.message)))
            }
            CallError::Malformed(what) => Self::GatewayError(format!("an unreadable answer: {}", tidy(&what))),
        }
    }
}

/// Does something with its intent and outcome on record; nothing is done that is not.
pub(crate) async fn recorded<T>(
    audit: &Audit,
    caller: &Caller,
    verb: &str,
    target: &str,
    act: impl Future<Output = Result<T, Refused>>,
) -> Result<T, Refused> {
    caller.check_standing()?;
    let unavailable = |e: std::io::Error| Refused::AuditUnavailable(e.to_string());
    let intent = audit.append(entry(caller, verb, target, "intent", "")).await.map_err(unavailable)?;
    intent.wait().await.map_err(unavailable)?;
    let result = act.await;
    let (outcome, detail) = match &result {
        Ok(_) => ("done", String::new()),
        Err(refused) => (refused.code(), format!("{refused:?}")),
    };
    if let Err(e) = audit.append_soon(entry(caller, verb, target, outcome, &detail)).await {
        tracing::error!(error = %e, verb, outcome, "the outcome could not be put on record");
    }
    result
}

/// A record of the audit.
pub(crate) fn entry(caller: &Caller, verb: &str, target: &str, outcome: &str, detail: &str) -> Entry {
    Entry {
        at: UnixMs::now().rfc3339(),
        request_id: caller.request_id.clone(),
        actor: caller.actor.clone(),
        verb: verb.to_owned(),
        target: target.to_owned(),
        outcome: outcome.to_owned(),
        detail: detail.to_owned(),
        idempotency_key: caller.idempotency_key.clone(),
        traceparent: caller.traceparent.clone(),
    }
}

/// How long a caller is willing to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the gateway to be reachable and to answer.
    pub gateway: Duration,
    /// After an approval, for the device to be connected; zero does not wait.
    pub connected: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { gateway: Duration::from_secs(20), connected: Duration::ZERO }
    }
}
