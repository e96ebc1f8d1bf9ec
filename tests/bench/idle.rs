//! Rows 4 and 6: what the daemon costs while nothing happens, its session with the gateway up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    lab::Lab,
    process::Process,
    report::{Line, Report},
    stats::{Figure, float},
};

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (settle, window) = if lab.quick { (5, 10) } else { (120, 60) };
    let (_, sidecar) = lab.pair().await?;
    let process = Process(sidecar.pid());
    sleep(Duration::from_secs(settle)).await;

    let (clock, cpu, switches) = (Instant::now(), process.cpu_ns()?, process.voluntary_switches()?);
    sleep(Duration::from_secs(window)).await;
    let elapsed = clock.elapsed().as_secs_f64();
    let cpu_percent = (process.cpu_ns()? - cpu) / 1e9 / elapsed * 100.0;
    let switches_a_second = float(process.voluntary_switches()? - switches) / elapsed;
    let memory = process.memory()?;

    let lines = [
        Line::at_most("4. resident memory", Figure::kib(memory.rss), Figure::Size(6e6)),
        Line::info(
            "   proportional / private",
            format!("{} / {}", Figure::kib(memory.pss), Figure::kib(memory.private)),
            "",
        ),
        Line::at_most("6. voluntary context switches", Figure::Rate(switches_a_second), Figure::Rate(1.0)),
        Line::at_most("6. CPU, share of a core", Figure::Percent(cpu_percent), Figure::Percent(0.01)),
        Line::info("   threads", process.threads()?, ""),
    ];
    report.table(&format!("4, 6. idle for {window} s, {settle} s after the start"), &lines);
    Ok(())
}
