//! The gateway's frames: JSON objects in WebSocket text messages (observed on 2026.2.9 to 2026.9.6).
//!
//! Everything read here may be hostile. Payloads stay unparsed text until the one caller that knows their type.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::identity::Identity;
use super::secret::Credential;

/// Protocol numbers we speak: 3 until some release after 2026.4.9, 4 from 2026.6.11 at the latest.
const PROTOCOLS: (u32, u32) = (3, 4);

/// What the gateway calls our kind of client. Other ids are refused, so a sidecar cannot use its own name.
const CLIENT: Client =
    Client { id: "gateway-client", mode: "backend", version: env!("CARGO_PKG_VERSION"), platform: "linux" };

/// The scopes asked for. `operator.admin` is needed because an approver must hold every scope it grants.
const SCOPES: [&str; 5] =
    ["operator.admin", "operator.pairing", "operator.read", "operator.write", "operator.approvals"];

/// Any frame from the gateway.
#[derive(Debug, Deserialize)]
pub(crate) struct Incoming<'a> {
    #[serde(rename = "type")]
    pub(super) kind: Tag,
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) ok: bool,
    #[serde(borrow, default)]
    pub(crate) payload: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) error: Option<RpcError>,
    #[serde(default)]
    pub(crate) event: Option<String>,
    #[serde(default)]
    pub(super) seq: Option<u64>,
}

/// The kind of a frame.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tag {
    Event,
    Res,
    #[serde(other)]
    Other,
}

/// An error answer of the gateway. Branch on the codes: message texts change between versions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RpcError {
    /// E.g. `INVALID_REQUEST`, `NOT_PAIRED`, `UNAVAILABLE`, `FORBIDDEN`.
    #[serde(default)]
    pub code: String,
    /// Text for people.
    #[serde(default)]
    pub message: String,
    /// Finer code and reason; mostly absent on 2026.2.9.
    #[serde(default)]
    pub details: Option<Details>,
    /// Milliseconds after which a retry makes sense.
    #[serde(default, rename = "retryAfterMs")]
    pub retry_after_ms: Option<u64>,
}

/// The `details` of an error answer; members we do not use are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Details {
    /// E.g. `AUTH_TOKEN_MISMATCH`.
    #[serde(default)]
    pub code: String,
    /// E.g. `startup-sidecars`.
    #[serde(default)]
    pub reason: String,
    /// E.g. `token_mismatch`.
    #[serde(default, rename = "authReason")]
    pub auth_reason: String,
}

/// What refusals of 2026.2.9 say, and the code of newer versions for the same.
const OLD_TEXTS: [(&str, &str); 4] = [
    ("token mismatch", "AUTH_TOKEN_MISMATCH"),
    ("password mismatch", "AUTH_PASSWORD_MISMATCH"),
    ("token missing", "AUTH_TOKEN_MISSING"),
    ("protocol mismatch", "PROTOCOL_MISMATCH"),
];

impl RpcError {
    /// The finest code there is. 2026.2.9 has none for refusals, only texts.
    pub fn fine_code(&self) -> &str {
        match &self.details {
            Some(details) if !details.code.is_empty() => &details.code,
            _ => OLD_TEXTS.iter().find(|(text, _)| self.message.contains(text)).map_or(&self.code, |(_, code)| code),
        }
    }

    /// The gateway still starts: retry shortly.
    pub fn is_starting(&self) -> bool {
        self.code == "UNAVAILABLE" && self.details.as_ref().is_some_and(|d| d.reason == "startup-sidecars")
    }

    /// The method does not exist in this version. There is no code for it in any version, only this text.
    pub fn is_unknown_method(&self) -> bool {
        self.code == "INVALID_REQUEST" && self.message.starts_with("unknown method")
    }

    /// The request, device or node named is not known (any more). There is no code for it, only these texts.
    pub fn is_unknown_id(&self) -> bool {
        self.code == "INVALID_REQUEST"
            && (self.message.starts_with("unknown requestId")
                || self.message.starts_with("unknown deviceId")
                || self.message.starts_with("unknown nodeId")
                || self.message.contains("no longer exists")
                || self.message == "device pairing approval denied")
    }

    /// We lack a scope for this.
    pub fn is_missing_scope(&self) -> bool {
        self.code == "FORBIDDEN" || self.message.starts_with("missing scope")
    }
}

/// The first event of a connection.
#[derive(Debug, Deserialize)]
pub(crate) struct Challenge {
    pub(super) nonce: String,
    /// The gateway's clock. Signed back as it is, so that a wrong clock on our side does no harm.
    pub(super) ts: u64,
}

