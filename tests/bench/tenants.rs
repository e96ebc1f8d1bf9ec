//! Row 12: a registry with 100,000 tenants in SQLite: what support waits for while check-ins arrive, and what they cost.

use std::{fs, time::Duration};

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    checkins::enrol,
    fleet::{Condition, Member},
    lab::Lab,
    load::{Arriving, Target, dealt, fill},
    process::Process,
    report::{Line, Report},
    stats::{Figure, Samples, float},
    support::{
        client::Client,
        service::{Place, Service},
    },
};

const SENDERS: usize = 64;
/// What 100,000 tenants of whom 30 % are awake send in a second, three times that, and as much of a million.
const RATES: [u32; 3] = [145, 435, 4300];
const GOAL: Figure = Figure::Time(0.100);
/// Those that went silent are to be noticed before anything is measured.
const NOTICED: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(500);

/// What support looks at; `{some}` is one of the tenants, `{middle}` the one in the middle.
const LOOKS: [(&str, &str); 15] = [
    ("console: the fleet", "/"),
    ("console: the fleet, from the middle", "/?after=15.{middle}"),
    ("console: crashed ones", "/?status=crashed"),
    ("console: a region", "/?region=gru"),
    ("console: search, found", "/?q=customer+99"),
    ("console: search, none", "/?q=nobody+is+called+so"),
    ("console: a tenant", "/tenants/{some}"),
    ("summary", "/v1/support/summary"),
    ("list, first page", "/v1/support/tenants?limit=200"),
    ("list, from the middle", "/v1/support/tenants?limit=200&after={middle}"),
    ("list: waiting for approval", "/v1/support/tenants?pairing=1&limit=200"),
    ("list: a finding in a region", "/v1/support/tenants?finding=disk_low&region=gru&limit=200"),
    ("list: a version no one has", "/v1/support/tenants?version=1.0&limit=200"),
    ("tenant", "/v1/support/tenants/{some}"),
    ("/metrics", "/metrics"),
];

pub async fn run(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let count = lab.runs(100_000, 10_000);
    let service = Service::start(Place::new()?.with("CHECKIN_INTERVAL_S", 300), None).await?;
    let (filled, mut hands) = filled(&service, count).await?;
    noticed(&service, count).await?;
    report.say(&format!("\n12. {count} tenants on SQLite: {filled}"));
    for hand in &mut hands {
        hand.retain(|member| member.condition == Condition::Ready);
    }
    for rate in RATES {
        hands = under(&service, hands, rate, lab, report).await?;
    }
    restart(service, report).await
}

/// Creates the fleet and lets every member say what it has to say.
async fn filled(service: &Service, count: usize) -> anyhow::Result<(String, Vec<Vec<Member>>)> {
    let (process, began) = (Process(service.pid()?), Instant::now());
    // In no order that the database could profit from.
    let members: Vec<Member> = (0..count).map(|n| Member::new(n * 7919 % count)).collect();
    let messages: u64 = members.iter().map(Member::messages).sum();
    enrol(service, &members).await?;
    let (created, before) = (began.elapsed(), process.threads()?);
    let mut hands = dealt(members, SENDERS);
    fill(&Target::plain(service.edge()), &mut hands).await?;
    let took = began.elapsed().as_secs_f64() - created.as_secs_f64();
    let cpu = Figure::nanoseconds(float(process.threads()?.since(&before).cpu_ns) / float(messages));
    let told = format!(
        "created in {:.0} s, {messages} check-ins in {took:.0} s ({:.0} /s, {cpu} of CPU each, full of news)",
        created.as_secs_f64(),
        float(messages) / took
    );
    Ok((told, hands))
}

async fn noticed(service: &Service, count: usize) -> anyhow::Result<()> {
    let (wanted, end) = (u64::try_from(count / 100)?, Instant::now() + NOTICED);
    loop {
        let summary = service.support().get("/v1/support/summary").await?.json();
        let status = &summary["counts"]["status"];
        if status["unreachable"].as_u64() == Some(wanted) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "of {wanted} silent ones not all were noticed: {status}");
        sleep(POLL).await;
    }
}

