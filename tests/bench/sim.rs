//! `sim`: a fleet of the daemon's own check-ins in one process, over HTTPS to a real registry that goes away and comes
//! back while sleeping machines wake. Each machine has a thread for its check-ins and one for its audit, as the daemon.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    lab::Lab,
    process::Process,
    report::{Line, Report},
    stats::{Figure, float},
    support::{
        service::{Place, Service},
        swarm::Swarm,
    },
};

/// Longer than thirty seconds, so that the registry knows that it was blind.
const OUTAGE: Duration = Duration::from_secs(45);
/// One interval.
const STEADY: Duration = Duration::from_secs(60);
/// After such an outage a few of thousands have come to pauses of four minutes.
const SETTLES: Duration = Duration::from_secs(420);
const LOOK: Duration = Duration::from_secs(1);
const INTERVAL_S: u32 = 60;

pub async fn run(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let count = lab.runs(2000, 300);
    let service = Service::start(Place::new()?.with("CHECKIN_INTERVAL_S", INTERVAL_S), None).await?;
    let mut swarm = Swarm::enrolled(count, &service).await?;
    let began = Instant::now();
    for (n, machine) in swarm.machines.iter_mut().enumerate() {
        machine.wake().await?;
        machine.ready()?;
        if n % 10 == 0 {
            machine.asked(&format!("request-{n}"))?;
        }
    }
    let woken = began.elapsed();
    let start = watched(&service, &swarm).await?;
    for machine in swarm.machines.iter_mut().skip(1).step_by(4) {
        machine.sleep().await?;
    }
    let before = Counted::read(&service).await?;
    sleep(STEADY).await;
    let steady = Counted::read(&service).await?.since(&before);

    let tls = service.tls();
    let place = service.kill().await?;
    for (n, machine) in swarm.machines.iter_mut().enumerate() {
        if !machine.is_awake() {
            machine.wake().await?;
            machine.ready()?;
        } else if n % 10 == 0 {
            machine.decided().await?;
        }
    }
    sleep(OUTAGE).await;
    let service = Service::start(place, Some(tls)).await?;
    let back = watched(&service, &swarm).await?;
    let summary = service.support().get("/v1/support/summary").await?.json();
    let blamed = summary["counts"]["status"]["unreachable"].as_u64().unwrap_or(0);
    ensure!(blamed == 0 && summary["blind"][0].is_object(), "blamed for our absence: {summary}");
    let memory = Figure::kib(Process(service.pid()?).memory()?.rss);
    let mut lines = vec![
        Line::info("all started in", Figure::Time(woken.as_secs_f64()), ""),
        Line::info("all told their state after", Figure::Time(start.seconds), ""),
        Line::info("  check-ins in the busiest second", Figure::Rate(start.peak), ""),
    ];
    lines.extend(later(&steady, &back, usize::try_from(blamed)?));
    lines.push(Line::info("registry, resident memory", memory, ""));
    report
        .table(&format!("sim. {count} sidecars, every {INTERVAL_S} s, over HTTPS, a new connection each time"), &lines);
    Ok(())
}

fn later(steady: &Difference, back: &Watched, blamed: usize) -> [Line; 6] {
    let outage = format!("away for {} s, a quarter wakes; all told after", OUTAGE.as_secs());
    [
        Line::info("steady, three of four awake", Figure::Rate(steady.rate()), ""),
        Line::info("  CPU per check-in, TLS handshake included", steady.cpu, ""),
        Line::info("  from its body to its commit, mean", steady.commit, ""),
        Line::info(&outage, Figure::Time(back.seconds), ""),
        Line::info("  check-ins in the busiest second", Figure::Rate(back.peak), ""),
        Line::info("  of them called unreachable", Figure::count(blamed), ""),
    ]
}

/// How it went until something was so.
struct Watched {
    seconds: f64,
    peak: f64,
}

async fn watched(service: &Service, swarm: &Swarm) -> anyhow::Result<Watched> {
    let (began, mut peak, mut before) = (Instant::now(), 0f64, Counted::read(service).await?);
    loop {
        sleep(LOOK).await;
        let now = Counted::read(service).await?;
        peak = peak.max(now.since(&before).rate());
        let untold = swarm.untold();
        if untold.is_empty() {
            return Ok(Watched { seconds: began.elapsed().as_secs_f64(), peak });
        }
        ensure!(began.elapsed() < SETTLES, "{} have not told all, one of them: {:?}", untold.len(), untold[0]);
        before = now;
    }
}

/// What the registry counted so far.
struct Counted {
    at: Instant,
    taken: f64,
    seconds: f64,
    cpu_ns: u64,
}

struct Difference {
    taken: f64,
    seconds: f64,
    cpu: Figure,
    commit: Figure,
}

impl Difference {
    fn rate(&self) -> f64 {
        self.taken / self.seconds
    }
}

impl Counted {
    async fn read(service: &Service) -> anyhow::Result<Self> {
        let text = service.support().get("/metrics").await?.text();
        let number = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.map_or(Some(0.0), |line| line.rsplit(' ').next()?.parse().ok()).with_context(|| name.to_owned())
        };
        let threads = Process(service.pid()?).threads()?;
        Ok(Self {
            at: Instant::now(),
            taken: number("registry_checkin_seconds_count")?,
            seconds: number("registry_checkin_seconds_sum")?,
            cpu_ns: threads.total().cpu_ns,
        })
    }

    fn since(&self, before: &Self) -> Difference {
        let taken = self.taken - before.taken;
        Difference {
            taken,
            seconds: (self.at - before.at).as_secs_f64(),
            cpu: Figure::nanoseconds(float(self.cpu_ns.saturating_sub(before.cpu_ns)) / taken.max(1.0)),
            commit: Figure::Time((self.seconds - before.seconds) / taken.max(1.0)),
        }
    }
}
