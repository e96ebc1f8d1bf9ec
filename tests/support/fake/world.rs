//! The device pairing state of the emulated gateway: pending requests, paired devices, and the events they raise.
//! No sockets here; every change returns the events to send, in the order in which the real gateway sends them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::codec::{now_ms, uuid};
use super::nodes::Nodes;
use super::records::{DeviceSpec, Paired, PairedScopes, Pending, Token, covers, sorted, union};
use super::version::{Retry, Templates, Version};

/// An event and the scope a session needs to receive it.
#[derive(Debug, Clone)]
pub struct Event {
    pub name: &'static str,
    pub payload: Value,
    pub scope: Option<&'static str>,
    /// `presence` and `health` carry the versions of both snapshots.
    pub state_version: Option<Value>,
}

impl Event {
    pub fn pairing(name: &'static str, payload: Value) -> Self {
        Self { name, payload, scope: Some("operator.pairing"), state_version: None }
    }

    pub fn for_everyone(name: &'static str, payload: Value) -> Self {
        Self { name, payload, scope: None, state_version: None }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    pub code: &'static str,
    pub message: String,
    pub details: Option<Value>,
}

impl RpcError {
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { code: "INVALID_REQUEST", message: message.into(), details: None }
    }
}

pub type Answer = Result<(Value, Vec<Event>), RpcError>;

/// Who granted what: the fake's own memory, to hold against what anybody claims.
#[derive(Debug, Clone)]
pub struct Approval {
    pub request_id: String,
    pub device_id: String,
    pub scopes: Vec<String>,
    pub by: Approver,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approver {
    /// An operator's `device.pair.approve` on this gateway's socket.
    Rpc,
    /// A test standing in for somebody on the machine.
    OutOfBand,
    /// The gateway itself, for a local client.
    Silent,
}

#[derive(Debug)]
pub struct World {
    pub version: Version,
    pub templates: &'static Templates,
    pub pending_ttl: Duration,
    pub pending: Vec<Pending>,
    pub paired: BTreeMap<String, Paired>,
    pub nodes: Nodes,
    pub approvals: Vec<Approval>,
    /// Sessions a test pretends a device has.
    pub virtual_sessions: HashMap<String, usize>,
    order: u64,
}

impl World {
    pub fn new(version: Version, pending_ttl: Duration) -> Self {
        Self {
            version,
            templates: version.templates(),
            pending_ttl,
            pending: Vec::new(),
            paired: BTreeMap::new(),
            nodes: Nodes::default(),
            approvals: Vec::new(),
            virtual_sessions: HashMap::new(),
            order: 0,
        }
    }

    pub fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Expired requests disappear when somebody looks, and nobody is told.
    pub fn prune(&mut self) {
        let ttl = self.pending_ttl;
        self.pending.retain(|one| one.renewed.elapsed() < ttl);
        self.nodes.prune(ttl);
    }

    /// A device was refused for lack of pairing: keeps, widens or replaces its request.
    pub fn request(&mut self, spec: DeviceSpec) -> (String, Vec<Event>) {
        self.prune();
        let Some(at) = self.pending.iter().position(|one| one.spec.device_id == spec.device_id) else {
            return self.open_request(spec, None);
        };
        let old = &mut self.pending[at];
        let merged = union(&old.spec.scopes, &spec.scopes);
        let broader = merged.len() > old.spec.scopes.len() || old.spec.role != spec.role;
        let changed = broader || sorted(&old.spec.scopes) != sorted(&spec.scopes);
        let replace = match self.version.retry() {
            Retry::WidensInPlace => false,
            Retry::SupersedesOnAnyChange => changed,
            Retry::SupersedesWhenBroader => broader,
        };
        if replace {
            return self.supersede(at, spec, merged);
        }
        if self.version.retry_extends_life() {
            old.renewed = Instant::now();
        }
        if self.version.retry_renews_ts() {
            old.ts = now_ms();
        }
        old.spec = DeviceSpec { scopes: merged, ..spec };
        (old.request_id.clone(), Vec::new())
    }

    /// A new id for the same device; only 2026.9.6 says that the old one is gone.
    pub fn supersede(&mut self, at: usize, spec: DeviceSpec, scopes: Vec<String>) -> (String, Vec<Event>) {
        let old = self.pending.remove(at);
        let told = (self.version >= Version::V2026_9_6).then(|| resolved(&old, "rejected"));
        self.open_request(DeviceSpec { scopes, ..spec }, told)
    }

