//! Closed parameter schemas: the gateway refuses unknown and missing keys, and says which.

use serde_json::Value;

use super::version::Version;

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Text,
    Integer,
    Bool,
    List,
    Object,
}

/// One key of a closed object: name, type, whether it must be there.
pub type Key = (&'static str, Kind, bool);

pub const fn required(name: &'static str) -> Key {
    (name, Kind::Text, true)
}

pub const fn optional(name: &'static str, kind: Kind) -> Key {
    (name, kind, false)
}

/// Everything wrong with `value` at `place`, in the wording of the gateway; empty when it fits.
pub fn problems(place: &str, value: &Value, keys: &[Key]) -> Vec<String> {
    let at = if place.is_empty() { "at root".to_owned() } else { format!("at {place}") };
    let Some(object) = value.as_object() else {
        return vec![format!("{at}: must be object")];
    };
    let prefix = if place.is_empty() { String::new() } else { format!("{at}: ") };
    let missing = keys.iter().filter(|(name, _, needed)| *needed && !object.contains_key(*name));
    let mut found: Vec<String> =
        missing.map(|(name, ..)| format!("{prefix}must have required property '{name}'")).collect();
    for (name, value) in object {
        match keys.iter().find(|(known, ..)| known == name) {
            None => found.push(format!("{at}: unexpected property '{name}'")),
            Some((_, kind, _)) => found.extend(misfit(*kind, value).map(|what| format!("at {place}/{name}: {what}"))),
        }
    }
    found
}

fn misfit(kind: Kind, value: &Value) -> Option<&'static str> {
    match kind {
        Kind::Text if value.as_str() == Some("") => Some("must NOT have fewer than 1 characters"),
        Kind::Text if !value.is_string() => Some("must be string"),
        Kind::Integer if !value.is_u64() => Some("must be integer"),
        Kind::Bool if !value.is_boolean() => Some("must be boolean"),
        Kind::List if !value.is_array() => Some("must be array"),
        Kind::Object if !value.is_object() => Some("must be object"),
        _ => None,
    }
}

const CLIENT_IDS: [&str; 14] = [
    "webchat-ui",
    "openclaw-control-ui",
    "openclaw-tui",
    "webchat",
    "cli",
    "gateway-client",
    "openclaw-macos",
    "openclaw-linux",
    "openclaw-ios",
    "openclaw-android",
    "node-host",
    "test",
    "fingerprint",
    "openclaw-probe",
];
const CLIENT_MODES: [&str; 7] = ["webchat", "cli", "ui", "backend", "node", "probe", "test"];

/// What the schema of `connect` says about these parameters.
pub fn connect_problems(version: Version, params: &Value) -> Vec<String> {
    use Kind::{Integer, List, Object, Text};
    let root = [
        ("minProtocol", Integer, true),
        ("maxProtocol", Integer, true),
        ("client", Object, true),
        optional("caps", List),
        optional("commands", List),
        optional("permissions", Object),
        optional("pathEnv", Text),
        optional("role", Text),
        optional("scopes", List),
        optional("device", Object),
        optional("auth", Object),
        optional("locale", Text),
        optional("userAgent", Text),
    ];
    let mut client = vec![required("id"), required("version"), required("platform"), required("mode")];
    client.extend(["displayName", "deviceFamily", "modelIdentifier", "instanceId"].map(|name| optional(name, Text)));
    if version >= Version::V2026_9_6 {
        client.extend(["buildId", "timeZone"].map(|name| optional(name, Text)));
    }
    let mut auth = vec![optional("token", Text), optional("password", Text)];
    if version > Version::V2026_2_9 {
        auth.extend(["deviceToken", "bootstrapToken"].map(|name| optional(name, Text)));
    }
    let device = [
        required("id"),
        required("publicKey"),
        required("signature"),
        ("signedAt", Integer, true),
        optional("nonce", Text),
    ];
    let mut found = problems("", params, &root);
    for (place, keys) in [("client", &client[..]), ("auth", &auth[..]), ("device", &device[..])] {
        if let Some(value) = params.get(place).filter(|value| value.is_object()) {
            found.extend(problems(&format!("/{place}"), value, keys));
        }
    }
    found.extend(enum_problems(version, params));
    found
}

fn enum_problems(version: Version, params: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (key, allowed) in [("id", &CLIENT_IDS[..]), ("mode", &CLIENT_MODES[..])] {
        let Some(value) = params["client"][key].as_str() else { continue };
        if allowed.contains(&value) {
            continue;
        }
        if version <= Version::V2026_4_9 {
            found.push(format!("at /client/{key}: must be equal to constant"));
            found.push(format!("at /client/{key}: must match a schema in anyOf"));
        } else {
            found.push(format!("at /client/{key}: must be equal to one of the allowed values"));
        }
    }
    found
}
