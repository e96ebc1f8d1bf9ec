//! Row 11: how many check-ins a second are durable before they are acknowledged, beside a server that only acknowledges.
//!
//! The reference is the registry's own listener, limits, credentials and messages without a store (`acks.rs`), so that
//! the ratio is that of durability. Both are asked in turns by the same senders on the same two cores; what a sender
//! says is a whole state, and one in eight brings news that goes into the history.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use openclaw_sidecar::checkin::tls::{Trust, client_config};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    fleet::Member,
    lab::Lab,
    load::{Load, Target, dealt, fill, flat_out},
    postgres::Postgres,
    process::{Process, Threads},
    report::{Line, Report},
    stats::{Figure, Samples, float},
    support::{
        service::{Place, Service},
        sidecar,
    },
};

/// Machines that check in; each sender does it for its share of them, as a proxy in front would.
const MACHINES: usize = 10_000;
const SENDERS: usize = 64;

pub async fn run(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let registry = Process(service.pid()?);
    row("SQLite", 0.6, &service, &move || Ok(vec![registry]), lab, report).await?;
    drop(service);
    let Some(postgres) = Postgres::start().await? else {
        report.say("\n11. PostgreSQL: not measured, it is not installed");
        return Ok(());
    };
    let service = Service::start(Place::new()?.with("STORE", postgres.url()), None).await?;
    let registry = Process(service.pid()?);
    let processes = || Ok(std::iter::once(registry).chain(postgres.processes()?).collect());
    row("PostgreSQL", 0.45, &service, &processes, lab, report).await
}

type Processes<'a> = dyn Fn() -> anyhow::Result<Vec<Process>> + 'a;

/// A server, and the machines that check in there.
struct Asked<'a> {
    target: Target,
    hands: Vec<Vec<Member>>,
    alone: Vec<Vec<Member>>,
    processes: &'a Processes<'a>,
}

/// What was measured of one, in the middle turn.
#[derive(Default)]
struct Measured {
    many: Samples,
    p50: Samples,
    p99: Samples,
    cpu: Samples,
    database: Samples,
    one: Samples,
    one_p50: Samples,
}

async fn row(
    name: &str,
    share: f64,
    service: &Service,
    processes: &Processes<'_>,
    lab: &Lab,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (turns, time) = (lab.runs(5, 1), Duration::from_secs(if lab.quick { 1 } else { 3 }));
    let members: Vec<Member> = (0..=MACHINES).map(Member::ready).collect();
    enrol(service, &members).await?;
    let acks = Acks::start(members.len()).await?;
    let reference = acks.process;
    let only = move || Ok(vec![reference]);
    let mut ours = asked(Target::plain(service.edge()), &members, processes);
    fill(&ours.target, &mut ours.hands).await?;
    fill(&ours.target, &mut ours.alone).await?;
    let mut theirs = asked(Target::plain(acks.address), &members, &only);
    let mut measured = [Measured::default(), Measured::default()];
    for turn in 0..=turns {
        for (asked, measured) in [&mut ours, &mut theirs].into_iter().zip(&mut measured) {
            // The first turn warms up.
            let mut nothing = Measured::default();
            one_turn(asked, if turn == 0 { &mut nothing } else { measured }, time).await?;
        }
    }
    kept(service, &ours).await?;
    let tls = over_tls(service, &mut ours, time).await?;
    let title =
        format!("11. durable check-ins, {name}, {SENDERS} senders, reference: the same without a store, {turns} turns");
    let mut lines = lines(&measured, share);
    lines.push(Line::info("over TLS, kept alive", Figure::Rate(tls.rate()), ""));
    report.table(&title, &lines);
    Ok(())
}

fn lines([ours, acks]: &[Measured; 2], share: f64) -> Vec<Line> {
    let rate = |samples: &Samples| Figure::Rate(samples.percentile(50));
    let mut lines = vec![
        Line::at_least_times("check-ins, 64 senders", rate(&ours.many), rate(&acks.many), share),
        Line::at_least_times("  reference: itself at one sender", rate(&ours.many), rate(&ours.one), 8.0),
        Line::compare("check-ins, one sender", rate(&ours.one), rate(&acks.one)),
        Line::compare("CPU per check-in", ours.cpu.time(50), acks.cpu.time(50)),
    ];
    if ours.database.percentile(50) > 0.0 {
        lines.push(Line::info("  and the database server's", ours.database.time(50), ""));
    }
    lines.extend([
        Line::compare("answered, 64 senders, p50", ours.p50.time(50), acks.p50.time(50)),
        Line::compare("answered, 64 senders, p99", ours.p99.time(50), acks.p99.time(50)),
        Line::compare("answered, one sender, p50", ours.one_p50.time(50), acks.one_p50.time(50)),
    ]);
    lines
}

