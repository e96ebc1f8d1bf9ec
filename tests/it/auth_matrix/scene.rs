//! A fake gateway with one request to approve and one paired device, the daemon beside it, and what must not change.

use std::time::Duration;

use openclaw_sidecar::api::routes::Route;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::fake::{DeviceSpec, Fake, Version};
use crate::support::sidecar::{Builder, Sidecar};

pub const LIMIT: Duration = Duration::from_secs(15);

/// Parts of the names of gateway methods that change something.
const WRITES: [&str; 6] = ["approve", "reject", "remove", "rename", "revoke", "dismiss"];

pub struct Scene {
    pub fake: Fake,
    pub sidecar: Sidecar,
    /// Waits for approval.
    pub request_id: String,
    pub waiting: String,
    /// Is paired already.
    pub paired: String,
}

/// What a refused request must leave as it was.
#[derive(Debug, PartialEq, Eq)]
pub struct Still {
    audit_head: Value,
    generation: u64,
    writes: u64,
}

impl Scene {
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(|builder| builder.edge()).await
    }

    pub async fn start_with(change: impl FnOnce(Builder) -> Builder) -> anyhow::Result<Self> {
        let fake = Fake::start(Version::V2026_9_6).await;
        let (paired, waiting) = (DeviceSpec::browser().named("paired"), DeviceSpec::browser().named("waiting"));
        fake.silently_pair(&paired);
        let request_id = fake.raise(&waiting);
        let builder = Sidecar::builder().gateway(fake.port(), &fake.token());
        let sidecar = change(builder).start().await?;
        let scene = Self { fake, sidecar, request_id, waiting: waiting.device_id, paired: paired.device_id };
        scene.settled().await?;
        Ok(scene)
    }

    /// Waits until the daemon knows what there is to know.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let client = self.sidecar.client();
        let known = |state: &Value| {
            let pairing = &state["pairing"];
            state["phase"] == "ready" && pairing["pending"][0].is_object() && pairing["approved_count"] == 1
        };
        client.wait_until("/v1/state", known, LIMIT).await?;
        Ok(())
    }

    pub fn writes(&self) -> u64 {
        let changes = |method: &str| WRITES.iter().any(|part| method.contains(part));
        self.fake.with(|core| core.calls.iter().filter(|(name, _)| changes(name)).map(|(_, count)| count).sum())
    }

    pub async fn still(&self) -> anyhow::Result<Still> {
        still(&self.sidecar.client(), self.writes()).await
    }

    /// A body with which the route would really do something.
    pub fn effective_body(&self, route: &Route) -> Option<Value> {
        Some(match route.path.rsplit('/').next()? {
            "approve" => json!({"kind": "device", "request_id": self.request_id}),
            "reject" => json!({"kind": "device", "request_id": self.request_id}),
            "revoke" => json!({"kind": "device", "device_id": self.paired}),
            "rename" => json!({"kind": "device", "device_id": self.paired, "label": "renamed"}),
            _ => return None,
        })
    }
}

async fn still(client: &Client, writes: u64) -> anyhow::Result<Still> {
    let audit_head = client.get("/v1/audit?limit=1").await?.json()["head"].clone();
    let generation = client.get("/v1/state").await?.json()["generation"].as_u64().expect("a generation");
    assert!(audit_head["n"].is_u64(), "{audit_head}");
    Ok(Still { audit_head, generation, writes })
}
