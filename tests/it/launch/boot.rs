//! An empty volume and one command: a ready gateway, closed to everybody, with what was wished for it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::ensure;
use serde_json::{Value, json};

use super::{NEWEST, SOON, desired, document, done, found_below, put, starts, wish};
use crate::support::machine::{GATEWAY_UID, Machine, READY, SIDECAR_UID, needs_root, proc};

const IDENTITY: &str = "# IDENTITY.md\n\n- **Name:** Ada of the launch tests\n";
/// Must not reach the gateway.
const CANARY: &str = "canary-4f1d8c2e";
const SECRET: &str = "sk-launch-7d1c52a94e2f48b0";

fn first_wishes() -> Value {
    document(json!({
        "files": [{"path": "workspace/IDENTITY.md", "content": IDENTITY, "mode": "0644"}],
        "env": {"LAUNCH_GREETING": "hello there"},
    }))
}

async fn boot(version: &str) -> anyhow::Result<()> {
    if !needs_root("launch::boot") {
        return Ok(());
    }
    let builder = Machine::real(version)?.document(first_wishes()).env("LAUNCH_CANARY", CANARY);
    let machine = builder.start().await?;
    let settled = |s: &Value| s["phase"] == "ready" && s["desired"]["status"] == "applied";
    let state = machine.wait_state(settled, READY).await?;
    ensure!(machine.logged_listener("tls") && machine.logged_listener("unix"), "{}", machine.log_text());
    check_state(&machine, &state, version)?;
    check_owners(&machine)?;
    check_config(&machine)?;
    check_gateway_process(&machine)?;
    check_daemon_process(&machine, &state)?;
    check_identity(&machine).await?;
    pair_a_device(&machine).await?;
    if version == NEWEST {
        secrets_arrive(&machine).await?;
    }
    ensure!(machine.pids().overlaps().is_empty(), "{:?}", machine.pids().overlaps());
    machine.stop().await?;
    Ok(())
}

fn check_state(machine: &Machine, state: &Value, version: &str) -> anyhow::Result<()> {
    let supervisor = &state["supervisor"];
    ensure!(state["mode"] == "launch" && supervisor["isolation"] == "separate-uids", "{state}");
    ensure!(supervisor["state"] == "ready" && supervisor["starts"] == 1, "{supervisor}");
    ensure!(supervisor["last_exit"].is_null(), "{supervisor}");
    ensure!(supervisor["pid"].as_u64() == machine.gateway_pid().map(u64::from), "{supervisor}");
    ensure!(state["gateway"]["version"] == version, "nobody named it, and it is {}", state["gateway"]);
    ensure!(state["desired"]["status"] == "applied", "{}", state["desired"]);
    ensure!(state["desired"]["generation"] == supervisor["generation"], "{state}");
    let open: Vec<_> =
        state["findings"].as_array().into_iter().flatten().filter(|f| f["severity"] == "error").collect();
    ensure!(open.is_empty(), "{open:?}");
    Ok(())
}

fn owned(path: &Path, uid: u32, mode: u32) -> anyhow::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    let (owner, bits) = (found.uid(), found.mode() & 0o7777);
    ensure!(owner == uid && bits == mode, "{}: owner {owner}, mode {bits:o}", path.display());
    Ok(())
}

fn check_owners(machine: &Machine) -> anyhow::Result<()> {
    let place = machine.place();
    owned(&place.volume(), 0, 0o755)?;
    owned(&place.gateway_dir(), GATEWAY_UID, 0o700)?;
    owned(&place.sidecar_dir(), SIDECAR_UID, 0o700)?;
    owned(&place.config_path(), GATEWAY_UID, 0o600)?;
    owned(&place.socket(), SIDECAR_UID, 0o600)?;
    for name in ["desired.json", "identity.pk8", "tls.pem", "audit.jsonl"] {
        owned(&place.sidecar_dir().join(name), SIDECAR_UID, 0o600)?;
    }
    Ok(())
}

