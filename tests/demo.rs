//! `make demo`: a real gateway, a real browser that waits for approval, and the sidecar that lets it in.
//!
//! Everything runs on loopback with embedded defaults and is gone afterwards; only the pictures in `target/demo`
//! stay. `KEEP=1` leaves it running to play with. Exits non-zero when any step does not do what its text says.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    reason = "a demonstration talks to the terminal"
)]

#[path = "demo/compare.rs"]
mod compare;
#[path = "demo/control_plane.rs"]
mod control_plane;
#[path = "demo/terminal.rs"]
mod terminal;

mod support;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use control_plane::{ControlPlane, Follower};
use support::{
    chromium::{Chromium, Page},
    device::{ORIGIN, Operator, REMOTE_ADDRESS},
    gateway::{Gateway, GatewayOptions, VERSIONS},
    proxy::{Proxy, RunningProxy},
    sidecar::Sidecar,
};
use terminal::{done, say, step, title};
use tokio::time::Instant;

/// Where the pictures go and where the commands shown find their files, seen from the repository.
const DIR: &str = "target/demo";
/// What opens the Control UI's own list of devices.
const OPEN_DEVICES: &str =
    "[...document.querySelectorAll('a, button')].find(e => e.innerText.trim() === 'Devices').click()";
const PAGE_DEADLINE: Duration = Duration::from_secs(60);

/// What runs during the demo. Fields drop in this order, so the gateway goes last.
struct Stage {
    control_plane: ControlPlane,
    proxy: RunningProxy,
    sidecar: Sidecar,
    gateway: Gateway,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    // Dropping the demo half way ends its processes, so Ctrl-C leaves nothing behind either.
    let stage = tokio::select! {
        stage = demo() => stage?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    };
    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        step("Yours to play with, until Ctrl-C");
        stage.control_plane.show_commands(&stage.sidecar);
        say("To be the user, open this in a browser on this machine; it waits until you approve it:");
        terminal::output(&format!("{}/#token={}", stage.proxy.origin(), stage.gateway.token()));
        tokio::signal::ctrl_c().await?;
    }
    let Stage { control_plane, sidecar, mut gateway, .. } = stage;
    drop(control_plane);
    sidecar.stop().await?;
    gateway.stop().await?;
    println!("\nEverything is stopped and removed again, except the pictures in {DIR}.");
    Ok(())
}

async fn demo() -> anyhow::Result<Stage> {
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
    prepare_dir()?;
    title("openclaw-sidecar: let a browser in, without running a command in the machine");
    let stage = set_up().await?;
    let mut events = listen(&stage).await?;
    let mut browser = Chromium::start().await?;
    let mut page = meet_the_wall(&stage, &mut browser).await?;
    let request_id = request_shown(&mut page).await?;
    request_arrives(&mut events, &request_id).await?;
    drop(events);
    let device_id = approve(&stage, &request_id).await?;
    page_connects(&stage, &mut page, &device_id).await?;
    browser.close().await?;
    step("What an approval costs");
    compare::run(&stage.gateway, &stage.sidecar).await?;
    Ok(stage)
}

