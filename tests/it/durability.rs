//! State files through everything a disk can do to them: each call of the kernel fails once with each error, the
//! process is killed at each call, and at random. Never a garbled file, never an acknowledged write lost.
//!
//! `strace` makes the calls fail. Most cases run a small process ([`driver`]) that writes through the same code as the
//! daemon; a handful for each file are the real daemon's, over HTTPS, and `seed` is always the real one.

#[path = "durability/daemon.rs"]
mod daemon;
#[path = "durability/driver.rs"]
mod driver;
#[path = "durability/given.rs"]
mod given;
#[path = "durability/kills.rs"]
mod kills;
#[path = "durability/order.rs"]
mod order;
#[path = "durability/records.rs"]
mod records;
#[path = "durability/seed.rs"]
mod seed;
#[path = "durability/strace.rs"]
mod strace;
#[path = "durability/sweep.rs"]
mod sweep;
#[path = "durability/table.rs"]
pub mod table;

use std::path::{Path, PathBuf};

use anyhow::ensure;

/// The name under which a file is written before it takes its place.
fn temporary(target: &Path) -> PathBuf {
    let name = target.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
    target.with_file_name(format!(".{name}.new"))
}

/// What `strace` is told to look at for one file: the file, its temporary name, and their directory.
fn watched(target: &Path) -> Vec<PathBuf> {
    vec![target.to_owned(), temporary(target), target.parent().expect("a directory").to_owned()]
}

/// Nothing lies in a directory but what is known, and for each of those at most the one temporary file.
fn no_litter(dir: &Path, known: &[&str]) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let expected = |known: &&str| name == **known || name == format!(".{known}.new");
        ensure!(known.iter().any(expected), "{name} was left in {}", dir.display());
    }
    Ok(())
}
