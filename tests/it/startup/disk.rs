//! Disks that are full or cannot be written: nothing is done that cannot be put on record, and reading goes on.

use serde_json::{Value, json};

use super::super::auth_matrix::scene::{LIMIT, Scene};
use super::volume::Volume;
use super::{CONFIG, UNAVAILABLE, alone};

#[tokio::test]
async fn a_full_disk_stops_changes_and_nothing_else() -> anyhow::Result<()> {
    let Some(volume) = Volume::mount("size=256k,mode=0755")? else { return Ok(()) };
    let state_dir = volume.path().join("state");
    let scene = Scene::start_with(|builder| builder.state_dir(&state_dir)).await?;
    let client = scene.sidecar.client();
    let body = json!({"kind": "device", "request_id": scene.request_id});
    for round in 0..3 {
        let filler = volume.fill();
        let before = scene.writes();
        for (path, body) in [
            ("/v1/pairing/approve", &body),
            ("/v1/pairing/revoke", &json!({"kind": "device", "device_id": scene.paired})),
        ] {
            let refused = client.post(path, body).await?;
            assert_eq!((refused.status, refused.code().as_str()), (507, "audit_unavailable"), "{}", refused.text());
            assert!(refused.json()["retryable"] == true && refused.header("retry-after").is_some());
        }
        assert_eq!(scene.writes(), before, "round {round}: done without a record");
        assert!(scene.fake.approvals(&scene.waiting).is_empty());
        assert_eq!(client.get("/v1/state").await?.status, 200, "reading goes on");
        assert_eq!(client.get("/v1/audit").await?.status, 200, "reading goes on");
        std::fs::remove_file(filler)?;
    }
    let approved = client.post("/v1/pairing/approve", &body).await?;
    assert_eq!((approved.status, approved.json()["outcome"].as_str()), (200, Some("approved")), "{}", approved.text());
    let page = client.get("/v1/audit").await?.json();
    assert_eq!(page["records"].as_array().map(Vec::len), Some(2), "{page}");
    assert!(scene.sidecar.is_whole().await?);
    Ok(())
}

/// Full between two calls, in the middle of the record: what was on record stays readable.
#[tokio::test]
async fn a_disk_that_fills_in_the_middle_of_a_record_keeps_the_chain() -> anyhow::Result<()> {
    let Some(volume) = Volume::mount("size=256k,mode=0755")? else { return Ok(()) };
    let state_dir = volume.path().join("state");
    let scene = Scene::start_with(|builder| builder.state_dir(&state_dir)).await?;
    let client = scene.sidecar.client();
    let rename = |n: u32| json!({"kind": "device", "device_id": scene.paired, "label": format!("name {n}")});
    assert_eq!(client.post("/v1/pairing/rename", &rename(0)).await?.status, 200);
    let filler = volume.fill();
    // The page that is begun still takes records; the one after it is refused.
    let mut refused = None;
    for n in 1..100 {
        let reply = client.post("/v1/pairing/rename", &rename(n)).await?;
        if reply.status != 200 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("the disk is full");
    assert_eq!((refused.status, refused.code().as_str()), (507, "audit_unavailable"), "{}", refused.text());
    assert!(scene.sidecar.is_whole().await?);
    std::fs::remove_file(filler)?;
    assert_eq!(client.post("/v1/pairing/rename", &rename(200)).await?.status, 200);
    client.wait_until("/v1/state", |state| state["findings"] == json!([]), LIMIT).await?;
    assert!(scene.sidecar.is_whole().await?);
    Ok(())
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_stops_the_start() -> anyhow::Result<()> {
    let Some(volume) = Volume::mount("size=256k,mode=0755,ro")? else { return Ok(()) };
    for path in [volume.path().to_owned(), volume.path().join("below")] {
        let builder = alone().env("OPENCLAW_SIDECAR_STATE_DIR", path.to_str().expect("a UTF-8 path"));
        let (code, said) = builder.start_expect_exit().await?;
        assert!([CONFIG, UNAVAILABLE].contains(&code), "{code}\n{said}");
        assert!(said.contains(volume.path().to_str().expect("a UTF-8 path")) && said.contains("ead-only"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_disk_without_room_for_the_first_files_stops_the_start() -> anyhow::Result<()> {
    let Some(volume) = Volume::mount("size=16k,mode=0755")? else { return Ok(()) };
    let filler = volume.fill();
    let path = volume.path().join("state");
    let builder = alone().env("OPENCLAW_SIDECAR_STATE_DIR", path.to_str().expect("a UTF-8 path"));
    let (code, said) = builder.start_expect_exit().await?;
    assert!([CONFIG, UNAVAILABLE].contains(&code) && said.contains("No space left"), "{code}\n{said}");
    let left: Vec<_> = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name == "identity.pk8"), "half an identity is left: {left:?}");
    std::fs::remove_file(filler)?;
    Ok(())
}

trait Whole {
    /// Whether the audit's chain is unbroken.
    async fn is_whole(&self) -> anyhow::Result<bool>;
}

impl Whole for crate::support::sidecar::Sidecar {
    async fn is_whole(&self) -> anyhow::Result<bool> {
        let page: Value = self.client().get("/v1/audit?limit=500").await?.json();
        let records = page["records"].as_array().expect("records");
        let follows = records.windows(2).all(|two| two[1]["prev"] == two[0]["hash"]);
        Ok(follows && records.last().is_none_or(|last| last["hash"] == page["head"]["hash"]))
    }
}
