//! Row 1: approving a real pending device by the daemon, by a bare RPC, and by the gateway's own command line.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    lab::{Lab, get, waiting_device},
    process::Process,
    report::{Line, Report},
    stats::{Figure, Samples},
    support::{client::Client, device::Operator, gateway::Gateway},
};

const LOOKS: usize = 300;
const WARM_UP: usize = 3;
/// What the daemon does after its answer (taking in the gateway's events) counts as a cost of the approval too.
const AFTERMATH: Duration = Duration::from_millis(30);

#[derive(Default)]
struct Cost {
    wall: Samples,
    /// Nanoseconds.
    cpu: Samples,
}

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (runs, cli_runs) = (lab.runs(100, 50), lab.runs(5, 3));
    let (gateway, sidecar) = lab.pair().await?;
    let (client, process) = (sidecar.client(), Process(sidecar.pid()));
    let mut operator = Operator::connect(gateway.port(), gateway.token()).await?;
    let mut warm_up = Cost::default();
    for _ in 0..WARM_UP {
        by_rpc(gateway, &mut operator, &mut warm_up.wall).await?;
        by_sidecar(gateway, &client, process, &mut warm_up).await?;
    }

    process.forget_peak()?;
    let before = process.memory()?.rss;
    let (mut rpc, mut ours) = (Samples::default(), Cost::default());
    for _ in 0..runs {
        by_rpc(gateway, &mut operator, &mut rpc).await?;
        by_sidecar(gateway, &client, process, &mut ours).await?;
    }
    let (peak, after) = (process.peak_kib()?, process.memory()?.rss);

    let (mut cli, mut list, mut cli_peak) = (Cost::default(), Cost::default(), 0);
    // The first call fills caches that later calls find warm.
    gateway.cli(&["devices", "list", "--json"]).await?;
    for _ in 0..cli_runs {
        let (_, request_id) = waiting_device(gateway).await?;
        cli_peak = cli_peak.max(by_cli(gateway, &["devices", "approve", &request_id, "--json"], &mut cli).await?);
        by_cli(gateway, &["devices", "list", "--json"], &mut list).await?;
    }
    let (state, pairing) = (looks(&client, "/v1/state").await?, looks(&client, "/v1/pairing").await?);

    let cpu = |cost: &Cost| Figure::nanoseconds(cost.cpu.mean());
    let lines = [
        Line::at_most_times("approve, p50, reference: bare RPC", ours.wall.time(50), rpc.time(50), 1.3),
        Line::compare("approve, p90", ours.wall.time(90), rpc.time(90)),
        Line::at_least_times_less("approve, p50, reference: CLI", ours.wall.time(50), cli.wall.time(50), 80.0),
        Line::at_least_times_less("CPU of an approval, mean, reference: CLI", cpu(&ours), cpu(&cli), 3000.0),
        Line::at_most(
            "memory added while approving, reference: CLI",
            Figure::kib(peak.saturating_sub(before)),
            Figure::Size(500_000.0),
        )
        .beside(Figure::kib(cli_peak)),
        Line::info("resident memory before -> after", format!("{} -> {}", Figure::kib(before), Figure::kib(after)), ""),
        Line::at_least_times_less("GET /v1/state, p50, reference: CLI list", state.time(50), list.wall.time(50), 500.0),
        Line::at_least_times_less(
            "GET /v1/pairing, p50, reference: CLI list",
            pairing.time(50),
            list.wall.time(50),
            500.0,
        ),
    ];
    let title = format!(
        "1. approve a waiting device: over HTTPS n = {}, bare RPC n = {}, CLI n = {cli_runs}",
        ours.wall.len(),
        rpc.len()
    );
    report.table(&title, &lines);
    Ok(())
}

/// `device.pair.approve` on a warm session.
async fn by_rpc(gateway: &Gateway, operator: &mut Operator, wall: &mut Samples) -> anyhow::Result<()> {
    let (_, request_id) = waiting_device(gateway).await?;
    let clock = Instant::now();
    operator.approve(&request_id).await?;
    wall.add_time(clock.elapsed());
    // Both kinds of rounds are spaced alike, so neither finds the gateway busier.
    sleep(AFTERMATH).await;
    Ok(())
}

/// The same over HTTPS on a kept connection; the answer says what the gateway's record says.
async fn by_sidecar(gateway: &Gateway, client: &Client, process: Process, cost: &mut Cost) -> anyhow::Result<()> {
    let (device, request_id) = waiting_device(gateway).await?;
    let body = json!({ "kind": "device", "request_id": request_id });
    let cpu = process.cpu_ns()?;
    let clock = Instant::now();
    let reply = client.post("/v1/pairing/approve", &body).await?;
    cost.wall.add_time(clock.elapsed());
    let answer = reply.json();
    ensure!(answer["outcome"] == "approved", "not approved: {answer}");
    ensure!(answer["device"]["device_id"] == device.device_id(), "another device: {answer}");
    sleep(AFTERMATH).await;
    cost.cpu.add(process.cpu_ns()? - cpu);
    Ok(())
}

/// Returns the largest resident set in kilobytes.
async fn by_cli(gateway: &Gateway, arguments: &[&str], cost: &mut Cost) -> anyhow::Result<u64> {
    let run = gateway.cli(arguments).await.context("the gateway's command line")?;
    ensure!(run.status.success(), "openclaw {arguments:?}: {} {}", run.status, run.stderr);
    cost.wall.add_time(run.wall);
    cost.cpu.add(run.cpu.as_secs_f64() * 1e9);
    Ok(run.peak_rss_kib)
}

async fn looks(client: &Client, path: &str) -> anyhow::Result<Samples> {
    let mut wall = Samples::default();
    for _ in 0..LOOKS {
        let clock = Instant::now();
        get(client, path).await?;
        wall.add_time(clock.elapsed());
    }
    Ok(wall)
}
