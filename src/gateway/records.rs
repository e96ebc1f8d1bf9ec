//! Records and events of the gateway, of any version, turned into our own.
//!
//! Texts are cut and stripped of control characters, lists are cut, unknown members ignored, and records whose id
//! would change by that are dropped: an id that we cannot repeat exactly is of no use.

use std::collections::HashSet;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Notice;
use super::frames::Presence;
use crate::clock::UnixMs;
use crate::state::{Approved, Kind, Pending};

/// A pending device request lapses this long after the device's last try (observed on 2026.4.9 to 2026.9.6).
const DEVICE_TTL_MS: u64 = 300_000;
const MAX_TEXT: usize = 256;
pub(super) const MAX_PENDING: usize = 256;
const MAX_APPROVED: usize = 1024;
const MAX_ITEMS: usize = 64;

/// Both halves of a pairing list.
#[derive(Debug, Default)]
pub struct Lists {
    /// Waiting requests.
    pub pending: Vec<Pending>,
    /// Approved devices or nodes.
    pub approved: Vec<Approved>,
}

/// What an event of the gateway means for pairing; `None` for events that mean nothing to us.
pub(crate) fn notice(name: &str, payload: &str) -> Option<Notice> {
    Some(match name {
        "device.pair.requested" => {
            Notice::Requested(serde_json::from_str::<WireDevice>(payload).ok()?.pending()?.into())
        }
        "node.pair.requested" => Notice::Requested(serde_json::from_str::<WireNode>(payload).ok()?.pending()?.into()),
        "device.pair.resolved" => resolved(Kind::Device, payload)?,
        "node.pair.resolved" => resolved(Kind::Node, payload)?,
        "presence" => {
            let list: PresenceList = serde_json::from_str(payload).ok()?;
            Notice::Presence(connected(&list.presence))
        }
        name if name.starts_with("device.pair.") || name.starts_with("node.pair.") => Notice::Changed,
        _ => return None,
    })
}

/// Ids of the devices with at least one live connection.
pub(super) fn connected(presence: &[Presence]) -> HashSet<String> {
    presence
        .iter()
        .filter(|p| p.reason.as_deref() != Some("disconnect"))
        .filter_map(|p| exact_id(p.device_id.as_deref()?))
        .take(MAX_APPROVED)
        .collect()
}

fn resolved(kind: Kind, payload: &str) -> Option<Notice> {
    let wire: WireResolved = serde_json::from_str(payload).ok()?;
    Some(Notice::Resolved(kind, exact_id(&wire.request_id)?, &*wire.decision == "approved"))
}

/// Text from the gateway made safe to show: no control characters, none that turn or hide text, at most 256 in all.
pub(crate) fn tidy(text: &str) -> String {
    let hidden = |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}');
    text.chars().filter(|c| !c.is_control() && !hidden(*c)).take(MAX_TEXT).collect()
}

fn tidy_all(texts: &[Text]) -> Vec<String> {
    texts.iter().take(MAX_ITEMS).map(|t| tidy(t)).collect()
}

fn exact_id(text: &str) -> Option<String> {
    let tidied = tidy(text);
    (!text.is_empty() && tidied == text).then_some(tidied)
}

fn first_non_empty(texts: [&str; 3]) -> String {
    tidy(texts.into_iter().find(|t| !t.trim().is_empty()).unwrap_or_default())
}

/// A text that may be `null`.
#[derive(Debug, Default)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|text| Self(text.unwrap_or_default()))
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// The records stay unparsed at first, so that one odd record does not hide the others.
#[derive(Debug, Deserialize)]
pub(crate) struct WireList {
    #[serde(default)]
    pending: Vec<Box<RawValue>>,
    #[serde(default)]
    paired: Vec<Box<RawValue>>,
}

