//! Row 1: approving a real pending device by the daemon, by a bare RPC, and by the gateway's own command line.
//!
//! Every device is removed again after its turn, so that the last approval finds the gateway as the first one did: a
//! tenant has a handful of devices. What a hundred of them change is shown apart.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    lab::{Lab, get, waiting_device},
    process::Process,
    report::{Line, Report},
    stats::{Figure, Samples, float},
    support::{
        client::Client,
        device::{Operator, RemoteDevice},
        gateway::Gateway,
        sidecar::Sidecar,
    },
};

const LOOKS: usize = 300;
const WARM_UP: usize = 5;
/// Paired devices of the second series, and how many approvals it measures.
const CROWD: usize = 100;
const CROWD_RUNS: usize = 20;
/// What the daemon does after its answer (taking in the gateway's events) counts as a cost of the approval too.
const AFTERMATH: Duration = Duration::from_millis(30);

#[derive(Default)]
struct Cost {
    wall: Samples,
    /// Nanoseconds.
    cpu: Samples,
}

/// The bare RPC and the daemon, in turns.
#[derive(Default)]
struct Series {
    rpc: Samples,
    ours: Cost,
}

/// The command line's costs.
#[derive(Default)]
struct Cli {
    approve: Cost,
    list: Cost,
    peak_kib: u64,
}

struct Bench<'a> {
    gateway: &'a Gateway,
    operator: Operator,
    client: Client,
    process: Process,
}

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (runs, cli_runs) = (lab.runs(100, 50), lab.runs(5, 3));
    let (gateway, sidecar) = lab.pair().await?;
    let mut bench = Bench::new(gateway, &sidecar).await?;
    bench.series(WARM_UP).await?;
    bench.process.forget_peak()?;
    let before = bench.process.memory()?.rss;
    let series = bench.series(runs).await?;
    let (peak, after) = (bench.process.peak_kib()?, bench.process.memory()?.rss);
    let cli = bench.command_line(cli_runs).await?;
    let (state, pairing) = (looks(&bench.client, "/v1/state").await?, looks(&bench.client, "/v1/pairing").await?);
    let crowded = bench.crowded().await?;

    let (ours, rpc) = (&series.ours, &series.rpc);
    let list = cli.list.wall.time(50);
    let transient = Figure::kib(peak.saturating_sub(after));
    let lines = [
        Line::at_most_times("approve, p50; reference: bare RPC", ours.wall.time(50), rpc.time(50), 1.3),
        Line::compare("approve, p90; reference: bare RPC", ours.wall.time(90), rpc.time(90)),
        Line::at_least_times_less("approve, p50; reference: CLI", ours.wall.time(50), cli.approve.wall.time(50), 80.0),
        Line::at_least_times_less("CPU time, mean; reference: CLI", ours.cpu_mean(), cli.approve.cpu_mean(), 3000.0),
        // "None" within what the kernel's count of the peak is good for.
        Line::at_most("transient memory; reference: CLI", transient, Figure::Size(500_000.0))
            .beside(Figure::kib(cli.peak_kib)),
        Line::info("resident memory before -> after", format!("{} -> {}", Figure::kib(before), Figure::kib(after)), ""),
        Line::at_least_times_less("GET /v1/state, p50; reference: CLI list", state.time(50), list, 500.0),
        Line::at_least_times_less("GET /v1/pairing, p50; reference: CLI list", pairing.time(50), list, 500.0),
        Line::compare(
            &format!("with {CROWD} devices paired: approve, p50; reference: bare RPC"),
            crowded.ours.wall.time(50),
            crowded.rpc.time(50),
        ),
        Line::info("  CPU time, mean", crowded.ours.cpu_mean(), ""),
    ];
    let (n, m) = (ours.wall.len(), rpc.len());
    report.table(
        &format!("1. approve a waiting device: over HTTPS n = {n}, bare RPC n = {m}, CLI n = {cli_runs}"),
        &lines,
    );
    Ok(())
}

impl Cost {
    fn cpu_mean(&self) -> Figure {
        Figure::nanoseconds(self.cpu.mean())
    }
}

impl<'a> Bench<'a> {
    async fn new(gateway: &'a Gateway, sidecar: &Sidecar) -> anyhow::Result<Self> {
        let operator = Operator::connect(gateway.port(), gateway.token()).await?;
        Ok(Self { gateway, operator, client: sidecar.client(), process: Process(sidecar.pid()) })
    }

    async fn series(&mut self, runs: usize) -> anyhow::Result<Series> {
        let mut series = Series::default();
        for _ in 0..runs {
            self.by_rpc(&mut series.rpc).await?;
            self.by_sidecar(&mut series.ours).await?;
        }
        Ok(series)
    }

    /// `device.pair.approve` on a warm session.
    async fn by_rpc(&mut self, wall: &mut Samples) -> anyhow::Result<()> {
        let (device, request_id) = waiting_device(self.gateway).await?;
        let clock = Instant::now();
        self.operator.approve(&request_id).await?;
        wall.add_time(clock.elapsed());
        // Both kinds of rounds are spaced alike, so neither finds the gateway busier.
        sleep(AFTERMATH).await;
        self.remove(&device).await
    }

    /// The same over HTTPS on a kept connection; the answer says what the gateway's record says.
    async fn by_sidecar(&mut self, cost: &mut Cost) -> anyhow::Result<()> {
        let (device, request_id) = waiting_device(self.gateway).await?;
        let body = json!({ "kind": "device", "request_id": request_id });
        let before = self.process.threads()?;
        let clock = Instant::now();
        let reply = self.client.post("/v1/pairing/approve", &body).await?;
        cost.wall.add_time(clock.elapsed());
        let answer = reply.json();
        ensure!(answer["outcome"] == "approved", "not approved: {answer}");
        ensure!(answer["device"]["device_id"] == device.device_id(), "another device: {answer}");
        sleep(AFTERMATH).await;
        cost.cpu.add(float(self.process.threads()?.since(&before).cpu_ns));
        self.remove(&device).await
    }

    async fn remove(&mut self, device: &RemoteDevice) -> anyhow::Result<()> {
        self.operator.call("device.pair.remove", json!({ "deviceId": device.device_id() })).await?;
        Ok(())
    }

    async fn command_line(&mut self, runs: usize) -> anyhow::Result<Cli> {
        let mut cli = Cli::default();
        // The first call fills caches that later calls find warm.
        self.gateway.cli(&["devices", "list", "--json"]).await?;
        for _ in 0..runs {
            let (device, request_id) = waiting_device(self.gateway).await?;
            let arguments = ["devices", "approve", &request_id, "--json"];
            cli.peak_kib = cli.peak_kib.max(by_cli(self.gateway, &arguments, &mut cli.approve).await?);
            self.remove(&device).await?;
            by_cli(self.gateway, &["devices", "list", "--json"], &mut cli.list).await?;
        }
        Ok(cli)
    }

    async fn crowded(&mut self) -> anyhow::Result<Series> {
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            let (device, request_id) = waiting_device(self.gateway).await?;
            self.operator.approve(&request_id).await?;
            crowd.push(device);
        }
        let series = self.series(CROWD_RUNS).await?;
        for device in &crowd {
            self.remove(device).await?;
        }
        Ok(series)
    }
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
