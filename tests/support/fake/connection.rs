//! One connection: what it reads, what it writes, its ticks and its floods, as four loops of one task.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use super::Fake;
use super::codec::now_ms;
use super::core::{Core, Out};
use super::drip::DripStream;
use super::faults::{Flood, Mute, Switches, flood_event};
use super::handshake::{Challenge, Peer, admit};
use super::hello::hello;
use super::http;
use super::refusal::Refusal;
use super::rpc::Effect;
use super::version::Version;
use super::world::Event;

type Socket = WebSocketStream<DripStream>;

/// A reader this far behind gets no more of a flood.
const FLOOD_BACKLOG: usize = 256;

pub async fn serve(fake: Fake, stream: TcpStream) -> anyhow::Result<()> {
    let mut switches = fake.switches();
    switches.wait_for(|on| !on.mute_accept).await?;
    let version = fake.version();
    let head = http::peek_head(&stream, preauth_limit(version)).await?;
    if !head.wants_websocket() {
        return http::answer(stream, &head, version, fake.is_starting()).await;
    }
    let peer = head.peer(version);
    let config = WebSocketConfig::default().max_message_size(Some(25 << 20));
    let stream = DripStream::new(stream, switches.clone());
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    let queued = Arc::new(AtomicUsize::new(0));
    let (id, receiver) = fake.with(|core| core.open(queued.clone()));
    let link = Link { fake: fake.clone(), id, switches, peer };
    let (sink, stream) = socket.split();
    tokio::select! {
        () = link.clone().read(stream) => {}
        () = link.clone().write(sink, receiver, queued.clone()) => {}
        () = link.clone().tick() => {}
        () = link.clone().flood(queued) => {}
    }
    fake.with(|core| core.closed(id));
    Ok(())
}

fn preauth_limit(version: Version) -> Duration {
    Duration::from_secs(if version >= Version::V2026_9_6 { 15 } else { 10 })
}

#[derive(Clone)]
struct Link {
    fake: Fake,
    id: u64,
    switches: watch::Receiver<Switches>,
    peer: Peer,
}

impl Link {
    async fn read(mut self, mut stream: SplitStream<Socket>) {
        let challenge = Challenge::new();
        self.fake.with(|core| {
            if core.mute != Mute::Everything {
                core.send(self.id, Out::Text(challenge.frame(&core.world).to_string()));
            }
        });
        let first = timeout(preauth_limit(self.fake.version()), self.next(&mut stream)).await;
        let Ok(Some(first)) = first else {
            self.fake.with(|core| core.send(self.id, close(1000, "")));
            // The writer ends the connection once it has said goodbye.
            return std::future::pending().await;
        };
        self.connect(&challenge, &first).await;
        while let Some(text) = self.next(&mut stream).await {
            self.call(&text).await;
        }
    }

    /// The next text frame; `None` once the peer is gone. Waits while the connection plays dead.
    async fn next(&mut self, stream: &mut SplitStream<Socket>) -> Option<String> {
        loop {
            self.switches.wait_for(|on| !on.half_open).await.ok()?;
            let message = tokio::select! {
                message = stream.next() => message,
                changed = self.switches.changed() => {
                    changed.ok()?;
                    continue;
                }
            };
            match message?.ok()? {
                Message::Text(text) => return Some(text.to_string()),
                Message::Binary(_) => return Some(String::new()),
                _ => {}
            }
        }
    }

