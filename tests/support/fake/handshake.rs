//! Who may connect: the order of checks, the refusals and the hello of each emulated version.

use serde_json::{Value, json};

use super::codec::{device_id, from_base64url, now_ms, signed_texts, uuid, verify_ed25519};
use super::hello::{Credential, hello_auth};
use super::records::{DeviceSpec, Token, covers, sorted, strings};
use super::refusal::{Refusal, pairing_required};
use super::schema;
use super::version::Version;
use super::world::{Event, World};

/// Where a connection comes from, as the gateway sees it.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    pub local: bool,
    pub remote_ip: Option<String>,
    pub origin: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Challenge {
    pub nonce: String,
    pub ts: u64,
}

impl Challenge {
    pub fn new() -> Self {
        Self { nonce: uuid(), ts: now_ms() }
    }

    pub fn frame(&self, world: &World) -> Value {
        let mut frame = world.templates.challenge.clone();
        frame["payload"]["nonce"] = json!(self.nonce);
        frame["payload"]["ts"] = json!(self.ts);
        frame
    }
}

/// An accepted connection.
#[derive(Debug, Clone)]
pub struct Session {
    pub spec: DeviceSpec,
    pub has_device: bool,
    pub role: String,
    pub scopes: Vec<String>,
    pub by_shared_secret: bool,
    pub client_version: String,
}

#[derive(Debug)]
pub struct Admitted {
    pub session: Session,
    pub auth: Option<Value>,
    pub events: Vec<Event>,
}

/// A refusal and the events it leaves behind (a refused device has asked to be paired).
#[derive(Debug)]
pub struct Refused {
    pub refusal: Refusal,
    pub events: Vec<Event>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, events: Vec::new() }
    }
}

/// What the gateway was configured with.
#[derive(Debug, Clone)]
pub struct Gate {
    pub token: String,
    /// `None` accepts every origin that is there.
    pub allowed_origins: Option<Vec<String>>,
}

pub fn admit(
    world: &mut World,
    gate: &Gate,
    peer: &Peer,
    challenge: &Challenge,
    frame: &Value,
) -> Result<Admitted, Refused> {
    let version = world.version;
    if frame["type"] != "req" || frame["method"] != "connect" {
        return Err(Refusal::invalid("invalid handshake: first request must be connect").into());
    }
    let params = &frame["params"];
    let problems = schema::connect_problems(version, params);
    if !problems.is_empty() {
        return Err(Refusal::invalid(&format!("invalid connect params: {}", problems.join("; "))).into());
    }
    check_protocol(version, params)?;
    let role = params["role"].as_str().unwrap_or("operator").to_owned();
    if !["operator", "node"].contains(&role.as_str()) {
        return Err(Refusal::invalid("invalid role").into());
    }
    check_origin(version, gate, peer, params)?;
    if params["device"].is_object() {
        admit_device(world, gate, peer, challenge, params, role)
    } else {
        Ok(admit_without_device(version, gate, peer, params, role)?)
    }
}

fn check_protocol(version: Version, params: &Value) -> Result<(), Refusal> {
    let number = |key: &str| params[key].as_u64().unwrap_or_default();
    let (low, high, ours) = (number("minProtocol"), number("maxProtocol"), version.protocol());
    if (low..=high).contains(&ours) { Ok(()) } else { Err(Refusal::protocol_mismatch(version, low, high)) }
}

fn is_control_ui(params: &Value) -> bool {
    params["client"]["id"] == "openclaw-control-ui"
}

fn check_origin(version: Version, gate: &Gate, peer: &Peer, params: &Value) -> Result<(), Refusal> {
    if version == Version::V2026_2_9 || (peer.origin.is_none() && !is_control_ui(params)) {
        return Ok(());
    }
    match (&peer.origin, &gate.allowed_origins) {
        (None, _) => Err(Refusal::origin("origin missing or invalid")),
        (Some(origin), Some(allowed)) if !allowed.contains(origin) => Err(Refusal::origin("origin not allowed")),
        _ => Ok(()),
    }
}

fn session(params: &Value, spec: DeviceSpec, role: String, scopes: Vec<String>, shared: bool) -> Session {
    let has_device = params["device"].is_object();
    let client_version = params["client"]["version"].as_str().unwrap_or_default().to_owned();
    Session { spec, has_device, role, scopes, by_shared_secret: shared, client_version }
}

