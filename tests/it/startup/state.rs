//! State directories that are not what they should be, and what survives a crash.

use std::path::Path;

use serde_json::{Value, json};

use super::super::auth_matrix::scene::{LIMIT, Scene};
use super::{CONFIG, UNAVAILABLE, alone, is_root, refuses};
use crate::support::sidecar::Builder;

fn at(path: &Path) -> Builder {
    alone().env("OPENCLAW_SIDECAR_STATE_DIR", path.to_str().expect("a UTF-8 path"))
}

#[tokio::test]
async fn a_state_dir_that_is_none_is_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("file");
    std::fs::write(&file, "precious")?;
    refuses(at(&file), CONFIG, &["state_dir"]).await?;
    refuses(at(&file.join("below")), CONFIG, &["state_dir"]).await?;
    assert_eq!(std::fs::read_to_string(&file)?, "precious");
    refuses(alone().env("OPENCLAW_SIDECAR_STATE_DIR", "relative/path"), CONFIG, &["state_dir", "absolute"]).await
}

/// Whoever owns the link decides where the identity is written.
#[tokio::test]
async fn a_state_dir_that_is_a_link_is_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::create_dir(&real)?;
    std::os::unix::fs::symlink(&real, &link)?;
    refuses(at(&link), CONFIG, &["state_dir", "symbolic link"]).await?;
    // With a slash at the end the system follows the link before anybody can look at it.
    refuses(at(Path::new(&format!("{}/", link.display()))), CONFIG, &["state_dir", "symbolic link"]).await?;
    assert_eq!(std::fs::read_dir(&real)?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn a_state_dir_of_somebody_else_is_refused() -> anyhow::Result<()> {
    if !is_root() {
        eprintln!("SKIPPED: only root can give a directory away");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let theirs = dir.path().join("theirs");
    std::fs::create_dir(&theirs)?;
    std::os::unix::fs::chown(&theirs, Some(65_534), Some(65_534))?;
    refuses(at(&theirs), CONFIG, &["state_dir", "65534"]).await
}

#[tokio::test]
async fn open_permissions_of_the_state_dir_are_closed() -> anyhow::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let dir = tempfile::tempdir()?;
    let open = dir.path().join("open");
    std::fs::create_dir(&open)?;
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755))?;
    let sidecar = at(&open).start().await?;
    assert_eq!(std::fs::metadata(&open)?.mode() & 0o777, 0o700);
    for entry in std::fs::read_dir(&open)? {
        let (name, mode) = (entry.as_ref().unwrap().file_name(), entry.as_ref().unwrap().metadata()?.mode() & 0o077);
        assert!(mode == 0 || name == "tls.crt", "{name:?} is open to others: {mode:o}");
    }
    assert_eq!(sidecar.stop().await?.code(), Some(0));
    Ok(())
}

/// A damaged file is named, and left for whoever repairs it.
#[tokio::test]
async fn damaged_files_are_named_and_never_replaced() -> anyhow::Result<()> {
    for (name, damage) in [
        ("identity.pk8", "garbage"),
        ("identity.pk8", ""),
        ("approvals.json", "{\"version\":1,"),
        ("approvals.json", ""),
        ("tls.pem", "garbage"),
    ] {
        let scene = Scene::start().await?;
        let again = scene.sidecar.builder_again();
        let path = scene.sidecar.state_dir().join(name);
        assert_eq!(scene.sidecar.stop().await?.code(), Some(0));
        std::fs::write(&path, damage)?;
        let (code, said) = again.clone().start_expect_exit().await?;
        assert!([CONFIG, UNAVAILABLE].contains(&code), "{name} {damage:?}: {code}\n{said}");
        assert!(said.contains(name) && !said.contains("panicked"), "{name} {damage:?}:\n{said}");
        assert_eq!(std::fs::read_to_string(&path)?, damage, "{name} was replaced");
    }
    Ok(())
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_is_refused() -> anyhow::Result<()> {
    let scene = Scene::start_with(|builder| builder.unix()).await?;
    let again = scene.sidecar.builder_again();
    refuses(again, UNAVAILABLE, &["lock", "another openclaw-sidecar"]).await?;
    for client in [scene.sidecar.client(), scene.sidecar.unix_client()] {
        assert_eq!(client.get("/v1/state").await?.status, 200, "the first one goes on");
    }
    Ok(())
}

/// Another daemon's socket is no stale one: whoever answers there must not be cut off.
#[tokio::test]
async fn a_socket_in_use_is_not_taken_over() -> anyhow::Result<()> {
    let scene = Scene::start_with(|builder| builder.unix()).await?;
    let path = scene.sidecar.unix_path().to_str().expect("a UTF-8 path").to_owned();
    let other = alone().env("OPENCLAW_SIDECAR_LISTEN_UNIX", &path).start().await?;
    let boot = |state: Value| state["sidecar"]["boot_id"].clone();
    let ours = boot(scene.sidecar.client().get("/v1/state").await?.json());
    assert_eq!(boot(scene.sidecar.unix_client().get("/v1/state").await?.json()), ours, "the socket was taken over");
    assert_eq!(other.stop().await?.code(), Some(0));
    assert_eq!(scene.sidecar.unix_client().get("/v1/state").await?.status, 200, "the socket is gone");
    Ok(())
}

#[tokio::test]
async fn a_crash_keeps_identity_certificate_and_audit() -> anyhow::Result<()> {
    let Scene { fake, mut sidecar, request_id, .. } = Scene::start_with(|builder| builder.unix()).await?;
    let approve = json!({"kind": "device", "request_id": request_id});
    assert_eq!(sidecar.client().post("/v1/pairing/approve", &approve).await?.status, 200);
    let state = sidecar.client().get("/v1/state").await?.json();
    let certificate = sidecar.certificate_sha256().map(String::from);
    let mut head = sidecar.client().get("/v1/audit").await?.json()["head"].clone();
    for round in 0..3 {
        let again = sidecar.builder_again();
        let socket = sidecar.unix_path().to_owned();
        sidecar.kill().await?;
        assert!(socket.exists(), "a killed process removes nothing");
        sidecar = again.start().await?;
        let after = sidecar.unix_client().wait_until("/v1/state", |s| s["phase"] == "ready", LIMIT).await?;
        assert_eq!(after["sidecar"]["device_id"], state["sidecar"]["device_id"]);
        assert_ne!(after["sidecar"]["boot_id"], state["sidecar"]["boot_id"]);
        assert_eq!(sidecar.certificate_sha256().map(String::from), certificate);
        assert_eq!(sidecar.client().get("/v1/audit").await?.json()["head"], head, "round {round}");
        let by = |page: &Value| {
            page["approved"].as_array().is_some_and(|all| all.iter().any(|a| a["approved_by"] == "control"))
        };
        sidecar.client().wait_until("/v1/pairing", by, LIMIT).await?;
        let again = sidecar.client().post("/v1/pairing/approve", &approve).await?;
        assert!([404, 200].contains(&again.status), "{}", again.text());
        head = sidecar.client().get("/v1/audit").await?.json()["head"].clone();
    }
    assert_eq!(fake.with(|core| core.world.approvals.len()), 2, "one by us, one before us");
    Ok(())
}
