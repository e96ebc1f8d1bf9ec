//! Row 5: ten thousand connections at once, half of them silent, half of them through TLS with a request each.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    lab::{Lab, get},
    process::{Process, file_limit},
    report::{Line, Report},
    stats::{Figure, Samples},
    support::client::Client,
};

const CONNECTIONS: usize = 10_000;
/// Kept free for everything else this process has open.
const SPARE_FILES: usize = 1_000;
const AT_ONCE: usize = 256;
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const PROBE_LIMIT: Duration = Duration::from_secs(10);
const PROBE_EVERY: Duration = Duration::from_millis(50);
const SETTLE: Duration = Duration::from_secs(5);

/// A connection that is held, or a client with one kept inside.
enum Held {
    Silent { _stream: TcpStream },
    Served { _client: Client },
    Refused,
}

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let (_, sidecar) = lab.pair().await?;
    let process = Process(sidecar.pid());
    for _ in 0..100 {
        get(&sidecar.client(), "/livez").await?;
    }
    sleep(SETTLE).await;
    let idle = process.memory()?.rss;
    process.forget_peak()?;

    let control_plane = sidecar.client();
    get(&control_plane, "/v1/state").await?;
    let prober = Prober::start(control_plane);
    let clock = Instant::now();
    let step = CONNECTIONS.min(file_limit()?.saturating_sub(SPARE_FILES));
    let (mut done, mut served, mut refused) = (0, 0, 0);
    while done < CONNECTIONS {
        let held = flood(sidecar.tls_addr(), &sidecar.client(), step.min(CONNECTIONS - done)).await?;
        done += held.len();
        served += held.iter().filter(|held| matches!(held, Held::Served { .. })).count();
        refused += held.iter().filter(|held| matches!(held, Held::Refused)).count();
    }
    let took = clock.elapsed();
    let meanwhile = prober.stop().await?;
    let peak = process.peak_kib()?;
    sleep(SETTLE).await;
    let after = process.memory()?.rss;

    let (idle, peak, after) = (Figure::kib(idle), Figure::kib(peak), Figure::kib(after));
    let lines = [
        Line::at_most_times("peak memory, reference: idle", peak, idle, 3.0),
        Line::at_most_times("5 s later, reference: idle", after, idle, 2.0),
        Line::at_most(
            "/livez on new connections meanwhile: failures",
            Figure::count(meanwhile.failed),
            Figure::Count(0.0),
        )
        .beside(format!("of {}", meanwhile.wall.len())),
        Line::info("/livez: p50 / slowest", format!("{} / {}", meanwhile.wall.time(50), meanwhile.wall.time(100)), ""),
        Line::at_most(
            "/v1/state on the control plane's connection: failures",
            Figure::count(meanwhile.state_failed),
            Figure::Count(0.0),
        )
        .beside(format!("of {}", meanwhile.wall.len())),
        Line::info("of the TLS half: answered / turned away", format!("{served} / {refused}"), ""),
    ];
    let held = if step < CONNECTIONS { format!(", {step} held at a time") } else { String::new() };
    report.table(&format!("5. burst of {CONNECTIONS} connections within {:.1} s{held}", took.as_secs_f64()), &lines);
    if let Some(error) = meanwhile.last_error {
        report.say(&format!("  the last failure: {error}"));
    }
    Ok(())
}

/// Opens `count` connections as fast as it can and holds them all until the last one is there.
async fn flood(address: SocketAddr, client: &Client, count: usize) -> anyhow::Result<Vec<Held>> {
    let mut held = Vec::with_capacity(count);
    let mut tasks = JoinSet::new();
    for number in 0..count {
        if tasks.len() >= AT_ONCE
            && let Some(done) = tasks.join_next().await
        {
            held.push(done?);
        }
        let client = client.with_token(None);
        tasks.spawn(async move {
            let open = async {
                if number % 2 == 0 {
                    return anyhow::Ok(Held::Silent { _stream: TcpStream::connect(address).await? });
                }
                get(&client, "/livez").await?;
                Ok(Held::Served { _client: client })
            };
            // To be turned away is what a flood may expect.
            timeout(CONNECT_LIMIT, open).await.ok().and_then(Result::ok).unwrap_or(Held::Refused)
        });
    }
    while let Some(done) = tasks.join_next().await {
        held.push(done?);
    }
    Ok(held)
}

#[derive(Default)]
struct Probes {
    wall: Samples,
    failed: usize,
    state_failed: usize,
    last_error: Option<String>,
}

/// Asks `/livez` on new connections, as a load balancer does, and `/v1/state` on a kept one, until told to stop.
struct Prober {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Probes>,
}

impl Prober {
    fn start(client: Client) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let (anybody, mut probes) = (client.with_token(None), Probes::default());
            while tokio::time::timeout(PROBE_EVERY, &mut stopped).await.is_err() {
                probes.once(&anybody, &client).await;
            }
            probes
        });
        Self { stop, task }
    }

    async fn stop(self) -> anyhow::Result<Probes> {
        // If the task is gone, joining it tells why.
        let _ = self.stop.send(());
        Ok(self.task.await?)
    }
}

impl Probes {
    async fn once(&mut self, anybody: &Client, control_plane: &Client) {
        anybody.forget_connections();
        let clock = Instant::now();
        let answer = timeout(PROBE_LIMIT, get(anybody, "/livez")).await;
        self.wall.add_time(clock.elapsed());
        if let Err(error) = answer.map_err(anyhow::Error::from).and_then(|answer| answer) {
            self.failed += 1;
            self.last_error = Some(format!("{error:#}"));
        }
        let state = timeout(PROBE_LIMIT, get(control_plane, "/v1/state")).await;
        self.state_failed += usize::from(!matches!(state, Ok(Ok(()))));
    }
}
