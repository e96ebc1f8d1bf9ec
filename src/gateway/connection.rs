//! The one task that owns the connection: dial, shake hands, serve, and decide how to try again.
//!
//! ```text
//!        .------------- pause (how long depends on why) <-----------.
//!        v                                                          |
//!   find token -> dial -> challenge -> connect -> hello, scopes -> serve until it breaks
//! ```
//!
//! Refusals (token, scopes, protocol) stop the hammering: the next try comes when the token changes, else seldom.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_util::sync::CancellationToken;

use super::frames::{self, Hello, Incoming, Tag};
use super::identity::Identity;
use super::listener::{Guard, owner};
use super::refusal::{no_token, refused, stripped};
use super::secret::{self, Credential};
use super::wire::{Socket, answer, closed, read_challenge, send};
use super::{CALL_QUEUE, Call, CallError, Down, Gateway, Link, Method, Notice, Refusal, Session, Stats};
use crate::config;
use crate::launcher::handle::Handle;
use crate::launcher::machine::State as Launched;
use crate::launcher::verbs::Verb;

const DIAL: Duration = Duration::from_secs(5);
/// A throttled gateway takes up to 13 s for an answer (measured at 6.25 % of a core).
const HANDSHAKE: Duration = Duration::from_secs(30);
/// The gateway ticks every 30 s and answers our own calls in between: so long a silence is a dead peer.
const SILENCE: Duration = Duration::from_secs(75);
/// Largest message taken; a hello is 16 KB, and the gateway would allow itself 25 MiB.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// Frames in one session that cannot be read before it is given up.
const MAX_MALFORMED: u32 = 100;
/// Calls awaiting their answer.
const MAX_IN_FLIGHT: usize = 128;
/// A gateway that announced a restart is given this long before a closed port counts as stopped (14 s seen; far more
/// on a throttled machine).
const RESTART: Duration = Duration::from_secs(300);
const NOTICES: usize = 256;
/// How often the token's sources are looked at while the gateway refuses us.
const TOKEN_LOOK: Duration = Duration::from_secs(2);

type Waiting = HashMap<String, oneshot::Sender<Result<String, CallError>>>;

/// The task and what it owns.
#[derive(Debug)]
pub struct Connection {
    config: config::Gateway,
    /// What the gateway may name in its configuration: changes with the stored secrets.
    env: watch::Receiver<config::Env>,
    /// In launch mode: tells whether the gateway runs, and whether it is the one that listens.
    guard: Option<Guard>,
    identity: Identity,
    calls: mpsc::Receiver<Call>,
    link: watch::Sender<Link>,
    notices: mpsc::Sender<Notice>,
    lagging: bool,
    redial: Arc<Notify>,
    /// A restart was announced: until then a closed port means "starting", not "stopped".
    restarting_until: Option<Instant>,
    stats: Arc<Stats>,
    next_id: u64,
}

/// Makes the task, the handle, and the stream of notices.
pub fn new(
    config: config::Gateway,
    env: watch::Receiver<config::Env>,
    identity: Identity,
    launcher: Option<Handle>,
) -> (Connection, Gateway, mpsc::Receiver<Notice>) {
    let (calls_tx, calls) = mpsc::channel(CALL_QUEUE);
    let (notices, notices_rx) = mpsc::channel(NOTICES);
    let link = watch::Sender::new(Link::Down(Down::Connecting));
    let stats = Arc::new(Stats::default());
    let device_id = Arc::from(identity.device_id.as_str());
    let redial = Arc::new(Notify::new());
    let gateway =
        Gateway { calls: calls_tx, link: link.subscribe(), stats: stats.clone(), device_id, redial: redial.clone() };
    let connection = Connection {
        config,
        env,
        guard: launcher.map(Guard::new),
        identity,
        calls,
        link,
        notices,
        lagging: false,
        redial,
        restarting_until: None,
        stats,
        next_id: 0,
    };
    (connection, gateway, notices_rx)
}

