//! What each gateway version can do, as the tests saw it: every scenario records its result, and the README's table
//! is made from the records (`make compat`) and compared with them.

use std::fs;
use std::path::PathBuf;

/// What a scenario found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Works,
    /// The gateway cannot do it, and the sidecar says so.
    Unsupported,
}

/// Puts a scenario's result on record; `source` is `real` or `replay`.
pub fn record(version: &str, source: &str, scenario: &str, outcome: Outcome) {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compat").join(format!("{version}.{source}"));
    fs::create_dir_all(&dir).expect("a directory for the records");
    let word = if outcome == Outcome::Works { "works" } else { "unsupported" };
    fs::write(dir.join(scenario.replace(' ', "-")), word).expect("a record");
}