fn describe(peer: &Peer, params: &Value, role: &str) -> DeviceSpec {
    let text = |pointer: &str| params.pointer(pointer).and_then(Value::as_str).map(String::from);
    DeviceSpec {
        device_id: text("/device/id").unwrap_or_default(),
        public_key: text("/device/publicKey").unwrap_or_default(),
        display_name: text("/client/displayName"),
        platform: text("/client/platform").unwrap_or_default(),
        device_family: text("/client/deviceFamily"),
        client_id: text("/client/id").unwrap_or_default(),
        client_mode: text("/client/mode").unwrap_or_default(),
        role: role.to_owned(),
        scopes: strings(&params["scopes"]),
        remote_ip: peer.remote_ip.clone(),
    }
}

fn admit_without_device(
    version: Version,
    gate: &Gate,
    peer: &Peer,
    params: &Value,
    role: String,
) -> Result<Admitted, Refusal> {
    let given = params["auth"]["token"].as_str().or(params["auth"]["password"].as_str());
    if is_control_ui(params) {
        return Err(Refusal::control_ui_without_device(version));
    }
    if given.is_none() || role == "node" {
        return Err(Refusal::device_identity_required(version));
    }
    if given != Some(&gate.token) {
        return Err(Refusal::token_mismatch(version, false));
    }
    let spec = describe(peer, params, &role);
    let kind = (spec.client_id.as_str(), spec.client_mode.as_str());
    let trusted_kind = matches!(kind, ("gateway-client", "backend") | ("cli", "cli"));
    // Without an identity 2026.4.9 empties the scopes of everybody, later versions those of all but local backends and CLIs.
    let keeps = match version {
        Version::V2026_2_9 => true,
        Version::V2026_4_9 => false,
        _ => peer.local && trusted_kind,
    };
    let scopes = if keeps { spec.scopes.clone() } else { Vec::new() };
    let auth = hello_auth(version, &role, &scopes, Credential::Shared, None);
    Ok(Admitted { session: session(params, spec, role, scopes, true), auth, events: Vec::new() })
}

fn admit_device(
    world: &mut World,
    gate: &Gate,
    peer: &Peer,
    challenge: &Challenge,
    params: &Value,
    role: String,
) -> Result<Admitted, Refused> {
    let version = world.version;
    check_device(version, challenge, params)?;
    let spec = describe(peer, params, &role);
    let credential = check_credential(world, gate, params, &spec)?;
    let (keep_record, events) = check_pairing(world, peer, &spec, credential, is_control_ui(params))?;
    let token = keep_record.then(|| use_token(world, &spec)).flatten();
    let scopes = spec.scopes.clone();
    let auth = hello_auth(version, &role, &scopes, credential, token.as_ref());
    let shared = credential == Credential::Shared;
    Ok(Admitted { session: session(params, spec, role, scopes, shared), auth, events })
}

fn check_device(version: Version, challenge: &Challenge, params: &Value) -> Result<(), Refusal> {
    let device = &params["device"];
    let key = from_base64url(device["publicKey"].as_str().unwrap_or_default()).filter(|raw| raw.len() == 32);
    let Some(key) = key else {
        return Err(Refusal::device(
            version,
            "device public key invalid",
            "DEVICE_AUTH_PUBLIC_KEY_INVALID",
            "device-public-key",
        ));
    };
    if device["id"] != device_id(&key) {
        return Err(Refusal::device(
            version,
            "device identity mismatch",
            "DEVICE_AUTH_DEVICE_ID_MISMATCH",
            "device-id-mismatch",
        ));
    }
    let signed_at = device["signedAt"].as_u64().unwrap_or_default();
    if signed_at.abs_diff(now_ms()) > version.signature_skew_ms() {
        return Err(Refusal::device(
            version,
            "device signature expired",
            "DEVICE_AUTH_SIGNATURE_EXPIRED",
            "device-signature-stale",
        ));
    }
    match device["nonce"].as_str() {
        None => {
            return Err(Refusal::device(
                version,
                "device nonce required",
                "DEVICE_AUTH_NONCE_REQUIRED",
                "device-nonce-missing",
            ));
        }
        Some(nonce) if nonce != challenge.nonce => {
            return Err(Refusal::device(
                version,
                "device nonce mismatch",
                "DEVICE_AUTH_NONCE_MISMATCH",
                "device-nonce-mismatch",
            ));
        }
        Some(_) => {}
    }
    let auth = &params["auth"];
    let token = ["token", "deviceToken", "bootstrapToken"].iter().find_map(|name| auth[*name].as_str()).unwrap_or("");
    let signature = from_base64url(device["signature"].as_str().unwrap_or_default()).unwrap_or_default();
    let known = |form: &str| form == "v2" || version > Version::V2026_2_9;
    let valid =
        signed_texts(params, token).iter().any(|(form, text)| known(form) && verify_ed25519(&key, text, &signature));
    if valid {
        return Ok(());
    }
    Err(Refusal::device(version, "device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID", "device-signature"))
}

