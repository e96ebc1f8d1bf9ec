//! The other two kinds of pairing: a node's commands (second step after its device) and senders of a chat channel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::codec::{base64url, now_ms, random_bytes, uuid};
use super::records::{DeviceSpec, covers, fill};
use super::version::Version;
use super::world::{Answer, Event, RpcError, World};

#[derive(Debug, Clone)]
pub struct NodeRequest {
    pub request_id: String,
    pub spec: DeviceSpec,
    pub commands: Vec<String>,
    pub ts: u64,
    renewed: Instant,
}

#[derive(Debug, Clone)]
pub struct NodeRecord {
    pub spec: DeviceSpec,
    pub commands: Vec<String>,
    token: String,
    approved_at: u64,
}

#[derive(Debug, Clone)]
pub struct ChannelRequest {
    pub request_id: String,
    pub channel: String,
    pub account: String,
    pub sender: String,
    created_at: u64,
}

#[derive(Debug, Default)]
pub struct Nodes {
    pub pending: Vec<NodeRequest>,
    pub paired: BTreeMap<String, NodeRecord>,
    pub channels: Vec<ChannelRequest>,
    pub allowed_senders: Vec<(String, String)>,
}

impl Nodes {
    pub fn prune(&mut self, ttl: Duration) {
        self.pending.retain(|one| one.renewed.elapsed() < ttl);
    }
}

fn required_scopes(commands: &[String]) -> Vec<&'static str> {
    let runs_programs = commands.iter().any(|command| command.starts_with("system.run"));
    if runs_programs { vec!["operator.pairing", "operator.admin"] } else { vec!["operator.pairing"] }
}

fn node_resolved(request_id: &str, node_id: &str, decision: &str) -> Event {
    let payload = json!({"requestId": request_id, "nodeId": node_id, "decision": decision, "ts": now_ms()});
    Event::pairing("node.pair.resolved", payload)
}

impl World {
    /// A paired node connected and declared what it can run.
    pub fn request_node(&mut self, spec: &DeviceSpec, commands: &[String]) -> (String, Vec<Event>) {
        self.prune();
        if let Some(known) = self.nodes.pending.iter_mut().find(|one| one.spec.device_id == spec.device_id) {
            known.renewed = Instant::now();
            return (known.request_id.clone(), Vec::new());
        }
        let (request_id, ts, renewed) = (uuid(), now_ms(), Instant::now());
        let request = NodeRequest { request_id, spec: spec.clone(), commands: commands.to_vec(), ts, renewed };
        let payload = self.render_node_request(&request, &self.templates.node_requested);
        let id = request.request_id.clone();
        self.nodes.pending.push(request);
        (id, vec![Event::pairing("node.pair.requested", payload)])
    }

    fn node_fields(&self, spec: &DeviceSpec, commands: &[String]) -> Vec<(&'static str, Option<Value>)> {
        let names_client = self.version >= Version::V2026_9_6;
        vec![
            ("nodeId", Some(json!(spec.device_id))),
            ("clientId", names_client.then(|| json!(spec.client_id))),
            ("clientMode", names_client.then(|| json!(spec.client_mode))),
            ("displayName", spec.display_name.as_ref().map(|name| json!(name))),
            ("platform", Some(json!(spec.platform))),
            ("version", Some(json!(self.version.name()))),
            ("deviceFamily", spec.device_family.as_ref().map(|family| json!(family))),
            ("commands", Some(json!(commands))),
            ("remoteIp", spec.remote_ip.as_ref().map(|ip| json!(ip))),
        ]
    }

    fn render_node_request(&self, request: &NodeRequest, template: &Value) -> Value {
        let mut fields = self.node_fields(&request.spec, &request.commands);
        let lists_scopes = template.get("requiredApproveScopes").is_some();
        fields.extend([
            ("requestId", Some(json!(request.request_id))),
            ("requiredApproveScopes", lists_scopes.then(|| json!(required_scopes(&request.commands)))),
            ("ts", Some(json!(request.ts))),
        ]);
        fill(template, fields)
    }

    fn render_node(&self, record: &NodeRecord) -> Value {
        let mut fields = self.node_fields(&record.spec, &record.commands);
        let secret = self.version.leaks_node_token().then(|| json!(record.token));
        fields.extend([
            ("token", secret),
            ("createdAtMs", Some(json!(record.approved_at))),
            ("approvedAtMs", Some(json!(record.approved_at))),
        ]);
        fill(&self.templates.node_paired, fields)
    }

    pub fn list_nodes(&mut self) -> Value {
        self.prune();
        let template = &self.templates.node_pending;
        let pending: Vec<Value> =
            self.nodes.pending.iter().rev().map(|one| self.render_node_request(one, template)).collect();
        let paired: Vec<Value> = self.nodes.paired.values().map(|one| self.render_node(one)).collect();
        json!({"pending": pending, "paired": paired})
    }

    fn take_node_request(&mut self, request_id: &str) -> Result<NodeRequest, RpcError> {
        self.prune();
        let at = self.nodes.pending.iter().position(|one| one.request_id == request_id);
        Ok(self.nodes.pending.remove(at.ok_or_else(|| RpcError::invalid("unknown requestId"))?))
    }

