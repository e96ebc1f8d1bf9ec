//! The control daemon beside an OpenClaw gateway.
//!
//! ```text
//! HTTPS request -> http (limits, TLS, timeouts) -> auth (principal, tier) -> api (route -> typed command)
//!    -> op (decide) -> gateway | files   (the only effects)
//!    -> state (publish generation N+1)            and back: outcome -> problem or body -> response
//! ```
//!
//! A module may use those below it in `docs/architecture.md`, never those above.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests plant files and damage on purpose"))]

pub mod api;
pub mod audit;
pub mod auth;
pub mod checkin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod desired;
pub mod files;
#[cfg(any(test, fuzzing))]
#[allow(clippy::missing_panics_doc, clippy::expect_used, reason = "a panic is a finding")]
pub mod fuzzing;
pub mod gateway;
pub mod harden;
pub mod http;
pub mod json;
pub mod launcher;
pub mod metrics;
pub mod op;
pub mod pulse;
#[cfg(feature = "registry")]
pub mod registry;
pub mod secret;
pub mod state;
mod suspend;
pub mod watch;
