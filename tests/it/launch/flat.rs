//! A tenant whose files lie directly in the volume, as they were hosted before, moves in without losing a device.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::SOON;
use crate::support::device::{ORIGIN, Operator, RemoteDevice, random_token};
use crate::support::gateway::installed;
use crate::support::machine::{Builder, GATEWAY_UID, Machine, Place, READY, needs_root, proc, run_as};

const SOUL: &str = "# SOUL.md\n\nI was here before the sidecar.\n";

async fn moves_in(version: &str) -> anyhow::Result<()> {
    if !needs_root("launch::flat") {
        return Ok(());
    }
    let builder = Machine::real(version)?;
    let place = builder.place();
    let token = plant_tenant(place)?;
    let mut device = pair_before(&builder, version, &token).await?;
    let before = tree(&place.volume())?;

    let plan = builder.cli(&["migrate", "--dry-run"]).await?;
    let said = String::from_utf8_lossy(&plan.stdout).into_owned();
    ensure!(plan.status.success(), "{plan:?}");
    ensure!(said.contains("openclaw.json") && said.contains("workspace"), "{said}");
    ensure!(tree(&place.volume())? == before, "a dry run changed something");

    let machine = builder.start().await?;
    machine.wait_phase("ready", READY).await?;
    ensure!(machine.gateway_token()? == token, "the token is another one");
    ensure!(machine.config()?["logging"]["level"] == "warn", "the tenant's own key is gone: {}", machine.config()?);
    the_copy_is_whole(&machine, &before).await?;
    old_paths_lead_on(&machine).await?;
    device.connect_when_approved(SOON).await.context("with its own token, and nobody's approval")?;

    // The second boot has nothing to move.
    device.disconnect();
    let names = names(&machine.volume())?;
    let machine = machine.stop().await?.start().await?;
    ensure!(self::names(&machine.volume())? == names, "{:?}", self::names(&machine.volume())?);
    Ok(())
}

