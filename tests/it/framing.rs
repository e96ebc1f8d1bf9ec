//! Requests as no client library sends them: refused by an exact status or a close, without effect, in time.

#[path = "framing/bodies.rs"]
mod bodies;
#[path = "framing/cases.rs"]
mod cases;
#[path = "framing/deadlines.rs"]
mod deadlines;
#[path = "framing/tls.rs"]
mod tls;

pub use tls::client_hello;

use std::time::{Duration, Instant};

use super::auth_matrix::scene::Scene;
use super::auth_matrix::wire::{Answer, answers};
use crate::support::client::Client;

/// Everything but a trickling sender is answered at once; this is for a busy machine.
const SOON: Duration = Duration::from_secs(8);

/// Sends `bytes` on a fresh connection and waits for the close; fails if there is none.
async fn exchange(client: &Client, name: &str, bytes: &[u8]) -> anyhow::Result<Vec<Answer>> {
    let started = Instant::now();
    let answer = client.raw(bytes, SOON).await?;
    assert!(started.elapsed() < SOON, "{name}: the connection hangs after {:?}", String::from_utf8_lossy(&answer));
    answers(&answer)
}

fn both(scene: &Scene) -> [(&'static str, Client); 2] {
    [("tls", scene.sidecar.client()), ("edge", scene.sidecar.edge_client())]
}
