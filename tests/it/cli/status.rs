//! `status`, and who may ask.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use tokio::process::Command;

use super::super::auth_matrix::scene::{LIMIT, Scene};
use super::{NO, OK, UNAVAILABLE, at, finish, local, with_env};
use crate::support::sidecar::binary;

#[tokio::test]
async fn the_exit_code_says_whether_the_gateway_is_ready() -> anyhow::Result<()> {
    let scene = Scene::start_with(|builder| builder.unix()).await?;
    let shown = local(&scene.sidecar, &["status"]).await?.expect(OK);
    for part in ["ready", "2026.9.6", "1 waiting, 1 paired", &scene.request_id, "certificate sha256"] {
        assert!(shown.out.contains(part), "{part:?} is not in\n{}", shown.out);
    }
    let state = local(&scene.sidecar, &["status", "--json"]).await?.expect(OK).json();
    assert_eq!(state["phase"], "ready");
    let own = scene.sidecar.client().get("/v1/state").await?.json();
    assert_eq!(state["sidecar"]["boot_id"], own["sidecar"]["boot_id"]);

    scene.fake.stop().await;
    let down = |state: &Value| state["phase"] == "stopped";
    scene.sidecar.client().wait_until("/v1/state", down, LIMIT).await?;
    let shown = local(&scene.sidecar, &["status"]).await?.expect(NO);
    assert!(shown.out.contains("stopped"), "{shown:?}");
    assert_eq!(local(&scene.sidecar, &["status", "--json"]).await?.expect(NO).json()["phase"], "stopped");
    for (quiet, code) in [("--quiet", NO), ("-q", NO)] {
        let ran = local(&scene.sidecar, &["status", quiet]).await?.expect(code);
        assert!(ran.out.is_empty() && ran.err.is_empty(), "{ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_is_away_is_said_so() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("control.sock");
    let ran = at(&socket, &["status"]).await?.expect(UNAVAILABLE);
    assert!(ran.out.is_empty() && ran.err.contains("control.sock"), "{ran:?}");
    let ran = at(&socket, &["status", "--quiet"]).await?.expect(UNAVAILABLE);
    assert!(ran.out.is_empty() && ran.err.is_empty(), "{ran:?}");
    for args in [&["pairing", "list"][..], &["pairing", "approve", "id"], &["pairing", "list", "--json"]] {
        let ran = at(&socket, args).await?.expect(UNAVAILABLE);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
    }
    // A socket that a crash left.
    drop(std::os::unix::net::UnixListener::bind(&socket)?);
    at(&socket, &["status"]).await?.expect(UNAVAILABLE);
    let off = with_env(&["status"], &[("OPENCLAW_SIDECAR_LISTEN_UNIX", "")]).await?.expect(UNAVAILABLE);
    assert!(off.err.contains("listen.unix"), "{off:?}");
    Ok(())
}

/// Somebody else listens there and talks nonsense, or nothing.
#[tokio::test]
async fn a_peer_that_is_no_daemon_is_told_apart() -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("control.sock");
    for answer in [
        &b""[..],
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}",
    ] {
        let listener = tokio::net::UnixListener::bind(&socket)?;
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let _ = stream.read(&mut [0; 4096]).await?;
            stream.write_all(answer).await
        });
        let ran = at(&socket, &["status"]).await?.expect(UNAVAILABLE);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
        serving.await??;
        std::fs::remove_file(&socket)?;
    }
    Ok(())
}

#[tokio::test]
async fn other_users_are_not_let_in() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can become somebody else");
        return Ok(());
    }
    // Everybody may come near the socket: what is tested is the daemon's own check.
    let dir = tempfile::tempdir()?;
    let open = |path: &std::path::Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    open(dir.path(), 0o755)?;
    let (socket, program) = (dir.path().join("control.sock"), dir.path().join("openclaw-sidecar"));
    std::fs::copy(binary(), &program)?;
    open(&program, 0o755)?;
    let path = socket.to_str().expect("a UTF-8 path");
    let scene = Scene::start_with(|builder| builder.env("OPENCLAW_SIDECAR_LISTEN_UNIX", path)).await?;
    at(&socket, &["status"]).await?.expect(OK);
    let before = scene.still().await?;
    let as_nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&program).args(args);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("OPENCLAW_SIDECAR_LISTEN_UNIX", path);
        command
    };
    match finish(as_nobody(&["--version"]), "").await {
        Ok(ran) if ran.code == OK => {}
        other => {
            eprintln!("SKIPPED: a program cannot be run as somebody else here: {other:?}");
            return Ok(());
        }
    }
    assert_eq!(std::fs::metadata(&socket)?.permissions().mode() & 0o777, 0o600);
    for mode in [0o600, 0o666] {
        open(&socket, mode)?;
        for args in [&["status"][..], &["pairing", "list"], &["pairing", "approve", &scene.request_id]] {
            let ran = finish(as_nobody(args), "").await?.expect(UNAVAILABLE);
            assert!(ran.out.is_empty() && ran.err.contains("root"), "{mode:o}: {ran:?}");
        }
    }
    assert!(scene.still().await? == before);
    at(&socket, &["status"]).await?.expect(OK);
    Ok(())
}
