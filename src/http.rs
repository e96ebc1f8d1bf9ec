//! The HTTP side: listeners, TLS, limits, and the checks every request passes before the API sees it.
//!
//! ```text
//! accept -> admit (cap, eviction) -> TLS handshake -> head -> screen -> route -> authenticate -> authorise
//!        -> body (bounded) -> api -> answer (problem+json on every error) -> log line and counters
//! ```
//!
//! HTTP/1.1 only, TLS 1.3 only. Every phase has a deadline.

pub mod app;
pub mod connections;
pub mod listen;
pub mod query;
pub mod route;
pub mod screen;
pub mod serve;
pub mod stream;
pub mod tls;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use app::App;
use connections::Connections;

/// A TLS handshake must end within this.
pub const HANDSHAKE: Duration = Duration::from_secs(5);
/// The first request's head must be complete within this after the handshake.
pub const FIRST_HEAD: Duration = Duration::from_secs(10);
/// A later request's head, counted from the end of the answer before: the longest a connection may idle.
pub const IDLE: Duration = Duration::from_secs(60);
/// A body must be complete within this.
pub const BODY: Duration = Duration::from_secs(10);
/// Largest body of most routes, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// A write that the peer does not take for so long ends the connection.
pub const WRITE: Duration = Duration::from_secs(10);

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// What is served.
    pub app: Arc<dyn App>,
    /// Open connections and their cap.
    pub connections: Connections,
    /// Event streams still to be had; each holds a connection that is never evicted.
    pub streams: Arc<Semaphore>,
    /// The local socket lets only root in: gateway and sidecar are one user.
    pub local_root_only: bool,
    /// Host names served, in lower case, besides IP addresses and `localhost`.
    pub host_names: HashSet<String>,
    /// Connections and the calls they carry, waited for at shutdown.
    pub tasks: TaskTracker,
    /// Ends listeners, streams and idle connections at shutdown.
    pub stop: CancellationToken,
}
