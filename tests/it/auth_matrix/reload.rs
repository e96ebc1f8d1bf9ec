//! Credentials that change while connections and streams are open.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::scene::{LIMIT, Scene};
use super::wire::Wire;
use crate::support::sidecar::{credential, new_token};

/// A removed credential is dead after this, on open connections too.
const DEAD_WITHIN: Duration = Duration::from_secs(1);

struct Reloading {
    scene: Scene,
    path: PathBuf,
    guest: String,
    _dir: tempfile::TempDir,
}

fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).expect("a writable directory");
    std::fs::rename(next, path).expect("a writable directory");
}

impl Reloading {
    async fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let (path, guest) = (dir.path().join("credentials.json"), new_token());
        let scene = Scene::start_with(|builder| {
            put(&path, &with_guest(&builder.default_credentials(), &guest).to_string());
            builder.edge().credentials_file(&path)
        })
        .await?;
        Ok(Self { scene, path, guest, _dir: dir })
    }

    fn without_guest(&self) -> String {
        self.scene.sidecar.builder_again().default_credentials().to_string()
    }

    fn with_guest(&self) -> String {
        with_guest(&self.scene.sidecar.builder_again().default_credentials(), &self.guest).to_string()
    }

    async fn wait_for_finding(&self, open: bool) -> anyhow::Result<Value> {
        let wanted = |state: &Value| finding(state).is_some() == open;
        self.scene.sidecar.client().wait_until("/v1/state", wanted, LIMIT).await
    }
}

fn with_guest(list: &Value, guest: &str) -> Value {
    let mut list = list.clone();
    list.as_array_mut().expect("a list").push(credential("guest", guest, "dangerous"));
    list
}

fn finding(state: &Value) -> Option<&Value> {
    state["findings"].as_array()?.iter().find(|f| f["code"] == "credentials_unreadable")
}

#[tokio::test]
async fn a_removed_credential_dies_on_open_connections_and_streams() -> anyhow::Result<()> {
    let it = Reloading::start().await?;
    let sidecar = &it.scene.sidecar;
    let mut wire = Wire::open(sidecar.edge_addr()).await?;
    assert_eq!(wire.get("/v1/state", &it.guest, LIMIT).await?.map(|a| a.status), Some(200));
    let guest = sidecar.client().with_token(Some(&it.guest));
    let mut stream = guest.events("/v1/events", None).await?;
    let mut other = sidecar.client().events("/v1/events", None).await?;
    stream.next(LIMIT).await?;
    other.next(LIMIT).await?;

    put(&it.path, &it.without_guest());
    let removed = Instant::now();
    // Nobody asks anything meanwhile: the daemon has to notice by itself.
    let ended = timeout(LIMIT, async { while stream.next(LIMIT).await.is_ok() {} }).await;
    assert!(ended.is_ok() && removed.elapsed() < DEAD_WITHIN, "the stream ended after {:?}", removed.elapsed());
    let answer = wire.get("/v1/state", &it.guest, LIMIT).await?.expect("an answer on the open connection");
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"));
    assert!(wire.closes(LIMIT).await, "a refused caller keeps its connection");
    it.scene.fake.raise(&crate::support::fake::DeviceSpec::browser());
    other.wait_for(|event| event.event == "pairing.requested", LIMIT).await?;

    put(&it.path, &it.with_guest());
    let back = Instant::now();
    while guest.get("/v1/state").await?.status != 200 {
        assert!(back.elapsed() < LIMIT, "an added credential is not let in");
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_keeps_the_last_good_credentials_and_is_reported() -> anyhow::Result<()> {
    let it = Reloading::start().await?;
    let damaged = ["", "[]", "garbage", "null", r#"[{"id":"a"}]"#, "\u{0}"];
    for damage in damaged {
        put(&it.path, damage);
        let state = it.wait_for_finding(true).await?;
        let finding = finding(&state).expect("the finding");
        assert_eq!(finding["severity"], "error", "{damage:?}");
        let whole = finding.to_string();
        assert!(!whole.contains(it.scene.sidecar.control_token()), "{damage:?}: {whole}");
        for token in [it.scene.sidecar.control_token(), it.scene.sidecar.support_token(), &it.guest] {
            let reply = it.scene.sidecar.client().with_token(Some(token)).get("/v1/state").await?;
            assert_eq!(reply.status, 200, "{damage:?}");
        }
        put(&it.path, &it.with_guest());
        it.wait_for_finding(false).await?;
    }
    std::fs::remove_file(&it.path)?;
    it.wait_for_finding(true).await?;
    assert_eq!(it.scene.sidecar.client().get("/v1/state").await?.status, 200, "a removed file");
    put(&it.path, &it.without_guest());
    it.wait_for_finding(false).await?;
    let guest = it.scene.sidecar.client().with_token(Some(&it.guest));
    assert_eq!(guest.get("/v1/state").await?.status, 401, "the restored file counts");
    Ok(())
}

#[tokio::test]
async fn a_credential_ends_with_its_time_on_an_open_connection() -> anyhow::Result<()> {
    let token = new_token();
    let soon = openclaw_sidecar::clock::UnixMs(openclaw_sidecar::clock::UnixMs::now().0 + 4_000).rfc3339();
    let scene = Scene::start_with(|builder| {
        let mut list = builder.default_credentials();
        let mut entry = credential("short", &token, "safe");
        entry["not_after"] = json!(soon);
        list.as_array_mut().expect("a list").push(entry);
        builder.edge().credentials(list)
    })
    .await?;
    let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
    assert_eq!(wire.get("/v1/state", &token, LIMIT).await?.map(|a| a.status), Some(200));
    let started = Instant::now();
    let end = loop {
        let answer = wire.get("/v1/state", &token, LIMIT).await?.expect("an answer on the open connection");
        if answer.status != 200 || started.elapsed() > LIMIT {
            break answer.status;
        }
    };
    assert_eq!(end, 401);
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    Ok(())
}

/// What somebody began with a credential that is removed meanwhile must not take effect later.
#[tokio::test]
async fn a_call_that_waits_does_not_outlive_its_credential() -> anyhow::Result<()> {
    let it = Reloading::start().await?;
    it.scene.fake.stop().await;
    let down = |state: &Value| state["phase"] != "ready";
    it.scene.sidecar.client().wait_until("/v1/state", down, LIMIT).await?;
    let guest = it.scene.sidecar.client().with_token(Some(&it.guest));
    let body = json!({"kind": "device", "device_id": it.scene.waiting});
    let waiting = tokio::spawn(async move { guest.post("/v1/pairing/approve?wait_s=30", &body).await });
    let recorded = |page: &Value| page["records"].to_string().contains("guest");
    it.scene.sidecar.client().wait_until("/v1/audit", recorded, LIMIT).await?;

    put(&it.path, &it.without_guest());
    let refused = Instant::now();
    let again = it.scene.sidecar.client().with_token(Some(&it.guest));
    while again.get("/v1/state").await?.status != 401 {
        assert!(refused.elapsed() < LIMIT, "the removed credential is still let in");
    }
    it.scene.fake.resume_listening().await;
    let reply = timeout(LIMIT, waiting).await???;
    assert_ne!(reply.status, 200, "approved with a credential that was removed before: {}", reply.text());
    assert!(it.scene.fake.approvals(&it.scene.waiting).is_empty());
    Ok(())
}