/// What a hosted tenant needs is there without anybody asking for it.
fn check_config(machine: &Machine) -> anyhow::Result<()> {
    let config = machine.config()?;
    ensure!(machine.gateway_token()?.len() >= 32);
    ensure!(config["gateway"]["mode"] == "local" && config["gateway"]["auth"]["mode"] == "token", "{config}");
    ensure!(config["gateway"]["port"] == machine.port() && config["gateway"]["bind"] == "loopback", "{config}");
    ensure!(config["skills"]["entries"]["composio"]["enabled"] == true, "{config}");
    let agents = &config["agents"];
    let main = !agents["entries"]["main"].is_null() || agents["list"][0]["id"] == "main";
    ensure!(main, "{config}");
    let workspace = machine.place().gateway_dir().join("workspace");
    ensure!(agents["defaults"]["workspace"].as_str() == workspace.to_str(), "{config}");
    Ok(())
}

fn check_gateway_process(machine: &Machine) -> anyhow::Result<()> {
    let pid = machine.gateway_pid().expect("it is ready");
    let uid = GATEWAY_UID.to_string();
    for ids in ["Uid", "Gid"] {
        let ids = proc::status(pid, ids);
        ensure!(ids.iter().all(|id| *id == uid), "{ids:?}");
    }
    let groups = proc::status(pid, "Groups");
    ensure!(groups.iter().all(|group| *group == uid), "{groups:?}");
    for mask in ["CapEff", "CapPrm", "CapInh", "CapAmb", "SigBlk"] {
        let mask = proc::status(pid, mask);
        ensure!(mask == ["0000000000000000"], "{mask:?}");
    }
    let foreign = |path: &Path| path.starts_with(machine.place().sidecar_dir());
    ensure!(!proc::open_files(pid).iter().any(|path| foreign(path)), "{:?}", proc::open_files(pid));

    let env = machine.gateway_environment()?;
    let dir = machine.place().gateway_dir();
    for (name, value) in [
        ("OPENCLAW_STATE_DIR", dir.display().to_string()),
        ("OPENCLAW_CONFIG_PATH", machine.place().config_path().display().to_string()),
        ("OPENCLAW_NO_RESPAWN", "1".into()),
        ("OPENCLAW_DISABLE_BONJOUR", "1".into()),
        ("LAUNCH_GREETING", "hello there".into()),
        ("NO_COLOR", "1".into()),
    ] {
        ensure!(env.get(name) == Some(&value), "{name}: {:?}", env.get(name));
    }
    ensure!(env["PATH"].starts_with(&format!("{}:", dir.join("bin").display())), "{}", env["PATH"]);
    let ours: Vec<_> = env.keys().filter(|name| name.starts_with("OPENCLAW_SIDECAR_")).collect();
    ensure!(ours.is_empty(), "{ours:?}");
    ensure!(env.values().all(|value| value != CANARY), "an unnamed variable reached the gateway");
    let said = machine.log_text() + &machine.output_text();
    ensure!(said.contains("LAUNCH_CANARY") && !said.contains(CANARY), "a dropped variable is named, without its value");
    Ok(())
}

fn check_daemon_process(machine: &Machine, state: &Value) -> anyhow::Result<()> {
    let pid = machine.daemon_pid().expect("it answers");
    let uid = SIDECAR_UID.to_string();
    ensure!(proc::status(pid, "Uid").iter().all(|id| *id == uid), "{:?}", proc::status(pid, "Uid"));
    ensure!(proc::status(pid, "CapEff") == ["0000000000000000"] && proc::status(pid, "NoNewPrivs") == ["1"]);
    ensure!(proc::status(pid, "Seccomp") == ["2"], "{:?}", proc::status(pid, "Seccomp"));
    let hardening = state["sidecar"]["hardening"].as_object().cloned().unwrap_or_default();
    for layer in ["no_new_privs", "not_dumpable", "no_core_dumps", "landlock", "seccomp"] {
        ensure!(hardening.contains_key(layer), "{layer}: {hardening:?}");
    }
    Ok(())
}

/// On disk, and as the gateway itself sees its workspace.
async fn check_identity(machine: &Machine) -> anyhow::Result<()> {
    let path = machine.place().gateway_dir().join("workspace/IDENTITY.md");
    ensure!(std::fs::read_to_string(&path)? == IDENTITY);
    owned(&path, GATEWAY_UID, 0o644)?;
    let mut operator = machine.operator().await?;
    let listed = operator.call("agents.files.list", json!({"agentId": "main"})).await?;
    ensure!(listed["workspace"].as_str().map(Path::new) == path.parent(), "{listed}");
    let got = operator.call("agents.files.get", json!({"agentId": "main", "name": "IDENTITY.md"})).await?;
    ensure!(got["file"]["content"] == IDENTITY, "{got}");
    Ok(())
}

