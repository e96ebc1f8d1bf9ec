//! What the fake knows about devices, and how a record is written for one gateway version.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::codec::{base64url, device_id, now_ms, random_bytes};
use super::version::{Templates, Version};

/// Scopes a remote Control UI asks for.
pub const BROWSER_SCOPES: [&str; 5] =
    ["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"];

/// A device that asks to be paired, as a remote browser (or node) would describe itself.
#[derive(Debug, Clone)]
pub struct DeviceSpec {
    pub device_id: String,
    pub public_key: String,
    pub display_name: Option<String>,
    pub platform: String,
    pub device_family: Option<String>,
    pub client_id: String,
    pub client_mode: String,
    pub role: String,
    pub scopes: Vec<String>,
    pub remote_ip: Option<String>,
}

impl DeviceSpec {
    /// A browser nobody has seen before, asking for everything a Control UI asks for.
    pub fn browser() -> Self {
        let key: [u8; 32] = random_bytes();
        Self {
            device_id: device_id(&key),
            public_key: base64url(&key),
            display_name: None,
            platform: "MacIntel".into(),
            device_family: None,
            client_id: "openclaw-control-ui".into(),
            client_mode: "webchat".into(),
            role: "operator".into(),
            scopes: BROWSER_SCOPES.map(String::from).into(),
            remote_ip: Some("203.0.113.9".into()),
        }
    }

    pub fn node() -> Self {
        let base = Self::browser();
        let (platform, client_id, client_mode) = ("linux".into(), "node-host".into(), "node".into());
        let display_name = Some("build node".into());
        Self { display_name, platform, client_id, client_mode, role: "node".into(), scopes: Vec::new(), ..base }
    }

    #[must_use]
    pub fn with_scopes(mut self, scopes: &[&str]) -> Self {
        self.scopes = scopes.iter().map(ToString::to_string).collect();
        self
    }

    #[must_use]
    pub fn with_platform(mut self, platform: &str) -> Self {
        self.platform = platform.into();
        self
    }

    #[must_use]
    pub fn named(mut self, display_name: &str) -> Self {
        self.display_name = Some(display_name.into());
        self
    }

