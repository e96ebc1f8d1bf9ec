//! The registry: where sidecars phone home to and support looks.
//!
//! ```text
//! check-in -> http -> agent credential -> ingest (order, change) -> store (group commit) -> listeners
//! support  -> http -> key or session   -> api | console -> store (read) -> status, derived from the facts
//! ```
//!
//! It holds no credential for any sidecar and no secret of a tenant: nothing here can act on a machine.

pub mod api;
pub mod callers;
pub mod cli;
pub mod config;
pub mod console;
pub mod ingest;
pub mod metrics;
pub mod rules;
pub mod serve;
#[cfg(test)]
mod simulation;
pub mod status;
pub mod store;
pub mod sweep;
pub mod tenant;
pub mod view;
pub mod webhooks;
