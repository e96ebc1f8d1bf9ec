//! The hello of each emulated version: the captured one with its variable parts replaced.

use serde_json::{Value, json};

use super::codec::uuid;
use super::records::{Token, fill, sorted};
use super::version::Version;
use super::world::World;

/// What a connection authenticated with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    Shared,
    DeviceToken,
}

pub fn hello_auth(
    version: Version,
    role: &str,
    scopes: &[String],
    credential: Credential,
    token: Option<&Token>,
) -> Option<Value> {
    let issued = token.map(|token| (token.secret.clone(), token.rotated_at.unwrap_or(token.created_at)));
    let mut auth = json!({"role": role, "scopes": scopes});
    match version {
        // A hello of these versions speaks of scopes only when it also hands out a device token.
        Version::V2026_2_9 | Version::V2026_4_9 => {
            issued.as_ref()?;
            auth["scopes"] = json!(sorted(scopes));
        }
        Version::V2026_6_11 => {}
        Version::V2026_9_6 => {
            let method = if credential == Credential::DeviceToken { "device-token" } else { "token" };
            auth["method"] = json!(method);
            auth["recoveryScope"] = json!("fixture-recovery-scope");
        }
    }
    if let Some((secret, issued_at)) = issued {
        auth["deviceToken"] = json!(secret);
        auth["issuedAtMs"] = json!(issued_at);
    }
    Some(auth)
}

/// What the hello says besides `auth`.
#[derive(Debug)]
pub struct HelloFacts {
    pub boot_id: String,
    pub presence: Vec<Value>,
    pub state_version: Value,
    pub uptime_ms: u64,
    pub tick_ms: u64,
}

pub fn hello(world: &World, facts: &HelloFacts, auth: Option<Value>) -> Value {
    let template = &world.templates.hello;
    let mut server = template["server"].clone();
    server["connId"] = json!(uuid());
    if server.get("bootId").is_some() {
        server["bootId"] = json!(facts.boot_id);
    }
    let snapshot = fill(
        &template["snapshot"],
        vec![
            ("presence", Some(json!(facts.presence))),
            ("stateVersion", Some(facts.state_version.clone())),
            ("uptimeMs", Some(json!(facts.uptime_ms))),
        ],
    );
    let policy = fill(&template["policy"], vec![("tickIntervalMs", Some(json!(facts.tick_ms)))]);
    fill(
        template,
        vec![("server", Some(server)), ("snapshot", Some(snapshot)), ("auth", auth), ("policy", Some(policy))],
    )
}