    fn open_request(&mut self, spec: DeviceSpec, before: Option<Event>) -> (String, Vec<Event>) {
        let is_repair = self.paired.contains_key(&spec.device_id);
        let order = self.next_order();
        let request = Pending { request_id: uuid(), spec, is_repair, ts: now_ms(), renewed: Instant::now(), order };
        let requested = Event::pairing("device.pair.requested", request.render(self.templates));
        let id = request.request_id.clone();
        self.pending.push(request);
        (id, before.into_iter().chain([requested]).collect())
    }

    /// `held`: the scopes of the approving session; `None` for an approval nobody checks.
    pub fn approve(&mut self, request_id: &str, held: Option<&[String]>, by: Approver) -> Answer {
        self.prune();
        let at = self.pending.iter().position(|one| one.request_id == request_id);
        if let Some(held) = held {
            self.check_approver(at.map(|at| &self.pending[at].spec), held)?;
        }
        let at = at.ok_or_else(|| RpcError::invalid("unknown requestId"))?;
        let request = self.pending.remove(at);
        let device_id = request.spec.device_id.clone();
        let via = if by == Approver::Silent { "silent" } else { "owner" };
        self.grant(&request.spec, via);
        let scopes = request.spec.scopes.clone();
        self.approvals.push(Approval { request_id: request_id.into(), device_id: device_id.clone(), scopes, by });
        let record = self.paired[&device_id].render(self.templates, None);
        let event = resolved(&request, "approved");
        Ok((json!({"requestId": request_id, "device": record}), vec![event]))
    }

    /// 2026.2.9 lets an approver grant more than it has; later versions compare scope by scope.
    fn check_approver(&self, asked: Option<&DeviceSpec>, held: &[String]) -> Result<(), RpcError> {
        let admin = covers(held, "operator.admin");
        if self.version == Version::V2026_2_9 || admin {
            return Ok(());
        }
        let denied = self.version >= Version::V2026_9_6 && asked.is_none_or(|spec| spec.role != "operator");
        if denied {
            return Err(RpcError::invalid("device pairing approval denied"));
        }
        let mut scopes = asked.into_iter().flat_map(|spec| &spec.scopes);
        match scopes.find(|scope| !covers(held, scope)) {
            Some(missing) => Err(RpcError::invalid(format!("missing scope: {missing}"))),
            None => Ok(()),
        }
    }

    /// Writes the paired record; an existing one keeps its creation time and gets the union of both grants.
    fn grant(&mut self, spec: &DeviceSpec, via: &str) {
        let order = self.next_order();
        let version = self.version;
        let now = now_ms();
        let record = self.paired.entry(spec.device_id.clone()).or_insert_with(|| Paired {
            spec: spec.clone(),
            roles: [spec.role.clone()].into(),
            scopes: spec.scopes.clone(),
            approved_via: via.into(),
            label: None,
            created_at: now,
            approved_at: now,
            last_seen_at: None,
            tokens: vec![Token::issue(version, &spec.role, &spec.scopes)],
            order,
        });
        if record.order == order {
            return;
        }
        record.spec = spec.clone();
        record.roles.insert(spec.role.clone());
        record.scopes = union(&record.scopes, &spec.scopes);
        record.approved_via = via.into();
        record.approved_at = now;
        record.order = order;
        let fresh = Token::issue(version, &spec.role, &record.scopes);
        match record.tokens.iter_mut().find(|token| token.role == spec.role) {
            Some(token) => {
                let (created_at, last_used_at) = (token.created_at, token.last_used_at);
                *token = Token { created_at, last_used_at, rotated_at: Some(now), ..fresh };
            }
            None => record.tokens.push(fresh),
        }
    }

    /// A local client is paired without anybody being asked: no request event, only the decision.
    pub fn pair_silently(&mut self, spec: &DeviceSpec) -> Vec<Event> {
        self.grant(spec, "silent");
        let (request_id, device_id) = (uuid(), spec.device_id.clone());
        let payload = json!({"requestId": request_id, "deviceId": device_id, "decision": "approved", "ts": now_ms()});
        self.approvals.push(Approval { request_id, device_id, scopes: spec.scopes.clone(), by: Approver::Silent });
        vec![Event::pairing("device.pair.resolved", payload)]
    }

