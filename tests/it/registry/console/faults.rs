//! Six tenants that are really broken, each in its own way. Somebody who never saw the console opens the fleet, clicks
//! once, and has the cause, its evidence and what to do on the screen.

use anyhow::ensure;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{LIMIT, LIVE, picture, sign_in, told};
use crate::support::chromium::{Chromium, Page};
use crate::support::machine::script::{EXITS, INVALID, OBEDIENT};
use crate::support::machine::{Machine, READY, STRANGER_UID, Squatter, needs_root, proc};
use crate::support::service::{Place, Service};

/// A tenant, the status it has to come to, and what its page has to say: the cause, a fact, a thing to do.
const FAULTS: [(&str, &str, &str, &str, &str); 6] = [
    ("pixel", "degraded", "answered no call", "process=stopped", "replaced after 60 s"),
    ("harbor", "degraded", "is held by a process that is not the gateway", "uid=", "end it"),
    ("maple", "crashed", "bananas", "path=gateway.bananas", "correct openclaw.json"),
    ("orion", "crashed", "ends again and again", "boom: the database is gone", "correct the cause"),
    ("quartz", "unreachable", "silent", "overdue", "platform"),
    ("willow", "crashed", "launch.desired", "exit=", "correct it"),
];

#[tokio::test]
async fn one_click_leads_from_the_fleet_to_the_cause() -> anyhow::Result<()> {
    if !needs_root("registry::console::faults") {
        return Ok(());
    }
    let service = Service::start(Place::new()?, None).await?;
    let port = told(&service, "harbor", "Harbor Books", Machine::real("2026.9.6")?).await?;
    let squatter = Squatter::start(port.place(), STRANGER_UID, "stranger")?;
    squatter.wait_bound(READY).await?;
    let config = told(&service, "maple", "Maple Street Dental", Machine::script(INVALID)?).await?;
    let crash = told(&service, "orion", "Orion Labs", Machine::script(EXITS)?).await?;
    let mute = told(&service, "pixel", "Pixel & Sons", Machine::real("2026.9.6")?).await?;
    let gone = told(&service, "quartz", "Quartz Mining", Machine::script(OBEDIENT)?).await?;
    let wish =
        told(&service, "willow", "Willow Care", Machine::script(OBEDIENT)?.setting("LAUNCH_DESIRED", "{")).await?;
    let (mut support, port, config, crash, mute, gone, wish) = tokio::try_join!(
        Chromium::start(),
        port.start(),
        config.start(),
        crash.start(),
        mute.start(),
        gone.start(),
        wish.start()
    )?;
    service.wait("quartz", |tenant| !tenant["as_of"].is_null(), READY).await?;
    drop(gone);

    let mut page = support.open(&format!("http://{}/", service.edge())).await?;
    page.screen(1280, 860, false).await?;
    sign_in(&mut page, service.place().support_key()).await?;
    for (tenant, status, ..) in FAULTS.iter().filter(|fault| fault.0 != "pixel") {
        service.wait(tenant, |view| view["status"] == *status && named(view), READY).await?;
    }
    // Last, because a gateway that stays frozen is replaced.
    service.wait("pixel", |tenant| tenant["status"] == "ready", READY).await?;
    proc::signal(mute.gateway_pid().expect("it is ready"), Signal::SIGSTOP)?;
    service.wait("pixel", |view| view["status"] == "degraded" && named(view), READY).await?;
    let lines = "[...document.querySelectorAll('.fleet .row')].map(r => r.innerText.toLowerCase())";
    for (tenant, status, ..) in FAULTS {
        // A machine that is gone has told of no problem.
        let word = if status == "unreachable" { status } else { "errors" };
        let shown = format!(
            "{lines}.some(text => text.startsWith('{tenant}') && text.includes('{status}') && text.includes('{word}')) \
             && {LIVE}"
        );
        page.wait_for(&shown, LIMIT).await?;
    }
    let counted = "document.querySelector('.tile[href=\"/?status=unreachable\"] .number').textContent === '1'";
    page.wait_for(counted, LIMIT).await?;
    picture(&mut page, "fleet.png").await?;
    for (tenant, _, cause, fact, remedy) in FAULTS {
        leads_to(&mut page, tenant, cause, fact, remedy).await?;
    }
    page.screen(390, 844, true).await?;
    picture(&mut page, "phone.png").await?;

    proc::signal(mute.gateway_pid().expect("it is stopped"), Signal::SIGCONT)?;
    squatter.leave().await?;
    support.close().await?;
    for machine in [port, config, crash, mute, wish] {
        machine.stop().await?;
    }
    Ok(())
}

/// What is wrong has a finding, but for who says nothing.
fn named(view: &Value) -> bool {
    view["status"] == "unreachable" || view["report"]["findings"].as_array().is_some_and(|found| !found.is_empty())
}

/// One click on its line; then all that matters is on the screen of a desk, without scrolling.
async fn leads_to(page: &mut Page<'_>, tenant: &str, cause: &str, fact: &str, remedy: &str) -> anyhow::Result<()> {
    page.go("/", LIMIT).await?;
    let there = format!("document.querySelector('a.open[href=\"/tenants/{tenant}\"]')");
    page.wait_for(&format!("!!{there} && {LIVE}"), LIMIT).await?;
    let shown = format!(
        "(() => {{ const r = {there}.getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight; }})()"
    );
    ensure!(page.evaluate(&shown).await? == Value::Bool(true), "{tenant} is not on the first screen");
    page.evaluate(&format!("{there}.click()")).await?;
    page.wait_for(&format!("location.pathname === '/tenants/{tenant}' && {LIVE}"), LIMIT).await?;
    page.evaluate("scrollTo(0, 0)").await?;
    for (what, selector, text) in [
        ("the cause", ".verdict, #todo .item h3", cause),
        ("the evidence", ".evidence li", fact),
        ("the remedy", "#todo .remedy, #todo .steps li", remedy),
    ] {
        let visible = format!(
            "[...document.querySelectorAll({})].some(e => {{ const r = e.getBoundingClientRect(); \
             return r.height > 0 && r.top >= 0 && r.bottom <= innerHeight && r.right <= innerWidth \
             && e.innerText.toLowerCase().includes({}); }})",
            json!(selector),
            json!(text.to_lowercase())
        );
        let text = page.text().await?;
        ensure!(page.evaluate(&visible).await? == Value::Bool(true), "{tenant}: {what} is not on the screen:\n{text}");
    }
    picture(page, &format!("fault-{tenant}.png")).await
}
