//! Secrets are planted in every place that takes one, and then looked for everywhere else: in every answer, event and
//! log line of ours, in every command line, and in every file and environment that another user can read.
//!
//! Where a secret may be, because its owner has it there, is in [`rooms`].

#[path = "canaries/life.rs"]
mod life;
#[path = "canaries/rooms.rs"]
mod rooms;
#[path = "canaries/scene.rs"]
mod scene;
#[path = "canaries/secrets.rs"]
pub mod secrets;
#[path = "canaries/spill.rs"]
pub mod spill;
#[path = "canaries/tape.rs"]
mod tape;

use std::time::Duration;

/// What needs no boot of a gateway.
const SOON: Duration = Duration::from_secs(30);