    /// Reads a captured pending or paired record back.
    pub fn from_record(record: &Value) -> Self {
        let text = |key: &str| record[key].as_str().map(String::from);
        Self {
            device_id: text("deviceId").unwrap_or_default(),
            public_key: text("publicKey").unwrap_or_default(),
            display_name: text("displayName"),
            platform: text("platform").unwrap_or_default(),
            device_family: text("deviceFamily"),
            client_id: text("clientId").unwrap_or_default(),
            client_mode: text("clientMode").unwrap_or_default(),
            role: text("role").unwrap_or_default(),
            scopes: strings(&record["scopes"]),
            remote_ip: text("remoteIp"),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Pending {
    pub request_id: String,
    pub spec: DeviceSpec,
    pub is_repair: bool,
    pub ts: u64,
    pub renewed: Instant,
    pub order: u64,
}

#[derive(Debug, Clone)]
pub struct Token {
    pub role: String,
    pub scopes: Vec<String>,
    pub secret: String,
    pub created_at: u64,
    pub rotated_at: Option<u64>,
    pub revoked_at: Option<u64>,
    pub last_used_at: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct Paired {
    pub spec: DeviceSpec,
    pub roles: BTreeSet<String>,
    pub scopes: Vec<String>,
    pub approved_via: String,
    pub label: Option<String>,
    pub created_at: u64,
    pub approved_at: u64,
    pub last_seen_at: Option<u64>,
    pub tokens: Vec<Token>,
    pub order: u64,
}

/// What a device may really do right now, whatever anybody was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedScopes {
    pub roles: BTreeSet<String>,
    pub scopes: BTreeSet<String>,
}

pub fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
}

pub fn sorted(scopes: &[String]) -> Vec<String> {
    scopes.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

/// `base`, then what `more` adds: the order in which the gateway lists merged scopes.
pub fn union(base: &[String], more: &[String]) -> Vec<String> {
    let mut out = base.to_vec();
    out.extend(more.iter().filter(|scope| !base.contains(scope)).cloned());
    out
}

/// Whether a holder of `held` may do what `wanted` names.
pub fn covers(held: &[String], wanted: &str) -> bool {
    let has = |scope: &str| held.iter().any(|one| one == scope);
    let implied_by_write = ["operator.read", "operator.talk", "operator.sessions.read", "operator.sessions.write"];
    has(wanted) || has("operator.admin") || (has("operator.write") && implied_by_write.contains(&wanted))
}

/// Takes `template` and replaces `fields`; a field without a value is removed.
pub fn fill(template: &Value, fields: Vec<(&str, Option<Value>)>) -> Value {
    let mut record: Map<String, Value> = template.as_object().expect("a record template").clone();
    for (key, value) in fields {
        match value {
            Some(value) => record.insert(key.to_owned(), value),
            None => record.remove(key),
        };
    }
    Value::Object(record)
}

fn identity_fields(spec: &DeviceSpec) -> Vec<(&'static str, Option<Value>)> {
    vec![
        ("deviceId", Some(json!(spec.device_id))),
        ("publicKey", Some(json!(spec.public_key))),
        ("displayName", spec.display_name.as_ref().map(|name| json!(name))),
        ("platform", Some(json!(spec.platform))),
        ("deviceFamily", spec.device_family.as_ref().map(|family| json!(family))),
        ("clientId", Some(json!(spec.client_id))),
        ("clientMode", Some(json!(spec.client_mode))),
        ("remoteIp", spec.remote_ip.as_ref().map(|ip| json!(ip))),
        ("role", Some(json!(spec.role))),
    ]
}

impl Pending {
    pub fn render(&self, templates: &Templates) -> Value {
        let mut fields = identity_fields(&self.spec);
        fields.extend([
            ("requestId", Some(json!(self.request_id))),
            ("roles", Some(json!([self.spec.role]))),
            ("scopes", Some(json!(self.spec.scopes))),
            ("silent", Some(json!(false))),
            ("isRepair", Some(json!(self.is_repair))),
            ("ts", Some(json!(self.ts))),
        ]);
        fill(&templates.pending, fields)
    }
}

impl Token {
    pub fn issue(version: Version, role: &str, scopes: &[String]) -> Self {
        let secret = if version == Version::V2026_2_9 {
            super::codec::hex(&random_bytes::<16>())
        } else {
            base64url(&random_bytes::<32>())
        };
        let (created_at, rotated_at, revoked_at, last_used_at) = (now_ms(), None, None, None);
        Self { role: role.into(), scopes: sorted(scopes), secret, created_at, rotated_at, revoked_at, last_used_at }
    }

    fn render(&self) -> Value {
        let mut out = json!({"role": self.role, "scopes": self.scopes, "createdAtMs": self.created_at});
        let times =
            [("rotatedAtMs", self.rotated_at), ("revokedAtMs", self.revoked_at), ("lastUsedAtMs", self.last_used_at)];
        for (key, value) in times {
            if let Some(value) = value {
                out[key] = json!(value);
            }
        }
        out
    }
}

impl Paired {
    /// `connected`: only lists of versions that know it carry the key.
    pub fn render(&self, templates: &Templates, connected: Option<bool>) -> Value {
        let knows_approver = templates.paired.get("approvedVia").is_some();
        let seen = self.last_seen_at.filter(|_| templates.keeps_last_seen());
        let tokens: Vec<Value> = self.tokens.iter().map(Token::render).collect();
        let mut fields = identity_fields(&self.spec);
        fields.extend([
            ("roles", Some(json!(self.roles))),
            ("scopes", Some(json!(self.scopes))),
            ("approvedVia", knows_approver.then(|| json!(self.approved_via))),
            ("operatorLabel", self.label.as_ref().map(|label| json!(label))),
            ("createdAtMs", Some(json!(self.created_at))),
            ("approvedAtMs", Some(json!(self.approved_at))),
            ("lastSeenAtMs", seen.map(|at| json!(at))),
            ("lastSeenReason", seen.map(|_| json!("connect"))),
            ("connected", connected.map(|yes| json!(yes))),
            ("tokens", Some(json!(tokens))),
        ]);
        fill(&templates.paired, fields)
    }

    pub fn live_token(&mut self, role: &str) -> Option<&mut Token> {
        self.tokens.iter_mut().find(|token| token.role == role && token.revoked_at.is_none())
    }

    /// Reads a captured record back; the tokens' secrets were never in it.
    pub fn from_record(version: Version, record: &Value, order: u64) -> Self {
        let mut tokens = Vec::new();
        for token in record["tokens"].as_array().into_iter().flatten() {
            let mut issued =
                Token::issue(version, token["role"].as_str().unwrap_or_default(), &strings(&token["scopes"]));
            issued.created_at = token["createdAtMs"].as_u64().unwrap_or_default();
            issued.rotated_at = token["rotatedAtMs"].as_u64();
            issued.last_used_at = token["lastUsedAtMs"].as_u64();
            tokens.push(issued);
        }
        Self {
            spec: DeviceSpec::from_record(record),
            roles: strings(&record["roles"]).into_iter().collect(),
            scopes: strings(&record["scopes"]),
            approved_via: record["approvedVia"].as_str().unwrap_or("owner").into(),
            label: record["operatorLabel"].as_str().map(String::from),
            created_at: record["createdAtMs"].as_u64().unwrap_or_default(),
            approved_at: record["approvedAtMs"].as_u64().unwrap_or_default(),
            last_seen_at: record["lastSeenAtMs"].as_u64(),
            tokens,
            order,
        }
    }
}

impl Templates {
    /// 2026.6.11 was the first version seen to remember when a device was last there.
    fn keeps_last_seen(&self) -> bool {
        self.hello["protocol"].as_u64() >= Some(4)
    }
}