    async fn connect(&self, challenge: &Challenge, text: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            return self.fake.with(|core| core.send(self.id, close(1000, "")));
        };
        let delay = self.switches.borrow().slow;
        sleep(delay).await;
        self.fake.with(|core| {
            core.record(self.id, frame.clone());
            if core.mute == Mute::Off {
                connect(core, self.id, &self.peer, challenge, &frame);
            }
        });
    }

    async fn call(&self, text: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
        let delay = self.switches.borrow().slow;
        sleep(delay).await;
        let effect = self.fake.with(|core| {
            core.record(self.id, frame.clone());
            // A hung gateway does not act either; it has not even looked.
            if core.mute == Mute::Off { core.call(self.id, &frame) } else { Effect::None }
        });
        if effect == Effect::Restart {
            let fake = self.fake.clone();
            tokio::spawn(async move { fake.restart().await });
        }
    }

    async fn write(
        mut self,
        mut sink: SplitSink<Socket, Message>,
        mut receiver: mpsc::UnboundedReceiver<Out>,
        queued: Arc<AtomicUsize>,
    ) {
        while let Some(out) = receiver.recv().await {
            if self.switches.wait_for(|on| !on.half_open).await.is_err() {
                return;
            }
            queued.fetch_sub(1, Ordering::Relaxed);
            let sent = match out {
                Out::Text(text) => sink.send(Message::Text(text.into())).await,
                Out::Binary(bytes) => sink.send(Message::Binary(bytes.into())).await,
                Out::Abort => return,
                Out::Close { code, reason } => {
                    let frame = CloseFrame { code: code.into(), reason: reason.into() };
                    // A peer that is already gone needs no goodbye.
                    let _ = sink.send(Message::Close(Some(frame))).await;
                    // The reader ends the connection when the peer answers; some peers never do.
                    return sleep(Duration::from_secs(2)).await;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }

    async fn tick(self) {
        let period = self.fake.with(|core| core.tick);
        let mut beat = interval(period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        loop {
            beat.tick().await;
            let event = Event::for_everyone("tick", json!({"ts": now_ms()}));
            self.fake.with(|core| core.deliver_next(self.id, &event));
        }
    }

    async fn flood(mut self, queued: Arc<AtomicUsize>) {
        let event = flood_event();
        loop {
            let Ok(flood) = self.switches.wait_for(|on| on.flood.is_some()).await.map(|on| on.flood) else { return };
            let (batch, pause) = match flood {
                Some(Flood::PerSecond(rate)) if rate <= 100 => (1, Duration::from_secs(1) / rate.max(1)),
                Some(Flood::PerSecond(rate)) => (rate / 100, Duration::from_millis(10)),
                Some(Flood::Unlimited) => (64, Duration::ZERO),
                None => continue,
            };
            if queued.load(Ordering::Relaxed) < FLOOD_BACKLOG {
                self.fake.with(|core| (0..batch).for_each(|_| core.deliver_next(self.id, &event)));
            }
            if pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                sleep(pause).await;
            }
        }
    }
}

fn close(code: u16, reason: &str) -> Out {
    Out::Close { code, reason: reason.to_owned() }
}

fn connect(core: &mut Core, id: u64, peer: &Peer, challenge: &Challenge, frame: &Value) {
    if core.starting_until.is_some_and(|until| std::time::Instant::now() < until) {
        return refuse(core, id, frame, &Refusal::starting());
    }
    if let Some(refusal) = core.armed.reject_connect.take() {
        return refuse(core, id, frame, &refusal);
    }
    let gate = core.gate.clone();
    match admit(&mut core.world, &gate, peer, challenge, frame) {
        Err(refused) => {
            refuse(core, id, frame, &refused.refusal);
            core.broadcast(refused.events);
        }
        Ok(mut admitted) => {
            if core.armed.strip_scopes.take().is_some() {
                admitted.session.scopes.clear();
                if let Some(auth) = &mut admitted.auth {
                    auth["scopes"] = json!([]);
                }
            }
            core.broadcast(admitted.events);
            let spec = admitted.session.spec.clone();
            core.set_session(id, admitted.session);
            let hello = hello(&core.world, &core.hello_facts(), admitted.auth);
            core.reply(id, frame, &Ok(hello));
            core.announce_arrival();
            declare_node(core, &spec, &frame["params"]);
        }
    }
}

/// A node that is let in asks for its commands, from 2026.4.9 on.
fn declare_node(core: &mut Core, spec: &super::DeviceSpec, params: &Value) {
    let known = core.world.nodes.paired.contains_key(&spec.device_id);
    if spec.role != "node" || known || core.world.version == Version::V2026_2_9 {
        return;
    }
    let commands = super::records::strings(&params["commands"]);
    let (_, events) = core.world.request_node(spec, &commands);
    core.broadcast(events);
}

fn refuse(core: &mut Core, id: u64, frame: &Value, refusal: &Refusal) {
    core.reply(id, frame, &Err(refusal.error()));
    core.send(id, close(refusal.close, &refusal.close_reason()));
}
