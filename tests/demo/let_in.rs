//! A browser that is not known is let in: what the user sees, what the control plane sees, what it answers.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    DIR, Stage,
    control_plane::Follower,
    registry::Support,
    support::{
        chromium::{Chromium, Page},
        device::REMOTE_ADDRESS,
    },
    tenant::{Tenant, VERSION},
    terminal::{self, done, say, step},
};

/// What opens the Control UI's own list of devices.
const OPEN_DEVICES: &str =
    "[...document.querySelectorAll('a, button')].find(e => e.innerText.trim() === 'Devices').click()";
pub const PAGE_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks whether the page gave up.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Returns the page that is in, and the id of its device.
pub async fn run<'a>(
    stage: &Stage,
    browser: &'a mut Chromium,
    support: &mut Support,
) -> anyhow::Result<(Page<'a>, String)> {
    let mut events = listen(&stage.tenant).await?;
    let mut page = meet_the_wall(stage, browser).await?;
    let request_id = request_shown(&mut page).await?;
    let asked = request_arrives(&mut events, &request_id).await?;
    support.sees(&request_id, asked).await?;
    let approved = SystemTime::now();
    let device_id = approve(&stage.tenant, &request_id).await?;
    support.no_longer_sees(&request_id, approved).await?;
    page_connects(&stage.tenant, &mut page, &device_id).await?;
    Ok((page, device_id))
}

async fn listen(tenant: &Tenant) -> anyhow::Result<Follower> {
    step("The control plane listens");
    say("It asks nothing over and over: it holds one stream of events open, from anywhere that reaches the machine.");
    tenant.control_plane.follow().await
}

async fn meet_the_wall<'a>(stage: &Stage, browser: &'a mut Chromium) -> anyhow::Result<Page<'a>> {
    step("A user opens the Control UI from somewhere else");
    say(&format!(
        "Chromium goes through a reverse proxy, so the gateway sees a visitor from {REMOTE_ADDRESS}. It has the right \
         token, but the gateway does not know this browser:"
    ));
    let clock = Instant::now();
    let address = format!("{}/#token={}", stage.proxy.origin(), stage.tenant.machine.gateway_token()?);
    let mut page = browser.open(&address).await?;
    page.wait_for_text("Approve this browser", PAGE_DEADLINE).await?;
    done("the page says \"Approve this browser\" and waits", clock.elapsed());
    picture(&mut page, "1-waiting.png").await?;
    Ok(page)
}

/// The request id in the command the page tells the user to have run.
async fn request_shown(page: &mut Page<'_>) -> anyhow::Result<String> {
    let text = page.text().await?;
    let (_, rest) = text.split_once("openclaw devices approve ").context("the page shows no command")?;
    let request_id = rest.split_whitespace().next().context("the command has no id")?.to_owned();
    say(&format!("It asks for someone to run, inside the machine: openclaw devices approve {request_id}"));
    Ok(request_id)
}

/// Returns since when it waits, by the event's own account.
async fn request_arrives(events: &mut Follower, request_id: &str) -> anyhow::Result<SystemTime> {
    step("The control plane hears of it");
    say("On that stream comes the same request, with what an operator needs to decide:");
    let event = events.wait_for(request_id, PAGE_DEADLINE).await?;
    let (head, data) = event.split_once("\ndata: ").context("an event without data")?;
    terminal::output(head);
    terminal::output("data:");
    let data: Value = serde_json::from_str(data)?;
    terminal::json(&data);
    Ok(humantime::parse_rfc3339(data["at"].as_str().context("an event without a time")?)?)
}

async fn approve(tenant: &Tenant, request_id: &str) -> anyhow::Result<String> {
    step("The control plane approves it: one HTTPS request");
    let (answer, took) = tenant.control_plane.approve(request_id).await?;
    terminal::json(&answer);
    ensure!(answer["outcome"] == "approved", "the sidecar did not approve");
    ensure!(answer["connected"] == true, "the sidecar did not see the browser connect");
    done("approved, and answered only when the browser was really in", took);
    Ok(answer["device"]["device_id"].as_str().context("no device in the answer")?.to_owned())
}

async fn page_connects(tenant: &Tenant, page: &mut Page<'_>, device_id: &str) -> anyhow::Result<()> {
    step("The page connects by itself");
    let clock = Instant::now();
    let how = control_ui(page).await?;
    done(&format!("{how}: the Control UI is there"), clock.elapsed());
    page.evaluate(OPEN_DEVICES).await?;
    page.wait_for_text("1 of 1 connected", PAGE_DEADLINE).await?;
    say("Its page of devices says \"1 of 1 connected\".");
    picture(page, "2-connected.png").await?;

    let approved = tenant.control_plane.approved_device(device_id).await?;
    ensure!(approved["connected"] == true, "/v1/pairing does not show the browser as connected: {approved}");
    say(&format!("The sidecar's /v1/pairing says: approved by {}, connected.", text(&approved["approved_by"])));
    is_connected(tenant, device_id).await?;
    say(&format!("The gateway's own device.pair.list agrees: connected, from {REMOTE_ADDRESS}."));
    Ok(())
}

/// Waits for the Control UI. A gateway that has just started now and then fails to serve one of its many files; the page
/// then asks its user to reload it.
async fn control_ui(page: &mut Page<'_>) -> anyhow::Result<&'static str> {
    let there = format!(
        "!document.body.innerText.includes('Approve this browser') && document.body.innerText.includes('{VERSION}')"
    );
    let end = Instant::now() + PAGE_DEADLINE;
    let mut how = "no reload, no click";
    loop {
        match page.wait_for(&there, LOOK_EVERY).await {
            Ok(()) => return Ok(how),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) if page.text().await?.contains("could not be downloaded") => {
                how = "one file did not come, so the user reloaded";
                page.evaluate("location.reload()").await?;
            }
            Err(_) => {}
        }
    }
}

/// Whether the gateway itself says so.
pub async fn is_connected(tenant: &Tenant, device_id: &str) -> anyhow::Result<()> {
    let mut operator = tenant.machine.operator().await?;
    let record = operator.paired_device(device_id).await?.context("the gateway does not know the browser")?;
    ensure!(record["connected"] == true, "the gateway does not show the browser as connected: {record}");
    ensure!(record["remoteIp"] == REMOTE_ADDRESS, "the gateway saw another address: {record}");
    Ok(())
}

pub async fn picture(page: &mut Page<'_>, name: &str) -> anyhow::Result<()> {
    let path = Path::new(DIR).join(name);
    page.screenshot(&path).await?;
    say(&format!("picture: {}", path.display()));
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
