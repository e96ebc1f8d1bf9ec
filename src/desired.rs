//! Desired state: what the control plane wants of a gateway, and what follows from it. Pure: nothing here reads or
//! writes a file.
//!
//! ```text
//! bytes -> document (strict, faults named) ---.
//! openclaw.json -> openclaw_json (JSON5) -----+--> plan -> the new openclaw.json, its changes, and what is ours in it
//! what was ours last time --------------------'
//! ```

pub mod applied;
pub mod document;
pub mod drift;
pub mod files;
pub mod history;
pub mod openclaw_json;
pub mod plan;
pub mod secrets;
mod strict;

use serde_json::{Map, Value};

/// The names on the way to a member of `openclaw.json`. Agents are always under `agents.entries`.
pub type KeyPath = Vec<String>;

/// Shown instead of a secret.
pub const REDACTED: &str = "[redacted]";

const SECRET_ENDINGS: [&str; 13] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "apikey",
    "privatekey",
    "accesskey",
    "secretkey",
    "signingkey",
    "encryptkey",
    "encryptionkey",
];

/// Whether a member or a variable of this name holds a secret.
pub fn looks_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !"-_ ".contains(*c)).flat_map(char::to_lowercase).collect();
    let singular = plain.strip_suffix('s').unwrap_or(&plain);
    let variable = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    SECRET_ENDINGS.iter().any(|ending| plain.ends_with(ending) || singular.ends_with(ending))
        || plain == "authorization"
        || (variable && name.ends_with("KEY"))
}

/// Whether a text is exactly `${NAME}`, which the gateway replaces by that variable.
pub fn is_reference(text: &str) -> bool {
    text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(is_variable_name)
}

/// Whether the gateway takes this for the name of a variable.
pub fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// A value without the secrets in it, for people to see. `name` is the member's own.
pub fn redacted(name: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if looks_secret(name) && !is_reference(text) => REDACTED.into(),
        Value::Array(items) => items.iter().map(|item| redacted(name, item)).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), redacted(name, value))).collect(),
        other => other.clone(),
    }
}

/// The value at a path.
fn at<'a>(root: &'a Map<String, Value>, path: &[String]) -> Option<&'a Value> {
    let (last, parents) = path.split_last()?;
    parents.iter().try_fold(root, |map, name| map.get(name)?.as_object())?.get(last)
}

/// The path of a dotted name of ours.
fn key(dotted: &str) -> KeyPath {
    dotted.split('.').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_shipped_example_is_a_document() {
        document::Document::parse(include_bytes!("../config/desired.json")).unwrap();
    }

    #[test]
    fn secrets_are_known_by_their_names() {
        for name in
            ["token", "botToken", "apiKey", "x-api-key", "OPENAI_API_KEY", "SSH_KEY", "Authorization", "secrets"]
        {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["mode", "tokenFile", "publicKey", "mainKey", "key", "allowedOrigins", "PATH"] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn a_reference_is_exactly_one_variable() {
        assert!(is_reference("${OPENAI_API_KEY}") && is_reference("${_A1}"));
        for text in ["${}", "$A", "${a}", "${1A}", " ${A}", "${A}x", "$${A}", "${A}${B}"] {
            assert!(!is_reference(text), "{text}");
        }
    }

    #[test]
    fn redaction_reaches_into_objects_and_lists() {
        let shown =
            redacted("auth", &json!({"mode": "token", "token": "hunter2", "keys": [{"apiKey": "k"}], "maxTokens": 7}));
        assert_eq!(shown, json!({"mode": "token", "token": REDACTED, "keys": [{"apiKey": REDACTED}], "maxTokens": 7}));
        assert_eq!(redacted("tokens", &json!(["a", "${A}"])), json!([REDACTED, "${A}"]));
    }
}
