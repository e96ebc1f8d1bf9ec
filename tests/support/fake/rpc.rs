//! The calls an operator makes: which exist, what scope they need, what they answer.

use serde_json::{Value, json};

use super::churn::Fate;
use super::core::{Core, Out};
use super::faults::{Lie, RestartIn};
use super::nodes::missing_scope;
use super::records::{covers, fill, strings};
use super::schema::{self, Key, Kind, optional, required};
use super::version::Version;
use super::world::{Answer, Approver, RpcError};

/// What the connection does besides answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    None,
    Restart,
}

const DEVICE_ID: Key = required("deviceId");
const REQUEST_ID: Key = required("requestId");

impl Core {
    /// A call on an open session.
    pub fn call(&mut self, id: u64, frame: &Value) -> Effect {
        let Some(held) = self.connections.get(&id).and_then(|one| one.session.as_ref()).map(|one| one.scopes.clone())
        else {
            return Effect::None;
        };
        let method = frame["method"].as_str().unwrap_or_default();
        if frame["type"] != "req" || method.is_empty() {
            return Effect::None;
        }
        let params = frame.get("params").cloned().unwrap_or_else(|| json!({}));
        if let Err(error) = self.permit(method, &held, &params) {
            self.reply(id, frame, &Err(render(&error)));
            return Effect::None;
        }
        if method == "device.pair.approve" {
            return self.approve_call(id, frame, &params, &held);
        }
        let answer = self.answer(method, &params, &held);
        self.finish(id, frame, answer);
        if method == "gateway.restart.request" { Effect::Restart } else { Effect::None }
    }

    /// Events go out before the answer, as on the real gateway.
    fn finish(&mut self, id: u64, frame: &Value, answer: Answer) {
        match answer {
            Ok((payload, events)) => {
                self.broadcast(events);
                self.reply(id, frame, &Ok(payload));
            }
            Err(error) => self.reply(id, frame, &Err(render(&error))),
        }
    }

    fn permit(&self, method: &str, held: &[String], params: &Value) -> Result<(), RpcError> {
        if method == "connect" {
            return Err(RpcError::invalid("connect is only valid as the first request"));
        }
        let version = self.world.version;
        if !self.world.templates.methods().any(|known| known == method) {
            return Err(RpcError::invalid(format!("unknown method: {method}")));
        }
        if let Some(scope) = scope_of(version, method).filter(|scope| !covers(held, scope)) {
            return Err(missing_scope(version, scope));
        }
        let problems = keys_of(method).map_or_else(Vec::new, |keys| schema::problems("", params, &keys));
        if problems.is_empty() {
            return Ok(());
        }
        Err(RpcError::invalid(format!("invalid {method} params: {}", problems.join("; "))))
    }

    fn answer(&mut self, method: &str, params: &Value, held: &[String]) -> Answer {
        let text = |key: &str| params[key].as_str().unwrap_or_default();
        match method {
            "health" => Ok((self.health(), Vec::new())),
            "status" => {
                Ok((json!({"runtimeVersion": self.world.version.name(), "sessions": {"count": 0}}), Vec::new()))
            }
            "system-presence" => Ok((json!(self.presence()), Vec::new())),
            "device.pair.list" => Ok((self.list(), Vec::new())),
            "device.pair.reject" => self.world.reject(text("requestId")),
            "device.pair.remove" => {
                let answer = self.world.remove(text("deviceId"));
                self.end_device(text("deviceId"), answer)
            }
            "device.pair.rename" => self.world.rename(text("deviceId"), text("label")),
            "device.token.revoke" => {
                let answer = self.world.revoke_token(text("deviceId"), text("role"));
                self.end_device(text("deviceId"), answer)
            }
            "device.token.rotate" => {
                let scopes = params["scopes"].is_array().then(|| strings(&params["scopes"]));
                let answer = self.world.rotate_token(text("deviceId"), text("role"), scopes);
                self.end_device(text("deviceId"), answer)
            }
            "node.pair.list" => Ok((self.world.list_nodes(), Vec::new())),
            "node.pair.approve" => self.world.approve_node(text("requestId"), held),
            "node.pair.reject" => self.world.reject_node(text("requestId")),
            "node.pair.remove" => {
                let answer = self.world.remove_node(text("nodeId"));
                self.end_device(text("nodeId"), answer)
            }
            "node.rename" => self.world.rename_node(text("nodeId"), text("displayName")),
            "channels.pairing.list" => self.world.list_channels(params["channel"].as_str()),
            "channels.pairing.approve" | "channels.pairing.dismiss" => {
                let allow = method.ends_with("approve");
                self.world.decide_channel(text("channel"), text("accountId"), text("requestId"), allow)
            }
            "config.get" => Ok((self.config(), Vec::new())),
            "gateway.restart.preflight" => Ok((json!({"safe": true, "blockers": []}), Vec::new())),
            "gateway.restart.request" => {
                Ok((json!({"ok": true, "status": "scheduled", "restart": {"ok": true, "delayMs": 0}}), Vec::new()))
            }
            _ => Err(RpcError {
                code: "UNAVAILABLE",
                message: format!("{method} is not emulated by this fake"),
                details: None,
            }),
        }
    }

    fn list(&mut self) -> Value {
        let connected: Vec<String> =
            self.world.paired.keys().filter(|device| self.is_connected(device)).cloned().collect();
        self.world.list(|device| connected.iter().any(|one| one == device))
    }

    /// Removing, revoking and rotating end the device's sessions, except on 2026.2.9.
    pub fn end_device(&mut self, device_id: &str, answer: Answer) -> Answer {
        if answer.is_ok() && self.world.version.closes_sessions_of_removed_devices() {
            self.close_sessions(4001, "device removed", |session| session.spec.device_id == device_id);
            self.world.virtual_sessions.remove(device_id);
        }
        answer
    }

