//! Refusals of the gateway, explained: what happened, which side is stale, what to do.

use super::frames::RpcError;
use super::{Down, Refusal};

/// Why a `connect` was refused, in words that help; a gateway that merely boots is no refusal.
pub(super) fn refused(error: &RpcError) -> Down {
    if error.is_starting() {
        return Down::Starting;
    }
    let code = error.fine_code().to_owned();
    let remedy = match code.as_str() {
        "AUTH_TOKEN_MISMATCH" | "AUTH_PASSWORD_MISMATCH" | "AUTH_UNAUTHORIZED" => {
            "The token the sidecar holds is not the one the gateway runs with: point gateway.config_path or \
             gateway.token_file at the current one. A changed file is picked up within seconds."
        }
        "AUTH_TOKEN_MISSING" => "Give the sidecar the gateway's token: gateway.config_path, token_file or token.",
        "AUTH_RATE_LIMITED" => "Wait five minutes; then make sure that only the right token is used.",
        "PROTOCOL_MISMATCH" => "This gateway speaks another protocol: update the sidecar.",
        "PAIRING_REQUIRED" | "NOT_PAIRED" | "DEVICE_IDENTITY_REQUIRED" => {
            "The gateway does not take the sidecar for a local client. It must be reached on loopback, without a proxy \
             between; remove <state_dir>/identity.pk8 if that identity was paired with fewer scopes."
        }
        _ => "See the gateway's log for the line that starts with `closed before connect`.",
    };
    let summary = format!("the gateway refuses the sidecar: {}", super::records::tidy(&error.message));
    let reason = error.details.as_ref().map(|details| super::records::tidy(&details.auth_reason));
    let reason = reason.filter(|reason| !reason.is_empty()).map(|reason| ("auth_reason", reason));
    let evidence = [("refusal", super::records::tidy(&code))].into_iter().chain(reason).collect();
    Down::Unauthorized(Refusal { code, summary, remedy: remedy.to_owned(), evidence })
}

/// The silent kind of refusal: let in, but with nothing allowed.
pub(super) fn stripped() -> Down {
    Down::Unauthorized(Refusal {
        code: "missing_scope".to_owned(),
        summary: "the gateway let the sidecar in, but without the scope operator.admin".to_owned(),
        remedy: "The gateway must see the sidecar as a local backend: on loopback, token or password auth, no proxy \
                 between. With auth mode trusted-proxy, also set gateway.auth.password."
            .to_owned(),
        evidence: Vec::new(),
    })
}

/// Nothing to send was found on our side.
pub(super) fn no_token(why: &str) -> Refusal {
    Refusal {
        code: "no_token".to_owned(),
        summary: format!("the sidecar found no token for the gateway: {why}"),
        remedy: "Set gateway.config_path to the gateway's openclaw.json (readable by the sidecar), or \
                 gateway.token_file, or OPENCLAW_SIDECAR_GATEWAY_TOKEN."
            .to_owned(),
        evidence: Vec::new(),
    }
}