async fn pair_a_device(machine: &Machine) -> anyhow::Result<()> {
    let client = machine.client();
    let mut browser = machine.browser()?;
    let request = browser.attempt().await?.request_id()?.to_owned();
    let shown =
        |body: &Value| body["pending"].as_array().is_some_and(|p| p.iter().any(|p| p["request_id"] == *request));
    client.wait_until("/v1/pairing", shown, SOON).await?;
    let approved = done(&client, "/v1/pairing/approve", json!({"kind": "device", "request_id": request})).await?;
    ensure!(approved["outcome"] == "approved", "{approved}");
    browser.connect_when_approved(SOON).await?;
    Ok(())
}

/// A secret goes in by name, reaches the gateway's environment at the next start, and is seen nowhere else.
async fn secrets_arrive(machine: &Machine) -> anyhow::Result<()> {
    let client = machine.client();
    let stored = put(&client, "/v1/secrets/LAUNCH_PROVIDER_KEY", None, &json!({"value": SECRET})).await?;
    ensure!(stored.status == 200 && !stored.text().contains(SECRET), "{} {}", stored.status, stored.text());
    let listed = machine.support_client().get("/v1/secrets").await?.json();
    let entry = &listed["secrets"][0];
    ensure!(entry["name"] == "LAUNCH_PROVIDER_KEY" && entry["fingerprint"].is_string(), "{listed}");
    ensure!(!listed.to_string().contains(SECRET));

    let mut wishes = first_wishes();
    wishes["env"]["LAUNCH_GREETING"] = json!("hello again");
    let before = desired(&client).await?;
    ensure!(before["document"] == first_wishes(), "{before}");
    let generation = before["generation"].as_u64().expect("a number");
    let without = put(&client, "/v1/desired", None, &wishes).await?;
    ensure!(without.status == 428 && without.code() == "precondition_required", "{}", without.text());
    let stale = put(&client, "/v1/desired", Some(generation + 1), &wishes).await?;
    ensure!(stale.status == 412 && stale.code() == "precondition_failed", "{}", stale.text());
    let dry = put(&client, "/v1/desired?dry_run=true", Some(generation), &wishes).await?;
    ensure!(dry.status == 200 && dry.json()["outcome"] == "dry_run", "{}", dry.text());
    ensure!(desired(&client).await?["generation"] == generation, "a dry run stores nothing");

    let first = machine.gateway_pid();
    let generation = wish(&client, "?apply=restart", &wishes).await?;
    let applied = |s: &Value| {
        let desired = &s["desired"];
        s["phase"] == "ready" && desired["generation"] == generation && desired["status"] == "applied"
    };
    let state = machine.wait_state(applied, READY).await?;
    ensure!(starts(&state) == 2 && machine.gateway_pid() != first, "{state}");
    let env = machine.gateway_environment()?;
    ensure!(env.get("LAUNCH_PROVIDER_KEY").is_some_and(|v| v == SECRET), "the secret did not arrive");
    ensure!(env["LAUNCH_GREETING"] == "hello again");

    ensure!(
        found_below(&machine.volume(), SECRET).is_none(),
        "in clear in {:?}",
        found_below(&machine.volume(), SECRET)
    );
    let daemon = proc::environment(machine.daemon_pid().expect("it answers")).unwrap_or_default();
    ensure!(daemon.values().all(|value| !value.contains(SECRET)));
    for path in ["/v1/state", "/v1/desired", "/v1/audit", "/v1/secrets", "/metrics"] {
        ensure!(!client.get(path).await?.text().contains(SECRET), "{path} shows a secret");
    }
    ensure!(!(machine.log_text() + &machine.output_text()).contains(SECRET), "a secret was logged");
    Ok(())
}

#[tokio::test]
async fn on_2026_9_6() {
    boot("2026.9.6").await.unwrap();
}

#[tokio::test]
async fn on_2026_6_11() {
    boot("2026.6.11").await.unwrap();
}

#[tokio::test]
async fn on_2026_4_9() {
    boot("2026.4.9").await.unwrap();
}
