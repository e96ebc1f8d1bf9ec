//! What the images say of themselves, and the one without a gateway.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::podman::{Container, build, image};
use super::{ready_for, until};
use crate::support::client::Client;
use crate::support::sidecar::{credential, new_token};

async fn described(name: &str, format: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&image(name, format).await?)?)
}

#[tokio::test]
async fn the_gateway_image_starts_the_sidecar_and_it_the_gateway() -> anyhow::Result<()> {
    if !ready_for("image::the_gateway_image_starts_the_sidecar_and_it_the_gateway").await? {
        return Ok(());
    }
    let name = build("gateway").await?;
    let config = described(&name, "{{json .Config}}").await?;
    assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/openclaw-sidecar", "run", "--"]));
    // A derived ENTRYPOINT drops the base's CMD: without one of ours nothing would be started.
    assert_eq!(config["Cmd"][0], "node");
    assert_eq!(config["WorkingDir"], "/app", "the base's");
    assert_eq!(config["User"], "0", "root only starts things");
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert!(config["ExposedPorts"]["9443/tcp"].is_object(), "{config}");
    assert!(config["Volumes"].is_null(), "a volume nobody mounted would lose a tenant silently");
    let health = described(&name, "{{json .HealthCheck}}").await?;
    assert_eq!(health["Test"], json!(["CMD", "openclaw-sidecar", "status", "--quiet"]));
    Ok(())
}

#[tokio::test]
async fn the_attach_image_serves_from_nothing_but_the_binary() -> anyhow::Result<()> {
    if !ready_for("image::the_attach_image_serves_from_nothing_but_the_binary").await? {
        return Ok(());
    }
    let name = build("attach").await?;
    let token = new_token();
    let credentials = json!([credential("control", &token, "dangerous")]).to_string();
    let container = Container::start(
        &[
            "--read-only",
            "--cap-drop=all",
            "--security-opt=no-new-privileges",
            "--memory=32m",
            "--pids-limit=64",
            "--publish=127.0.0.1::9443",
            "--publish=127.0.0.1::8080",
            "--env=OPENCLAW_SIDECAR_LISTEN_EDGE=[::]:8080",
            "--env=OPENCLAW_SIDECAR_GATEWAY_TOKEN=of-no-gateway",
            &format!("--env=OPENCLAW_SIDECAR_AUTH_CREDENTIALS={credentials}"),
            "--volume=/var/lib/openclaw-sidecar",
        ],
        &name,
    )
    .await?;
    container.explain(serves(&container, &token).await).await
}

async fn serves(container: &Container, token: &str) -> anyhow::Result<()> {
    let client = Client::tcp(container.published("8080/tcp").await?, Some(token));
    let live = until("/livez", Duration::from_secs(20), || client.get("/livez")).await?;
    assert_eq!(live.status, 200, "{}", live.text());
    let state = client.get("/v1/state").await?.json();
    assert_eq!(state["mode"], "attach", "{state}");
    assert!(!container.is_healthy().await?, "there is no gateway, so it is not healthy");
    let began = Instant::now();
    assert_eq!(container.stop(Duration::from_secs(10)).await?, 0, "stopped by the signal, not by force");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    Ok(())
}
