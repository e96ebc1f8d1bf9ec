//! What `openclaw.json` becomes: the control plane wins on the members it owns, everything else stays as the tenant
//! left it. Pure: the caller reads, writes and keeps [`Applied`].
//!
//! - A leaf of the document's `config` is owned. It is written whenever the file says something else.
//! - An owned member that is no longer wanted is taken out only if we put it there and it still has our value; objects
//!   that we made for it go with it when they are empty.
//! - Origins and proxies are sets: (theirs − ours of last time) ∪ ours of now.
//! - Defaults of a hosted tenant are put where nothing stands, and then belong to the tenant.
//! - A gateway may move or drop members at its start. What it made of ours at the first start after a change is
//!   adopted ([`super::applied::adopt`]) and left alone until the wish or the gateway's version changes. Only then: what differs later
//!   was done by the tenant.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::applied::{Applied, AppliedFile, Form, Owned, is_met, shown};
use super::document::Document;
use super::openclaw_json::{canonical, restored};
use super::{KeyPath, at, key};

pub(super) const ORIGINS: &str = "gateway.controlUi.allowedOrigins";
pub(super) const PROXIES: &str = "gateway.trustedProxies";
const AUTH_MODE: &str = "gateway.auth.mode";
const AUTH_TOKEN: &str = "gateway.auth.token";
const AGENTS: &str = "agents.entries";

/// What the file must fit to besides the document.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The document's generation.
    pub generation: u64,
    /// Where the sidecar will look for the gateway; the document's `gateway.port` is already considered.
    pub port: u16,
    /// The gateway's state directory.
    pub state_dir: &'a Path,
    /// The gateway that will be started.
    pub gateway_version: &'a str,
    /// A new random text, taken where the file has no secret of its own.
    pub fresh_token: &'a str,
}

/// One difference, for people and for the control plane.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Change {
    /// Dotted.
    pub path: String,
    /// Absent when there was nothing. Secrets are not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<Value>,
    /// Absent when it is taken away. Secrets are not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub will: Option<Value>,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The whole file; it holds secrets.
    pub config: Map<String, Value>,
    /// Whether the file differs from what is there.
    pub changed: bool,
    /// In which members.
    pub changes: Vec<Change>,
    /// To be kept once the file is written.
    pub applied: Applied,
}

/// Plans the file from what is there, what is wanted and what was ours.
pub fn plan(current: &Map<String, Value>, document: &Document, applied: &Applied, facts: &Facts<'_>) -> Plan {
    let (before, roster) = canonical(current);
    let wishes = wishes(document, facts);
    let mut merge = Merge::new(before.clone(), applied, facts);
    merge.give_back(&wishes);
    for (path, value) in wishes {
        merge.own(path, value);
    }
    let origins = merge.join(ORIGINS, &document.gateway.allowed_origins, &applied.origins);
    let proxies = merge.join(PROXIES, &document.gateway.trusted_proxies, &applied.proxies);
    merge.secure(facts.fresh_token);
    for (path, value) in defaults(facts) {
        merge.default(path, value);
    }
    merge.default_agent();
    let Merge { out, owned, mut made, touched, .. } = merge;
    made.retain(|path| at(&out, path).is_some());
    let changes = touched.iter().filter_map(|path| change(path, at(&before, path), at(&out, path))).collect();
    let config = restored(out, &roster);
    let files = document.files.iter().map(|file| AppliedFile {
        path: file.path.clone(),
        sha256: HEXLOWER.encode(&Sha256::digest(file.content.as_bytes())),
    });
    let applied = Applied {
        generation: facts.generation,
        gateway_version: facts.gateway_version.to_owned(),
        owned,
        made,
        origins,
        proxies,
        files: files.collect(),
    };
    Plan { changed: config != *current, config, changes, applied }
}

fn wishes(document: &Document, facts: &Facts<'_>) -> Vec<(KeyPath, Value)> {
    let mut wishes = document.leaves();
    wishes.push((key("gateway.port"), facts.port.into()));
    wishes.extend(document.gateway.bind.map(|bind| (key("gateway.bind"), json!(bind))));
    wishes
}

