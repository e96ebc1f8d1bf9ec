//! Rows 7 and 8: the size of the binary, and how soon a started daemon answers.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

use crate::{
    floor::{Body, Floor},
    lab::get,
    report::{Line, Report},
    stats::{Figure, Samples},
    support::sidecar::{Sidecar, binary},
};

const STARTS: usize = 30;
const PACK_LIMIT: Duration = Duration::from_secs(120);
/// Nobody listens there, as while a gateway boots.
const NO_GATEWAY: u16 = 1;

/// Row 7.
pub async fn size(report: &mut Report) -> anyhow::Result<()> {
    let bytes = std::fs::metadata(binary())?.len();
    let mut lines = vec![Line::at_most("binary", Figure::bytes(bytes), Figure::Size(5e6))];
    lines.push(match packed().await? {
        Some(packed) => Line::at_most("xz -9", Figure::bytes(packed), Figure::Size(2e6)),
        None => Line::info("xz -9", "not measured: no xz here", ""),
    });
    report.table("7. size", &lines);
    Ok(())
}

async fn packed() -> anyhow::Result<Option<u64>> {
    let mut xz = Command::new("xz");
    xz.args(["-9", "--keep", "--stdout"]).arg(binary()).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(PACK_LIMIT, xz.output()).await.context("xz takes too long")? {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    ensure!(output.status.success(), "xz: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(u64::try_from(output.stdout.len())?))
}

/// Row 8.
pub async fn start(report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let builder = Sidecar::builder().state_dir(&dir.path().join("state")).gateway(NO_GATEWAY, "no token yet");
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    // Makes identity and certificate; the starts after it find them.
    let mut first = Samples::default();
    for run in 0..=STARTS {
        let clock = Instant::now();
        let sidecar = builder.clone().start().await?;
        get(&sidecar.client(), "/livez").await?;
        let samples = if run == 0 { &mut first } else { &mut ours };
        samples.add_time(clock.elapsed());
        let status = sidecar.stop().await?;
        ensure!(status.success(), "the daemon ended with {status}");

        let clock = Instant::now();
        let server = Floor::start("{}", Body::Ready).await?;
        get(&server.client, "/livez").await?;
        floor.add_time(clock.elapsed());
    }
    let lines = [
        Line::at_most("exec -> first answer over TLS, p50", ours.time(50), Figure::Time(0.050)).beside(floor.time(50)),
        Line::compare("exec -> first answer over TLS, p90", ours.time(90), floor.time(90)),
        Line::info("the very first start (makes key and certificate)", first.time(50), ""),
    ];
    report.table(&format!("8. start, reference: the floor server, n = {STARTS} each"), &lines);
    Ok(())
}
