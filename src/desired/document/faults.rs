//! What a parsed document may not say.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;

use super::Document;
use crate::desired::strict::At;
use crate::desired::{at, is_reference, is_variable_name, key, looks_secret};

/// Enough to mend a document by; a large one could have as many as it has members.
const MAX_FAULTS: usize = 32;
/// Together they bound what the paths of a document take.
const MAX_LEAVES: usize = 4096;
const MAX_NAME: usize = 128;
const MAX_FILES: usize = 64;
const MAX_FILE: usize = 256 * 1024;
const MAX_PATH: usize = 255;
const MAX_LIST: usize = 256;
const MAX_VARIABLES: usize = 128;
const MAX_VARIABLE: usize = 32 * 1024;
/// The gateway claims its port and up to 110 above it.
const MAX_PORT: u16 = 65_424;

const ROOTS: [&str; 3] = ["workspace", "skills", "bin"];

/// What the launcher itself decides; another value would part the gateway from its state or from us.
const RESERVED_VARIABLES: [&str; 11] = [
    "HOME",
    "PATH",
    "NODE_OPTIONS",
    "OPENCLAW_CONFIG_PATH",
    "OPENCLAW_DISABLE_BONJOUR",
    "OPENCLAW_GATEWAY_PORT",
    "OPENCLAW_HOME",
    "OPENCLAW_NO_RESPAWN",
    "OPENCLAW_PROFILE",
    "OPENCLAW_STATE_DIR",
    "OPENCLAW_WORKSPACE_DIR",
];
const RESERVED_PREFIXES: [&str; 3] = ["CLAWDBOT_", "LD_", "OPENCLAW_SIDECAR_"];

/// Whether a variable of this name is the sidecar's to set, or changes how programs start.
pub fn is_reserved(name: &str) -> bool {
    RESERVED_VARIABLES.contains(&name) || RESERVED_PREFIXES.iter().any(|p| name.starts_with(p))
}

/// Members of `config` that have their own place in the document.
const ELSEWHERE: [(&str, &str); 5] = [
    ("gateway.port", "set gateway.port of the document"),
    ("gateway.bind", "set gateway.bind of the document"),
    ("gateway.controlUi.allowedOrigins", "set gateway.allowed_origins of the document"),
    ("gateway.trustedProxies", "set gateway.trusted_proxies of the document"),
    ("agents.list", "write agents.entries, by id; it is translated for versions that know only the list"),
];

/// Members of `config` below which others of us are written.
const OBJECTS: [&str; 4] = ["gateway", "gateway.controlUi", "agents", "agents.entries"];

impl Document {
    /// What is wrong with what the document says, each beginning with the field; the first 32 of it. Only a document
    /// without faults is fit to be planned.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        self.config_faults(&mut faults);
        self.file_faults(&mut faults);
        self.variable_faults(&mut faults);
        self.gateway_faults(&mut faults);
        faults.truncate(MAX_FAULTS);
        faults
    }

    fn config_faults(&self, faults: &mut Vec<String>) {
        let find = |dotted: &str| at(&self.config, &key(dotted));
        let config = At::Member(&At::Root, "config");
        for (name, value) in &self.config {
            value_faults(&At::Member(&config, name), name, value, faults);
        }
        if self.config.values().map(leaves).sum::<usize>() > MAX_LEAVES {
            faults.push(format!("config: more than {MAX_LEAVES} values"));
        }
        let taken = ELSEWHERE.iter().filter(|(name, _)| find(name).is_some());
        faults.extend(taken.map(|(name, remedy)| format!("config.{name}: {remedy}")));
        let bent = OBJECTS.iter().filter(|name| find(name).is_some_and(|value| !value.is_object()));
        faults.extend(bent.map(|name| format!("config.{name}: must be an object")));
        if find("gateway.auth.mode").is_some_and(|mode| mode == "none") {
            faults.push("config.gateway.auth.mode: \"none\" lets everybody in; use \"token\"".to_owned());
        }
        for name in ["gateway.controlUi.allowInsecureAuth", "gateway.controlUi.dangerouslyDisableDeviceAuth"] {
            if find(name) == Some(&Value::Bool(true)) {
                faults.push(format!("config.{name}: would let browsers in without their own key; leave it out"));
            }
        }
        let Some(Value::Object(agents)) = find("agents.entries") else { return };
        if agents.is_empty() {
            faults.push("config.agents.entries: must name an agent".to_owned());
        }
        for (id, agent) in agents {
            if !is_agent_id(id) {
                faults.push(format!("config.agents.entries.{id}: an id is a-z, 0-9, _ and -, at most 64 of them"));
            }
            if agent.as_object().is_none_or(|members| members.contains_key("id")) {
                faults.push(format!("config.agents.entries.{id}: must be an object without an id of its own"));
            }
        }
    }

    fn file_faults(&self, faults: &mut Vec<String>) {
        if self.files.len() > MAX_FILES {
            faults.push(format!("files: {} files, at most {MAX_FILES}", self.files.len()));
            return;
        }
        // As a file system that ignores case would see them.
        let paths: Vec<String> = self.files.iter().map(|file| file.path.to_lowercase()).collect();
        let mut seen = BTreeSet::new();
        for (index, (file, path)) in self.files.iter().zip(&paths).enumerate() {
            let mut fault = |field: &str, what: &str| faults.push(format!("files[{index}].{field}: {what}"));
            if let Err(what) = check_path(&file.path) {
                fault("path", what);
            }
            if !seen.insert(path) {
                fault("path", "is the same as another's, but for upper and lower case");
            }
            if paths.iter().any(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))) {
                fault("path", "is also the directory of another file");
            }
            if file.content.len() > MAX_FILE {
                fault("content", "is larger than 256 KiB");
            }
            if file.parsed_mode().is_none() {
                fault("mode", "must be octal such as \"0644\", from 0600 to 0755, not writable by everybody");
            }
        }
    }

    fn variable_faults(&self, faults: &mut Vec<String>) {
        if self.env.len() > MAX_VARIABLES {
            faults.push(format!("env: {} variables, at most {MAX_VARIABLES}", self.env.len()));
            return;
        }
        for (name, value) in &self.env {
            let mut fault = |what: &str| faults.push(format!("env.{name}: {what}"));
            if !is_variable_name(name) {
                fault("a name is A-Z, 0-9 and _, and does not begin with a digit");
            }
            if is_reserved(name) {
                fault("is set by the sidecar or not for tenants");
            }
            if looks_secret(name) {
                fault(&format!("a secret is not part of the document; PUT /v1/secrets/{name} instead"));
            }
            if value.len() > MAX_VARIABLE || value.contains('\0') {
                fault("a value is at most 32 KiB, without NUL");
            }
        }
    }

    fn gateway_faults(&self, faults: &mut Vec<String>) {
        if self.gateway.port.is_some_and(|port| !(1..=MAX_PORT).contains(&port)) {
            faults.push(format!("gateway.port: must be 1 to {MAX_PORT}; the gateway also uses ports above its own"));
        }
        let lists =
            [("allowed_origins", &self.gateway.allowed_origins), ("trusted_proxies", &self.gateway.trusted_proxies)];
        for (name, _) in lists.iter().filter(|(_, list)| list.len() > MAX_LIST) {
            faults.push(format!("gateway.{name}: more than {MAX_LIST} entries"));
        }
        for (index, origin) in self.gateway.allowed_origins.iter().enumerate() {
            if origin == "*" {
                let why = "\"*\" lets every website use the gateway in its visitors' names; name the origins";
                faults.push(format!("gateway.allowed_origins[{index}]: {why}"));
            } else if !is_origin(origin) {
                faults.push(format!("gateway.allowed_origins[{index}]: must be scheme://host[:port] in lower case"));
            }
        }
        for (index, proxy) in self.gateway.trusted_proxies.iter().enumerate() {
            if !is_network(proxy) {
                let what = "must be an address or a network such as 10.0.0.0/8, and not all addresses";
                faults.push(format!("gateway.trusted_proxies[{index}]: {what}"));
            }
        }
    }
}

