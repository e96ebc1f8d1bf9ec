//! Rows 4 and 6: what the daemon costs while nothing happens, its session with the gateway up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    lab::Lab,
    process::{Process, Work},
    report::{Line, Report},
    stats::{Figure, float},
};

const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (settle, window) = if lab.quick { (5, 10) } else { (120, 60) };
    let (_, sidecar) = lab.pair().await?;
    let process = Process(sidecar.pid());
    sleep(Duration::from_secs(settle)).await;

    let (clock, mut work, mut last) = (Instant::now(), Work::default(), process.threads()?);
    while clock.elapsed() < Duration::from_secs(window) {
        // Often enough that a thread that ends is counted nearly to its end.
        sleep(LOOK_EVERY).await;
        let now = process.threads()?;
        work = work.plus(now.since(&last));
        last = now;
    }
    let elapsed = clock.elapsed().as_secs_f64();
    let cpu_percent = float(work.cpu_ns) / 1e9 / elapsed * 100.0;
    let switches_a_second = float(work.switches) / elapsed;
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
        Line::info("   threads", last.count(), ""),
    ];
    report.table(&format!("4, 6. idle for {window} s, {settle} s after the start"), &lines);
    Ok(())
}
