//! The desired document: what the control plane wants, parsed strictly.
//!
//! It is written back as the same JSON (members without content are left out), so it serves as answer, history and
//! input of a hash.

mod faults;

pub use faults::is_reserved;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::KeyPath;
use super::strict::Strict;

const MAX_DEPTH: usize = 64;
const DEFAULT_MODE: u32 = 0o644;

/// What the control plane wants of one gateway. The default wants nothing beyond what every hosted tenant gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// The owned part of `openclaw.json`; agents under `agents.entries`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// Files for the tenant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<SeedFile>,
    /// Variables of the gateway's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Who may be approved without a person.
    #[serde(skip_serializing_if = "is_default")]
    pub pairing: Pairing,
    /// How the gateway is reached.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway: Gateway,
}

/// One file for the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SeedFile {
    /// Below `workspace/`, `skills/` or `bin/`.
    pub path: String,
    /// The whole text.
    pub content: String,
    /// Octal, `0600` to `0755`; `0644` when absent.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// The posture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Pairing {
    /// `manual` when absent.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub posture: Option<Posture>,
}

/// Who may be approved without a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Posture {
    /// Nobody.
    #[default]
    Manual,
}

/// How the gateway is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Where it listens.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// On which addresses.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub bind: Option<Bind>,
    /// Added to the origins from which browsers may use it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// Added to the addresses whose forwarding headers it believes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<String>,
}

/// On which addresses the gateway listens, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "these are the gateway's words")]
pub enum Bind {
    Loopback,
    Lan,
    Auto,
    Tailnet,
    Custom,
}

impl Document {
    /// Parses a document: no unknown field, no member twice anywhere, at most 64 levels. What it says is then still to
    /// be checked by [`Self::faults`]. The caller bounds its size.
    ///
    /// # Errors
    /// What is wrong and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Strict::<MAX_DEPTH>(value) = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        // serde would also take a list, with the members in their order.
        let file = |index| format!("/files/{index}");
        let files = (0..value["files"].as_array().map_or(0, Vec::len)).map(file);
        for pointer in ["", "/pairing", "/gateway"].map(str::to_owned).into_iter().chain(files) {
            if value.pointer(&pointer).is_some_and(Value::is_array) {
                return Err(format!("at {}: a list, expected an object", pointer.trim_start_matches('/')));
            }
        }
        serde_path_to_error::deserialize(value).map_err(|e| match e.path().to_string().as_str() {
            "." => e.into_inner().to_string(),
            path => format!("at {path}: {}", e.into_inner()),
        })
    }

    /// The leaves of `config`: what is not an object, and objects without members.
    pub fn leaves(&self) -> Vec<(KeyPath, Value)> {
        fn collect(path: &KeyPath, members: &Map<String, Value>, leaves: &mut Vec<(KeyPath, Value)>) {
            for (name, value) in members {
                let path = [path.as_slice(), std::slice::from_ref(name)].concat();
                match value {
                    Value::Object(members) if !members.is_empty() => collect(&path, members, leaves),
                    leaf => leaves.push((path, leaf.clone())),
                }
            }
        }
        let mut leaves = Vec::new();
        collect(&Vec::new(), &self.config, &mut leaves);
        leaves
    }
}

impl SeedFile {
    /// Its permission bits.
    pub fn mode(&self) -> u32 {
        self.parsed_mode().unwrap_or(DEFAULT_MODE)
    }

    fn parsed_mode(&self) -> Option<u32> {
        let Some(text) = &self.mode else { return Some(DEFAULT_MODE) };
        let octal = text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit());
        let mode = octal.then(|| u32::from_str_radix(text, 8).ok())??;
        ((0o600..=0o755).contains(&mode) && mode & 0o002 == 0).then_some(mode)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A value that may be absent but not null: null would be lost when the document is written back.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn document(value: &Value) -> Document {
        Document::parse(value.to_string().as_bytes()).unwrap()
    }