fn value_faults(at: &At<'_>, name: &str, value: &Value, faults: &mut Vec<String>) {
    if faults.len() >= MAX_FAULTS {
        return;
    }
    let mut fault = |what: &str| faults.push(format!("{}: {what}", at.shown()));
    match value {
        _ if name.len() > MAX_NAME => fault("the name is longer than 128 bytes"),
        Value::Null => fault("null; leave it out to give it back to the tenant"),
        Value::String(text) if looks_secret(name) && !is_reference(text) => {
            fault("a secret in clear; PUT /v1/secrets/NAME and write \"${NAME}\" here");
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| value_faults(&At::Item(at, i), name, item, faults));
        }
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| value_faults(&At::Member(at, name), name, value, faults));
        }
        _ => {}
    }
}

fn leaves(value: &Value) -> usize {
    value.as_object().map_or(1, |members| members.values().map(leaves).sum::<usize>().max(1))
}

fn check_path(path: &str) -> Result<(), &'static str> {
    let components: Vec<&str> = path.split('/').collect();
    if path.len() > MAX_PATH {
        return Err("is longer than 255 bytes");
    }
    if components.len() < 2 || !ROOTS.contains(&components[0]) {
        return Err("must be below workspace/, skills/ or bin/");
    }
    if path.contains(|c: char| c == '\\' || c.is_control()) {
        return Err("has a backslash or a control character");
    }
    if components.iter().any(|name| ["", ".", ".."].contains(name)) {
        return Err("has an empty component, . or ..");
    }
    // Replacing `x` goes by way of `.x.new`.
    if components.iter().any(|name| name.strip_prefix('.').and_then(|n| n.strip_suffix(".new")).is_some()) {
        return Err("has a name that is used while another file is replaced");
    }
    Ok(())
}

/// As gateways normalise ids; another id would come back under another name.
fn is_agent_id(id: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    id.len() <= 64 && id.bytes().next().is_some_and(legal) && id.bytes().all(|b| legal(b) || b == b'_' || b == b'-')
}

/// Lower case, as browsers send it: the gateway compares texts.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => ("v6", port),
        _ => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let port_number = port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| lower(b) || b"+-.".contains(&b))
        && host.bytes().next().is_some_and(lower)
        && host.bytes().all(|b| lower(b) || b"-._".contains(&b))
        && (port.is_empty() || port_number.is_some_and(|number| number > 0 && port == format!(":{number}")))
}

fn is_network(text: &str) -> bool {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    length.is_none_or(|length| length.parse().is_ok_and(|n: u8| (1..=most).contains(&n) && n.to_string() == length))
}

#[cfg(test)]
mod tests;
