//! How the daemon starts, refuses to start, and stops: exit codes, what it says, and what survives.

#[path = "startup/config.rs"]
mod config;
#[path = "startup/disk.rs"]
mod disk;
#[path = "startup/state.rs"]
mod state;
#[path = "startup/stop.rs"]
mod stop;
#[path = "startup/volume.rs"]
pub mod volume;

use crate::support::sidecar::{Builder, Sidecar};

/// The configuration is wrong: starting again changes nothing.
const CONFIG: i32 = 78;
/// Something else is in the way.
const UNAVAILABLE: i32 = 69;

/// A daemon whose gateway is away: a port nobody listens on is enough to start.
fn alone() -> Builder {
    Sidecar::builder().gateway(1, "no gateway")
}

/// Expects an exit and everything of `named` in what was said.
async fn refuses(builder: Builder, code: i32, named: &[&str]) -> anyhow::Result<()> {
    let (got, said) = builder.start_expect_exit().await?;
    assert_eq!(got, code, "{said}");
    for part in named {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    Ok(())
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
