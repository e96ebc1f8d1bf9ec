//! The same approval, by the sidecar and by the gateway's own command line, on fresh devices that really wait.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    process::Process,
    support::device::{Operator, RemoteDevice},
    tenant::Tenant,
    terminal::{duration, say, step, table},
};

const RUNS: usize = 3;

/// What one approval cost.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

pub async fn run(tenant: &Tenant) -> anyhow::Result<()> {
    step("What an approval costs");
    say(&format!("{RUNS} new devices wait and are approved by each; the figures are medians."));
    let mut operator = tenant.machine.operator().await?;
    let daemon = tenant.daemon()?;
    // The first run of each fills caches that later runs find warm.
    by_sidecar(tenant, daemon, &mut operator).await?;
    tenant.cli(&["devices", "list", "--json"]).await?;

    let before = daemon.memory()?.rss;
    let mut ours = Vec::new();
    for _ in 0..RUNS {
        ours.push(by_sidecar(tenant, daemon, &mut operator).await?);
    }
    let after = daemon.memory()?.rss;
    let (mut theirs, mut peak) = (Vec::new(), 0);
    for _ in 0..RUNS {
        let (cost, rss) = by_cli(tenant, &mut operator).await?;
        theirs.push(cost);
        peak = peak.max(rss);
    }
    show(median(ours), median(theirs), after.saturating_sub(before), after, peak);
    out_of_band(tenant).await
}

/// The sidecar tells its own approvals from those of others.
async fn out_of_band(tenant: &Tenant) -> anyhow::Result<()> {
    let count = |pairing: &Value| {
        let approved = pairing["approved"].as_array().into_iter().flatten();
        approved.filter(|device| device["approved_by"] == "out_of_band").count()
    };
    tenant.client().wait_until("/v1/pairing", |pairing| count(pairing) == RUNS, Duration::from_secs(30)).await?;
    say(&format!(
        "And it noticed: /v1/pairing lists the {RUNS} approvals of the command line as `out_of_band`, not as its own."
    ));
    Ok(())
}

/// One HTTPS request on a new connection, TLS handshake included.
async fn by_sidecar(tenant: &Tenant, daemon: Process, operator: &mut Operator) -> anyhow::Result<Cost> {
    let (device, request_id) = waiting_device(tenant).await?;
    let client = tenant.client();
    let before = daemon.threads()?;
    let clock = Instant::now();
    let reply = client.post("/v1/pairing/approve", &json!({ "kind": "device", "request_id": request_id })).await?;
    let wall = clock.elapsed();
    let cpu = Duration::from_nanos(daemon.threads()?.since(&before).cpu_ns);
    ensure!(reply.json()["outcome"] == "approved", "not approved: {}", reply.json());
    verify(operator, &device).await?;
    Ok(Cost { wall, cpu })
}

/// `openclaw devices approve`, as it would be run inside the machine.
async fn by_cli(tenant: &Tenant, operator: &mut Operator) -> anyhow::Result<(Cost, u64)> {
    let (device, request_id) = waiting_device(tenant).await?;
    let run = tenant.cli(&["devices", "approve", &request_id, "--json"]).await?;
    ensure!(run.status.success(), "openclaw devices approve failed: {}", run.stderr);
    verify(operator, &device).await?;
    Ok((Cost { wall: run.wall, cpu: run.cpu }, run.peak_rss_kib))
}

async fn waiting_device(tenant: &Tenant) -> anyhow::Result<(RemoteDevice, String)> {
    let mut device = tenant.machine.browser()?;
    let request_id = device.attempt().await?.request_id()?.to_owned();
    Ok((device, request_id))
}

/// The gateway's own record decides whether an approval counts.
async fn verify(operator: &mut Operator, device: &RemoteDevice) -> anyhow::Result<()> {
    operator.paired_device(device.device_id()).await?.context("the gateway did not pair the device")?;
    Ok(())
}

fn median(mut costs: Vec<Cost>) -> Cost {
    let middle = costs.len() / 2;
    costs.sort_by_key(|cost| cost.wall);
    let wall = costs[middle].wall;
    costs.sort_by_key(|cost| cost.cpu);
    Cost { wall, cpu: costs[middle].cpu }
}

fn show(ours: Cost, theirs: Cost, grown_kib: u64, rss_kib: u64, peak_kib: u64) {
    let times = |ours: Duration, theirs: Duration| format!("{:.0} x", theirs.as_secs_f64() / ours.as_secs_f64());
    let mib = |kib: u64| format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024);
    let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
    table(&[
        row(["", "openclaw-sidecar", "openclaw devices approve", ""]),
        row([
            "time until it is approved",
            &duration(ours.wall),
            &duration(theirs.wall),
            &times(ours.wall, theirs.wall),
        ]),
        row(["CPU time it takes", &duration(ours.cpu), &duration(theirs.cpu), &times(ours.cpu, theirs.cpu)]),
        row(["memory it adds while it runs", &mib(grown_kib), &mib(peak_kib), ""]),
    ]);
    say(&format!(
        "The sidecar runs all the time and holds {} in all (a debug build; `make bench` measures a release). What the \
         gateway itself spends is in neither column of CPU time. Bringing the command into the machine, by a shell or \
         an exec API, comes on top of the second column.",
        mib(rss_kib)
    ));
}
