//! A daemon beside a fake gateway, and how its answers are read.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

use crate::support::client::{Client, Reply};
use crate::support::fake::{DeviceSpec, Fake, Options, Version};
use crate::support::sidecar::{Builder, Sidecar};

/// For anything that should come at once but may be delayed by a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

pub const READ: &str = "operator.read";
pub const ADMIN: &str = "operator.admin";

#[derive(Debug)]
pub struct Rig {
    pub fake: Fake,
    pub sidecar: Sidecar,
    /// As the control plane.
    pub client: Client,
}

impl Rig {
    /// A ready daemon beside a new fake.
    pub async fn start(version: Version) -> anyhow::Result<Self> {
        Self::beside(Fake::start(version).await).await
    }

    pub async fn with_options(version: Version, options: Options) -> anyhow::Result<Self> {
        Self::beside(Fake::start_with(version, options).await).await
    }

    pub async fn beside(fake: Fake) -> anyhow::Result<Self> {
        let rig = Self::unready(fake).await?;
        rig.ready(SOON).await?;
        Ok(rig)
    }

    /// A daemon that listens; what it thinks of the gateway is up to the test.
    pub async fn unready(fake: Fake) -> anyhow::Result<Self> {
        let builder = Sidecar::builder().gateway(fake.port(), &fake.token());
        Self::of(fake, builder).await
    }

    pub async fn of(fake: Fake, builder: Builder) -> anyhow::Result<Self> {
        let sidecar = builder.start().await?;
        let client = sidecar.client();
        Ok(Self { fake, sidecar, client })
    }

    pub async fn ready(&self, deadline: Duration) -> anyhow::Result<Value> {
        self.phase("ready", deadline).await
    }

    pub async fn phase(&self, phase: &str, deadline: Duration) -> anyhow::Result<Value> {
        let state = self.client.wait_until("/v1/state", |state| state["phase"] == phase, deadline).await;
        state.with_context(|| format!("waiting for phase {phase}"))
    }

    pub async fn state(&self) -> anyhow::Result<Value> {
        Ok(self.client.get("/v1/state").await?.json())
    }

    pub async fn pairing(&self) -> anyhow::Result<Value> {
        Ok(self.client.get("/v1/pairing").await?.json())
    }

    /// A device asks, and the daemon knows of it.
    pub async fn raise(&self, spec: &DeviceSpec) -> anyhow::Result<String> {
        let id = self.fake.raise(spec);
        self.sees(&id).await?;
        Ok(id)
    }

    /// Waits until the daemon lists the request.
    pub async fn sees(&self, request_id: &str) -> anyhow::Result<Value> {
        let wanted = |list: &Value| entry(list, "pending", "request_id", request_id).is_some();
        let list = self.client.wait_until("/v1/pairing", wanted, SOON).await?;
        Ok(entry(&list, "pending", "request_id", request_id).unwrap_or_default())
    }

    /// Waits until the daemon lists the device as approved, the way `wanted` says.
    pub async fn paired(&self, device_id: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let found = |list: &Value| entry(list, "approved", "device_id", device_id).filter(&wanted);
        let list = self.client.wait_until("/v1/pairing", |list| found(list).is_some(), SOON).await?;
        Ok(found(&list).unwrap_or_default())
    }

    /// Waits until the daemon lists neither a request nor a pairing of the device.
    pub async fn gone(&self, device_id: &str) -> anyhow::Result<Value> {
        let absent = |list: &Value| {
            ["pending", "approved"].iter().all(|part| entry(list, part, "device_id", device_id).is_none())
        };
        self.client.wait_until("/v1/pairing", absent, SOON).await
    }

    pub async fn approve(&self, body: Value) -> anyhow::Result<Reply> {
        self.client.post("/v1/pairing/approve", &body).await
    }

    pub async fn approve_within(&self, wait_s: u64, body: Value) -> anyhow::Result<Reply> {
        self.client.post(&format!("/v1/pairing/approve?wait_s={wait_s}"), &body).await
    }

    pub async fn change(&self, verb: &str, body: Value) -> anyhow::Result<Reply> {
        self.client.post(&format!("/v1/pairing/{verb}"), &body).await
    }

