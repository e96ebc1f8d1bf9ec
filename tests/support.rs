//! What every test, the demo and the bench stand on: real gateways, a protocol-true fake, the daemon under
//! test, a scripted remote browser and a small HTTP client.
#![allow(dead_code, unused_imports, reason = "each of the three binaries that include this uses a part of it")]
#![allow(
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_debug_implementations,
    unreachable_pub,
    missing_docs,
    reason = "test support: a broken expectation is a failed test"
)]

pub mod chromium;
pub mod client;
pub mod device;
pub mod fake;
pub mod gateway;
pub mod machine;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod proxy;
pub mod registry;
#[cfg(feature = "registry")]
pub mod service;
pub mod sidecar;
#[cfg(feature = "registry")]
pub mod small_disk;
#[cfg(feature = "registry")]
pub mod swarm;
