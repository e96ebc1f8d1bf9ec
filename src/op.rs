//! What the API can do: decide first, as far as possible in pure functions, then act on the gateway.
//!
//! Nothing here knows HTTP. Every refusal is one variant of [`Refused`]; the API turns it into a status.

pub mod pairing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
