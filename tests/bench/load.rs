//! Senders that cost little themselves: one connection each, kept alive, whole messages, answers checked.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use openclaw_sidecar::checkin::wire;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::{
    fleet::Member,
    stats::{Samples, float},
};

const ANSWER: Duration = Duration::from_secs(20);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where check-ins go.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// TLS, with the server's certificate known; else plain HTTP.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Target {
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    pub async fn connect(&self) -> anyhow::Result<Wire> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let io: Box<dyn Io> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::from(self.address.ip());
                Box::new(TlsConnector::from(config.clone()).connect(name, tcp).await?)
            }
        };
        Ok(Wire { io, host: self.address, buffer: Vec::with_capacity(4096) })
    }
}

/// One connection.
pub struct Wire {
    io: Box<dyn Io>,
    host: SocketAddr,
    buffer: Vec<u8>,
}

impl Wire {
    /// The member's next message; it has to be taken.
    pub async fn check_in(&mut self, member: &mut Member) -> anyhow::Result<Duration> {
        let message = member.next();
        let body = serde_json::to_vec(&message)?;
        let began = Instant::now();
        let text = self.post(wire::PATH, &member.credential(), &body).await?;
        let took = began.elapsed();
        ensure!(text.contains(&format!("\"seq\":{},", message.seq)), "another answer: {text}");
        Ok(took)
    }

    /// Posts JSON and reads the answer, which has to be good.
    pub async fn post(&mut self, path: &str, bearer: &str, body: &[u8]) -> anyhow::Result<String> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nauthorization: Bearer {bearer}\r\n\
             content-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.io.write_all(&[head.as_bytes(), body].concat()).await?;
        self.io.flush().await?;
        timeout(ANSWER, self.answer()).await.context("no answer")?
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        self.buffer.clear();
        loop {
            ensure!(self.io.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
            let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.buffer[..end])?;
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length: usize = length.context("no length")?.1.parse()?;
            let good = head.starts_with("HTTP/1.1 20");
            while self.buffer.len() < end + 4 + length {
                ensure!(self.io.read_buf(&mut self.buffer).await? > 0, "the answer broke off");
            }
            let text = String::from_utf8_lossy(&self.buffer[end + 4..]).into_owned();
            if !good {
                bail!("{text}");
            }
            return Ok(text);
        }
    }
}

/// What became of a run.
#[derive(Default)]
pub struct Load {
    pub seconds: f64,
    pub latency: Samples,
}

impl Load {
    pub fn count(&self) -> u64 {
        self.latency.len() as u64
    }

    pub fn rate(&self) -> f64 {
        float(self.count()) / self.seconds
    }
}

/// Members dealt out to senders.
pub fn dealt(members: Vec<Member>, senders: usize) -> Vec<Vec<Member>> {
    let mut hands: Vec<Vec<Member>> = (0..senders).map(|_| Vec::new()).collect();
    for (n, member) in members.into_iter().enumerate() {
        hands[n % senders].push(member);
    }
    hands
}

/// Every sender checks in for its members in turns, the next as soon as the one before was answered.
pub async fn flat_out(target: &Target, hands: &mut [Vec<Member>], time: Duration) -> anyhow::Result<Load> {
    let mut wires = Vec::new();
    for _ in 0..hands.len() {
        wires.push(target.connect().await?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (n, (mut wire, hand)) in wires.into_iter().zip(hands.iter_mut()).enumerate() {
        let mut members = std::mem::take(hand);
        tasks.spawn(async move {
            let mut times = Vec::new();
            'sending: loop {
                for member in &mut members {
                    if began.elapsed() >= time {
                        break 'sending;
                    }
                    times.push(wire.check_in(member).await?);
                }
            }
            anyhow::Ok((n, members, times))
        });
    }
    let mut load = Load::default();
    while let Some(done) = tasks.join_next().await {
        let (n, members, times) = done??;
        hands[n] = members;
        load.latency.extend(&times);
    }
    load.seconds = began.elapsed().as_secs_f64();
    Ok(load)
}

/// Every member sends the messages that bring it to its condition.
pub async fn fill(target: &Target, hands: &mut [Vec<Member>]) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for (n, hand) in hands.iter_mut().enumerate() {
        let (target, mut members) = (target.clone(), std::mem::take(hand));
        tasks.spawn(async move {
            let mut wire = target.connect().await?;
            for member in &mut members {
                for _ in 0..member.messages() {
                    wire.check_in(member).await?;
                }
            }
            anyhow::Ok((n, members))
        });
    }
    while let Some(done) = tasks.join_next().await {
        let (n, members) = done??;
        hands[n] = members;
    }
    Ok(())
}

/// Check-ins that come at a rate whatever the answers take; each sender has its share.
pub struct Arriving {
    senders: JoinSet<anyhow::Result<(Vec<Member>, Vec<Duration>)>>,
    stop: CancellationToken,
}

impl Arriving {
    pub fn start(target: &Target, hands: Vec<Vec<Member>>, rate: u32) -> Self {
        let (mut senders, stop) = (JoinSet::new(), CancellationToken::new());
        let count = u32::try_from(hands.len()).unwrap_or(1);
        let every = Duration::from_secs(1) * count / rate;
        // Not all in the same moment.
        for (first, members) in (0..count).map(|n| Instant::now() + every * n / count).zip(hands) {
            senders.spawn(arrive(target.clone(), members, first, every, stop.clone()));
        }
        Self { senders, stop }
    }

    /// Ends it; what was sent for, and how long each took.
    pub async fn stop(mut self) -> anyhow::Result<(Vec<Vec<Member>>, Samples)> {
        self.stop.cancel();
        let (mut hands, mut samples) = (Vec::new(), Samples::default());
        while let Some(done) = self.senders.join_next().await {
            let (members, times) = done??;
            hands.push(members);
            samples.extend(&times);
        }
        Ok((hands, samples))
    }
}

async fn arrive(
    target: Target,
    mut members: Vec<Member>,
    first: Instant,
    every: Duration,
    stop: CancellationToken,
) -> anyhow::Result<(Vec<Member>, Vec<Duration>)> {
    let (mut wire, mut times) = (target.connect().await?, Vec::new());
    let mut ticks = interval_at(first, every);
    // Late ones follow at once: a slow answer does not lower the rate.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok((members, times)),
            _ = ticks.tick() => {}
        }
        times.push(wire.check_in(members.first_mut().context("a member")?).await?);
        members.rotate_left(1);
    }
}
