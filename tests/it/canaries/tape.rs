//! Everything the sidecar says, written down while it is used.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::SOON;
use super::secrets::Canaries;
use crate::support::client::{Client, Reply};

/// What may be asked without changing anything.
pub const READS: [&str; 11] = [
    "/livez",
    "/readyz",
    "/openapi.json",
    "/v1/state",
    "/v1/pairing",
    "/v1/desired",
    "/v1/desired?generation=1",
    "/v1/secrets",
    "/v1/audit?limit=500",
    "/metrics",
    "/v1/no-such-route",
];

/// Named texts, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct Tape(Arc<Mutex<Vec<(String, String)>>>);

impl Tape {
    pub fn note(&self, name: &str, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), text.to_owned()));
    }

    pub async fn call(
        &self,
        client: &Client,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let mut all = vec![("if-match", "*")];
        all.extend(body.map(|_| ("content-type", "application/json")));
        all.retain(|(name, _)| !headers.iter().any(|(given, _)| given == name));
        all.extend(headers);
        let reply = client.request(method, path, &all, body.map(|body| body.as_bytes().to_vec())).await?;
        self.note(&format!("{method} {path} ({})", reply.status), &format!("{:?}\n{}", reply.headers, reply.text()));
        Ok(reply)
    }

    pub async fn put(&self, client: &Client, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.call(client, "PUT", path, &[], Some(&body.to_string())).await
    }

    pub async fn post(&self, client: &Client, path: &str, body: &Value) -> anyhow::Result<Reply> {
        self.call(client, "POST", path, &[], Some(&body.to_string())).await
    }

    pub async fn read_all(&self, client: &Client) -> anyhow::Result<()> {
        for path in READS {
            self.call(client, "GET", path, &[], None).await?;
        }
        Ok(())
    }

    /// Every event from now on.
    pub async fn follow_events(&self, client: &Client) -> anyhow::Result<()> {
        let mut events = client.events("/v1/events", None).await?;
        let tape = self.clone();
        tokio::spawn(async move {
            while let Ok(event) = events.next(20 * SOON).await {
                tape.note(&format!("event {}", event.event), &event.data);
            }
        });
        Ok(())
    }

    pub fn count(&self, name: &str) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(known, _)| known.starts_with(name)).count()
    }

    /// Every text in which a secret is recognised.
    pub fn hits(&self, canaries: &Canaries) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hits = all
            .iter()
            .flat_map(|(name, text)| canaries.hits(text).into_iter().map(move |hit| format!("{name}: {hit}")));
        hits.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Every command line that there ever was, by looking all the time.
#[derive(Debug)]
pub struct CommandLines {
    seen: Arc<Mutex<BTreeSet<String>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CommandLines {
    pub fn watch() -> Self {
        let (seen, end) = (Arc::<Mutex<BTreeSet<String>>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, end) = (seen.clone(), end.clone());
            move || {
                while !end.load(Ordering::Relaxed) {
                    look(&seen);
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { seen, end, thread: Some(thread) }
    }

    pub fn text(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for CommandLines {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn look(seen: &Mutex<BTreeSet<String>>) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(line);
    }
}
