//! The listener: accepting, stopping, restarting and crashing on one port that stays the same.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Fake;
use super::connection;
use super::core::Out;
use super::world::Event;

const REBIND_LIMIT: Duration = Duration::from_secs(10);

impl Fake {
    /// Tells every session, closes them with 1012, refuses connections for `restart_pause`, comes back as a new boot.
    pub async fn restart(&self) {
        self.shut_down(json!({"reason": "gateway restarting", "restartExpectedMs": 1500})).await;
        let (pause, starting) = (self.options().restart_pause, self.options().starting_for);
        sleep(pause).await;
        self.with(|core| core.reboot(starting));
        self.listen(true).await;
    }

    /// An orderly end of the gateway; connections are refused until `resume_listening`.
    pub async fn stop(&self) {
        self.shut_down(json!({"reason": "gateway stopping"})).await;
    }

    pub async fn resume_listening(&self) {
        let starting = self.options().starting_for;
        self.with(|core| core.reboot(starting));
        self.listen(true).await;
    }

    /// The process dies: no event, no close frame, connections refused until `resume_listening`.
    pub async fn crash(&self) {
        self.listen(false).await;
        self.with(|core| core.send_to_all(|| Out::Abort));
    }

    /// Every TCP connection is cut; the gateway itself goes on.
    pub fn drop_connections(&self) {
        self.with(|core| core.send_to_all(|| Out::Abort));
    }

    async fn shut_down(&self, payload: serde_json::Value) {
        self.listen(false).await;
        self.with(|core| {
            core.broadcast(vec![Event::for_everyone("shutdown", payload)]);
            core.send_to_all(|| Out::Close { code: 1012, reason: "service restart".into() });
        });
    }

    async fn listen(&self, on: bool) {
        self.shared.listening.send_replace(on);
        let mut bound = self.shared.bound.subscribe();
        let settled = bound.wait_for(|now| *now == on);
        timeout(REBIND_LIMIT, settled).await.expect("the listener follows in time").expect("the listener lives");
    }
}

pub async fn accept_loop(fake: Fake, first: TcpListener, mut listening: watch::Receiver<bool>) {
    let mut listener = Some(first);
    loop {
        let current = match listener.take() {
            Some(current) => current,
            None => rebind(fake.port()).await,
        };
        fake.shared.bound.send_replace(true);
        loop {
            tokio::select! {
                stopped = listening.wait_for(|on| !*on) => {
                    if stopped.is_err() {
                        return;
                    }
                    break;
                }
                accepted = current.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    // Like the real one; otherwise small frames wait 40 ms for each other.
                    let _ = stream.set_nodelay(true);
                    fake.with(|core| core.accepted += 1);
                    let fake = fake.clone();
                    // How a connection ends is the peer's affair; tests look at what was received.
                    tokio::spawn(async move { connection::serve(fake, stream).await });
                }
            }
        }
        drop(current);
        fake.shared.bound.send_replace(false);
        if listening.wait_for(|on| *on).await.is_err() {
            return;
        }
    }
}

/// The port may still be held for a moment by a connection of the old listener.
async fn rebind(port: u16) -> TcpListener {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let bind = async {
        loop {
            match TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(REBIND_LIMIT, bind).await.expect("the port is free again")
}