    /// Every audit record.
    pub async fn audit(&self) -> anyhow::Result<Vec<Value>> {
        let mut records = Vec::new();
        let mut after = 0;
        loop {
            let page = self.client.get(&format!("/v1/audit?after={after}&limit=500")).await?.json();
            records.extend(page["records"].as_array().cloned().unwrap_or_default());
            match page["next_after"].as_u64() {
                Some(next) => after = next,
                None => return Ok(records),
            }
        }
    }

    /// Waits for such a record: it is written after the view was published.
    pub async fn out_of_band_record(&self, device_id: &str) -> anyhow::Result<()> {
        let end = Instant::now() + SOON;
        while self.out_of_band_records(device_id).await? == 0 {
            anyhow::ensure!(Instant::now() < end, "no audit record tells of the approval of {device_id}");
        }
        Ok(())
    }

    /// How many approvals the daemon put on record as somebody else's.
    pub async fn out_of_band_records(&self, device_id: &str) -> anyhow::Result<usize> {
        let target = format!("device:{device_id}");
        let records = self.audit().await?;
        Ok(records.iter().filter(|one| one["outcome"] == "out_of_band" && one["target"] == target).count())
    }
}

pub fn entry(list: &Value, part: &str, key: &str, id: &str) -> Option<Value> {
    list[part].as_array()?.iter().find(|one| one[key] == id).cloned()
}

pub fn by_request(id: &str) -> Value {
    json!({"kind": "device", "request_id": id})
}

pub fn by_device(id: &str) -> Value {
    json!({"kind": "device", "device_id": id})
}

/// The body with an expectation.
pub fn expecting(mut body: Value, expect: Value) -> Value {
    body["expect"] = expect;
    body
}

/// Every code the API may answer an approval with that the gateway's state explains.
pub const TYPED: [(&str, u16, bool); 15] = [
    ("no_pending_request", 404, false),
    ("not_found", 404, false),
    ("expired", 410, false),
    ("superseded", 409, false),
    ("ambiguous", 409, false),
    ("exceeds_expectation", 422, false),
    ("gateway_starting", 503, true),
    ("gateway_stopped", 503, true),
    ("gateway_unreachable", 504, true),
    ("missing_authority", 502, false),
    ("gateway_error", 502, false),
    ("unsupported_by_gateway", 501, false),
    ("needs_launch_mode", 501, false),
    ("audit_unavailable", 507, true),
    ("invalid_body", 400, false),
];

/// Asserts that the answer is this problem, completely filled in, and returns it.
#[track_caller]
pub fn problem(reply: &Reply, code: &str) -> Value {
    let body = reply.json();
    let (_, status, retryable) = *TYPED.iter().find(|(known, ..)| *known == code).expect("a known code");
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(reply.status, status, "{body}");
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["retryable"], retryable, "{body}");
    assert_eq!(body["type"], format!("urn:openclaw-sidecar:problem:{code}"), "{body}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{body}");
    for key in ["title", "detail", "request_id", "remedy"] {
        assert!(body[key].as_str().is_some_and(|text| !text.is_empty()), "{key} is missing: {body}");
    }
    assert_eq!(reply.header("retry-after").is_some(), status == 503 || status == 507, "{body}");
    body
}

/// Asserts a 200 with this outcome and returns the body.
#[track_caller]
pub fn outcome(reply: &Reply, outcome: &str) -> Value {
    let body = reply.json();
    assert_eq!(reply.status, 200, "{body}");
    assert_eq!(body["outcome"], outcome, "{body}");
    body
}

/// The answer's code, or its outcome where it is a success; anything else fails the test.
#[track_caller]
pub fn typed(reply: &Reply) -> String {
    let body = reply.json();
    if reply.status == 200 {
        return body["outcome"].as_str().unwrap_or_else(|| panic!("an outcome: {body}")).to_owned();
    }
    let code = body["code"].as_str().unwrap_or_default().to_owned();
    let known = TYPED.iter().any(|(known, status, _)| *known == code && *status == reply.status);
    assert!(known && code != "invalid_body", "not an outcome of the contract: {} {body}", reply.status);
    code
}

/// Texts of a JSON list, sorted.
pub fn sorted(list: &Value) -> Vec<String> {
    let mut texts: Vec<String> =
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect();
    texts.sort();
    texts
}
