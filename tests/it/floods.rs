//! Callers that only want to keep others out: whoever has business here still gets in, and memory stays bounded.

#[path = "floods/attackers.rs"]
mod attackers;
#[path = "floods/cap.rs"]
mod cap;
#[path = "floods/flood.rs"]
mod flood;

use crate::support::sidecar::Sidecar;

/// Open descriptors of the daemon, sockets among them.
fn descriptors(sidecar: &Sidecar) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", sidecar.pid())).expect("the daemon runs").count()
}
