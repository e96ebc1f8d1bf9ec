//! Refused connections: error, details and close code, in the exact form of each version.

use serde_json::{Value, json};

use super::records::{DeviceSpec, Paired, sorted};
use super::version::Version;

/// The answer to a `connect` that is not let in. Tests make their own with the public fields.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: String,
    pub message: String,
    pub details: Option<Value>,
    pub retryable: bool,
    pub retry_after_ms: Option<u64>,
    pub close: u16,
    /// The reason of the close frame, where it is not the message.
    pub close_reason: Option<String>,
}

impl Refusal {
    pub fn new(code: &str, message: &str, details: Option<Value>) -> Self {
        let (code, message) = (code.to_owned(), message.to_owned());
        Self { code, message, details, retryable: false, retry_after_ms: None, close: 1008, close_reason: None }
    }

    pub fn invalid(message: &str) -> Self {
        Self::new("INVALID_REQUEST", message, None)
    }

    /// The gateway listens, but its channels are still starting.
    pub fn starting() -> Self {
        let details = json!({"reason": "startup-sidecars"});
        Self {
            retryable: true,
            retry_after_ms: Some(500),
            close: 1013,
            close_reason: Some("gateway starting".into()),
            ..Self::new("UNAVAILABLE", "gateway starting; retry shortly", Some(details))
        }
    }

    pub fn rate_limited(retry_after_ms: u64) -> Self {
        let details = json!({"code": "AUTH_RATE_LIMITED", "authReason": "rate_limited",
            "canRetryWithDeviceToken": false, "recommendedNextStep": "wait_then_retry"});
        let message = "unauthorized: too many failed authentication attempts (retry later)";
        Self {
            retryable: true,
            retry_after_ms: Some(retry_after_ms),
            ..Self::new("INVALID_REQUEST", message, Some(details))
        }
    }

    pub fn protocol_mismatch(version: Version, low: u64, high: u64) -> Self {
        let expected = version.protocol();
        let details = if version <= Version::V2026_4_9 {
            json!({"expectedProtocol": expected})
        } else {
            let probe = if version >= Version::V2026_9_6 { 3 } else { 4 };
            json!({"code": "PROTOCOL_MISMATCH", "clientMinProtocol": low, "clientMaxProtocol": high,
                "expectedProtocol": expected, "minimumProbeProtocol": probe})
        };
        Self { close: 1002, ..Self::new("INVALID_REQUEST", "protocol mismatch", Some(details)) }
    }

    pub fn token_mismatch(version: Version, has_device: bool) -> Self {
        let next = if has_device { "retry_with_device_token" } else { "update_auth_credentials" };
        let message = "unauthorized: gateway token mismatch (provide gateway auth token)";
        auth_failure(version, message, "AUTH_TOKEN_MISMATCH", "token_mismatch", has_device, next)
    }

    pub fn token_missing(version: Version) -> Self {
        let message = "unauthorized: gateway token missing (set gateway.remote.token to match gateway.auth.token)";
        auth_failure(version, message, "AUTH_TOKEN_MISSING", "token_missing", false, "update_auth_configuration")
    }

    pub fn device_token_mismatch(version: Version) -> Self {
        let message = "unauthorized: device token mismatch (rotate/reissue device token)";
        let (code, reason) = ("AUTH_DEVICE_TOKEN_MISMATCH", "device_token_mismatch");
        auth_failure(version, message, code, reason, false, "update_auth_credentials")
    }

    pub fn device_identity_required(version: Version) -> Self {
        let details = json!({"code": "DEVICE_IDENTITY_REQUIRED"});
        Self::new("NOT_PAIRED", "device identity required", version.has_error_details().then_some(details))
    }

    pub fn control_ui_without_device(version: Version) -> Self {
        let details = json!({"code": "CONTROL_UI_DEVICE_IDENTITY_REQUIRED"});
        let message = "control ui requires device identity (use HTTPS or localhost secure context)";
        Self::new("INVALID_REQUEST", message, version.has_error_details().then_some(details))
    }

    pub fn origin(reason: &str) -> Self {
        let message = "origin not allowed (open the Control UI from the gateway host or allow it in \
                       gateway.controlUi.allowedOrigins)";
        let details = json!({"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": reason});
        Self::new("INVALID_REQUEST", message, Some(details))
    }

    pub fn device(version: Version, message: &str, code: &str, reason: &str) -> Self {
        let details = json!({"code": code, "reason": reason});
        Self::new("INVALID_REQUEST", message, version.has_error_details().then_some(details))
    }

    pub fn error(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if self.retryable {
            error["retryable"] = json!(true);
        }
        if let Some(ms) = self.retry_after_ms {
            error["retryAfterMs"] = json!(ms);
        }
        if let Some(details) = &self.details {
            error["details"] = details.clone();
        }
        error
    }

    /// A close frame holds at most 123 bytes of reason; the gateway cuts the rest off.
    pub fn close_reason(&self) -> String {
        let reason = self.close_reason.as_deref().unwrap_or(&self.message);
        reason.chars().take(123).collect()
    }
}

fn auth_failure(version: Version, message: &str, code: &str, reason: &str, retry: bool, next: &str) -> Refusal {
    let details = json!({"code": code, "authReason": reason, "canRetryWithDeviceToken": retry,
        "recommendedNextStep": next});
    Refusal::new("INVALID_REQUEST", message, version.has_error_details().then_some(details))
}

/// The refusal of a device that has to be approved first.
pub fn pairing_required(
    version: Version,
    reason: &str,
    request_id: &str,
    spec: &DeviceSpec,
    approved: Option<&Paired>,
    control_ui: bool,
) -> Refusal {
    match version {
        Version::V2026_2_9 => {
            return Refusal::new("NOT_PAIRED", "pairing required", Some(json!({"requestId": request_id})));
        }
        Version::V2026_4_9 => {
            let details = json!({"code": "PAIRING_REQUIRED", "requestId": request_id, "reason": reason});
            return Refusal::new("NOT_PAIRED", "pairing required", Some(details));
        }
        Version::V2026_6_11 | Version::V2026_9_6 => {}
    }
    let (why, hint) = explain(reason);
    let mut details = json!({"code": "PAIRING_REQUIRED", "reason": reason, "requestId": request_id,
        "remediationHint": hint, "deviceId": spec.device_id, "requestedRole": spec.role});
    if version >= Version::V2026_9_6 && control_ui {
        details["recommendedNextStep"] = json!("wait_then_retry");
        details["retryable"] = json!(true);
        details["pauseReconnect"] = json!(false);
    }
    if !spec.scopes.is_empty() {
        details["requestedScopes"] = json!(spec.scopes);
    }
    if let Some(record) = approved {
        details["approvedRoles"] = json!(record.roles);
        details["approvedScopes"] = json!(sorted(&record.scopes));
    }
    let message = format!("pairing required: {why}");
    let close_reason = Some(format!("{message} (requestId: {request_id})"));
    Refusal { close_reason, ..Refusal::new("NOT_PAIRED", &message, Some(details)) }
}

fn explain(reason: &str) -> (&'static str, &'static str) {
    match reason {
        "scope-upgrade" => (
            "device is asking for more scopes than currently approved",
            "Review the requested scopes, then approve the pending upgrade.",
        ),
        "role-upgrade" => (
            "device is asking for a higher role than currently approved",
            "Review the requested role upgrade, then approve the pending request.",
        ),
        "metadata-upgrade" => (
            "device identity changed and must be re-approved",
            "Review the refreshed device details, then approve the pending request.",
        ),
        _ => ("device is not approved yet", "Approve this device from the pending pairing requests."),
    }
}