impl Connection {
    /// Keeps a session for as long as `stop` is not cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0u32;
        let mut logged = None;
        loop {
            let credential = self.credential().await;
            let down = tokio::select! {
                () = stop.cancelled() => return,
                down = self.live(&credential, &mut failures) => down,
            };
            self.link.send_replace(Link::Down(down.clone()));
            // Once per reason: a gateway that is away for hours must not fill the log.
            if logged.as_ref() != Some(&down) {
                match &down {
                    Down::Unauthorized(why) => {
                        tracing::warn!(code = why.code, remedy = why.remedy, "{}", why.summary);
                    }
                    other => tracing::info!(reason = ?other, "gateway connection down"),
                }
                logged = Some(down.clone());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.pause(&down, &credential, failures) => {}
            }
            failures = failures.saturating_add(1);
        }
    }

    /// The credential there is now. In launch mode the launcher reads the gateway's configuration for us.
    async fn credential(&self) -> Result<Credential, String> {
        let text = match &self.guard {
            Some(guard) => match guard.launcher().ask(Verb::ReadConfig).await {
                Ok(read) => read["config"].as_str().map(|text| Ok(text.to_owned())),
                Err(why) => Some(Err(why)),
            },
            None => secret::config_text(&self.config),
        };
        secret::find(&self.config, text, &self.env.borrow())
    }

    /// In launch mode, why there is nothing to dial.
    fn not_running(&self) -> Option<Down> {
        match self.guard.as_ref()?.launcher().status().state {
            Launched::Starting | Launched::Ready | Launched::Degraded => None,
            Launched::Seeding | Launched::Backoff | Launched::Draining => Some(Down::Starting),
            _ => Some(Down::Stopped),
        }
    }

    /// One whole life of a connection; returns why it ended.
    async fn live(&mut self, credential: &Result<Credential, String>, failures: &mut u32) -> Down {
        if let Some(down) = self.not_running() {
            return down;
        }
        let credential = match credential {
            Ok(credential) => credential,
            Err(why) => return Down::Unauthorized(no_token(why)),
        };
        let (mut socket, session) = match timeout(HANDSHAKE, self.open(credential)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(down)) => return down,
            Err(_) => return Down::Mute,
        };
        *failures = 0;
        self.stats.connects.fetch_add(1, Ordering::Relaxed);
        tracing::info!(gateway.version = session.version, gateway.protocol = session.protocol, "gateway connected");
        self.link.send_replace(Link::Up(session));
        self.tell(Notice::Gap);
        let ended = self.serve(&mut socket).await;
        self.link.send_replace(Link::Down(ended.clone()));
        if !matches!(ended, Down::Lost(_)) {
            // A polite close, but never a wait for somebody who may not read.
            let _ = timeout(Duration::from_millis(200), socket.close(None)).await;
        }
        ended
    }

    async fn open(&mut self, credential: &Credential) -> Result<(Socket, Arc<Session>), Down> {
        let mut socket = self.dial().await?;
        let challenge = read_challenge(&mut socket).await?;
        let id = self.id();
        let connect =
            frames::connect(&id, &challenge, &self.identity, credential).map_err(|e| Down::Lost(e.to_string()))?;
        send(&mut socket, connect).await?;
        let payload = match answer(&mut socket, &id).await? {
            Ok(payload) => payload,
            Err(error) => return Err(refused(&error)),
        };
        let hello: Hello = serde_json::from_str(&payload).map_err(|e| Down::Lost(format!("unreadable hello: {e}")))?;
        if hello.kind != "hello-ok" {
            return Err(Down::Lost("the peer is no gateway: its hello is of another kind".to_owned()));
        }
        self.check_authority(&mut socket, &hello).await?;
        let presence = super::records::connected(&hello.snapshot.presence);
        let session = self.session(hello);
        self.tell(Notice::Presence(presence));
        Ok((socket, session))
    }

    async fn dial(&mut self) -> Result<Socket, Down> {
        let address = self.config.address;
        let stream = match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                let restarting = self.restarting_until.is_some_and(|until| Instant::now() < until);
                // In launch mode its process runs, or there would be nothing to dial.
                let boots = restarting || self.guard.is_some();
                return Err(if boots { Down::Starting } else { Down::Stopped });
            }
            Ok(Err(e)) => return Err(Down::Lost(e.to_string())),
            Err(_) => return Err(Down::Mute),
        };
        stream.set_nodelay(true).map_err(|e| Down::Lost(e.to_string()))?;
        // Before anything is said to whoever listens there.
        if let Some(guard) = &mut self.guard {
            guard.check(address).await.map_err(|why| Down::Unauthorized(squatted(why, address)))?;
        }
        let limits = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        // No Origin and no forwarding header: with one, the gateway takes us for a remote browser.
        let opened =
            tokio_tungstenite::client_async_with_config(format!("ws://{address}/"), stream, Some(limits)).await;
        match opened {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) if response.status() == 503 => Err(Down::Starting),
            Err(e) => Err(Down::Lost(e.to_string())),
        }
    }

    /// Scopes may be stripped silently: believe the list in the hello, and where there is none (2026.4.9) a probe.
    async fn check_authority(&mut self, socket: &mut Socket, hello: &Hello) -> Result<(), Down> {
        let granted = hello.auth.as_ref().and_then(|auth| auth.scopes.as_ref());
        if let Some(scopes) = granted {
            return if scopes.iter().any(|s| s == "operator.admin") { Ok(()) } else { Err(stripped()) };
        }
        let id = self.id();
        let probe = frames::request(&id, Method::DeviceList.name(), serde_json::json!({}))
            .map_err(|e| Down::Lost(e.to_string()))?;
        send(socket, probe).await?;
        match answer(socket, &id).await? {
            Ok(_) => Ok(()),
            Err(error) if error.is_missing_scope() => Err(stripped()),
            Err(error) => Err(refused(&error)),
        }
    }

    fn session(&self, hello: Hello) -> Arc<Session> {
        let announced: std::collections::HashSet<String> = hello.features.methods.into_iter().collect();
        let known = Method::ALL.iter().filter(|m| announced.contains(m.name())).map(|m| (*m, true)).collect();
        Arc::new(Session {
            number: self.stats.connects.load(Ordering::Relaxed) + 1,
            version: super::records::tidy(&hello.server.version),
            protocol: hello.protocol,
            boot_id: hello.server.boot_id.as_deref().map(super::records::tidy),
            auth_mode: super::records::tidy(&hello.snapshot.auth_mode),
            known: Mutex::new(known),
        })
    }

    /// Serves calls and events until the connection breaks; returns how.
    async fn serve(&mut self, socket: &mut Socket) -> Down {
        let mut waiting = Waiting::new();
        let mut malformed = 0;
        let mut last_seq = None;
        let mut heard = Instant::now();
        self.restarting_until = None;
        loop {
            tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    let text = match message {
                        Some(Ok(Message::Text(text))) => text,
                        Some(Ok(Message::Close(frame))) => return self.closed(frame.as_ref()),
                        Some(Ok(_)) => continue,
                        Some(Err(e)) => return Down::Lost(e.to_string()),
                        None => return self.closed(None),
                    };
                    if let Ok(frame) = serde_json::from_str::<Incoming<'_>>(&text) { self.take(frame, &mut waiting, &mut last_seq) } else {
                        malformed += 1;
                        self.stats.malformed_frames.fetch_add(1, Ordering::Relaxed);
                        if malformed > MAX_MALFORMED {
                            return Down::Lost("too many unreadable frames".to_owned());
                        }
                    }
                }
                call = self.calls.recv() => {
                    let Some(call) = call else { return Down::Connecting };
                    if let Err(down) = self.pass_on(socket, call, &mut waiting).await {
                        return down;
                    }
                }
                () = self.redial.notified() => return Down::Lost("the machine was suspended".to_owned()),
                () = tokio::time::sleep_until(heard + SILENCE) => return Down::Mute,
            }
        }
    }

    /// Takes one frame in: an answer goes to its caller, an event becomes a notice.
    fn take(&mut self, frame: Incoming<'_>, waiting: &mut Waiting, last_seq: &mut Option<u64>) {
        let payload = frame.payload.map_or_else(|| "null".to_owned(), |p| p.get().to_owned());
        match (frame.kind, frame.id, frame.event) {
            (Tag::Res, Some(id), _) => {
                if let Some(reply) = waiting.remove(&id) {
                    let _ = reply.send(match (frame.ok, frame.error) {
                        (true, _) => Ok(payload),
                        (false, Some(error)) => Err(CallError::Rejected(error)),
                        (false, None) => Err(CallError::Malformed("an error without its reason".to_owned())),
                    });
                }
            }
            (Tag::Event, _, Some(name)) => {
                if let Some(seq) = frame.seq {
                    if last_seq.is_some_and(|last: u64| seq != last.wrapping_add(1)) {
                        self.tell(Notice::Gap);
                    }
                    *last_seq = Some(seq);
                }
                if name == "shutdown" && frames::announces_restart(&payload) {
                    self.restarting_until = Some(Instant::now() + RESTART);
                }
                if let Some(notice) = super::records::notice(&name, &payload) {
                    self.tell(notice);
                }
            }
            _ => {}
        }
    }

    /// The end of a session: an announced restart counts as such, however the connection was closed.
    fn closed(&self, frame: Option<&CloseFrame>) -> Down {
        if self.restarting_until.is_some() { Down::Starting } else { closed(frame) }
    }

    async fn pass_on(&mut self, socket: &mut Socket, call: Call, waiting: &mut Waiting) -> Result<(), Down> {
        waiting.retain(|_, reply| !reply.is_closed());
        if call.reply.is_closed() || waiting.len() >= MAX_IN_FLIGHT {
            return Ok(());
        }
        let id = self.id();
        match frames::request(&id, call.method.name(), call.params) {
            Ok(text) => {
                waiting.insert(id, call.reply);
                send(socket, text).await
            }
            Err(e) => {
                let _ = call.reply.send(Err(CallError::Malformed(e.to_string())));
                Ok(())
            }
        }
    }

    /// Tells the observer; when it does not keep up, one `Gap` replaces what it missed.
    fn tell(&mut self, notice: Notice) {
        if self.lagging && self.notices.try_send(Notice::Gap).is_ok() {
            self.lagging = false;
        }
        if self.lagging || self.notices.try_send(notice).is_err() {
            self.lagging = true;
        }
    }

    /// Waits before the next try, as long as the reason demands, answering calls meanwhile by "down".
    async fn pause(&mut self, down: &Down, used: &Result<Credential, String>, failures: u32) {
        let delay = with_jitter(delay_after(down, failures));
        let until = Instant::now() + delay;
        let refused = matches!(down, Down::Unauthorized(_));
        let mut launched = self.guard.as_ref().map(|guard| guard.launcher().watch());
        if let Some(status) = &mut launched {
            status.mark_unchanged();
        }
        loop {
            let wake = if refused { until.min(Instant::now() + TOKEN_LOOK) } else { until };
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                // The gateway was started, or stopped: whatever was, is not.
                () = changed(&mut launched) => return,
                call = self.calls.recv() => {
                    if let Some(call) = call {
                        let _ = call.reply.send(Err(CallError::Down(down.clone())));
                        continue;
                    }
                }
            }
            let new_token = refused && self.credential().await != *used;
            if new_token || Instant::now() >= until {
                return;
            }
        }
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        self.next_id.to_string()
    }
}