/// The answer to a successful `connect`.
#[derive(Debug, Deserialize)]
pub(crate) struct Hello {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) protocol: u32,
    #[serde(default)]
    pub(super) server: Server,
    #[serde(default)]
    pub(super) features: Features,
    #[serde(default)]
    pub(super) auth: Option<GrantedAuth>,
    #[serde(default)]
    pub(super) snapshot: SnapshotPart,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Server {
    pub(super) version: String,
    pub(super) boot_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Features {
    pub(super) methods: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GrantedAuth {
    /// Absent on 2026.4.9 for our kind of client: then it has to be probed.
    pub(super) scopes: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SnapshotPart {
    pub(super) presence: Vec<Presence>,
    pub(super) auth_mode: String,
}

/// One entry of the presence list: who is or was connected.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Presence {
    /// The device, where the client has an identity.
    pub device_id: Option<String>,
    /// `disconnect` for one that left.
    pub reason: Option<String>,
}

/// Whether a `shutdown` event announces a restart. A plain stop has the member too on old versions, but as `null`.
pub(crate) fn announces_restart(payload: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shutdown {
        restart_expected_ms: Option<f64>,
    }
    serde_json::from_str::<Shutdown>(payload).is_ok_and(|s| s.restart_expected_ms.is_some())
}

#[derive(Serialize)]
struct Client {
    id: &'static str,
    mode: &'static str,
    version: &'static str,
    platform: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Device<'a> {
    id: &'a str,
    public_key: &'a str,
    signature: String,
    signed_at: u64,
    nonce: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connect<'a> {
    min_protocol: u32,
    max_protocol: u32,
    client: Client,
    role: &'static str,
    scopes: [&'static str; 5],
    auth: serde_json::Value,
    device: Device<'a>,
}

#[derive(Serialize)]
struct Request<'a, P> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    method: &'a str,
    params: P,
}

/// The text of a request frame.
pub(super) fn request(id: &str, method: &str, params: impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(&Request { kind: "req", id, method, params })
}

/// The text of the one `connect` that every version accepts: as a local backend, with a device identity (needed on
/// 2026.4.9, harmless elsewhere), signed in form v2 (the newer v3 is refused by 2026.2.9).
pub(super) fn connect(
    id: &str,
    challenge: &Challenge,
    identity: &Identity,
    credential: &Credential,
) -> serde_json::Result<String> {
    let (auth, signed_token) = match credential {
        Credential::Token(token) => (serde_json::json!({ "token": token.expose() }), token.expose()),
        Credential::Password(password) => (serde_json::json!({ "password": password.expose() }), ""),
    };
    let signed = [
        "v2",
        &identity.device_id,
        CLIENT.id,
        CLIENT.mode,
        "operator",
        &SCOPES.join(","),
        &challenge.ts.to_string(),
        signed_token,
        &challenge.nonce,
    ]
    .join("|");
    let device = Device {
        id: &identity.device_id,
        public_key: &identity.public_key,
        signature: identity.sign(&signed),
        signed_at: challenge.ts,
        nonce: &challenge.nonce,
    };
    let (min_protocol, max_protocol) = PROTOCOLS;
    let params = Connect { min_protocol, max_protocol, client: CLIENT, role: "operator", scopes: SCOPES, auth, device };
    request(id, "connect", params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn error_answers_of_every_version_are_told_apart() {
        let parse = |text: &str| serde_json::from_str::<RpcError>(text).unwrap();
        let old = parse(r#"{"code":"NOT_PAIRED","message":"pairing required","details":{"requestId":"x"}}"#);
        assert_eq!(old.fine_code(), "NOT_PAIRED");
        let oldest = parse(r#"{"code":"INVALID_REQUEST","message":"unauthorized: gateway token mismatch (provide…)"}"#);
        assert_eq!(oldest.fine_code(), "AUTH_TOKEN_MISMATCH");
        let new = parse(r#"{"code":"INVALID_REQUEST","message":"m","details":{"code":"AUTH_TOKEN_MISMATCH"}}"#);
        assert_eq!(new.fine_code(), "AUTH_TOKEN_MISMATCH");
        let starting =
            parse(r#"{"code":"UNAVAILABLE","message":"m","retryAfterMs":500,"details":{"reason":"startup-sidecars"}}"#);
        assert!(starting.is_starting() && starting.retry_after_ms == Some(500));
        assert!(parse(r#"{"code":"INVALID_REQUEST","message":"unknown method: x"}"#).is_unknown_method());
        assert!(parse(r#"{"code":"INVALID_REQUEST","message":"unknown requestId"}"#).is_unknown_id());
        assert!(parse(r#"{"code":"INVALID_REQUEST","message":"missing scope: operator.admin"}"#).is_missing_scope());
    }

    #[test]
    fn a_stop_is_no_restart() {
        assert!(announces_restart(r#"{"reason":"gateway restarting","restartExpectedMs":1500}"#));
        assert!(!announces_restart(r#"{"reason":"gateway stopping","restartExpectedMs":null}"#));
        assert!(!announces_restart(r#"{"reason":"gateway stopping"}"#));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "\\PC{0,300}") {
            let _ = serde_json::from_str::<Incoming<'_>>(&text);
            let _ = serde_json::from_str::<Hello>(&text);
        }
    }
}
