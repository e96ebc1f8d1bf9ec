//! `doctor` as somebody on the machine runs it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use super::super::auth_matrix::scene::Scene;
use super::found;
use crate::support::fake::{Fake, Version};
use crate::support::sidecar::{Sidecar, binary};

const SOCKET: &str = "OPENCLAW_SIDECAR_LISTEN_UNIX";

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn doctor(args: &[&str], env: &[(&str, &str)]) -> anyhow::Result<Ran> {
    let mut command = Command::new(binary());
    command.arg("doctor").args(args).env_clear().envs(env.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(30), command.output()).await??;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
}

async fn at(sidecar: &Sidecar, args: &[&str]) -> anyhow::Result<Ran> {
    doctor(args, &[(SOCKET, sidecar.unix_path().to_str().expect("a UTF-8 path"))]).await
}

#[tokio::test]
async fn the_worst_comes_first_and_decides_the_exit_code() -> anyhow::Result<()> {
    let scene = Scene::start_with(|builder| builder.unix()).await?;
    let ran = at(&scene.sidecar, &[]).await?;
    ensure!(ran.code == Some(0) && ran.out == "no problems found\n", "{} {}", ran.out, ran.err);

    let volume = tempfile::tempdir()?;
    let fake = Fake::start(Version::V2026_9_6).await;
    let builder = Sidecar::builder().gateway(fake.port(), "wrong").unix();
    let volume = volume.path().to_str().expect("a UTF-8 path");
    let sidecar = builder.env("OPENCLAW_SIDECAR_LAUNCH_VOLUME", volume).start().await?;
    let limit = Duration::from_secs(20);
    found(&sidecar.client(), "launched_around", &[], limit).await?;
    found(&sidecar.client(), "gateway_token_mismatch", &["refusal=AUTH_TOKEN_MISMATCH"], limit).await?;
    let ran = at(&sidecar, &[]).await?;
    ensure!(ran.code == Some(1), "{} {}", ran.out, ran.err);
    let position = |text: &str| ran.out.find(text);
    let order = [position("error: gateway_token_mismatch"), position("warning: launched_around")];
    ensure!(order[0] == Some(0) && order[1].is_some(), "{}", ran.out);
    ensure!(ran.out.contains("| refusal=AUTH_TOKEN_MISMATCH") && ran.out.contains("-> "), "{}", ran.out);

    let ran = at(&sidecar, &["--json"]).await?;
    let json: Value = serde_json::from_str(&ran.out)?;
    ensure!(ran.code == Some(1) && json["daemon"] == true && json["phase"] == "unauthorized", "{json}");
    ensure!(json["findings"][0]["code"] == "gateway_token_mismatch", "{json}");
    Ok(())
}

/// Nothing runs: it says what it can see by itself.
#[tokio::test]
async fn alone_it_says_what_is_missing() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (socket, state) = (dir.path().join("none.sock"), dir.path().join("state"));
    let (socket, state) = (socket.to_str().expect("UTF-8"), state.to_str().expect("UTF-8"));
    let ran = doctor(&[], &[(SOCKET, socket)]).await?;
    ensure!(ran.code == Some(1), "{} {}", ran.out, ran.err);
    for part in ["error: auth", "none.sock", "cannot be asked", "-> "] {
        ensure!(ran.out.contains(part), "{part:?} is not in {}", ran.out);
    }
    let credentials = Sidecar::builder().default_credentials().to_string();
    let set =
        [(SOCKET, socket), ("OPENCLAW_SIDECAR_STATE_DIR", state), ("OPENCLAW_SIDECAR_AUTH_CREDENTIALS", &credentials)];
    let ran = doctor(&["--json"], &set).await?;
    let json: Value = serde_json::from_str(&ran.out)?;
    ensure!(ran.code == Some(1) && json["daemon"] == false, "{json}");
    ensure!(json["checks"].as_array().map(Vec::len) == Some(2), "the directory and the socket: {json}");
    let ran = doctor(&[], &[("OPENCLAW_SIDECAR_LISTEN_TLS", "nonsense")]).await?;
    ensure!(ran.code == Some(1) && ran.out.contains("error: listen.tls"), "{} {}", ran.out, ran.err);
    Ok(())
}
