//! Hearing of changes: the event stream with its resumption, the long poll, entity tags.

#[path = "events/poll.rs"]
mod poll;
#[path = "events/resume.rs"]
mod resume;
#[path = "events/stream.rs"]
mod stream;

use std::time::Duration;

use serde_json::Value;

use super::auth_matrix::scene::LIMIT;
use crate::support::client::{Event, EventStream};
use crate::support::fake::{Fake, Version};
use crate::support::sidecar::{Builder, Sidecar};

/// An event of the gateway is told on within this.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

async fn start(change: impl FnOnce(Builder) -> Builder) -> anyhow::Result<(Fake, Sidecar)> {
    let fake = Fake::start(Version::V2026_9_6).await;
    let builder = Sidecar::builder().gateway(fake.port(), &fake.token());
    let sidecar = change(builder).start().await?;
    sidecar.client().wait_until("/v1/state", |state| state["phase"] == "ready", LIMIT).await?;
    Ok((fake, sidecar))
}

/// Opens a stream and takes the `reset` it begins with.
async fn open(sidecar: &Sidecar) -> anyhow::Result<(EventStream, Event)> {
    let mut stream = sidecar.client().events("/v1/events", None).await?;
    let first = stream.next(LIMIT).await?;
    Ok((stream, first))
}

/// The next event about this request.
async fn about(stream: &mut EventStream, name: &str, request_id: &str, limit: Duration) -> anyhow::Result<Value> {
    let wanted = |event: &Event| event.event == name && event.json()["request_id"] == request_id;
    Ok(stream.wait_for(wanted, limit).await?.json())
}

/// The position of an event in its stream.
fn position(event: &Event) -> u64 {
    let id = event.id.as_deref().expect("an event has an id");
    id.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no position in {id}"))
}
