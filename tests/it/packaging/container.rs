//! A tenant in a container: read-only root, six capabilities, bounded memory, a volume.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::podman::{Container, build};
use super::{READY, ready_for, tenant, until};
use crate::support::client::Client;
use crate::support::device::{ORIGIN, RemoteDevice};
use crate::support::sidecar::{credential, new_token};

/// All that starting two users takes; docs/packaging.md says what each is for.
const CAPABILITIES: &str = "--cap-add=SETUID,SETGID,KILL,CHOWN,FOWNER,DAC_OVERRIDE";
const LAUNCHER: &str = "/usr/local/bin/openclaw-sidecar run";
const DAEMON: &str = "openclaw-sidecar daemon";
const GATEWAY: &str = "node dist/index.js";
/// `launch.stop_budget_s` outside Fly is 8 s; the rest is the container engine's.
const STOPPED: Duration = Duration::from_secs(12);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Tenant {
    container: Container,
    volume: tempfile::TempDir,
    token: String,
}

impl Tenant {
    async fn start() -> anyhow::Result<Self> {
        let image = build("gateway").await?;
        // As a platform mounts it: an empty directory that belongs to root.
        let volume = tempfile::Builder::new().prefix("sidecar-volume-").tempdir()?;
        std::fs::set_permissions(volume.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let token = new_token();
        let credentials = json!([credential("control", &token, "dangerous")]);
        let desired = json!({"gateway": {"allowed_origins": [ORIGIN]}, "config": {"update": {"checkOnStart": false}}});
        let options = [
            "--read-only",
            "--tmpfs=/tmp",
            "--tmpfs=/run",
            "--cap-drop=all",
            CAPABILITIES,
            "--security-opt=no-new-privileges",
            "--memory=2g",
            "--publish=127.0.0.1::9443",
            "--publish=127.0.0.1::18789",
            &format!("--volume={}:/data", volume.path().display()),
            &format!("--env=OPENCLAW_SIDECAR_AUTH_CREDENTIALS={credentials}"),
            &format!("--env=OPENCLAW_SIDECAR_MACHINE_SECRET={}", new_token()),
            &format!("--env=OPENCLAW_SIDECAR_LAUNCH_DESIRED={desired}"),
            // No channels and no downloads in tests.
            "--env=OPENCLAW_SKIP_CHANNELS=1",
            "--env=npm_config_offline=true",
            "--env=OPENCLAW_SIDECAR_LAUNCH_ENV_PASS=npm_config_offline",
        ];
        let container = Container::start(&options, &image).await?;
        Ok(Self { container, volume, token })
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let folder = self.volume.path().join("sidecar");
        tenant::client(&folder, self.container.published("9443/tcp").await?, &self.token).await
    }

    /// From outside the container, so it is remote without any forwarding header.
    async fn browser(&self) -> anyhow::Result<RemoteDevice> {
        let port = self.container.published("18789/tcp").await?.port();
        let mut browser = RemoteDevice::browser(port, &tenant::gateway_token(self.volume.path())?);
        browser.forwarded_for = None;
        Ok(browser)
    }
}

#[tokio::test]
async fn a_tenant_in_a_locked_down_container() -> anyhow::Result<()> {
    if !ready_for("container::a_tenant_in_a_locked_down_container").await? {
        return Ok(());
    }
    let tenant = Tenant::start().await?;
    tenant.container.explain(main_job(&tenant).await).await
}

async fn main_job(tenant: &Tenant) -> anyhow::Result<()> {
    let container = &tenant.container;
    let client = tenant.client().await?;
    let state = tenant::ready(&client).await?;
    assert_eq!(state["mode"], "launch", "{state}");
    assert_eq!(state["supervisor"]["isolation"], "separate-uids", "{state}");
    tenant::is_hardened(&state);
    is_locked_down(container).await?;
    ensure!(container.is_healthy().await?, "the gateway is ready, so the container is healthy");

    let mut browser = tenant.browser().await?;
    tenant::let_in(&client, &mut browser).await?;
    tenant::restart_gateway(&client, &mut browser).await?;
    daemon_comes_back(container, &client).await?;
    ensure!(browser.is_connected(), "the daemon's death is none of the gateway's business");

    let began = Instant::now();
    assert_eq!(container.stop(PATIENCE).await?, 0, "stopped by the signal, not by force");
    assert!(began.elapsed() < STOPPED, "stopping took {:?}", began.elapsed());
    Ok(())
}

/// Three users, a root nobody writes to, and memory that counts.
async fn is_locked_down(container: &Container) -> anyhow::Result<()> {
    for (command, uid) in [(LAUNCHER, 0), (DAEMON, 10_443), (GATEWAY, 1000)] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", container.pid(command).await?))?;
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("no Uid")?;
        let no_way_back = uids.split_whitespace().all(|known| known == uid.to_string());
        assert!(no_way_back, "{command} runs as {uids}, not as {uid}");
    }
    let (written, said) = container.exec(&["touch", "/app/x"]).await?;
    ensure!(!written && said.contains("Read-only"), "{said}");
    let limit = container.inspect("{{.HostConfig.Memory}}").await?;
    assert_eq!(limit, (2u64 << 30).to_string());
    Ok(())
}

async fn daemon_comes_back(container: &Container, client: &Client) -> anyhow::Result<()> {
    let gateway = tenant::gateway_pid(client).await?;
    let before = container.pid(DAEMON).await?;
    kill(Pid::from_raw(before), Signal::SIGKILL)?;
    client.forget_connections();
    let back = || async {
        ensure!(container.pid(DAEMON).await? != before, "the killed daemon is still listed");
        client.get("/livez").await
    };
    until("the daemon's return", Duration::from_secs(20), back).await?;
    until("what it says of the gateway", READY, || tenant::ready(client)).await?;
    assert_eq!(tenant::gateway_pid(client).await?, gateway, "another gateway");
    Ok(())
}
