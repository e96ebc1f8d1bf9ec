//! Check-ins, against a registry that does what the test tells it.

mod hostile;
mod launched;
mod real;
mod reports;

use std::time::Duration;

use crate::support::registry::Registry;
use crate::support::sidecar::{Builder, Sidecar};

/// Enough for everything that does not wait on purpose.
pub const SOON: Duration = Duration::from_secs(20);

/// A change is told because of the change, not because the interval of minutes is over. How long it takes on a machine
/// that does nothing else (2 s) is no matter for a test.
pub const AT_ONCE: Duration = Duration::from_secs(15);

/// A daemon beside a gateway that somebody else runs, told of the registry.
pub fn beside(registry: &Registry, gateway: u16, token: &str) -> Builder {
    let builder = Sidecar::builder().gateway(gateway, token).env("OPENCLAW_SIDECAR_MACHINE_SECRET", &"m".repeat(40));
    registry.settings().iter().fold(builder, |b, (key, value)| b.env(&format!("OPENCLAW_SIDECAR_{key}"), value))
}
