//! The end of row 1: what a caller gets from a machine that has next to no processor left.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::{
    lab::{Lab, waiting_device},
    report::{Line, Report},
    stats::{Figure, Samples},
    support::{
        client::{Client, Reply},
        device::Operator,
    },
    throttle::Throttle,
};

const GOAL: Figure = Figure::Time(2.0);
/// An answer that takes longer ends the measurement.
const LIMIT: Duration = Duration::from_secs(50);

/// The three calls measured.
#[derive(Default)]
struct Answers {
    approve: Samples,
    pairing: Samples,
    state: Samples,
    outcomes: BTreeMap<String, usize>,
    /// Ids of the devices that are in, as the answers say.
    approved: Vec<String>,
}

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let runs = lab.runs(30, 20);
    let (gateway, sidecar) = lab.pair().await?;
    // They have to ask while the gateway is still quick.
    let mut waiting = Vec::new();
    for _ in 0..runs {
        waiting.push(waiting_device(gateway).await?.1);
    }
    let gateway_pid = gateway.pid().context("the gateway runs")?;
    let throttle = match Throttle::apply(&[gateway_pid, sidecar.pid()]) {
        Ok(throttle) => throttle,
        Err(error) => {
            report.say(&format!("\nthrottled: NOT MEASURED, SKIPPED: {error:#}"));
            return Ok(());
        }
    };
    let mut answers = Answers::default();
    for request_id in &waiting {
        answers.round(&sidecar.client(), request_id).await?;
    }
    let how = throttle.how;
    drop(throttle);
    let mut operator = Operator::connect(gateway.port(), gateway.token()).await?;
    for device_id in &answers.approved {
        ensure!(operator.paired_device(device_id).await?.is_some(), "{device_id} was said to be approved");
    }
    let mut lines = Vec::new();
    for (what, samples) in [
        ("POST approve?wait_s=1", &answers.approve),
        ("GET /v1/pairing", &answers.pairing),
        ("GET /v1/state", &answers.state),
    ] {
        lines.push(Line::info(&format!("{what}, p50"), samples.time(50), ""));
        lines.push(Line::at_most(&format!("{what}, slowest"), samples.time(100), GOAL));
    }
    let outcomes: Vec<String> = answers.outcomes.iter().map(|(name, count)| format!("{count} {name}")).collect();
    report.table(&format!("1, throttled. gateway and sidecar: {how}, n = {runs}"), &lines);
    report.say(&format!("  answers to approve: {}", outcomes.join(", ")));
    Ok(())
}

impl Answers {
    /// Each on a connection of its own, TLS handshake included, as after a pause.
    async fn round(&mut self, client: &Client, request_id: &str) -> anyhow::Result<()> {
        let body = json!({ "kind": "device", "request_id": request_id });
        let answer = timed(&mut self.approve, client.post("/v1/pairing/approve?wait_s=1", &body)).await?;
        let name = answer["outcome"].as_str().or_else(|| answer["code"].as_str());
        let name = name.with_context(|| format!("neither outcome nor code: {answer}"))?;
        *self.outcomes.entry(name.to_owned()).or_default() += 1;
        if name == "approved" {
            self.approved.extend(answer["device"]["device_id"].as_str().map(str::to_owned));
        }
        let pairing = timed(&mut self.pairing, client.get("/v1/pairing")).await?;
        ensure!(pairing["pending"].is_array(), "no list: {pairing}");
        let state = timed(&mut self.state, client.get("/v1/state")).await?;
        ensure!(state["phase"].is_string(), "no phase: {state}");
        Ok(())
    }
}

async fn timed(samples: &mut Samples, call: impl Future<Output = anyhow::Result<Reply>>) -> anyhow::Result<Value> {
    let clock = Instant::now();
    let reply = timeout(LIMIT, call).await.context("no answer")??;
    samples.add_time(clock.elapsed());
    Ok(reply.json())
}
