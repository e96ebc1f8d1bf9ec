//! `make demo`: from an empty directory to a real gateway, a real browser that waits to be let in, and what happens
//! when things break.
//!
//! Everything runs on loopback with embedded defaults and is gone afterwards, also after Ctrl-C or a failure; only the
//! pictures in `target/demo` stay. `KEEP=1` leaves it running to play with. Exits non-zero when any step does not do
//! what its text says.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a demonstration talks to the terminal"
)]

#[path = "demo/compare.rs"]
mod compare;
#[path = "demo/control_plane.rs"]
mod control_plane;
#[path = "demo/elsewhere.rs"]
mod elsewhere;
#[path = "demo/faults.rs"]
mod faults;
#[path = "demo/let_in.rs"]
mod let_in;
#[path = "bench/process.rs"]
#[allow(dead_code, reason = "the bench uses all of it")]
mod process;
#[path = "demo/registry.rs"]
mod registry;
#[path = "demo/tenant.rs"]
mod tenant;
#[path = "demo/terminal.rs"]
mod terminal;
#[path = "demo/wishes.rs"]
mod wishes;

mod support;

use std::{
    fs::{self, File},
    process::ExitCode,
};

use anyhow::{anyhow, bail};
use nix::fcntl::{Flock, FlockArg};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use registry::{Registry, Support};
use support::{
    chromium::Chromium,
    device::ORIGIN,
    machine::Builder,
    proxy::{Proxy, RunningProxy},
};
use tenant::Tenant;
use terminal::{say, step, title};

/// Where the pictures go and where the commands shown find their files, seen from the repository.
const DIR: &str = "target/demo";

/// What runs during the demo. Fields drop in this order, so the machine goes last.
struct Stage {
    proxy: RunningProxy,
    registry: Registry,
    tenant: Tenant,
}

#[tokio::main]
async fn main() -> ExitCode {
    let code = async {
        if elsewhere::is_needed().await? {
            return elsewhere::run().await;
        }
        run().await.map(|()| ExitCode::SUCCESS)
    };
    code.await.unwrap_or_else(|error| {
        eprintln!("\nThe demo failed: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run() -> anyhow::Result<()> {
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR"))?;
    let _alone = prepare_dir()?;
    let proxy = Proxy::bind().await?;
    let tenant = tenant::builder(&[proxy.origin(), ORIGIN.to_owned()])?;
    let told = tell(proxy, tenant.clone()).await;
    // What was killed may still be writing; the directory goes when it no longer does.
    tenant::wait_gone(&tenant.0).await;
    told
}

/// Dropping a part half way kills the demo's processes.
async fn tell(proxy: Proxy, tenant: (Builder, String)) -> anyhow::Result<()> {
    let (stage, support) = unless_interrupted(Box::pin(story(proxy, tenant))).await?;
    if std::env::var("KEEP").is_ok_and(|keep| keep == "1") {
        keep(&stage).await?;
    }
    unless_interrupted(Box::pin(stop(stage, support))).await
}

async fn unless_interrupted<T>(part: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = part => done,
        interrupted = interruption() => interrupted.and_then(|()| bail!("interrupted")),
    }
}

async fn interruption() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = terminate.recv() => Ok(()),
    }
}

/// Empties the directory; it is this demo's for as long as the answer lives.
fn prepare_dir() -> anyhow::Result<Flock<File>> {
    fs::create_dir_all(DIR)?;
    let file = File::open(DIR)?;
    let alone = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, _)| anyhow!("another demo runs; two would write over each other's files in {DIR}"))?;
    for entry in fs::read_dir(DIR)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(alone)
}

async fn story(proxy: Proxy, tenant: (Builder, String)) -> anyhow::Result<(Stage, Support)> {
    let clock = Instant::now();
    title("openclaw-sidecar: one command boots a tenant, and everything after that is one HTTPS request");
    let registry = Registry::start().await?;
    // A browser takes its time to start, like the gateway.
    let tenant = tenant::boot((registry.told(tenant.0), tenant.1));
    let (tenant, browser, theirs) = tokio::join!(tenant, Chromium::start(), Chromium::start());
    let (tenant, mut browser, theirs) = (tenant?, browser?, theirs?);
    let stage = Stage { proxy: proxy.serve(tenant.gateway_address()), registry, tenant };

    let mut support = stage.registry.sign_in(theirs, &stage.tenant).await?;
    let (mut page, device_id) = let_in::run(&stage, &mut browser, &mut support).await?;
    compare::run(&stage.tenant).await?;
    faults::daemon_killed(&stage.tenant, &device_id).await?;
    wishes::run(&stage.tenant).await?;
    faults::gateway_killed(&stage.tenant, &mut page, &device_id).await?;
    faults::status(&stage.tenant).await?;
    browser.close().await?;
    println!("\n(The demo took {}.)", terminal::duration(clock.elapsed()));
    Ok((stage, support))
}

/// SIGTERM, as the platform sends it.
async fn stop(mut stage: Stage, mut support: Support) -> anyhow::Result<()> {
    step("The platform stops the machine: SIGTERM");
    support.sees_it_stop(&mut stage.tenant).await?;
    support.close().await?;
    drop(stage);
    println!("\nEverything is stopped and removed again, except the pictures in {DIR}.");
    Ok(())
}

async fn keep(stage: &Stage) -> anyhow::Result<()> {
    step("Yours to play with, until Ctrl-C");
    stage.tenant.control_plane.show_commands(&stage.tenant);
    say("To be support, open");
    stage.registry.show();
    say("To be the user, open this in a browser on this machine; it waits until you approve it:");
    terminal::output(&format!("{}/#token={}", stage.proxy.origin(), stage.tenant.machine.gateway_token()?));
    interruption().await
}