    fn full() -> Value {
        json!({
            "config": {
                "gateway": {"auth": {"mode": "token", "token": "${GATEWAY_TOKEN}"}},
                "agents": {"defaults": {"workspace": "/data/w"}, "entries": {"main": {"name": "Acme"}, "sales": {}}},
                "logging": {}, "list": [1, 1.5, "x", true, {"a": []}],
            },
            "files": [
                {"path": "workspace/IDENTITY.md", "content": "# Acme"},
                {"path": "bin/composio-exec", "content": "#!/bin/sh\n", "mode": "0755"},
            ],
            "env": {"TZ": "UTC"},
            "pairing": {"posture": "manual"},
            "gateway": {
                "port": 18789, "bind": "lan",
                "allowed_origins": ["https://acme.example", "http://localhost:8080", "http://[::1]:1"],
                "trusted_proxies": ["10.0.0.0/8", "127.0.0.1", "fd00::/8"],
            },
        })
    }

    #[test]
    fn a_whole_document_has_no_fault_and_comes_back_the_same() {
        assert_eq!(document(&full()).faults(), Vec::<String>::new());
        assert_eq!(serde_json::to_value(document(&full())).unwrap(), full());
        assert_eq!(serde_json::to_string(&Document::default()).unwrap(), "{}");
        assert_eq!(document(&full()).files[1].mode(), 0o755);
        assert_eq!(document(&full()).files[0].mode(), 0o644);
    }

    #[test]
    fn what_is_not_in_the_form_is_refused_with_its_place() {
        let refused = |text: &str| Document::parse(text.as_bytes()).unwrap_err();
        for (text, part) in [
            (r#"{"config":{"a":{"b":1,"b":2}}}"#, "config.a.b is given twice"),
            (r#"{"config":{"a":[{"b":1,"b":2}]}}"#, "config.a[0].b is given twice"),
            (r#"{"env":{"A":"1","A":"2"}}"#, "env.A is given twice"),
            (r#"{"env":{},"env":{}}"#, "env is given twice"),
            (r#"{"gateway":{"port":"1"}}"#, "at gateway.port: invalid type"),
            (r#"{"gateway":{"port":70000}}"#, "at gateway.port: invalid value"),
            (r#"{"gateway":{"bind":null}}"#, "at gateway.bind: "),
            (r#"{"gateway":{"bind":"all"}}"#, "at gateway.bind: unknown variant"),
            (r#"{"gateway":{"x":1}}"#, "unknown field `x`"),
            (r#"{"files":[{"path":"a"}]}"#, "at files[0]: missing field `content`"),
            (r#"{"pairing":{"posture":"window"}}"#, "expected `manual`"),
            (r#"{"env":{"A":1}}"#, "at env.A: invalid type"),
            ("[]", "a list"),
            (r#"{"gateway":[1]}"#, "at gateway: a list"),
            (r#"{"files":[["bin/a","x"]]}"#, "at files/0: a list"),
            ("7", "invalid type"),
            ("{} {}", "trailing"),
            ("", "EOF"),
        ] {
            assert!(refused(text).contains(part), "{text}: {}", refused(text));
        }
        let nested = |n: usize| format!(r#"{{"config":{}1{}}}"#, r#"{"a":"#.repeat(n), "}".repeat(n));
        assert!(Document::parse(nested(63).as_bytes()).is_ok());
        assert!(refused(&nested(64)).contains("nested too deep"));
        assert!(refused(&"[".repeat(20_000)).contains("line 1"));
    }

    proptest! {
        #[test]
        fn what_is_parsed_comes_back(config in crate::desired::plan::tests::object()) {
            let document = Document { config, ..Document::default() };
            let bytes = serde_json::to_vec(&document).unwrap();
            prop_assert_eq!(Document::parse(&bytes), Ok(document.clone()));
            let _ = document.faults();
        }
    }
}