    pub fn approve_node(&mut self, request_id: &str, held: &[String]) -> Answer {
        let request = self.take_node_request(request_id)?;
        let required = required_scopes(&request.commands);
        if let Some(missing) = required.iter().find(|scope| !covers(held, scope)) {
            let error = missing_scope(self.version, missing);
            self.nodes.pending.push(request);
            return Err(error);
        }
        let node_id = request.spec.device_id.clone();
        let (token, approved_at) = (base64url(&random_bytes::<32>()), now_ms());
        let record = NodeRecord { spec: request.spec, commands: request.commands, token, approved_at };
        let answer = json!({"requestId": request_id, "node": self.render_node(&record)});
        self.nodes.paired.insert(node_id.clone(), record);
        Ok((answer, vec![node_resolved(request_id, &node_id, "approved")]))
    }

    pub fn reject_node(&mut self, request_id: &str) -> Answer {
        let node_id = self.take_node_request(request_id)?.spec.device_id;
        let answer = json!({"requestId": request_id, "nodeId": node_id});
        Ok((answer, vec![node_resolved(request_id, &node_id, "rejected")]))
    }

    /// Takes the device pairing along; unlike the removal of a device this one is announced.
    pub fn remove_node(&mut self, node_id: &str) -> Answer {
        let known = self.nodes.paired.remove(node_id).is_some();
        let known = self.paired.remove(node_id).is_some() || known;
        self.nodes.pending.retain(|one| one.spec.device_id != node_id);
        if !known {
            return Err(RpcError::invalid("unknown nodeId"));
        }
        Ok((json!({"nodeId": node_id}), vec![node_resolved("", node_id, "removed")]))
    }

    pub fn rename_node(&mut self, node_id: &str, name: &str) -> Answer {
        let record = self.nodes.paired.get_mut(node_id).ok_or_else(|| RpcError::invalid("unknown nodeId"))?;
        record.spec.display_name = Some(name.to_owned());
        Ok((json!({"nodeId": node_id, "displayName": name}), Vec::new()))
    }

    /// A sender wrote to the bot for the first time; no event tells.
    pub fn request_channel(&mut self, channel: &str, account: &str, sender: &str) -> String {
        let request_id = base64url(&random_bytes::<24>());
        let (channel, account, sender) = (channel.into(), account.into(), sender.into());
        let request = ChannelRequest { request_id: request_id.clone(), channel, account, sender, created_at: now_ms() };
        self.nodes.channels.push(request);
        request_id
    }

    pub fn list_channels(&self, channel: Option<&str>) -> Answer {
        if let Some(unknown) = channel.filter(|name| *name != "telegram") {
            return Err(RpcError::invalid(format!("Error: unknown pairing channel: {unknown}")));
        }
        let requests: Vec<Value> = self.nodes.channels.iter().map(|one| self.render_channel(one)).collect();
        let account = json!({"channel": "telegram", "channelLabel": "Telegram", "accountId": "default",
            "notifySupported": true});
        let limits = json!({"pendingPerAccount": 3, "ttlMs": 3_600_000});
        let answer = json!({"accounts": [account], "requests": requests, "commandOwnerConfigured": false,
            "limits": limits});
        Ok((answer, Vec::new()))
    }

    fn render_channel(&self, request: &ChannelRequest) -> Value {
        let fields = vec![
            ("requestId", Some(json!(request.request_id))),
            ("channel", Some(json!(request.channel))),
            ("accountId", Some(json!(request.account))),
            ("senderId", Some(json!(request.sender))),
            ("metadata", Some(json!({"username": format!("user{}", request.sender)}))),
            ("createdAt", Some(json!(rfc3339(request.created_at)))),
            ("lastSeenAt", Some(json!(rfc3339(request.created_at)))),
            ("expiresAt", Some(json!(rfc3339(request.created_at + 3_600_000)))),
        ];
        fill(&self.templates.channel_request, fields)
    }

    /// Approves (`allow`) or dismisses a sender.
    pub fn decide_channel(&mut self, channel: &str, account: &str, request_id: &str, allow: bool) -> Answer {
        if (channel, account) != ("telegram", "default") {
            return Err(RpcError::invalid(format!("channel account does not use DM pairing: {channel}:{account}")));
        }
        let at = self.nodes.channels.iter().position(|one| one.request_id == request_id);
        let at = at.ok_or_else(|| RpcError::invalid("pending DM access request no longer exists"))?;
        let request = self.nodes.channels.remove(at);
        let mut answer = json!({"requestId": request_id, "senderId": request.sender});
        if allow {
            self.nodes.allowed_senders.push((request.channel, request.sender));
            answer["notification"] = json!("not-requested");
            answer["commandOwnerBootstrap"] = json!("not-requested");
        }
        Ok((answer, Vec::new()))
    }
}

pub fn missing_scope(version: Version, scope: &str) -> RpcError {
    let message = format!("missing scope: {scope}");
    if version < Version::V2026_9_6 {
        return RpcError::invalid(message);
    }
    let details = json!({"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]});
    RpcError { code: "FORBIDDEN", message, details: Some(details) }
}

fn rfc3339(ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_millis(ms);
    humantime::format_rfc3339_millis(at).to_string()
}