/// In forms that every version from 2026.2.9 on takes. No size of the log: 2026.2.9 refuses the member.
fn defaults(facts: &Facts<'_>) -> [(KeyPath, Value); 4] {
    let below = |name: &str| json!(facts.state_dir.join(name).to_string_lossy());
    [
        (key("gateway.mode"), json!("local")),
        (key("agents.defaults.workspace"), below("workspace")),
        (key("skills.entries.composio.enabled"), json!(true)),
        (key("logging.file"), below("logs/gateway.log")),
    ]
}

fn change(path: &KeyPath, was: Option<&Value>, will: Option<&Value>) -> Option<Change> {
    let shown = |value: &Value| shown(path, value);
    (was != will).then(|| Change { path: path.join("."), was: was.map(shown), will: will.map(shown) })
}

struct Merge<'a> {
    out: Map<String, Value>,
    /// What was ours last time.
    last: BTreeMap<&'a KeyPath, &'a Owned>,
    /// The gateway is the one of last time, so what it made of our members holds.
    same_gateway: bool,
    owned: Vec<Owned>,
    made: BTreeSet<KeyPath>,
    touched: BTreeSet<KeyPath>,
}

impl<'a> Merge<'a> {
    fn new(out: Map<String, Value>, last: &'a Applied, facts: &Facts<'_>) -> Self {
        let same_gateway = last.gateway_version == facts.gateway_version;
        let (owned, made, touched) = (Vec::new(), last.made.clone(), BTreeSet::new());
        let last = last.owned.iter().map(|owned| (&owned.path, owned)).collect();
        Self { out, last, same_gateway, owned, made, touched }
    }

    fn find(&self, dotted: &str) -> Option<&Value> {
        at(&self.out, &key(dotted))
    }

    fn give_back(&mut self, wishes: &[(KeyPath, Value)]) {
        let wanted: BTreeSet<&KeyPath> = wishes.iter().map(|(path, _)| path).collect();
        let unwanted = self.last.values().filter(|old| old.wrote && !old.default && !wanted.contains(&old.path));
        for old in unwanted.copied().collect::<Vec<_>>() {
            let ours =
                |found: &Value| *found == old.value || matches!(&old.form, Form::Became(value) if value == found);
            if at(&self.out, &old.path).is_some_and(ours) {
                self.take(&old.path);
            }
        }
    }

    fn own(&mut self, path: KeyPath, value: Value) {
        let old = self.last.get(&path).copied();
        let form = self.form(old, &value);
        let found = at(&self.out, &path);
        let adopted = match &form {
            Form::Dropped => found.is_none(),
            Form::Became(value) => found == Some(value),
            Form::Unknown | Form::Kept => false,
        };
        let met = adopted || is_met(found, &value);
        if !met {
            self.put(&path, value.clone());
        }
        let wrote = !met || old.is_some_and(|old| old.wrote);
        self.owned.push(Owned { path, value, wrote, default: false, form });
    }

    fn default(&mut self, path: KeyPath, value: Value) {
        let old = self.last.get(&path).copied().filter(|old| old.default && old.value == value);
        let form = self.form(old, &value);
        let wrote = at(&self.out, &path).is_none() && form != Form::Dropped && self.is_open(&path);
        if wrote {
            self.put(&path, value.clone());
        }
        if wrote || old.is_some() {
            self.owned.push(Owned { path, value, wrote: true, default: true, form });
        }
    }

    /// One agent where there is none; a list that we do not understand counts as agents.
    fn default_agent(&mut self) {
        let main = [key(AGENTS), vec!["main".to_owned()]].concat();
        let none = self.find("agents.list").is_none() && self.find(AGENTS).is_none_or(|agents| *agents == json!({}));
        if none || at(&self.out, &main).is_some() {
            self.default(main, json!({}));
        }
    }

    /// What this gateway is known to make of this value.
    fn form(&self, old: Option<&Owned>, value: &Value) -> Form {
        old.filter(|old| self.same_gateway && old.value == *value).map(|old| old.form.clone()).unwrap_or_default()
    }