fn prepare_dir() -> anyhow::Result<()> {
    fs::create_dir_all(DIR)?;
    for entry in fs::read_dir(DIR)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

async fn set_up() -> anyhow::Result<Stage> {
    step("A tenant's machine: one real gateway, and the sidecar beside it");
    let proxy = Proxy::bind().await?;
    let options =
        GatewayOptions { allowed_origins: vec![proxy.origin(), ORIGIN.to_owned()], ..GatewayOptions::default() };
    let clock = Instant::now();
    let gateway = Gateway::start(VERSIONS[0], options).await?;
    let proxy = proxy.serve(gateway.address());
    done(&format!("OpenClaw gateway {} serves 127.0.0.1:{}", gateway.version(), gateway.port()), clock.elapsed());

    let clock = Instant::now();
    let sidecar = Sidecar::builder().gateway_config(gateway.port(), &gateway.config_path()).unix().start().await?;
    let control_plane = ControlPlane::new(&sidecar, Path::new(DIR))?;
    control_plane.wait_ready(PAGE_DEADLINE).await?;
    done(&format!("openclaw-sidecar serves https://{} and is connected to it", sidecar.tls_addr()), clock.elapsed());
    say("It needed no configuration of the gateway: it found the gateway's own token in openclaw.json.");
    Ok(Stage { control_plane, proxy, sidecar, gateway })
}

async fn listen(stage: &Stage) -> anyhow::Result<Follower> {
    step("The control plane listens");
    say("It asks nothing over and over: it holds one stream of events open, from anywhere that reaches the machine.");
    stage.control_plane.follow().await
}

async fn meet_the_wall<'a>(stage: &Stage, browser: &'a mut Chromium) -> anyhow::Result<Page<'a>> {
    step("A user opens the Control UI from somewhere else");
    say(&format!(
        "Chromium goes through a reverse proxy, so the gateway sees a visitor from {REMOTE_ADDRESS}. It has the right \
         token, but the gateway does not know this browser:"
    ));
    let clock = Instant::now();
    let mut page = browser.open(&format!("{}/#token={}", stage.proxy.origin(), stage.gateway.token())).await?;
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

async fn request_arrives(events: &mut Follower, request_id: &str) -> anyhow::Result<()> {
    step("The control plane hears of it");
    say("On the stream opened in step 2 comes the same request, with what an operator needs to decide:");
    let event = events.wait_for(request_id, PAGE_DEADLINE).await?;
    let (head, data) = event.split_once("\ndata: ").context("an event without data")?;
    terminal::output(head);
    terminal::output("data:");
    terminal::json(&serde_json::from_str(data)?);
    Ok(())
}

async fn approve(stage: &Stage, request_id: &str) -> anyhow::Result<String> {
    step("The control plane approves it: one HTTPS request");
    let (answer, took) = stage.control_plane.approve(request_id).await?;
    terminal::json(&answer);
    ensure!(answer["outcome"] == "approved", "the sidecar did not approve");
    ensure!(answer["connected"] == true, "the sidecar did not see the browser connect");
    done("approved, and answered only when the browser was really in", took);
    Ok(answer["device"]["device_id"].as_str().context("no device in the answer")?.to_owned())
}

async fn page_connects(stage: &Stage, page: &mut Page<'_>, device_id: &str) -> anyhow::Result<()> {
    step("The page connects by itself");
    let clock = Instant::now();
    let version = stage.gateway.version();
    page.wait_for(
        &format!(
            "!document.body.innerText.includes('Approve this browser') && document.body.innerText.includes('{version}')"
        ),
        PAGE_DEADLINE,
    )
    .await?;
    done("no reload, no click: the Control UI is there", clock.elapsed());
    page.evaluate(OPEN_DEVICES).await?;
    page.wait_for_text("1 of 1 connected", PAGE_DEADLINE).await?;
    say("Its page of devices says \"1 of 1 connected\".");
    picture(page, "2-connected.png").await?;

    let approved = stage.control_plane.approved_device(device_id).await?;
    ensure!(approved["connected"] == true, "/v1/pairing does not show the browser as connected: {approved}");
    say(&format!("The sidecar's /v1/pairing says: approved by {}, connected.", text(&approved["approved_by"])));
    let mut operator = Operator::connect(stage.gateway.port(), stage.gateway.token()).await?;
    let record = operator.paired_device(device_id).await?.context("the gateway does not know the browser")?;
    ensure!(record["connected"] == true, "the gateway does not show the browser as connected: {record}");
    ensure!(record["remoteIp"] == REMOTE_ADDRESS, "the gateway saw another address: {record}");
    say(&format!("The gateway's own device.pair.list agrees: connected, from {REMOTE_ADDRESS}."));
    Ok(())
}

async fn picture(page: &mut Page<'_>, name: &str) -> anyhow::Result<()> {
    let path = Path::new(DIR).join(name);
    page.screenshot(&path).await?;
    say(&format!("picture: {}", path.display()));
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
