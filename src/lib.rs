//! The control daemon beside an OpenClaw gateway.
pub mod api;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gateway;
pub mod http;
pub mod json;
pub mod metrics;
pub mod op;
pub mod secret;
pub mod state;
pub mod watch;
