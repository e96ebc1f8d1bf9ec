//! Reading server-sent events.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::{HeaderMap, Response};
use serde_json::Value;
use tokio::time::timeout;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    pub event: String,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.data))
    }
}

#[derive(Debug)]
pub struct EventStream {
    pub headers: HeaderMap,
    body: Incoming,
    buffer: Vec<u8>,
    ready: VecDeque<Event>,
    /// Dropping it would end the connection.
    _sender: SendRequest<Full<Bytes>>,
}

impl EventStream {
    pub fn new(response: Response<Incoming>, sender: SendRequest<Full<Bytes>>) -> Self {
        let headers = response.headers().clone();
        let (body, buffer, ready) = (response.into_body(), Vec::new(), VecDeque::new());
        Self { headers, body, buffer, ready, _sender: sender }
    }

    /// The next event; comments (pings) are skipped.
    pub async fn next(&mut self, deadline: Duration) -> anyhow::Result<Event> {
        let wait = async {
            loop {
                if let Some(event) = self.ready.pop_front() {
                    return Ok(event);
                }
                let frame = self.body.frame().await.ok_or_else(|| anyhow!("the event stream ended"))??;
                if let Ok(data) = frame.into_data() {
                    self.buffer.extend_from_slice(&data);
                    self.split();
                }
            }
        };
        timeout(deadline, wait).await.with_context(|| format!("no event within {deadline:?}"))?
    }

    pub async fn wait_for(&mut self, wanted: impl Fn(&Event) -> bool, deadline: Duration) -> anyhow::Result<Event> {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.next(left).await.context("the wanted event did not come")?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    fn split(&mut self) {
        while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let mut event = Event { event: "message".into(), ..Event::default() };
            let mut has_data = false;
            for line in String::from_utf8_lossy(&block).lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "id" => event.id = Some(value.to_owned()),
                    "event" => event.event = value.to_owned(),
                    "data" if has_data => event.data = format!("{}\n{value}", event.data),
                    "data" => (event.data, has_data) = (value.to_owned(), true),
                    _ => {}
                }
            }
            if has_data {
                self.ready.push_back(event);
            }
        }
    }
}
