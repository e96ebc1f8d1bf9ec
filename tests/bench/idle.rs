//! Rows 4 and 6: what launcher and daemon cost while nothing happens, the daemon's session with the gateway up; and how
//! soon the API is back when the daemon is killed.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use crate::{
    lab::Lab,
    process::{Process, Threads, Work},
    report::{Line, Report},
    stats::{Figure, Samples, float},
    support::machine::Machine,
};

const LOOK_EVERY: Duration = Duration::from_millis(500);
const KILLS: usize = 20;

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (settle, window) = if lab.quick { (5, 10) } else { (120, 60) };
    let machine = lab.machine().await?;
    let mut daemon = Watched::new(machine.daemon_pid().context("no daemon")?)?;
    let mut launcher = Watched::new(machine.launcher_pid())?;
    sleep(Duration::from_secs(settle)).await;

    daemon.restart()?;
    launcher.restart()?;
    let clock = Instant::now();
    while clock.elapsed() < Duration::from_secs(window) {
        // Often enough that a thread that ends is counted nearly to its end.
        sleep(LOOK_EVERY).await;
        daemon.look()?;
        launcher.look()?;
    }
    let seconds = clock.elapsed().as_secs_f64();
    let mut lines = memory(&daemon, &launcher)?;
    let (ours, beside) = (daemon.rates(seconds), launcher.rates(seconds));
    lines.extend([
        Line::at_most("6. daemon, voluntary context switches", ours.0, Figure::Rate(1.0)),
        Line::at_most("6. daemon, share of a core", ours.1, Figure::Percent(0.01)),
        Line::info("   launcher, switches / share of a core", format!("{} / {}", beside.0, beside.1), ""),
        Line::info("   threads, daemon / launcher", format!("{} / {}", daemon.last.count(), launcher.last.count()), ""),
    ]);
    report.table(&format!("4, 6. launch mode, idle for {window} s, {settle} s after the gateway was ready"), &lines);
    kills(&machine, launcher.process, report).await
}

fn memory(daemon: &Watched, launcher: &Watched) -> anyhow::Result<Vec<Line>> {
    let (daemon, launcher) = (daemon.process.memory()?, launcher.process.memory()?);
    let pair = |one, other| format!("{} / {}", Figure::kib(one), Figure::kib(other));
    Ok(vec![
        Line::at_most("4. daemon, resident memory", Figure::kib(daemon.rss), Figure::Size(6e6)),
        Line::info("   proportional / private", pair(daemon.pss, daemon.private), ""),
        Line::at_most("4. launcher, proportional memory", Figure::kib(launcher.pss), Figure::Size(2e6)),
        Line::info("   resident / private", pair(launcher.rss, launcher.private), ""),
    ])
}

/// How long the API is away, from the kill to an answer over TLS by the next daemon.
async fn kills(machine: &Machine, launcher: Process, report: &mut Report) -> anyhow::Result<()> {
    let gateway = machine.gateway_pid();
    let mut away = Samples::default();
    for _ in 0..KILLS {
        away.add_time(machine.kill_daemon().await?);
        ensure!(machine.gateway_pid() == gateway, "the gateway is another one");
    }
    let lines = [
        Line::info("kill -9 of the daemon -> API answers, p50", away.time(50), ""),
        Line::at_most("worst", away.time(100), Figure::Time(1.0)),
        Line::info("launcher afterwards, proportional memory", Figure::kib(launcher.memory()?.pss), ""),
    ];
    report.table(&format!("4. the daemon is killed, the gateway stays, n = {KILLS}"), &lines);
    Ok(())
}

/// A process whose work is added up look by look.
struct Watched {
    process: Process,
    last: Threads,
    work: Work,
}

impl Watched {
    fn new(pid: u32) -> anyhow::Result<Self> {
        let process = Process(pid);
        Ok(Self { process, last: process.threads()?, work: Work::default() })
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        *self = Self::new(self.process.0)?;
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let now = self.process.threads()?;
        self.work = self.work.plus(now.since(&self.last));
        self.last = now;
        Ok(())
    }

    /// Voluntary switches a second, and share of a core.
    fn rates(&self, seconds: f64) -> (Figure, Figure) {
        let share = float(self.work.cpu_ns) / 1e9 / seconds * 100.0;
        (Figure::Rate(float(self.work.switches) / seconds), Figure::Percent(share))
    }
}
