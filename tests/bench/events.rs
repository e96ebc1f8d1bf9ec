//! Row 3: how soon a waiting browser is known to whoever follows `/v1/events`.
//!
//! The clock starts before the browser opens its connection, so the gateway's own work is in the figure. A raw
//! operator session beside the daemon's tells how much of it that is.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::{
    lab::Lab,
    report::{Line, Report},
    stats::{Figure, Samples},
    support::{
        client::EventStream,
        device::{Attempt, Operator, RemoteDevice},
    },
};

const LIMIT: Duration = Duration::from_secs(30);
const WARM_UP: usize = 5;
const GOAL: Figure = Figure::Time(0.050);

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let runs = lab.runs(200, 50);
    let (gateway, sidecar) = lab.pair().await?;
    let mut operator = Operator::connect(gateway.port(), gateway.token()).await?;
    let mut stream = sidecar.client().events("/v1/events", None).await?;
    let (mut ours, mut raw, mut added) = (Samples::default(), Samples::default(), Samples::default());
    for run in 0..WARM_UP + runs {
        let mut device = RemoteDevice::browser(gateway.port(), gateway.token());
        let device_id = device.device_id().to_owned();
        let clock = Instant::now();
        let (attempt, seen, told) =
            tokio::join!(device.attempt(), seen(&mut stream, &device_id), told(&mut operator, &device_id));
        let (attempt, seen, told): (Attempt, Instant, Instant) = (attempt?, seen?, told?);
        if run >= WARM_UP {
            ours.add_time(seen - clock);
            raw.add_time(told - clock);
            added.add_time(seen.saturating_duration_since(told));
        }
        operator.reject(attempt.request_id()?).await?;
    }
    let lines = [
        Line::compare("browser starts to connect -> seen, p50", ours.time(50), raw.time(50)),
        Line::at_most("browser starts to connect -> seen, p99", ours.time(99), GOAL).beside(raw.time(99)),
        Line::info("after the gateway's own event, p50", added.time(50), ""),
        Line::info("after the gateway's own event, p99", added.time(99), ""),
    ];
    let n = ours.len();
    report.table(&format!("3. pending request -> /v1/events, reference: a raw operator session, n = {n}"), &lines);
    Ok(())
}

async fn seen(stream: &mut EventStream, device_id: &str) -> anyhow::Result<Instant> {
    let wanted = |event: &crate::support::client::Event| {
        event.event == "pairing.requested" && event.json()["device_id"] == device_id
    };
    stream.wait_for(wanted, LIMIT).await.context("in /v1/events")?;
    Ok(Instant::now())
}

async fn told(operator: &mut Operator, device_id: &str) -> anyhow::Result<Instant> {
    let end = Instant::now() + LIMIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let payload = operator.wait_event("device.pair.requested", left).await?;
        if payload["deviceId"] == device_id {
            return Ok(Instant::now());
        }
    }
}
