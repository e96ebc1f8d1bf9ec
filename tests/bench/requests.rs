//! Rows 2 and 9: the daemon's CPU for a request and for a TLS handshake, beside the bare floor.
//!
//! Both servers are asked in turns, so that a change of the machine's speed meets both.

use anyhow::ensure;
use tokio::task::JoinSet;

use crate::{
    floor::{Body, Floor},
    lab::{Lab, get},
    process::Process,
    report::{Line, Report},
    stats::{Figure, Samples, float},
    support::client::Client,
};

const STATE: &str = "/v1/state";
const TURNS: usize = 20;
const REQUESTS_A_TURN: usize = 300;
const HANDSHAKES_A_TURN: usize = 30;
const CALLERS: usize = 32;

/// Row 2.
pub async fn state(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (_, sidecar) = lab.pair().await?;
    let body = sidecar.client().get(STATE).await?.text();
    let same = Floor::start(&body, Body::Ready).await?;
    let serialised = Floor::start(&body, Body::Serialised).await?;
    let servers = [
        (sidecar.client(), Process(sidecar.pid())),
        (same.client.clone(), same.process()?),
        (serialised.client.clone(), serialised.process()?),
    ];
    let mut lines = Vec::new();
    for callers in [1, CALLERS] {
        let [ours, floor, serialising] = in_turns(&servers, callers).await?;
        let what = if callers == 1 { "one caller".to_owned() } else { format!("{callers} at once") };
        lines.push(Line::at_most_times(&format!("CPU per request, {what}"), ours, floor, 1.5));
        lines.push(Line::compare("  reference: a floor that serialises that JSON anew", ours, serialising));
    }
    let n = TURNS * REQUESTS_A_TURN;
    report.table(&format!("2. GET /v1/state, {} bytes, keep-alive, n = {n} each", body.len()), &lines);
    Ok(())
}

async fn in_turns(servers: &[(Client, Process); 3], callers: usize) -> anyhow::Result<[Figure; 3]> {
    let mut cpu: [Samples; 3] = Default::default();
    for turn in 0..=TURNS {
        for ((client, process), samples) in servers.iter().zip(&mut cpu) {
            let spent = requests(client, *process, callers).await?;
            // The first turn warms up.
            if turn > 0 {
                samples.add(spent);
            }
        }
    }
    Ok(cpu.map(|samples| Figure::nanoseconds(samples.percentile(50))))
}

/// CPU nanoseconds of the server for each of a turn's requests.
async fn requests(client: &Client, process: Process, callers: usize) -> anyhow::Result<f64> {
    let each = REQUESTS_A_TURN.div_ceil(callers);
    if callers == 1 {
        get(client, STATE).await?;
    }
    let before = process.threads()?;
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        // Clones share the kept connections, so every caller gets one and nobody shakes hands twice.
        let client = client.clone();
        tasks.spawn(async move {
            for _ in 0..each {
                get(&client, STATE).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(float(process.threads()?.since(&before).cpu_ns) / float(u64::try_from(each * callers)?))
}

/// Row 9.
pub async fn handshake(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (_, sidecar) = lab.pair().await?;
    let floor = Floor::start("{}", Body::Ready).await?;
    let servers = [(sidecar.client(), Process(sidecar.pid())), (floor.client.clone(), floor.process()?)];
    let mut cpu: [Samples; 2] = Default::default();
    for turn in 0..=TURNS {
        for ((client, process), samples) in servers.iter().zip(&mut cpu) {
            let spent = handshakes(client, *process).await?;
            if turn > 0 {
                samples.add(spent);
            }
        }
    }
    let [ours, floor] = cpu.map(|samples| Figure::nanoseconds(samples.percentile(50)));
    let n = TURNS * HANDSHAKES_A_TURN;
    let lines = [Line::at_most_times("CPU per connection", ours, floor, 1.2)];
    report.table(&format!("9. new connection, full TLS 1.3 handshake, GET /livez, n = {n} each"), &lines);
    Ok(())
}

async fn handshakes(client: &Client, process: Process) -> anyhow::Result<f64> {
    let before = process.threads()?;
    for _ in 0..HANDSHAKES_A_TURN {
        client.forget_connections();
        let reply = client.get("/livez").await?;
        ensure!(reply.status == 200, "/livez: {}", reply.status);
    }
    Ok(float(process.threads()?.since(&before).cpu_ns) / float(u64::try_from(HANDSHAKES_A_TURN)?))
}
