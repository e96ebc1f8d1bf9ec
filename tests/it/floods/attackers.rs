//! Connections that are opened, held half-done, and opened again whenever the daemon drops them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::framing::client_hello;
use crate::support::sidecar::Sidecar;

/// One attacker comes back so soon after it was dropped; a thousand of them make this a rate.
const COMES_BACK: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A head that never ends, a line now and then.
    SlowHead,
    /// A client hello cut in the middle.
    HalfHello,
    /// Connects and says nothing.
    Silent,
}

/// A crowd; dropping it ends all of them.
#[derive(Debug)]
pub struct Crowd {
    _members: JoinSet<()>,
    opened: Arc<AtomicU64>,
}

impl Crowd {
    /// Half of them with slow heads, half with half handshakes.
    pub fn gather(sidecar: &Sidecar, count: usize) -> Self {
        let opened = Arc::new(AtomicU64::new(0));
        let mut members = JoinSet::new();
        for n in 0..count {
            let (kind, target) = match n % 4 {
                0 | 1 => (Kind::SlowHead, sidecar.edge_addr()),
                2 => (Kind::HalfHello, sidecar.tls_addr()),
                _ => (Kind::Silent, sidecar.tls_addr()),
            };
            members.spawn(attack(n, kind, target, opened.clone()));
        }
        Self { _members: members, opened }
    }

    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

async fn attack(n: usize, kind: Kind, target: SocketAddr, opened: Arc<AtomicU64>) {
    let mut rounds = interval(COMES_BACK);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        // Several addresses, so that no port runs out.
        let from = Ipv4Addr::new(127, 0, 1, u8::try_from(1 + n % 200).unwrap_or(1));
        let Ok(stream) = connect(from, target).await else { continue };
        opened.fetch_add(1, Ordering::Relaxed);
        // Its end is what it is here for.
        let _ = hold(stream, kind).await;
    }
}

async fn connect(from: Ipv4Addr, target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    timeout(Duration::from_secs(5), socket.connect(target)).await?
}

/// Until the daemon closes.
async fn hold(mut stream: TcpStream, kind: Kind) -> std::io::Result<()> {
    match kind {
        Kind::SlowHead => stream.write_all(b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n").await?,
        Kind::HalfHello => {
            let hello = client_hello(0x0303);
            stream.write_all(&hello[..hello.len() / 2]).await?;
        }
        Kind::Silent => {}
    }
    let mut byte = [0; 64];
    loop {
        match timeout(Duration::from_secs(1), stream.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => return Ok(()),
            Ok(Ok(_)) => {}
            Err(_) if matches!(kind, Kind::SlowHead) => stream.write_all(b"X-A: b\r\n").await?,
            Err(_) => {}
        }
    }
}
