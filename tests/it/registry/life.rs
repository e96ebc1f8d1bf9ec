//! A tenant's day as support sees it: boots, asks, is let in, sleeps, crashes silently, comes back, outlives our database.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::dump::{files, nothing_secret};
use crate::it::canaries::secrets::Canaries;
use crate::support::machine::{Machine, READY, needs_root};
use crate::support::service::{Place, Service};

/// From the browser's knock to what support reads: because it knocked, not because the interval is over. The time it takes
/// is printed (2.0 s on a quiet machine).
const AT_ONCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(30);
/// The promise of 15 s, its grace of 30 s, and two sweeps.
const SILENT: Duration = Duration::from_secs(90);

fn status(name: &'static str) -> impl Fn(&Value) -> bool {
    move |tenant| tenant["status"] == name
}

#[tokio::test]
async fn a_tenant_from_its_boot_to_our_lost_database() -> anyhow::Result<()> {
    if !needs_root("registry::life") {
        return Ok(());
    }
    let service = Service::start(Place::new()?, None).await?;
    let enrolled = service.enrol("acme").await?;
    service.wait("acme", status("provisioning"), SOON).await?;
    let settings = service.settings("acme", &enrolled);
    let mut canaries = Canaries::default();
    let secret = canaries.plant("machine secret", "canary-machine/2f8a+c41d9e7b06532af18c4d+e6");
    let key = canaries.plant("provider's key", "sk-canary-provider-93d1f0ab57c2e8d6410b");
    let told = |builder| settings.iter().fold(builder, |b: crate::support::machine::Builder, (k, v)| b.setting(k, v));
    let mut machine = told(Machine::real("2026.9.6")?).setting("MACHINE_SECRET", &secret).start().await?;
    let (path, json) = ("/v1/secrets/OPENAI_API_KEY", [("content-type", "application/json")]);
    let value = json!({ "value": key }).to_string().into_bytes();
    ensure!(machine.client().request("PUT", path, &json, Some(value)).await?.status == 200);
    let tenant = service.wait("acme", status("ready"), READY).await?;
    ensure!(tenant["gateway_version"] == "2026.9.6" && tenant["confidence"] == "high", "{tenant}");

    // Somebody knocks.
    let mut browser = machine.browser()?;
    let asked = Instant::now();
    let request = browser.attempt().await?.request_id()?.to_owned();
    let waits = |t: &Value| t["report"]["pairing"]["pending"].to_string().contains(&request);
    let tenant = service.wait("acme", waits, SOON).await?;
    println!("seen by support {:?} after the knock", asked.elapsed());
    ensure!(asked.elapsed() <= AT_ONCE, "{:?}", asked.elapsed());
    ensure!(tenant["facets"].to_string().contains("pairing-pending"), "{tenant}");
    let approved = Instant::now();
    let body = json!({"kind": "device", "request_id": request});
    ensure!(machine.client().post("/v1/pairing/approve", &body).await?.status == 200);
    service.wait("acme", |t| t["pending_count"] == 0, SOON).await?;
    println!("gone {:?} after the approval", approved.elapsed());
    ensure!(approved.elapsed() <= AT_ONCE, "{:?}", approved.elapsed());
    service.wait("acme", |t| t["report"]["pairing"]["approved_count"].as_u64() > Some(0), SOON).await?;

    // It is stopped, and says so.
    machine.signal(Signal::SIGTERM)?;
    let tenant = service.wait("acme", status("asleep"), SOON).await?;
    ensure!(tenant["reason"].as_str().is_some_and(|why| why.len() > "it was stopped".len()), "{tenant}");
    machine.wait_exit(SOON).await?;
    let machine = machine.again().start().await?;
    service.wait("acme", status("ready"), READY).await?;

    // It is gone without a word.
    let builder = machine.again();
    drop(machine);
    let tenant = service.wait("acme", status("unreachable"), SILENT).await?;
    ensure!(tenant["evidence"].to_string().contains("overdue"), "{tenant}");
    let machine = builder.start().await?;
    service.wait("acme", status("ready"), READY).await?;
    let history = service.history("acme").await?;
    for kind in ["created", "booted", "pairing_requested", "pairing_gone", "audit", "bye", "gap", "status"] {
        ensure!(history.iter().any(|k| k == kind), "{kind} is missing in {history:?}");
    }

    // We lose our database; the next check-in brings the tenant back.
    let tls = service.tls();
    let place = service.kill().await?;
    canaries.plant("gateway token", &machine.gateway_token()?);
    canaries.plant("credential", &enrolled.credential);
    nothing_secret(&files(&place)?, &canaries)?;
    for file in std::fs::read_dir(place.state_dir())?.flatten() {
        if file.file_name().to_string_lossy().starts_with("registry.db") {
            std::fs::remove_file(file.path())?;
        }
    }
    let service = Service::start(place, Some(tls)).await?;
    let tenant = service.wait("acme", status("ready"), SILENT).await?;
    ensure!(tenant["gateway_version"] == "2026.9.6", "{tenant}");
    ensure!(service.history("acme").await?.last().context("lines")? == "created");
    machine.stop().await?;
    Ok(())
}