/// What everything takes while check-ins arrive at a rate.
async fn under(
    service: &Service,
    hands: Vec<Vec<Member>>,
    rate: u32,
    lab: &Lab,
    report: &mut Report,
) -> anyhow::Result<Vec<Vec<Member>>> {
    let process = Process(service.pid()?);
    let quiet = Duration::from_secs(if lab.quick { 2 } else { 10 });
    let arriving = Arriving::start(&Target::plain(service.edge()), hands, rate);
    // First without anybody who looks: what the check-ins cost.
    sleep(Duration::from_secs(1)).await;
    let (cpu, written, taken, began) = (process.threads()?, written(process)?, taken(service).await?, Instant::now());
    sleep(quiet).await;
    let (spent, seconds) = (process.threads()?.since(&cpu).cpu_ns, began.elapsed().as_secs_f64());
    let (bytes, count) = (self::written(process)? - written, self::taken(service).await? - taken);
    let each = float(spent) / count;
    let mut lines = looks(service, rate <= RATES[1], lab.runs(100_000, 10_000), lab.runs(100, 20)).await?;
    let memory = process.memory()?;
    let (hands, took) = arriving.stop().await?;
    lines.extend([
        Line::info("check-in answered, p50 / p99", format!("{} / {}", took.time(50), took.time(99)), ""),
        Line::info("check-ins taken", Figure::Rate(count / seconds), ""),
        Line::info("CPU per check-in, everything included", Figure::nanoseconds(each), ""),
        Line::info("share of a core", Figure::Percent(float(spent) / 1e7 / seconds), ""),
        Line::info("written to disk per check-in", Figure::Size(float(bytes) / count), ""),
        Line::info("resident memory", Figure::kib(memory.rss), ""),
        Line::info("database / its log", sizes(service.place())?, ""),
    ]);
    report.table(&format!("12. while {rate} check-ins a second arrive"), &lines);
    Ok(hands)
}

async fn looks(service: &Service, goal: bool, count: usize, runs: usize) -> anyhow::Result<Vec<Line>> {
    let cookie = service.console().await?.cookie().to_owned();
    let (support, browser) = (service.support(), service.public());
    let mut lines = Vec::new();
    for (what, path) in LOOKS {
        let mut samples = Samples::default();
        let mut size = 0;
        for run in 0..=runs {
            let path = path.replace("{some}", &format!("tenant-{:06}", run * 997 % count));
            let path = path.replace("{middle}", &format!("tenant-{:06}", count / 2));
            let client = if what.starts_with("console") { &browser } else { &support };
            let began = Instant::now();
            size = look(client, &path, &cookie).await?;
            // The first one warms up.
            if run > 0 {
                samples.add_time(began.elapsed());
            }
        }
        let (what, p50) = (format!("{what}, p99 ({} kB)", size / 1000), format!("p50 {}", samples.time(50)));
        lines.push(if goal {
            Line::at_most(&what, samples.time(99), GOAL).beside(p50)
        } else {
            Line::info(&what, samples.time(99), p50)
        });
    }
    Ok(lines)
}

async fn look(client: &Client, path: &str, cookie: &str) -> anyhow::Result<usize> {
    let reply = client.request("GET", path, &[("cookie", cookie)], None).await?;
    ensure!(reply.status == 200, "{path}: {} {}", reply.status, reply.text());
    Ok(reply.body.len())
}

/// Check-ins that were kept so far, as the registry counts them.
async fn taken(service: &Service) -> anyhow::Result<f64> {
    let text = service.support().get("/metrics").await?.text();
    let line = text.lines().find(|line| line.starts_with("registry_checkins_total{value=\"done\"}"));
    Ok(line.and_then(|line| line.rsplit(' ').next()).context("no count of check-ins")?.parse()?)
}

/// Bytes the process has sent to the disk.
fn written(process: Process) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{}/io", process.0))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("no write_bytes")?.parse()?)
}

fn sizes(place: &Place) -> anyhow::Result<String> {
    let size = |name: &str| anyhow::Ok(Figure::bytes(fs::metadata(place.state_dir().join(name))?.len()));
    Ok(format!("{} / {}", size("registry.db")?, size("registry.db-wal")?))
}

/// From the start of the process to the first page it serves.
async fn restart(service: Service, report: &mut Report) -> anyhow::Result<()> {
    let place = service.kill().await?;
    let began = Instant::now();
    let service = Service::start(place, None).await?;
    let listens = began.elapsed();
    service.support().get("/v1/support/summary").await?;
    let lines = [
        Line::info("killed, started: listens", Figure::Time(listens.as_secs_f64()), ""),
        Line::info("first summary", Figure::Time(began.elapsed().as_secs_f64()), ""),
        Line::info("resident memory then", Figure::kib(Process(service.pid()?).memory()?.rss), ""),
    ];
    report.table("12. restart", &lines);
    Ok(())
}