    /// Merges a list as a set, and returns which of its entries are there because of us.
    fn join(&mut self, dotted: &str, ours: &[String], last: &[String]) -> Vec<String> {
        let path = key(dotted);
        let found = at(&self.out, &path);
        let absent = found.is_none();
        let theirs = found.and_then(Value::as_array).cloned().unwrap_or_default();
        let set = |list: &[String]| list.iter().cloned().map(Value::from).collect::<HashSet<Value>>();
        let (were, are) = (set(last), set(ours));
        let there: HashSet<&Value> = theirs.iter().collect();
        let new = ours.iter().cloned().map(Value::from).filter(|entry| !there.contains(entry));
        let kept = theirs.iter().filter(|entry| are.contains(entry) || !were.contains(entry)).cloned();
        let joined: Vec<Value> = kept.chain(new).collect();
        let because = |text: &&String| last.contains(text) || !there.contains(&Value::from(text.as_str()));
        let because = ours.iter().filter(because).cloned().collect();
        if joined == theirs && (!absent || ours.is_empty()) {
            return because;
        }
        if joined.is_empty() && self.made.contains(&path) {
            self.take(&path);
        } else {
            self.put(&path, joined.into());
            if absent {
                self.made.insert(path);
            }
        }
        because
    }

    /// Nobody may come in without a secret or without a key of their own.
    fn secure(&mut self, fresh_token: &str) {
        for name in ["gateway.controlUi.allowInsecureAuth", "gateway.controlUi.dangerouslyDisableDeviceAuth"] {
            if self.find(name) == Some(&Value::Bool(true)) {
                self.put(&key(name), false.into());
            }
        }
        if !self.is_open(&key(AUTH_MODE)) {
            return;
        }
        let has = |found: Option<&Value>| match found {
            Some(Value::String(text)) => !text.trim().is_empty(),
            // A reference to a secret elsewhere, in the form of newer versions.
            found => found.is_some_and(Value::is_object),
        };
        let (token, password) = (has(self.find(AUTH_TOKEN)), has(self.find("gateway.auth.password")));
        match self.find(AUTH_MODE).map(|mode| mode.as_str().unwrap_or_default()) {
            Some("none") => self.put(&key(AUTH_MODE), "token".into()),
            None if token || !password => self.put(&key(AUTH_MODE), "token".into()),
            _ => {}
        }
        if !token && self.find(AUTH_MODE).is_some_and(|mode| mode == "token") {
            self.put(&key(AUTH_TOKEN), fresh_token.into());
        }
    }

    /// Whether all that stands on the way to a member are objects.
    fn is_open(&self, path: &[String]) -> bool {
        (1..path.len()).all(|depth| at(&self.out, &path[..depth]).is_none_or(Value::is_object))
    }

    fn put(&mut self, path: &KeyPath, value: Value) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut map = &mut self.out;
        for (depth, name) in parents.iter().enumerate() {
            let next = map.entry(name.as_str()).or_insert(Value::Null);
            if !next.is_object() {
                *next = json!({});
                self.made.insert(path[..=depth].to_vec());
            }
            let Value::Object(next) = next else { return };
            map = next;
        }
        map.insert(last.clone(), value);
        self.touched.insert(path.clone());
    }

    fn take(&mut self, path: &KeyPath) {
        for depth in (1..=path.len()).rev() {
            let here = &path[..depth];
            let empty = at(&self.out, here).is_some_and(|found| *found == json!({}));
            if depth < path.len() && !(empty && self.made.contains(here)) {
                break;
            }
            let Some(parent) = self.parent(here) else { break };
            parent.remove(&here[depth - 1]);
            self.made.remove(here);
        }
        self.touched.insert(path.clone());
    }

    fn parent(&mut self, path: &[String]) -> Option<&mut Map<String, Value>> {
        let (_, parents) = path.split_last()?;
        parents.iter().try_fold(&mut self.out, |map, name| map.get_mut(name)?.as_object_mut())
    }
}

/// The workspace of the default agent, where the configuration names one.
pub fn workspace(config: &Map<String, Value>) -> Option<String> {
    let (canonical, _) = super::openclaw_json::canonical(config);
    let named = |dotted: &str| at(&canonical, &key(dotted)).and_then(Value::as_str).map(str::to_owned);
    named("agents.entries.main.workspace").or_else(|| named("agents.defaults.workspace"))
}

#[cfg(test)]
pub(super) mod tests;
