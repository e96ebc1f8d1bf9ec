//! What is ours in `openclaw.json`, kept from one plan to the next.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::openclaw_json::canonical;
use super::{KeyPath, at, redacted};

/// What is ours in the file, kept from one plan to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Applied {
    /// The document's generation.
    pub generation: u64,
    /// The gateway it was planned for.
    pub gateway_version: String,
    /// The members we want.
    pub owned: Vec<Owned>,
    /// Objects and lists that were not there before us.
    pub made: BTreeSet<KeyPath>,
    /// Our entries among the allowed origins.
    pub origins: Vec<String>,
    /// Our entries among the trusted proxies.
    pub proxies: Vec<String>,
    /// The document's files.
    pub files: Vec<AppliedFile>,
}

/// One member that we want.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Owned {
    /// Where.
    pub path: KeyPath,
    /// What.
    pub value: Value,
    /// We put it there; otherwise it was there before us.
    #[serde(default)]
    pub wrote: bool,
    /// A default, which belongs to the tenant once it is there.
    #[serde(default)]
    pub default: bool,
    /// What the gateway made of it.
    #[serde(default)]
    pub form: Form,
}

/// What a gateway made of a member at its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// It was not started with it yet.
    #[default]
    Unknown,
    /// It left it as it was.
    Kept,
    /// It took it away.
    Dropped,
    /// It wrote this in its place.
    Became(Value),
}

/// A file of the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedFile {
    /// As in the document.
    pub path: String,
    /// Of the content, in hexadecimal.
    pub sha256: String,
}

/// Takes note of what the gateway, now ready, made of the members that it was started with for the first time.
/// Nothing with a secret in it is adopted: it would be kept here in clear.
pub fn adopt(current: &Map<String, Value>, applied: &Applied) -> Applied {
    let (now, _) = canonical(current);
    let mut applied = applied.clone();
    for owned in applied.owned.iter_mut().filter(|owned| owned.form == Form::Unknown) {
        owned.form = match at(&now, &owned.path) {
            found if is_met(found, &owned.value) => Form::Kept,
            None => Form::Dropped,
            Some(_) if owned.default => Form::Kept,
            Some(found) if shown(&owned.path, found) != *found => Form::Unknown,
            Some(found) => Form::Became(found.clone()),
        };
    }
    applied
}

/// Whether a wish is fulfilled. An object without members asks only that there is an object.
pub(super) fn is_met(found: Option<&Value>, wished: &Value) -> bool {
    found.is_some_and(|found| found == wished || (*wished == json!({}) && found.is_object()))
}

pub(super) fn shown(path: &KeyPath, value: &Value) -> Value {
    redacted(path.last().map_or("", String::as_str), value)
}
