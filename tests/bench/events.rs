//! Row 3: how soon a waiting browser is known to whoever follows `/v1/events`, and to whoever asks the registry.
//!
//! The clock starts before the browser opens its connection, so the gateway's own work is in the figure. A raw
//! operator session beside the daemon's tells how much of it that is.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    lab::Lab,
    report::{Line, Report},
    stats::{Figure, Samples},
    support::{
        client::EventStream,
        device::{Attempt, Operator, RemoteDevice},
        service::{Place, Service},
        sidecar::Sidecar,
    },
};

const LIMIT: Duration = Duration::from_secs(30);
const WARM_UP: usize = 5;
const GOAL: Figure = Figure::Time(0.050);
const REGISTRY_GOAL: Figure = Figure::Time(2.5);
/// A sidecar that has much to say is held to six messages a minute, and each turn takes it two: one more would be no
/// browser that comes out of the blue.
const APART: Duration = Duration::from_secs(21);
const POLL: Duration = Duration::from_millis(5);

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
    registry(lab, report).await
}

/// Until it can be read in the registry's API: a real registry, a real sidecar that phones home to it over HTTPS.
async fn registry(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let runs = lab.runs(20, 3);
    let service = Service::start(Place::new()?.with("CHECKIN_INTERVAL_S", 300), None).await?;
    let enrolled = service.enrol("acme").await?;
    let gateway = lab.gateway().await?;
    let builder = Sidecar::builder().gateway_config(gateway.port(), &gateway.config_path());
    let settings = service.settings("acme", &enrolled);
    let told = settings.iter().fold(builder, |b, (key, value)| b.env(&format!("OPENCLAW_SIDECAR_{key}"), value));
    let _sidecar = told.start().await?;
    service.wait("acme", |tenant| tenant["status"] == "ready", LIMIT).await?;
    let mut operator = Operator::connect(gateway.port(), gateway.token()).await?;
    let (mut shown, mut gone) = (Samples::default(), Samples::default());
    for _ in 0..runs {
        sleep(APART).await;
        let mut device = RemoteDevice::browser(gateway.port(), gateway.token());
        let device_id = device.device_id().to_owned();
        let clock = Instant::now();
        let (attempt, seen) = tokio::join!(device.attempt(), pending(&service, |all| all.contains(&device_id)));
        let attempt: Attempt = attempt?;
        shown.add_time(seen? - clock);
        let clock = Instant::now();
        operator.reject(attempt.request_id()?).await?;
        gone.add_time(pending(&service, |all| !all.contains(&device_id)).await? - clock);
    }
    let lines = [
        Line::info("browser starts to connect -> read in the registry, p50", shown.time(50), ""),
        Line::at_most("browser starts to connect -> read in the registry, p99", shown.time(99), REGISTRY_GOAL),
        Line::info("decided by somebody else -> gone there, p50", gone.time(50), ""),
        Line::info("decided by somebody else -> gone there, p99", gone.time(99), ""),
    ];
    report.table(&format!("3. pending request -> the registry's API, n = {}", shown.len()), &lines);
    Ok(())
}

/// When what waits, as the registry tells it, is as wanted.
async fn pending(service: &Service, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Instant> {
    let (end, client) = (Instant::now() + LIMIT, service.support());
    loop {
        let tenant = client.get("/v1/support/tenants/acme").await?.json();
        if wanted(&tenant["report"]["pairing"]["pending"].to_string()) {
            return Ok(Instant::now());
        }
        ensure!(Instant::now() < end, "the registry did not come to know it: {tenant}");
        sleep(POLL).await;
    }
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
