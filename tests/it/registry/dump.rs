//! A copy of the database is worth nothing to a thief: no secret of a machine, of its tenant or of ours is in it.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::webhooks::hook;
use super::{CHECK_IN, SOON, message};
use crate::it::canaries::secrets::Canaries;
use crate::it::canaries::spill::SPILLS;
use crate::support::machine::{GATEWAY_UID, Machine, needs_root};
use crate::support::service::{Place, SECRET, Service};

/// Not secret, and told by the same machines: a dump without it would prove nothing.
const MARKER: &str = "told-in-plain-words-3f1c";

/// All of the SQLite database and its log, as it lies there.
pub fn files(place: &Place) -> anyhow::Result<String> {
    let mut all = String::new();
    for file in std::fs::read_dir(place.state_dir())?.flatten() {
        if file.file_name().to_string_lossy().starts_with("registry.db") {
            all.push_str(&String::from_utf8_lossy(&std::fs::read(file.path())?));
        }
    }
    Ok(all)
}

pub fn nothing_secret(dump: &str, canaries: &Canaries) -> anyhow::Result<()> {
    ensure!(dump.contains("acme"), "no database");
    let hits = canaries.hits(dump);
    ensure!(hits.is_empty(), "in the database:\n{}", hits.join("\n"));
    Ok(())
}

