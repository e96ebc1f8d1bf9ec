//! Launch mode: one command boots a machine, and everything after that is the API's.
//!
//! Gateways are real wherever what they do matters; stand-ins only misbehave in ways a real one cannot be made to.

#[path = "launch/boot.rs"]
mod boot;
#[path = "launch/decommission.rs"]
mod decommission;
#[path = "launch/flat.rs"]
mod flat;
#[path = "launch/frozen.rs"]
mod frozen;
#[path = "launch/lifecycle.rs"]
mod lifecycle;
#[path = "launch/neighbour.rs"]
mod neighbour;
#[path = "launch/pid1.rs"]
mod pid1;
#[path = "launch/poison.rs"]
mod poison;
#[path = "launch/squatter.rs"]
mod squatter;
#[path = "launch/supervise.rs"]
mod supervise;
#[path = "launch/throttled.rs"]
mod throttled;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::client::{Client, Reply};

/// What needs no boot of a gateway.
const SOON: Duration = Duration::from_secs(30);
/// The newest gateway, where one is enough.
const NEWEST: &str = "2026.9.6";

/// Polls a condition that no event tells.
pub async fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while !condition() {
        ensure!(Instant::now() < end, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A call that has to succeed.
async fn done(client: &Client, path: &str, body: Value) -> anyhow::Result<Value> {
    let reply = client.post(path, &body).await?;
    ensure!(reply.status == 200, "{path}: {} {}", reply.status, reply.text());
    Ok(reply.json())
}

/// The desired state's generation and document.
async fn desired(client: &Client) -> anyhow::Result<Value> {
    let reply = client.get("/v1/desired").await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    Ok(reply.json())
}

async fn put(client: &Client, path: &str, if_match: Option<u64>, body: &Value) -> anyhow::Result<Reply> {
    let tag = if_match.map(|generation| format!("\"{generation}\""));
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(tag.iter().map(|tag| ("if-match", tag.as_str())));
    client.request("PUT", path, &headers, Some(body.to_string().into_bytes())).await
}

/// Stores a document over the present generation; returns the new one.
async fn wish(client: &Client, query: &str, document: &Value) -> anyhow::Result<u64> {
    let present = desired(client).await?["generation"].as_u64().unwrap_or_default();
    let reply = put(client, &format!("/v1/desired{query}"), Some(present), document).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    let generation = reply.json()["generation"].as_u64().unwrap_or_default();
    ensure!(generation > present, "{present} is followed by {}", reply.text());
    Ok(generation)
}

/// A document with this merged over the usual one, one level deep.
fn document(over: Value) -> Value {
    let mut document = crate::support::machine::hosted_document();
    for (section, value) in over.as_object().into_iter().flatten() {
        match (document[section].as_object_mut(), value.as_object()) {
            (Some(present), Some(more)) => present.extend(more.clone()),
            _ => document[section] = value.clone(),
        }
    }
    document
}

/// Whether any file below `dir` contains `needle`; the name of the first one.
fn found_below(dir: &Path, needle: &str) -> Option<String> {
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            if let Some(found) = found_below(&path, needle) {
                return Some(found);
            }
        } else if kind.is_file() {
            let text = std::fs::read(&path).unwrap_or_default();
            if text.windows(needle.len()).any(|part| part == needle.as_bytes()) {
                return Some(path.display().to_string());
            }
        }
    }
    None
}

/// How often the gateway was started since the launcher began.
fn starts(state: &Value) -> u64 {
    state["supervisor"]["starts"].as_u64().unwrap_or_default()
}

/// How the gateway ended the last time, as the state has it.
fn last_exit(state: &Value) -> &Value {
    &state["supervisor"]["last_exit"]
}

/// The supervisor's reason and everything else it says, for texts that must be somewhere in it.
fn supervisor_says(state: &Value, parts: &[&str]) -> bool {
    let text = json!([state["supervisor"], state["phase_reason"], state["findings"]]).to_string().to_lowercase();
    parts.iter().all(|part| text.contains(&part.to_lowercase()))
}
