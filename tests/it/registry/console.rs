//! Support at the console in a real browser: a real registry, a real machine, and a user whose browser is real too.

mod faults;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::support::chromium::{Chromium, Page};
use crate::support::device::ORIGIN;
use crate::support::machine::{Builder, Machine, READY, hosted_document, needs_root};
use crate::support::proxy::Proxy;
use crate::support::service::Service;

const LIMIT: Duration = Duration::from_secs(60);
/// The promise is 2.5 s, and the time it took is printed; on a busy machine it is at least not the next interval's doing.
const AT_ONCE: Duration = Duration::from_secs(10);
const LIVE: &str = "document.getElementById('live')?.dataset.state === 'live'";
/// Pictures that the documents show.
const SHOWN: [&str; 6] =
    ["fleet.png", "fault-harbor.png", "fault-pixel.png", "fault-quartz.png", "pairing.png", "phone.png"];
const SIGN_IN: &str = "document.activeElement?.id === 'key'";

/// A machine that phones home there.
async fn told(service: &Service, tenant: &str, label: &str, builder: Builder) -> anyhow::Result<Builder> {
    let settings = service.settings(tenant, &service.enrol_as(tenant, label).await?);
    Ok(settings.iter().fold(builder, |builder, (key, value)| builder.setting(key, value)))
}

/// From the page that asks for a key to the fleet, by the keyboard alone.
async fn sign_in(page: &mut Page<'_>, key: &str) -> anyhow::Result<()> {
    page.wait_for(SIGN_IN, LIMIT).await?;
    page.type_text(key).await?;
    page.press("Enter").await
}

/// A picture, always in `target/console`, and with `UPDATE_DOCS` where the documents show it.
async fn picture(page: &mut Page<'_>, name: &str) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let updated = std::env::var_os("UPDATE_DOCS").filter(|_| SHOWN.contains(&name)).map(|_| root.join("docs/images"));
    for dir in [Some(root.join("target/console")), updated].into_iter().flatten() {
        std::fs::create_dir_all(&dir)?;
        page.screenshot(&dir.join(name)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_waits_is_shown_until_they_are_let_in() -> anyhow::Result<()> {
    if !needs_root("registry::console") {
        return Ok(());
    }
    let service = Service::start(crate::support::service::Place::new()?, None).await?;
    let proxy = Proxy::bind().await?;
    let mut document = hosted_document();
    document["gateway"]["allowed_origins"] = json!([proxy.origin(), ORIGIN]);
    let builder = told(&service, "acme", "Acme Ltd", Machine::real("2026.9.6")?.document(document)).await?;
    let (machine, support, user) = tokio::join!(builder.start(), Chromium::start(), Chromium::start());
    let (machine, mut support, mut user) = (machine?, support?, user?);

    let mut page = support.open(&format!("http://{}/", service.edge())).await?;
    page.screen(1280, 860, false).await?;
    sign_in(&mut page, "a-key-of-somewhere-else").await?;
    page.wait_for_text("not known here", LIMIT).await?;
    page.go("/", LIMIT).await?;
    sign_in(&mut page, service.place().support_key()).await?;
    page.wait_for(LIVE, LIMIT).await?;
    page.wait_for("document.querySelectorAll('a.open').length === 1", LIMIT).await?;
    page.press("j").await?;
    page.press("Enter").await?;
    page.wait_for(&format!("location.pathname === '/tenants/acme' && {LIVE}"), LIMIT).await?;
    page.wait_for("document.querySelector('.verdict strong').textContent === 'Ready'", READY).await?;

    let proxy = proxy.serve((Ipv4Addr::LOCALHOST, machine.port()).into());
    let mut theirs = user.open(&format!("{}/#token={}", proxy.origin(), machine.gateway_token()?)).await?;
    theirs.wait_for_text("Approve this browser", LIMIT).await?;
    let asked = Instant::now();
    let text = theirs.text().await?;
    let request = text.split_once("openclaw devices approve ").and_then(|(_, rest)| rest.split_whitespace().next());
    let request = request.context("the page names no request")?;
    page.wait_for(&format!("!!document.getElementById('request-{request}')"), LIMIT).await?;
    println!("on the console {:?} after the user's page said that it waits", asked.elapsed());
    ensure!(asked.elapsed() <= AT_ONCE, "{:?}", asked.elapsed());
    page.wait_for("document.querySelector('.verdict strong').textContent === 'Pairing pending'", LIMIT).await?;
    picture(&mut page, "pairing.png").await?;

    let approved = Instant::now();
    let reply = machine.client().post("/v1/pairing/approve", &json!({"kind": "device", "request_id": request})).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    page.wait_for(&format!("!document.getElementById('request-{request}')"), LIMIT).await?;
    println!("gone from the console {:?} after the approval was sent", approved.elapsed());
    ensure!(approved.elapsed() <= AT_ONCE, "{:?}", approved.elapsed());
    page.wait_for("document.querySelector('.verdict strong').textContent === 'Ready'", LIMIT).await?;

    let service = survives_our_restart(&mut page, service).await?;
    ends_with_its_key(&mut page, &service).await?;
    user.close().await?;
    support.close().await?;
    machine.stop().await.map(drop)
}

/// While we are away the page says how old it is; back at the same address, it goes on in the same session.
async fn survives_our_restart(page: &mut Page<'_>, service: Service) -> anyhow::Result<Service> {
    let (edge, tls) = (service.edge(), service.tls());
    let place = service.kill().await?;
    page.wait_for("document.getElementById('live').dataset.state === 'stale'", LIMIT).await?;
    picture(page, "stale.png").await?;
    let service = Service::start(place.with("LISTEN_EDGE", edge), Some(tls)).await?;
    page.wait_for(LIVE, LIMIT).await?;
    Ok(service)
}

/// Whoever has no key any more is asked for one; so is who signs out.
async fn ends_with_its_key(page: &mut Page<'_>, service: &Service) -> anyhow::Result<()> {
    page.evaluate("document.querySelector('form.who button').click()").await?;
    let reply = service.admin().post("/v1/admin/keys", &json!({ "id": "temporary" })).await?;
    ensure!(reply.status == 201, "{}", reply.text());
    let made = reply.json();
    sign_in(page, made["key"].as_str().context("a key")?).await?;
    page.wait_for(&format!("document.querySelector('form.who')?.innerText.includes('temporary') && {LIVE}"), LIMIT)
        .await?;
    let reply = service.admin().request("DELETE", "/v1/admin/keys/temporary", &[], None).await?;
    ensure!(reply.status == 200 || reply.status == 204, "{}", reply.text());
    page.wait_for(SIGN_IN, LIMIT).await?;
    ensure!(
        page.evaluate("document.querySelectorAll('a.open').length === 0").await? == Value::Bool(true),
        "still there"
    );
    Ok(())
}
