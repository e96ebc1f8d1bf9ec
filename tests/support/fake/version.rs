//! The emulated gateway versions: what each one does differently, and the captured frames its answers are built from.

use std::sync::OnceLock;

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V2026_2_9,
    V2026_4_9,
    V2026_6_11,
    V2026_9_6,
}

use Version::{V2026_2_9, V2026_4_9, V2026_6_11, V2026_9_6};

macro_rules! fixture {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/frames/", $path))
    };
}

impl Version {
    pub const ALL: [Self; 4] = [V2026_2_9, V2026_4_9, V2026_6_11, V2026_9_6];

    pub fn name(self) -> &'static str {
        match self {
            V2026_2_9 => "2026.2.9",
            V2026_4_9 => "2026.4.9",
            V2026_6_11 => "2026.6.11",
            V2026_9_6 => "2026.9.6",
        }
    }

    pub fn protocol(self) -> u64 {
        if self <= V2026_4_9 { 3 } else { 4 }
    }

    /// 2026.2.9 answers most errors without `details`.
    pub fn has_error_details(self) -> bool {
        self > V2026_2_9
    }

    /// Up to 2026.4.9 one counter serves all connections; later each connection counts from 1.
    pub fn counts_events_globally(self) -> bool {
        self <= V2026_4_9
    }

    pub fn signature_skew_ms(self) -> u64 {
        if self == V2026_2_9 { 600_000 } else { 120_000 }
    }

    /// What a retry with other scopes does to the pending request.
    pub fn retry(self) -> Retry {
        match self {
            V2026_2_9 => Retry::WidensInPlace,
            V2026_4_9 | V2026_6_11 => Retry::SupersedesOnAnyChange,
            V2026_9_6 => Retry::SupersedesWhenBroader,
        }
    }

    /// Only 2026.4.9 was seen to renew the visible `ts` of a request when its device tries again.
    pub fn retry_renews_ts(self) -> bool {
        self == V2026_4_9
    }

    /// 2026.2.9 prunes by `ts`, which a retry leaves alone, so there the deadline does not slide.
    pub fn retry_extends_life(self) -> bool {
        self > V2026_2_9
    }

    /// Answers carry the whole secret of a node up to here.
    pub fn leaks_node_token(self) -> bool {
        self <= V2026_6_11
    }

    pub fn closes_sessions_of_removed_devices(self) -> bool {
        self > V2026_2_9
    }

    pub fn templates(self) -> &'static Templates {
        static LOADED: [OnceLock<Templates>; 4] = [const { OnceLock::new() }; 4];
        LOADED[self as usize].get_or_init(|| Templates::load(self))
    }

    fn hello_fixture(self) -> &'static str {
        match self {
            V2026_2_9 => fixture!("2026.2.9/hello-ok.json"),
            V2026_4_9 => fixture!("2026.4.9/hello-ok.json"),
            V2026_6_11 => fixture!("2026.6.11/hello-ok.json"),
            V2026_9_6 => fixture!("2026.9.6/hello-ok.json"),
        }
    }

    fn session_fixture(self) -> &'static str {
        match self {
            V2026_2_9 => fixture!("2026.2.9/pair-operator.json"),
            V2026_4_9 => fixture!("2026.4.9/pair-operator.json"),
            V2026_6_11 => fixture!("2026.6.11/pair-operator.json"),
            V2026_9_6 => fixture!("2026.9.6/pair-admin-observer.json"),
        }
    }

    fn node_fixture(self) -> &'static str {
        match self {
            V2026_9_6 => fixture!("2026.9.6/node-admin-observer.json"),
            _ => fixture!("2026.4.9/node-operator.json"),
        }
    }

    fn refused_fixture(self) -> &'static str {
        match self {
            V2026_2_9 => fixture!("2026.2.9/refused.json"),
            V2026_4_9 => fixture!("2026.4.9/refused.json"),
            V2026_6_11 => fixture!("2026.6.11/refused.json"),
            V2026_9_6 => fixture!("2026.9.6/refused.json"),
        }
    }

    /// The captured session of an approving operator, entry by entry.
    pub fn captured_session(self) -> Vec<Value> {
        parse(self.session_fixture())
    }

    /// Captured refusals: `{"case", "frames"}`.
    pub fn captured_refusals(self) -> Vec<Value> {
        parse(self.refused_fixture())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    WidensInPlace,
    SupersedesOnAnyChange,
    SupersedesWhenBroader,
}

/// Captured records; an answer is one of these with its variable fields replaced, so shapes are never invented.
#[derive(Debug)]
pub struct Templates {
    pub challenge: Value,
    pub hello: Value,
    pub pending: Value,
    pub paired: Value,
    pub presence_self: Value,
    pub presence_client: Value,
    pub health: Value,
    pub node_pending: Value,
    pub node_requested: Value,
    pub node_paired: Value,
    pub channel_request: Value,
    pub first_list: Value,
}

impl Templates {
    fn load(version: Version) -> Self {
        let hello = parse(version.hello_fixture());
        let session = parse(version.session_fixture());
        let nodes = parse(version.node_fixture());
        let channels = parse(fixture!("2026.9.6/dm-pairing-rpc.json"));
        let hello_payload = find(&hello, |frame| frame["payload"]["type"] == "hello-ok")["payload"].clone();
        let first_list = find(&session, |frame| frame["payload"]["pending"].is_array())["payload"].clone();
        let presence = presence_of(&session, &hello_payload);
        let approved = version.approve_fixture();
        let approved = if approved.is_empty() { &session } else { &approved };
        Self {
            challenge: find(&hello, |frame| frame["event"] == "connect.challenge").clone(),
            pending: first_list["pending"][0].clone(),
            paired: find(approved, |frame| frame["payload"]["device"].is_object())["payload"]["device"].clone(),
            presence_self: presence[0].clone(),
            presence_client: presence[1].clone(),
            health: hello_payload["snapshot"]["health"].clone(),
            node_pending:
                find(&nodes, |frame| frame["payload"]["pending"][0]["nodeId"].is_string())["payload"]["pending"][0]
                    .clone(),
            node_requested: find(&nodes, |frame| frame["event"] == "node.pair.requested")["payload"].clone(),
            node_paired: find(&nodes, |frame| frame["payload"]["node"].is_object())["payload"]["node"].clone(),
            channel_request: find(&channels, |frame| frame["payload"]["requests"].is_array())["payload"]["requests"][0]
                .clone(),
            hello: hello_payload,
            first_list,
        }
    }

    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.hello["features"]["methods"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }
}

impl Version {
    /// On 2026.2.9 it was a second operator who approved; elsewhere the session itself has the answer.
    fn approve_fixture(self) -> Vec<Value> {
        match self {
            V2026_2_9 => parse(fixture!("2026.2.9/pair-second-operator.json")),
            _ => Vec::new(),
        }
    }
}

fn presence_of(session: &[Value], hello: &Value) -> Vec<Value> {
    let event = session.iter().map(|entry| &entry["frame"]).find(|frame| frame["event"] == "presence");
    let list = event.map_or(&hello["snapshot"]["presence"], |frame| &frame["payload"]["presence"]);
    list.as_array().expect("a presence list").clone()
}

fn parse(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("a fixture is a JSON array")
}

fn find(entries: &[Value], wanted: impl Fn(&Value) -> bool) -> &Value {
    let mut frames = entries.iter().filter(|entry| entry["dir"] == "in").map(|entry| &entry["frame"]);
    frames.find(|frame| wanted(frame)).expect("the fixture has the wanted frame")
}