async fn changed(launched: &mut Option<watch::Receiver<crate::launcher::verbs::Status>>) {
    if let Some(status) = launched
        && status.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

fn squatted(why: String, address: SocketAddr) -> Refusal {
    let uid = owner(address).map(|uid| ("uid", uid.to_string()));
    Refusal {
        code: "port_squatted".to_owned(),
        summary: why,
        remedy: "Find the process that holds the port and end it, or move it; the token was not sent to it.".to_owned(),
        evidence: [("port", address.port().to_string())].into_iter().chain(uid).collect(),
    }
}

/// How long to wait after the `failures`-th failure in a row.
fn delay_after(down: &Down, failures: u32) -> Duration {
    let (first, most) = match down {
        Down::Connecting => (0, 0),
        Down::Stopped | Down::Lost(_) => (100, 2_000),
        Down::Starting => (500, 1_000),
        Down::Mute => (1_000, 10_000),
        Down::Unauthorized(refusal) if refusal.code == "AUTH_RATE_LIMITED" => (60_000, 300_000),
        // The gateway takes its port when it has booted, and keeps trying for seconds.
        Down::Unauthorized(refusal) if refusal.code == "port_squatted" => (500, 5_000),
        Down::Unauthorized(_) => (10_000, 300_000),
    };
    Duration::from_millis((first << failures.min(16)).min(most))
}

/// Up to a quarter less or more, so that a fleet that was woken together does not stay in step.
fn with_jitter(delay: Duration) -> Duration {
    let mut byte = [128u8];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    delay * (384 + u32::from(byte[0])) / 512
}

#[cfg(test)]
mod tests {
    use super::super::Refusal;
    use super::*;

    #[test]
    fn refusals_stop_the_hammering_and_restarts_are_quick() {
        let refusal = Down::Unauthorized(Refusal {
            code: "X".into(),
            summary: String::new(),
            remedy: String::new(),
            evidence: Vec::new(),
        });
        assert!(delay_after(&refusal, 0) >= Duration::from_secs(10));
        assert_eq!(delay_after(&refusal, 40), Duration::from_secs(300));
        assert!(delay_after(&Down::Lost("closed".into()), 0) <= Duration::from_millis(100));
        assert_eq!(delay_after(&Down::Stopped, 40), Duration::from_secs(2));
        let delay = Duration::from_secs(8);
        for _ in 0..50 {
            assert!((Duration::from_secs(6)..=Duration::from_secs(10)).contains(&with_jitter(delay)));
        }
    }
}