    pub fn reject(&mut self, request_id: &str) -> Answer {
        self.prune();
        let at = self.pending.iter().position(|one| one.request_id == request_id);
        let request = self.pending.remove(at.ok_or_else(|| RpcError::invalid("unknown requestId"))?);
        let payload = json!({"requestId": request_id, "deviceId": request.spec.device_id});
        Ok((payload, vec![resolved(&request, "rejected")]))
    }

    pub fn list(&mut self, connected: impl Fn(&str) -> bool) -> Value {
        self.prune();
        let mut pending: Vec<&Pending> = self.pending.iter().collect();
        pending.sort_by_key(|one| std::cmp::Reverse((one.ts, one.order)));
        let mut paired: Vec<&Paired> = self.paired.values().collect();
        paired.sort_by_key(|one| std::cmp::Reverse((one.approved_at, one.order)));
        let knows_connected = self.version >= Version::V2026_9_6;
        let pending: Vec<Value> = pending.into_iter().map(|one| one.render(self.templates)).collect();
        let paired: Vec<Value> = paired
            .into_iter()
            .map(|one| one.render(self.templates, knows_connected.then(|| connected(&one.spec.device_id))))
            .collect();
        json!({"pending": pending, "paired": paired})
    }

    /// Removal raises no event in any version.
    pub fn remove(&mut self, device_id: &str) -> Answer {
        self.paired.remove(device_id).ok_or_else(|| RpcError::invalid("unknown deviceId"))?;
        self.virtual_sessions.remove(device_id);
        // A request of the removed device would otherwise be approved as an upgrade of nothing.
        self.pending.retain(|one| one.spec.device_id != device_id);
        Ok((json!({"deviceId": device_id}), Vec::new()))
    }

    pub fn rename(&mut self, device_id: &str, label: &str) -> Answer {
        let record = self.paired.get_mut(device_id).ok_or_else(|| RpcError::invalid("unknown deviceId"))?;
        record.label = Some(label.into());
        let changed = Event::pairing("device.pair.changed", json!({}));
        Ok((json!({"deviceId": device_id, "label": label}), vec![changed]))
    }

    pub fn revoke_token(&mut self, device_id: &str, role: &str) -> Answer {
        let unknown =
            if self.version <= Version::V2026_4_9 { "unknown deviceId/role" } else { "device token revocation denied" };
        let record = self.paired.get_mut(device_id);
        let token = record.and_then(|record| record.tokens.iter_mut().find(|token| token.role == role));
        let token = token.ok_or_else(|| RpcError::invalid(unknown))?;
        let now = now_ms();
        token.revoked_at = Some(now);
        Ok((json!({"deviceId": device_id, "role": role, "revokedAtMs": now}), Vec::new()))
    }

    /// The new secret is answered up to 2026.4.9, later withheld from everyone but the device.
    pub fn rotate_token(&mut self, device_id: &str, role: &str, scopes: Option<Vec<String>>) -> Answer {
        let version = self.version;
        let record = self.paired.get_mut(device_id);
        let token = record.and_then(|record| record.tokens.iter_mut().find(|token| token.role == role));
        let token = token.ok_or_else(|| RpcError::invalid("device token rotation denied"))?;
        let now = now_ms();
        let (created_at, last_used_at) = (token.created_at, token.last_used_at);
        let fresh = Token::issue(version, role, &scopes.unwrap_or_else(|| token.scopes.clone()));
        *token = Token { created_at, last_used_at, rotated_at: Some(now), ..fresh };
        let mut payload = json!({"deviceId": device_id, "role": role, "scopes": token.scopes, "rotatedAtMs": now});
        match version {
            Version::V2026_2_9 | Version::V2026_4_9 => payload["token"] = json!(token.secret),
            Version::V2026_6_11 => {}
            Version::V2026_9_6 => payload["tokenDelivery"] = json!("withheld-cross-device"),
        }
        Ok((payload, Vec::new()))
    }

    pub fn truth(&self, device_id: &str) -> Option<PairedScopes> {
        let record = self.paired.get(device_id)?;
        Some(PairedScopes { roles: record.roles.clone(), scopes: record.scopes.iter().cloned().collect() })
    }
}

fn resolved(request: &Pending, decision: &str) -> Event {
    let (request_id, device_id) = (&request.request_id, &request.spec.device_id);
    let payload = json!({"requestId": request_id, "deviceId": device_id, "decision": decision, "ts": now_ms()});
    Event::pairing("device.pair.resolved", payload)
}
