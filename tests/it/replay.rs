//! The daemon against captured frames: a gateway whose records are those of a real session, under their real ids.
//! It is the only proof for 2026.2.9; for the other versions it stands beside the tests with real gateways.

#[path = "replay/captured.rs"]
mod captured;

use serde_json::{Value, json};

use super::compat::{self, Outcome};
use super::pairing_outcomes::rig::{Rig, by_device, by_request, entry, outcome, problem, sorted};
use crate::support::fake::{Fake, Version};

struct Replay {
    rig: Rig,
    version: Version,
    /// The list as it was captured.
    list: Value,
}

impl Replay {
    async fn start(version: Version) -> anyhow::Result<Self> {
        let rig = Rig::beside(Fake::replay(version).await).await?;
        Ok(Self { rig, version, list: version.templates().first_list.clone() })
    }

    fn works(&self, scenario: &str) {
        compat::record(self.version.name(), "replay", scenario, Outcome::Works);
    }

    fn unsupported(&self, scenario: &str) {
        compat::record(self.version.name(), "replay", scenario, Outcome::Unsupported);
    }

    fn captured(&self, part: &str, at: usize) -> &Value {
        &self.list[part][at]
    }

    /// Every captured record is shown, with what it asked for or was granted.
    async fn lists(&self) -> anyhow::Result<()> {
        let shown = self.rig.pairing().await?;
        for wanted in self.list["pending"].as_array().into_iter().flatten() {
            let id = wanted["requestId"].as_str().expect("a captured id");
            let one = entry(&shown, "pending", "request_id", id).unwrap_or_else(|| panic!("{id}: {shown}"));
            assert_eq!(one["device_id"], wanted["deviceId"], "{:?}", self.version);
            assert_eq!(one["platform"], wanted["platform"], "{:?}", self.version);
            assert_eq!(one["client_id"], wanted["clientId"], "{:?}", self.version);
            assert_eq!(one["role"], wanted["role"], "{:?}", self.version);
            assert_eq!(sorted(&one["scopes"]), sorted(&wanted["scopes"]), "{:?}", self.version);
            assert_eq!(one["is_upgrade"], wanted["isRepair"] == true, "{:?}", self.version);
        }
        for wanted in self.list["paired"].as_array().into_iter().flatten() {
            let id = wanted["deviceId"].as_str().expect("a captured id");
            let one = entry(&shown, "approved", "device_id", id).unwrap_or_else(|| panic!("{id}: {shown}"));
            assert_eq!(sorted(&one["scopes"]), sorted(&wanted["scopes"]), "{:?}", self.version);
            assert_eq!(one["approved_by"], "before_sidecar", "{:?}", self.version);
        }
        let count = |list: &Value, part: &str| list[part].as_array().map_or(0, Vec::len);
        for part in ["pending", "approved"] {
            let captured = count(&self.list, if part == "approved" { "paired" } else { part });
            assert_eq!(count(&shown, part), captured, "{:?} {part}: and nothing else", self.version);
        }
        self.works("list");
        Ok(())
    }

    async fn approves(&self) -> anyhow::Result<String> {
        let pending = self.captured("pending", 0);
        let id = pending["requestId"].as_str().expect("a captured id");
        let device = pending["deviceId"].as_str().expect("a captured id").to_owned();
        let body = outcome(&self.rig.approve(by_request(id)).await?, "approved");
        assert_eq!(body["request_id"], id, "{:?}", self.version);
        let truth = self.rig.fake.truth(&device).expect("it is paired");
        assert_eq!(sorted(&body["device"]["scopes"]), sorted(&json!(truth.scopes)), "{:?}", self.version);
        outcome(&self.rig.approve(by_request(id)).await?, "already_paired");
        self.works("approve");
        Ok(device)
    }

    async fn rejects(&self) -> anyhow::Result<()> {
        let spec = crate::support::fake::DeviceSpec::browser();
        let captured = self.captured("pending", 1);
        let id = match captured["requestId"].as_str() {
            Some(id) => id.to_owned(),
            // Where the session had one request only, another device asks.
            None => self.rig.raise(&spec).await?,
        };
        outcome(&self.rig.change("reject", by_request(&id)).await?, "rejected");
        outcome(&self.rig.change("reject", by_request(&id)).await?, "already_rejected");
        problem(&self.rig.approve(by_request(&id)).await?, "no_pending_request");
        self.works("reject");
        Ok(())
    }

    async fn knows_no_stranger(&self) -> anyhow::Result<()> {
        // The id that the captured session tried, with the answer that it got.
        problem(&self.rig.approve(by_request("nope")).await?, "no_pending_request");
        problem(&self.rig.change("reject", by_request("nope")).await?, "no_pending_request");
        self.works("unknown id");
        Ok(())
    }

    async fn revokes(&self, device: &str) -> anyhow::Result<()> {
        let reply = self.rig.change("revoke", by_device(device)).await?;
        if self.version == Version::V2026_2_9 {
            problem(&reply, "unsupported_by_gateway");
            assert!(self.rig.fake.truth(device).is_some(), "nothing was done");
            self.unsupported("revoke");
        } else {
            outcome(&reply, "revoked");
            assert!(self.rig.fake.truth(device).is_none());
            self.works("revoke");
        }
        Ok(())
    }

    async fn renames(&self, device: &str) -> anyhow::Result<()> {
        let body = json!({"kind": "device", "device_id": device, "label": "kitchen"});
        let reply = self.rig.change("rename", body).await?;
        if self.version == Version::V2026_9_6 {
            outcome(&reply, "renamed");
            self.works("rename");
        } else {
            problem(&reply, "unsupported_by_gateway");
            self.unsupported("rename");
        }
        Ok(())
    }
}

async fn replay(version: Version) -> anyhow::Result<()> {
    let replay = Replay::start(version).await?;
    replay.lists().await?;
    replay.knows_no_stranger().await?;
    let device = replay.approves().await?;
    replay.rejects().await?;
    replay.renames(&device).await?;
    replay.revokes(&device).await
}

#[tokio::test]
async fn the_session_of_2026_2_9() -> anyhow::Result<()> {
    replay(Version::V2026_2_9).await
}

#[tokio::test]
async fn the_session_of_2026_4_9() -> anyhow::Result<()> {
    replay(Version::V2026_4_9).await
}

#[tokio::test]
async fn the_session_of_2026_6_11() -> anyhow::Result<()> {
    replay(Version::V2026_6_11).await
}

#[tokio::test]
async fn the_session_of_2026_9_6() -> anyhow::Result<()> {
    replay(Version::V2026_9_6).await
}
