//! The daemon's end of the socketpair: calls with deadlines, and the newest status.

use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::machine::Then;
use super::verbs::{MAX_LINE, Request, Status, Told, Verb};

/// Requests waiting to be written.
const QUEUE: usize = 32;
/// Unless something else is said: the launcher answers at once.
const SOON: Duration = Duration::from_secs(5);

/// What the launcher says unasked.
#[derive(Debug)]
pub enum News {
    /// The gateway is being stopped; so much time is left to say goodbye, and this follows.
    Goodbye(Duration, Then),
    /// The machine was suspended for about so long.
    Resumed(Duration),
}

type Waiting = oneshot::Sender<Result<Value, String>>;

/// Handle to the launcher; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    calls: mpsc::Sender<(Verb, Waiting)>,
    status: watch::Receiver<Status>,
}

/// The task behind the handle.
#[derive(Debug)]
pub struct Link {
    stream: StdStream,
    calls: mpsc::Receiver<(Verb, Waiting)>,
    status: watch::Sender<Status>,
    news: mpsc::Sender<News>,
}

/// Takes over the daemon's end.
pub fn new(stream: StdStream) -> (Handle, Link, mpsc::Receiver<News>) {
    let (calls_tx, calls) = mpsc::channel(QUEUE);
    let (news, news_rx) = mpsc::channel(8);
    let status = watch::Sender::new(Status::default());
    let handle = Handle { calls: calls_tx, status: status.subscribe() };
    (handle, Link { stream, calls, status, news }, news_rx)
}

impl Handle {
    /// The newest status.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// A receiver that is told of every newer status.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Asks the launcher, and waits for its answer until `deadline`.
    ///
    /// # Errors
    /// In plain words, why not.
    pub async fn ask_until(&self, verb: Verb, deadline: Instant) -> Result<Value, String> {
        let (reply, answer) = oneshot::channel();
        self.calls.try_send((verb, reply)).map_err(|_| "too many requests wait for the launcher".to_owned())?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err("the launcher is gone".to_owned()),
            Err(_) => Err("the launcher did not answer in time".to_owned()),
        }
    }

    /// As [`Handle::ask_until`], for what is answered at once.
    ///
    /// # Errors
    /// In plain words, why not.
    pub async fn ask(&self, verb: Verb) -> Result<Value, String> {
        self.ask_until(verb, Instant::now() + SOON).await
    }
}

impl Link {
    /// Serves until the launcher is gone: then there is nothing left to be beside.
    pub async fn run(mut self) {
        let stream = self.stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(self.stream));
        let Ok(stream) = stream.inspect_err(|e| tracing::error!(error = %e, "no channel to the launcher")) else {
            return;
        };
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::with_capacity(16 * 1024, reader);
        let mut waiting: HashMap<u64, Waiting> = HashMap::new();
        let (mut next_id, mut line) = (0u64, Vec::new());
        loop {
            let limit = u64::try_from(MAX_LINE - line.len().min(MAX_LINE)).unwrap_or(0);
            let mut bounded = (&mut reader).take(limit);
            tokio::select! {
                read = bounded.read_until(b'\n', &mut line) => {
                    if !matches!(read, Ok(1..)) || !line.ends_with(b"\n") {
                        return;
                    }
                    match serde_json::from_slice(&line) {
                        Ok(told) => take(told, &mut waiting, &self.status, &self.news),
                        Err(e) => tracing::error!(error = %e, "the launcher says something unreadable"),
                    }
                    line.clear();
                }
                call = self.calls.recv() => {
                    let Some((verb, reply)) = call else { return };
                    waiting.retain(|_, reply| !reply.is_closed());
                    next_id += 1;
                    waiting.insert(next_id, reply);
                    let mut text = serde_json::to_vec(&Request { id: next_id, verb }).unwrap_or_default();
                    text.push(b'\n');
                    if writer.write_all(&text).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn take(told: Told, waiting: &mut HashMap<u64, Waiting>, status: &watch::Sender<Status>, news: &mpsc::Sender<News>) {
    match told {
        Told::Reply { id, result } => {
            if let Some(reply) = waiting.remove(&id) {
                let _ = reply.send(result);
            }
        }
        Told::Status(now) => drop(status.send_replace(*now)),
        Told::Goodbye { within_ms, then } => {
            drop(news.try_send(News::Goodbye(Duration::from_millis(within_ms), then)));
        }
        Told::Resumed { asleep_ms } => drop(news.try_send(News::Resumed(Duration::from_millis(asleep_ms)))),
    }
}
