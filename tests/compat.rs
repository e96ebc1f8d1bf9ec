//! Makes the README's table of what each gateway version can do from what the tests put on record.
//!
//! `compat --write` rewrites the table, `compat --check` fails when it is out of date.
#![allow(clippy::print_stderr, clippy::disallowed_methods, reason = "a tool of the build, not the daemon")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

/// Columns: a version, and where its records come from.
const COLUMNS: [(&str, &str); 4] =
    [("2026.2.9", "replay"), ("2026.4.9", "real"), ("2026.6.11", "real"), ("2026.9.6", "real")];

/// Rows: a scenario as the tests on real gateways name it, and as the replay of captured frames does, if it has it.
const ROWS: [(&str, Option<&str>); 18] = [
    ("see a pending device", Some("list")),
    ("approve a device", Some("approve")),
    ("approve the only pending device", None),
    ("repeat an approval safely", Some("unknown-id")),
    ("refuse a request that was widened", None),
    ("approve a scope upgrade", None),
    ("tell when it is connected", None),
    ("reject a device", Some("reject")),
    ("revoke a device", Some("revoke")),
    ("rename a device", Some("rename")),
    ("let a node in", None),
    ("allow a node's commands", None),
    ("revoke a node", None),
    ("approve messenger requests", None),
    ("notice an approval that was not ours", None),
    ("follow a rotated token", None),
    ("wait for a booting gateway", None),
    ("tell a frozen gateway", None),
];

const BEGIN: &str = "<!-- made by the tests: begin -->\n";
const END: &str = "<!-- made by the tests: end -->";

fn main() -> ExitCode {
    let write = env::args().any(|a| a == "--write");
    match run(write) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(write: bool) -> io::Result<()> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = fs::read_to_string(&readme)?;
    let marker = || io::Error::other("README.md has lost the markers of the table");
    let (head, rest) = text.split_once(BEGIN).ok_or_else(marker)?;
    let (old, tail) = rest.split_once(END).ok_or_else(marker)?;
    let table = table()?;
    if write {
        return fs::write(&readme, format!("{head}{BEGIN}{table}{END}{tail}"));
    }
    if old == table {
        return Ok(());
    }
    Err(io::Error::other(format!("the README's table is not what the tests saw; `make compat` rewrites it:\n{table}")))
}

fn table() -> io::Result<String> {
    let mut text = String::from("| |");
    for (version, source) in COLUMNS {
        let note = if source == "replay" { " (replayed frames)" } else { "" };
        let _ = write!(text, " {version}{note} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(COLUMNS.len()));
    text.push('\n');
    for (scenario, replayed) in ROWS {
        let _ = write!(text, "| {scenario} |");
        for (version, source) in COLUMNS {
            let name = if source == "replay" { replayed } else { Some(scenario) };
            let _ = write!(text, " {} |", cell(version, source, name)?);
        }
        text.push('\n');
    }
    Ok(text)
}

fn cell(version: &str, source: &str, scenario: Option<&str>) -> io::Result<&'static str> {
    let Some(scenario) = scenario else { return Ok("not captured") };
    let path = records().join(format!("{version}.{source}")).join(scenario.replace(' ', "-"));
    match fs::read_to_string(&path) {
        Ok(word) if word == "works" => Ok("yes"),
        Ok(_) => Ok("no: 501"),
        Err(e) => {
            Err(io::Error::new(e.kind(), format!("no record of {scenario:?} on {version}; run the tests first: {e}")))
        }
    }
}

/// Where `tests/it/compat.rs` puts the records: cargo's directory for the files of integration tests.
fn records() -> PathBuf {
    let here = env::current_exe().unwrap_or_default();
    here.ancestors().nth(3).unwrap_or(Path::new("target")).join("tmp").join("compat")
}