#[tokio::test]
async fn nothing_secret_is_in_sqlite() -> anyhow::Result<()> {
    if !needs_root("registry::dump::nothing_secret_is_in_sqlite") {
        return Ok(());
    }
    let service = Service::start(Place::new()?, None).await?;
    let canaries = told_everything(&service).await?;
    let dump = files(&service.kill().await?)?;
    ensure!(dump.contains(MARKER), "nothing was told");
    nothing_secret(&dump, &canaries)
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn nothing_secret_is_in_postgresql() -> anyhow::Result<()> {
    if !needs_root("registry::dump::nothing_secret_is_in_postgresql") {
        return Ok(());
    }
    let Some(server) = crate::support::postgres::Server::start() else { return Ok(()) };
    let service = Service::start(Place::new()?.with("STORE", server.database("fleet").await), None).await?;
    let canaries = told_everything(&service).await?;
    let dump = server.dump("fleet");
    ensure!(dump.contains(MARKER), "nothing was told");
    nothing_secret(&dump, &canaries)
}

/// Machines, people and thieves come with every secret there is.
async fn told_everything(service: &Service) -> anyhow::Result<Canaries> {
    let mut canaries = Canaries::default();
    canaries.plant("registry's secret", SECRET);
    people(service, &mut canaries).await?;
    machine(service, &mut canaries).await?;
    hostile(service, &mut canaries).await?;
    Ok(canaries)
}

/// Keys, a session, a webhook.
async fn people(service: &Service, canaries: &mut Canaries) -> anyhow::Result<()> {
    canaries.plant("support key", service.place().support_key());
    let made = service.admin().post("/v1/admin/keys", &json!({"id": "night"})).await?.json();
    canaries.plant("key made here", made["key"].as_str().context("a key")?);
    canaries.plant("webhook's secret", &hook(service, "tickets", "https://tickets.example/", &[]).await?);
    service.console().await?.page("/").await?;
    let wrong = canaries.plant("a wrong key", "canary-wrong-key-b3a7190c4fe28d65");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = format!("key={wrong}").into_bytes();
    ensure!(service.public().request("POST", "/login", &form, Some(body)).await?.status == 401);
    Ok(())
}

/// A real sidecar, whose gateway prints all it knows and dies.
async fn machine(service: &Service, canaries: &mut Canaries) -> anyhow::Result<()> {
    let enrolled = service.enrol("acme").await?;
    let secret = canaries.plant("machine secret", "canary-machine/2f8a+c41d9e7b06532af18c4d+e6");
    let passed = canaries.plant("variable passed on", "canary-passed-c7e2094fd1b68a35");
    let token = canaries.plant("gateway token", "canary-gateway-0e7d41b8a93f5c26d817");
    canaries.plant("credential", &enrolled.credential);
    canaries.plant("ticket", &enrolled.ticket);
    let mut builder = Machine::script(&SPILLS.replace("PROVIDER_KEY", "OPENAI_API_KEY"))?
        .setting("MACHINE_SECRET", &secret)
        .setting("LAUNCH_ENV_PASS", "CANARY_PASSED")
        .env("CANARY_PASSED", &passed);
    for (name, value) in service.settings("acme", &enrolled) {
        builder = builder.setting(name, &value);
    }
    let place = builder.place();
    std::fs::create_dir(place.gateway_dir())?;
    std::os::unix::fs::chown(place.gateway_dir(), Some(GATEWAY_UID), Some(GATEWAY_UID))?;
    let config = json!({"gateway": {"auth": {"mode": "token", "token": token}}}).to_string();
    place.put(&place.config_path(), &config, GATEWAY_UID, 0o600)?;
    let machine = builder.start().await?;
    let json = [("content-type", "application/json")];
    for (name, slot, value) in [
        ("OPENAI_API_KEY", "provider's key", "sk-canary-provider-93d1f0ab57c2e8d6410b"),
        ("PASSPHRASE", "passphrase", "quartz lantern meadow whisper orchard"),
        ("PRIVATE_KEY", "private key", "Ab/+Ab/+Ab/+Ab/+Ab/+Ab/+Ab/+Ab/+Ab/+Ab/+"),
    ] {
        let body = json!({ "value": canaries.plant(slot, value) }).to_string().into_bytes();
        let put = machine.client().request("PUT", &format!("/v1/secrets/{name}"), &json, Some(body)).await?;
        ensure!(put.status == 200, "{}", put.text());
    }
    machine.client().post("/v1/gateway/restart?wait_s=1", &json!({})).await?;
    let spilled = |state: &Value| {
        let lines = state["supervisor"]["last_exit"]["last_lines"].to_string();
        lines.contains("PASSPHRASE=") && !lines.contains("PASSPHRASE=undefined")
    };
    machine.wait_state(spilled, SOON).await.context("the gateway's last lines")?;
    let seen = service.wait("acme", |tenant| !tenant["report"]["gateway"]["last_exit"].is_null(), SOON).await?;
    let before = seen["report"]["gateway"]["starts"].as_u64().context("starts")?;
    // One more death, which is told after the one that was seen.
    let later = |tenant: &Value| tenant["report"]["gateway"]["starts"].as_u64() > Some(before);
    service.wait("acme", later, SOON).await?;
    ensure!(machine.output_text().contains("quartz lantern"), "it printed nothing that could be told");
    Ok(())
}

/// Check-ins with secrets wherever nobody asked for any, and with forged credentials.
async fn hostile(service: &Service, canaries: &mut Canaries) -> anyhow::Result<()> {
    let enrolled = service.enrol("mallory").await?;
    canaries.plant("mallory's credential", &enrolled.credential);
    let code = canaries.plant("pairing code", "CANARY7XK2Q9");
    let thing = canaries.plant("unknown field", "canary-unknown-field-77ab01c9d4e2");
    let mut told = message("mallory", 1);
    told["state"]["phase_reason"] = json!(MARKER);
    told["token"] = json!(thing);
    told["state"]["env"] = json!({ "OPENAI_API_KEY": thing });
    told["state"]["gateway"]["token"] = json!(thing);
    told["state"]["pairing"] = json!({
        "pending": [{"kind": "channel", "request_id": "r1", "code": code, "public_key": thing}], "pending_count": 1,
    });
    told["state"]["findings"] = json!([{"code": "odd", "severity": "error", "value": thing}]);
    told["events"] = json!([{"seq": 1, "at": "2026-01-01T00:00:00Z", "verb": "x", "secret": thing}]);
    let headers = [("content-type", "application/json"), ("x-secret", &*thing), ("x-openclaw-ticket", &*thing)];
    let machine = service.with(&enrolled.credential);
    let reply = machine.request("POST", CHECK_IN, &headers, Some(told.to_string().into_bytes())).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    // Refused, and not kept.
    let forged = canaries.plant("forged credential", "ocr_canary-forged-19cd7e02ab5f4836d1c0");
    ensure!(service.with(&forged).post(CHECK_IN, &told).await?.status == 401);
    let refused = canaries.plant("refused text", "canary-refused-text-e5c1908ab273");
    told["state"]["phase_reason"] = json!(refused);
    told["seq"] = json!(0);
    ensure!(machine.post(CHECK_IN, &told).await?.status == 400);
    let broken = told.to_string().replace("\"seq\":0", "\"seq\":2,");
    ensure!(machine.request("POST", CHECK_IN, &headers[..1], Some(broken.into_bytes())).await?.status == 400);
    Ok(())
}