/// What such a volume holds: the gateway's own, all of it, with a few things of the tenant's.
fn plant_tenant(place: &Place) -> anyhow::Result<String> {
    let (volume, token) = (place.volume(), random_token());
    let config = json!({
        "gateway": {
            "mode": "local", "port": place.port(), "bind": "loopback", "trustedProxies": ["127.0.0.1"],
            "auth": {"mode": "token", "token": token}, "controlUi": {"allowedOrigins": [ORIGIN]},
        },
        "agents": {"defaults": {"workspace": volume.join("workspace")}},
        "logging": {"level": "warn"},
        "update": {"checkOnStart": false},
    });
    place.put(&volume.join("openclaw.json"), &config.to_string(), GATEWAY_UID, 0o600)?;
    std::fs::create_dir(volume.join("workspace"))?;
    place.put(&volume.join("workspace/SOUL.md"), SOUL, GATEWAY_UID, 0o644)?;
    symlink("/etc/hostname", volume.join("workspace/elsewhere"))?;
    lchown(volume.join("workspace/elsewhere"), Some(GATEWAY_UID), Some(GATEWAY_UID))?;
    for path in [volume.join("workspace"), volume.clone()] {
        chown(&path, Some(GATEWAY_UID), Some(GATEWAY_UID))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(token)
}

/// Runs the gateway as it was hosted, lets a device in, and stops it.
async fn pair_before(builder: &Builder, version: &str, token: &str) -> anyhow::Result<RemoteDevice> {
    let place = builder.place();
    let mut gateway = hosted_as_before(builder, version)?;
    let mut operator = operator(place.port(), token, &mut gateway).await?;
    let mut device = RemoteDevice::browser(place.port(), token);
    let request = device.attempt().await?.request_id()?.to_owned();
    operator.approve(&request).await?;
    let own = device.connect_when_approved(SOON).await?.context("a device token")?;
    device.disconnect();
    device.token = own;
    proc::signal(gateway.id().context("it runs")?, Signal::SIGTERM)?;
    timeout(SOON, gateway.wait()).await.context("it does not stop")??;
    Ok(device)
}

fn hosted_as_before(builder: &Builder, version: &str) -> anyhow::Result<Child> {
    let place = builder.place();
    let mut command = Command::new(builder.node()?);
    command.arg(installed(version)?).args(["gateway", "--port", &place.port().to_string()]);
    command.env_clear().envs(builder.variables()).env("OPENCLAW_STATE_DIR", place.volume());
    command.env("OPENCLAW_CONFIG_PATH", place.volume().join("openclaw.json"));
    command.envs([("OPENCLAW_NO_RESPAWN", "1"), ("OPENCLAW_DISABLE_BONJOUR", "1")]);
    let log = std::fs::File::create(place.root().join("before.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
    Ok(command.uid(GATEWAY_UID).gid(GATEWAY_UID).process_group(0).kill_on_drop(true).spawn()?)
}

async fn operator(port: u16, token: &str, gateway: &mut Child) -> anyhow::Result<Operator> {
    let end = Instant::now() + READY;
    loop {
        match Operator::connect(port, token).await {
            Ok(operator) => return Ok(operator),
            Err(error) if Instant::now() > end => return Err(error.context("the gateway before does not get ready")),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
        if let Some(status) = gateway.try_wait()? {
            bail!("the gateway before ended with {status}");
        }
    }
}

async fn the_copy_is_whole(machine: &Machine, before: &BTreeMap<PathBuf, Entry>) -> anyhow::Result<()> {
    let copy = machine.volume().join("before-sidecar");
    let found = std::fs::symlink_metadata(&copy)?;
    ensure!(found.is_dir() && found.uid() == 0 && found.mode() & 0o7777 == 0o700, "{found:?}");
    let kept = tree(&copy)?;
    for (path, entry) in before.iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
        ensure!(kept.get(path) == Some(entry), "{}: {entry:?} became {:?}", path.display(), kept.get(path));
    }
    ensure!(kept.len() == before.len(), "more in the copy than there was");
    let spied = run_as(GATEWAY_UID, "ls", &[copy.to_str().expect("UTF-8")]).await?;
    ensure!(!spied.ok, "{spied:?}");
    Ok(())
}

/// Sessions hold absolute paths; and nothing outside was touched through a link.
async fn old_paths_lead_on(machine: &Machine) -> anyhow::Result<()> {
    let (old, new) = (machine.volume().join("workspace"), machine.place().gateway_dir().join("workspace"));
    let link = std::fs::symlink_metadata(&old)?;
    ensure!(link.is_symlink() && link.uid() == 0 && old.canonicalize()? == new.canonicalize()?, "{link:?}");
    ensure!(std::fs::metadata("/etc/hostname")?.uid() == 0);
    let elsewhere = std::fs::symlink_metadata(new.join("elsewhere"))?;
    ensure!(elsewhere.is_symlink(), "{elsewhere:?}");
    let mut operator = machine.operator().await?;
    let got: Value = operator.call("agents.files.get", json!({"agentId": "main", "name": "SOUL.md"})).await?;
    ensure!(got["file"]["content"] == SOUL, "{got}");
    Ok(())
}

fn names(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir)?.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Everything that can be told of a file without its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    content: Vec<u8>,
}

fn tree(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    walk(root, root, &mut found)?;
    Ok(found)
}

fn walk(root: &Path, path: &Path, found: &mut BTreeMap<PathBuf, Entry>) -> anyhow::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let content = if kind.is_file() {
        std::fs::read(path)?
    } else if kind.is_symlink() {
        std::fs::read_link(path)?.into_os_string().into_encoded_bytes()
    } else {
        Vec::new()
    };
    let modified = (meta.mtime(), meta.mtime_nsec());
    let entry = Entry { mode: meta.mode(), owner: (meta.uid(), meta.gid()), modified, content };
    found.insert(path.strip_prefix(root)?.to_owned(), entry);
    if kind.is_dir() {
        for entry in std::fs::read_dir(path)? {
            walk(root, &entry?.path(), found)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn on_2026_9_6() {
    moves_in("2026.9.6").await.unwrap();
}

/// Its devices are files where newer versions have a database.
#[tokio::test]
async fn on_2026_4_9() {
    moves_in("2026.4.9").await.unwrap();
}