fn check_credential(world: &mut World, gate: &Gate, params: &Value, spec: &DeviceSpec) -> Result<Credential, Refusal> {
    let version = world.version;
    let auth = |name: &str| params["auth"][name].as_str();
    if auth("token") == Some(&gate.token) || auth("password") == Some(&gate.token) {
        return Ok(Credential::Shared);
    }
    let record = world.paired.get_mut(&spec.device_id);
    let secret = record.and_then(|record| record.live_token(&spec.role)).map(|token| token.secret.clone());
    let offered = auth("deviceToken").or(auth("token"));
    if secret.is_some() && secret.as_deref() == offered {
        return Ok(Credential::DeviceToken);
    }
    match (auth("token"), auth("deviceToken")) {
        (Some(_), _) => Err(Refusal::token_mismatch(version, true)),
        (None, Some(_)) => Err(Refusal::device_token_mismatch(version)),
        (None, None) => Err(Refusal::token_missing(version)),
    }
}

/// Whether this device may come in, and whether the gateway keeps a record of it.
fn check_pairing(
    world: &mut World,
    peer: &Peer,
    spec: &DeviceSpec,
    credential: Credential,
    control_ui: bool,
) -> Result<(bool, Vec<Event>), Refused> {
    let version = world.version;
    let upgrade = upgrade_reason(world, spec);
    let local = peer.local && (peer.origin.is_none() || version != Version::V2026_4_9 || control_ui);
    let shared = credential == Credential::Shared;
    let backend = local
        && shared
        && peer.origin.is_none()
        && (spec.client_id.as_str(), spec.client_mode.as_str()) == ("gateway-client", "backend");
    if backend && version >= Version::V2026_4_9 {
        let narrower_record = version == Version::V2026_4_9 && upgrade == Some("scope-upgrade");
        if !narrower_record {
            return Ok((false, Vec::new()));
        }
    }
    let Some(reason) = upgrade else { return Ok((true, Vec::new())) };
    let silent_upgrade = matches!(version, Version::V2026_2_9 | Version::V2026_9_6);
    if local && shared && (reason == "not-paired" || silent_upgrade) {
        return Ok((true, world.pair_silently(spec)));
    }
    let approved = world.paired.get(&spec.device_id).cloned();
    let (request_id, events) = world.request(spec.clone());
    let refusal = pairing_required(version, reason, &request_id, spec, approved.as_ref(), control_ui);
    Err(Refused { refusal, events })
}

/// Why the paired record (if any) does not cover what this device asks for.
fn upgrade_reason(world: &World, spec: &DeviceSpec) -> Option<&'static str> {
    let Some(record) = world.paired.get(&spec.device_id) else { return Some("not-paired") };
    let strict = world.version > Version::V2026_2_9;
    let revoked = record.tokens.iter().any(|token| token.role == spec.role && token.revoked_at.is_some());
    if !record.roles.contains(&spec.role) || (strict && revoked) {
        return Some("role-upgrade");
    }
    if !spec.scopes.iter().all(|scope| covers(&record.scopes, scope)) {
        return Some("scope-upgrade");
    }
    (strict && record.spec.platform != spec.platform).then_some("metadata-upgrade")
}

/// Marks the device as seen and returns its token; issues one where a revoke took it (2026.2.9), or a smaller one where
/// the device asks for less than before (2026.9.6).
fn use_token(world: &mut World, spec: &DeviceSpec) -> Option<Token> {
    let version = world.version;
    let record = world.paired.get_mut(&spec.device_id)?;
    let now = now_ms();
    record.last_seen_at = Some(now);
    let asked = sorted(&spec.scopes);
    let narrower = |token: &Token| version >= Version::V2026_9_6 && token.scopes != asked;
    if record.live_token(&spec.role).is_none_or(|token| narrower(token)) {
        record.tokens.retain(|token| token.role != spec.role);
        record.tokens.push(Token { rotated_at: Some(now), ..Token::issue(version, &spec.role, &spec.scopes) });
    }
    let token = record.live_token(&spec.role)?;
    token.last_used_at = Some(now);
    Some(token.clone())
}