    /// 2026.4.9 shows the plain token in one of the copies, and the fake with it.
    fn config(&self) -> Value {
        let redacted = json!({"gateway": {"auth": {"mode": "token", "token": "__OPENCLAW_REDACTED__"}}});
        let mut out = json!({"path": self.world.templates.hello["snapshot"]["configPath"], "exists": true,
            "valid": true, "issues": [], "warnings": [], "hash": "fixture", "config": redacted});
        if self.world.version == Version::V2026_4_9 {
            out["sourceConfig"] = json!({"gateway": {"auth": {"mode": "token", "token": self.gate.token}}});
        }
        out
    }

    fn approve_call(&mut self, id: u64, frame: &Value, params: &Value, held: &[String]) -> Effect {
        let request_id = params["requestId"].as_str().unwrap_or_default();
        if let Some(lie) = self.armed.lie.take() {
            let payload = self.lie(lie, request_id);
            self.reply(id, frame, &Ok(payload));
            return Effect::None;
        }
        if let Some(adding) = self.armed.supersede.take() {
            self.supersede_request(request_id, &adding);
        }
        let fate = self.churn_step(request_id);
        let restart = self.armed.restart.take();
        if restart == Some(RestartIn::BeforeEffect) {
            return Effect::Restart;
        }
        if fate == Fate::DropCall || self.armed.drop_call.take().is_some() {
            self.send(id, Out::Abort);
            return Effect::None;
        }
        let answer = self.world.approve(request_id, Some(held), Approver::Rpc);
        let lost = fate == Fate::LoseReply || self.armed.lose_reply.take().is_some();
        if restart.is_some() || lost {
            self.broadcast(answer.map(|(_, events)| events).unwrap_or_default());
            if lost {
                self.send(id, Out::Abort);
            }
        } else {
            self.finish(id, frame, answer);
        }
        self.churn_after();
        if restart.is_some() { Effect::Restart } else { Effect::None }
    }

    fn lie(&self, lie: Lie, request_id: &str) -> Value {
        let pending = self.world.pending.iter().find(|one| one.request_id == request_id);
        let mut device = self.world.templates.paired.clone();
        if let Some(pending) = pending {
            let spec = &pending.spec;
            let fields = vec![
                ("deviceId", Some(json!(spec.device_id))),
                ("publicKey", Some(json!(spec.public_key))),
                ("platform", Some(json!(spec.platform))),
                ("clientId", Some(json!(spec.client_id))),
                ("clientMode", Some(json!(spec.client_mode))),
                ("role", Some(json!(spec.role))),
                ("roles", Some(json!([spec.role]))),
                ("scopes", Some(json!(spec.scopes))),
                ("tokens", Some(json!([{"role": spec.role, "scopes": spec.scopes, "createdAtMs": pending.ts}]))),
            ];
            device = fill(&device, fields);
        }
        match lie {
            Lie::Empty => return json!({}),
            Lie::Plain => {}
            Lie::OtherDevice => device["deviceId"] = json!("f".repeat(64)),
            Lie::MoreScopes => {
                let mut scopes = strings(&device["scopes"]);
                scopes.extend(["operator.admin".to_owned(), "operator.talk.secrets".to_owned()]);
                device["scopes"] = json!(scopes);
            }
        }
        json!({"requestId": request_id, "device": device})
    }
}

pub fn render(error: &RpcError) -> Value {
    let mut out = json!({"code": error.code, "message": error.message});
    if let Some(details) = &error.details {
        out["details"] = details.clone();
    }
    out
}

fn scope_of(version: Version, method: &str) -> Option<&'static str> {
    let pairing = ["device.pair.", "device.token.", "node.pair.", "channels.pairing."];
    let read = ["status", "system-presence", "node.list", "channels.status", "gateway.restart.preflight"];
    match method {
        "health" => None,
        "config.get" if version == Version::V2026_2_9 => Some("operator.admin"),
        "config.get" => Some("operator.read"),
        "node.rename" => Some("operator.pairing"),
        _ if pairing.iter().any(|prefix| method.starts_with(prefix)) => Some("operator.pairing"),
        _ if read.contains(&method) => Some("operator.read"),
        _ => Some("operator.admin"),
    }
}

/// The closed parameters of the emulated methods.
fn keys_of(method: &str) -> Option<Vec<Key>> {
    let keys = match method {
        "device.pair.list" | "node.pair.list" => vec![],
        "device.pair.approve" | "device.pair.reject" | "node.pair.approve" | "node.pair.reject" => vec![REQUEST_ID],
        "device.pair.remove" => vec![DEVICE_ID],
        "device.pair.rename" => vec![DEVICE_ID, required("label")],
        "device.token.revoke" => vec![DEVICE_ID, required("role")],
        "device.token.rotate" => vec![DEVICE_ID, required("role"), optional("scopes", Kind::List)],
        "node.pair.remove" => vec![required("nodeId")],
        "node.rename" => vec![required("nodeId"), required("displayName")],
        "channels.pairing.list" => vec![optional("channel", Kind::Text), optional("accountId", Kind::Text)],
        "channels.pairing.dismiss" => vec![required("channel"), required("accountId"), REQUEST_ID],
        "channels.pairing.approve" => vec![
            required("channel"),
            required("accountId"),
            REQUEST_ID,
            optional("notify", Kind::Bool),
            optional("bootstrapCommandOwner", Kind::Bool),
        ],
        "config.get" => vec![],
        _ => return None,
    };
    Some(keys)
}