fn asked<'a>(target: Target, members: &[Member], processes: &'a Processes<'a>) -> Asked<'a> {
    let (alone, many) = members.split_at(1);
    Asked { target, hands: dealt(many.to_vec(), SENDERS), alone: vec![alone.to_vec()], processes }
}

async fn one_turn(asked: &mut Asked<'_>, measured: &mut Measured, time: Duration) -> anyhow::Result<()> {
    let processes = (asked.processes)()?;
    let before = threads(&processes)?;
    let load = flat_out(&asked.target, &mut asked.hands, time).await?;
    let after = threads(&processes)?;
    let cpu = |now: &Threads, then: &Threads| float(now.since(then).cpu_ns) / float(load.count()) / 1e9;
    measured.cpu.add(cpu(&after[0], &before[0]));
    measured.database.add(after.iter().zip(&before).skip(1).map(|(now, then)| cpu(now, then)).sum());
    measured.many.add(load.rate());
    measured.p50.add(load.latency.percentile(50));
    measured.p99.add(load.latency.percentile(99));
    let load = flat_out(&asked.target, &mut asked.alone, time).await?;
    measured.one.add(load.rate());
    measured.one_p50.add(load.latency.percentile(50));
    Ok(())
}

fn threads(processes: &[Process]) -> anyhow::Result<Vec<Threads>> {
    processes.iter().map(|process| process.threads()).collect()
}

/// The registry has what was acknowledged last, of a few.
async fn kept(service: &Service, asked: &Asked<'_>) -> anyhow::Result<()> {
    for member in asked.hands.iter().filter_map(|hand| hand.first()).take(5) {
        let view = service.support().get(&format!("/v1/support/tenants/{}", member.id())).await?.json();
        // It is shown as old as it is by now.
        let uptime = view["report"]["sidecar"]["uptime_s"].as_u64();
        ensure!(uptime.map(|s| s / 300) == Some(member.said()), "{}: {view}", member.id());
    }
    Ok(())
}

async fn over_tls(service: &Service, ours: &mut Asked<'_>, time: Duration) -> anyhow::Result<Load> {
    let mut pin = [0; 32];
    let read = data_encoding::HEXLOWER.decode(service.fingerprint().as_bytes())?;
    pin.copy_from_slice(read.get(..32).context("a fingerprint")?);
    let config = client_config(&Trust::Pin(pin), "").map_err(anyhow::Error::msg)?;
    let target = Target { address: service.tls(), tls: Some(config) };
    flat_out(&target, &mut ours.hands, time).await
}

/// Creates every member over the API, as a control plane does.
pub async fn enrol(service: &Service, members: &[Member]) -> anyhow::Result<()> {
    let (target, key) = (Target::plain(service.edge()), service.place().admin_key().to_owned());
    let mut tasks = JoinSet::new();
    for part in dealt(members.to_vec(), SENDERS) {
        let (target, key) = (target.clone(), key.clone());
        tasks.spawn(async move {
            let mut wire = target.connect().await?;
            for member in part {
                let digest = data_encoding::HEXLOWER.encode(&member.digest());
                let body = json!({"id": member.id(), "label": member.label(), "credential_sha256": digest});
                wire.post("/v1/admin/tenants", &key, body.to_string().as_bytes()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// The reference, as a process of its own.
struct Acks {
    address: std::net::SocketAddr,
    process: Process,
    _child: Child,
}

impl Acks {
    async fn start(members: usize) -> anyhow::Result<Self> {
        let program = sidecar::binary().with_file_name("examples").join("acks");
        let mut child = Command::new(&program)
            .arg(members.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await??.context("it ended")?;
        Ok(Self { address: line.parse()?, process: Process(child.id().context("it ended")?), _child: child })
    }
}
