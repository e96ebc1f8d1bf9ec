//! `make bench`: what the sidecar costs, measured beside its references in the same run.
//!
//! `bench [row...]` measures all rows or only those named. Real gateway, real daemon binary, real pending devices;
//! the CPU figures are the daemon's own, from `/proc`, so that the client's cost is in none of them. `BENCH_QUICK=1`
//! shortens the waiting. A missed goal is printed as MISSED and is no failure; only what could not be measured is.
//! `bench floor` is the reference server and `bench started` what stands in for a gateway, both run by the bench itself.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a benchmark talks to the terminal"
)]

#[path = "bench/approvals.rs"]
mod approvals;
#[path = "bench/burst.rs"]
mod burst;
#[path = "bench/checkins.rs"]
mod checkins;
#[path = "bench/events.rs"]
mod events;
#[path = "bench/fleet.rs"]
mod fleet;
#[path = "bench/floor.rs"]
mod floor;
#[path = "bench/footprint.rs"]
mod footprint;
#[path = "bench/idle.rs"]
mod idle;
#[path = "bench/lab.rs"]
mod lab;
#[path = "bench/load.rs"]
mod load;
#[path = "bench/postgres.rs"]
mod postgres;
#[path = "bench/process.rs"]
mod process;
#[path = "bench/report.rs"]
mod report;
#[path = "bench/requests.rs"]
mod requests;
#[path = "bench/seed.rs"]
mod seed;
#[path = "bench/sim.rs"]
mod sim;
#[path = "bench/stats.rs"]
mod stats;
#[path = "bench/tenants.rs"]
mod tenants;
#[path = "bench/throttle.rs"]
mod throttle;
#[path = "bench/throttled.rs"]
mod throttled;

mod support;

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use tokio::time::timeout;

use lab::Lab;
use report::Report;

/// The rows in the order they run; the throttled one last, because the gateway is not itself afterwards.
const ROWS: [&str; 14] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "sim", "throttled"];
/// No row takes longer, whatever hangs.
const ROW_LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("floor") => floor::serve().map(|()| true),
        Some("started") => seed::stand_in(arguments.get(1).map_or("", String::as_str)).map(|()| true),
        _ => measure(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything asked for could be measured.
fn measure(arguments: &[String]) -> anyhow::Result<bool> {
    let rows = chosen(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        tokio::select! {
            measured = run(&rows) => measured,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

fn chosen(arguments: &[String]) -> anyhow::Result<Vec<&'static str>> {
    let row = |name: &String| {
        let known = ROWS.into_iter().find(|row| row == name);
        known.with_context(|| format!("no row {name}; there are {}", ROWS.join(", ")))
    };
    let mut rows: Vec<&str> = arguments.iter().map(row).collect::<anyhow::Result<_>>()?;
    if rows.is_empty() {
        rows = ROWS.to_vec();
    }
    // One measurement answers both.
    if rows.contains(&"4") {
        rows.retain(|row| *row != "6");
    }
    Ok(rows)
}

async fn run(rows: &[&str]) -> anyhow::Result<bool> {
    let mut lab = Lab::new();
    let mut report = Report::new()?;
    report.head(&lab)?;
    let mut all = true;
    for row in rows {
        let measured = timeout(ROW_LIMIT, run_row(row, &mut lab, &mut report)).await;
        if let Err(error) = measured.context("it takes too long").and_then(|measured| measured) {
            report.say(&format!("\nrow {row}: could not be measured: {error:#}"));
            all = false;
        }
        report.save()?;
    }
    report.foot();
    report.save()?;
    Ok(all)
}

async fn run_row(row: &str, lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    match row {
        "1" => approvals::run(lab, report).await,
        "2" => requests::state(lab, report).await,
        "3" => events::run(lab, report).await,
        "4" | "6" => idle::run(lab, report).await,
        "5" => burst::run(lab, report).await,
        "7" => footprint::size(report).await,
        "8" => footprint::start(report).await,
        "9" => requests::handshake(lab, report).await,
        "10" => seed::run(lab, report).await,
        "11" => checkins::run(lab, report).await,
        "12" => tenants::run(lab, report).await,
        "sim" => sim::run(lab, report).await,
        _ => throttled::run(lab, report).await,
    }
}