impl WireList {
    pub(crate) fn into_lists<T: DeserializeOwned>(
        self,
        pending: impl Fn(T) -> Option<Pending>,
        approved: impl Fn(T) -> Option<Approved>,
        own: &str,
    ) -> Lists {
        let parse = |raw: Box<RawValue>| serde_json::from_str(raw.get()).ok();
        let pending = self.pending.into_iter().filter_map(parse).filter_map(pending).filter(|p| p.device_id != own);
        let approved = self.paired.into_iter().filter_map(parse).filter_map(approved).filter(|a| a.device_id != own);
        Lists { pending: pending.take(MAX_PENDING).collect(), approved: approved.take(MAX_APPROVED).collect() }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WireDevice {
    request_id: Text,
    device_id: Text,
    display_name: Text,
    operator_label: Text,
    platform: Text,
    client_id: Text,
    role: Text,
    roles: Vec<Text>,
    scopes: Vec<Text>,
    remote_ip: Text,
    is_repair: bool,
    ts: u64,
    approved_at_ms: u64,
    approved_via: Text,
    connected: Option<bool>,
}

impl WireDevice {
    fn role(&self) -> String {
        if self.roles.is_empty() { tidy(&self.role) } else { tidy_all(&self.roles).join(",") }
    }

    pub(crate) fn pending(self) -> Option<Pending> {
        Some(Pending {
            kind: Kind::Device,
            request_id: exact_id(&self.request_id)?,
            device_id: exact_id(&self.device_id)?,
            label: first_non_empty([&self.operator_label, &self.display_name, &self.client_id]),
            client_id: tidy(&self.client_id),
            platform: tidy(&self.platform),
            role: self.role(),
            scopes: tidy_all(&self.scopes),
            commands: Vec::new(),
            remote_ip: tidy(&self.remote_ip),
            is_upgrade: self.is_repair,
            requested_at: UnixMs(self.ts),
            expires_at: Some(UnixMs(self.ts).plus_ms(DEVICE_TTL_MS)),
            channel: String::new(),
            account: String::new(),
        })
    }

    pub(crate) fn approved(self) -> Option<Approved> {
        Some(Approved {
            kind: Kind::Device,
            device_id: exact_id(&self.device_id)?,
            label: first_non_empty([&self.operator_label, &self.display_name, &self.client_id]),
            client_id: tidy(&self.client_id),
            platform: tidy(&self.platform),
            role: self.role(),
            scopes: tidy_all(&self.scopes),
            commands: Vec::new(),
            remote_ip: tidy(&self.remote_ip),
            connected: self.connected,
            approved_at: UnixMs(self.approved_at_ms),
            approved_by: String::new(),
            approved_via: tidy(&self.approved_via),
        })
    }
}

/// A node's record. On 2026.4.9 it carries the node's secret token, which is not even read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WireNode {
    request_id: Text,
    node_id: Text,
    display_name: Text,
    platform: Text,
    client_id: Text,
    commands: Vec<Text>,
    required_approve_scopes: Vec<Text>,
    remote_ip: Text,
    ts: u64,
    approved_at_ms: u64,
    connected: Option<bool>,
}

impl WireNode {
    pub(crate) fn pending(self) -> Option<Pending> {
        Some(Pending {
            kind: Kind::Node,
            request_id: exact_id(&self.request_id)?,
            device_id: exact_id(&self.node_id)?,
            label: first_non_empty([&self.display_name, &self.client_id, "node"]),
            client_id: tidy(&self.client_id),
            platform: tidy(&self.platform),
            role: "node".to_owned(),
            scopes: tidy_all(&self.required_approve_scopes),
            commands: tidy_all(&self.commands),
            remote_ip: tidy(&self.remote_ip),
            is_upgrade: false,
            requested_at: UnixMs(self.ts),
            expires_at: None,
            channel: String::new(),
            account: String::new(),
        })
    }

    pub(crate) fn approved(self) -> Option<Approved> {
        Some(Approved {
            kind: Kind::Node,
            device_id: exact_id(&self.node_id)?,
            label: first_non_empty([&self.display_name, &self.client_id, "node"]),
            client_id: tidy(&self.client_id),
            platform: tidy(&self.platform),
            role: "node".to_owned(),
            scopes: Vec::new(),
            commands: tidy_all(&self.commands),
            remote_ip: tidy(&self.remote_ip),
            connected: self.connected,
            approved_at: UnixMs(self.approved_at_ms),
            approved_by: String::new(),
            approved_via: String::new(),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WireChannels {
    pub(crate) requests: Vec<WireChannel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WireChannel {
    request_id: Text,
    channel: Text,
    account_id: Text,
    sender_id: Text,
    sender_label: Text,
    created_at: Value,
    expires_at: Value,
}

impl WireChannel {
    pub(crate) fn pending(self) -> Option<Pending> {
        Some(Pending {
            kind: Kind::Channel,
            request_id: exact_id(&self.request_id)?,
            device_id: String::new(),
            label: first_non_empty([&self.sender_label, &self.sender_id, "unknown sender"]),
            client_id: tidy(&self.sender_id),
            platform: String::new(),
            role: String::new(),
            scopes: Vec::new(),
            commands: Vec::new(),
            remote_ip: String::new(),
            is_upgrade: false,
            requested_at: moment(&self.created_at).unwrap_or_default(),
            expires_at: moment(&self.expires_at),
            channel: exact_id(&self.channel)?,
            account: tidy(&self.account_id),
        })
    }
}

/// A time as number of milliseconds or as RFC 3339 text; both occur.
fn moment(value: &Value) -> Option<UnixMs> {
    value.as_u64().map(UnixMs).or_else(|| UnixMs::parse(value.as_str()?))
}

#[derive(Debug, Deserialize)]
pub(super) struct ApprovedDevice {
    pub(super) device: WireDevice,
}

#[derive(Debug, Deserialize)]
pub(super) struct ApprovedNode {
    pub(super) node: WireNode,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireResolved {
    request_id: Text,
    decision: Text,
}

#[derive(Debug, Deserialize)]
struct PresenceList {
    presence: Vec<Presence>,
}

#[cfg(test)]
mod tests;
