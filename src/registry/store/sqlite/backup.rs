//! Copies of the database: made while a registry runs, put in its place while none does.

use std::fmt::Display;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::super::Unavailable;
use super::claim::Claim;
use super::connect::{self, MIGRATIONS};
use super::files::with;
use super::rows;
use crate::files;

/// Tries to begin or end a copy that another process keeps from it, so far apart.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(100);

/// Writes the database at `from` into the new file `to`: whole, as of one moment, durable, mode 0600. A registry may
/// run on it meanwhile.
///
/// # Errors
/// There is no database of ours, `to` exists already, or it cannot be read or written.
pub fn backup(from: &Path, to: &Path) -> Result<(), String> {
    if files::exists(to) {
        return Err(format!("{}: exists already", to.display()));
    }
    let named = |e: Unavailable| format!("{}: {e}", from.display());
    let (source, _) = connect::connect(from).map_err(named)?;
    if connect::schema(&source, MIGRATIONS.len()).map_err(named)? == 0 {
        return Err(format!("{}: is empty", from.display()));
    }
    copy(&source, to, false, |copy| {
        let found = connect::check(copy).map_err(|e| named(e.into()))?;
        found.map_err(|what| named(Unavailable(format!("is damaged, so no backup is written: {what}"))))
    })
}

/// Puts a backup in the place of the database at `to`; the one that was there stays beside it as `<name>.replaced`.
///
/// # Errors
/// A registry runs on it, the backup is damaged, not ours or of a newer version, the database that an earlier backup
/// replaced is still there, or something cannot be read or written. The database is then as it was.
pub fn restore(from: &Path, to: &Path) -> Result<(), String> {
    let named = |why: String| format!("{}: cannot be restored: {why}; nothing was changed", from.display());
    let source = checked(from).map_err(named)?;
    let kept = connect::beside(to, "replaced");
    if files::exists(&kept) {
        return Err(format!("{}: is what an earlier restore replaced; move it away first", kept.display()));
    }
    let dir = connect::directory(to);
    if !files::exists(dir) {
        return Err(format!("{}: does not exist; create it, or correct store or state_dir", dir.display()));
    }
    let fresh = !files::exists(to);
    if !fresh && !to.is_file() {
        return Err(format!("{}: is no file; correct store", to.display()));
    }
    let mut claim = Claim::lock(to)?;
    copy(&source, to, !fresh, |copy| {
        // Of an older version, or with something missing: that is found out before it is needed.
        connect::migrate(copy, MIGRATIONS).and_then(|()| rows::read_each(copy)).map_err(|e| named(e.0))
    })?;
    claim.closed().map_err(|e| format!("{}: {e}", to.display()))
}

fn checked(path: &Path) -> Result<Connection, String> {
    if !path.is_file() {
        return Err("there is no such file".to_owned());
    }
    let source = connect::open(path).map_err(|e| e.to_string())?;
    if connect::schema(&source, MIGRATIONS.len()).map_err(|e| e.0)? == 0 {
        return Err("it is empty".to_owned());
    }
    connect::check(&source).map_err(|e| e.to_string())?.map_err(|what| format!("it is damaged: {what}"))?;
    Ok(source)
}

/// Leaves the old database under another name, with what its log still held, as far as it can be read.
fn keep(path: &Path) -> Result<(), String> {
    if let Ok((old, _)) = connect::connect(path) {
        let _ = connect::save(&old);
    }
    for log in ["-wal", "-shm"] {
        files::remove_if_present(&with(path, log)).map_err(|e| e.to_string())?;
    }
    let kept = connect::beside(path, "replaced");
    std::fs::hard_link(path, &kept).map_err(|e| format!("{}: {e}", kept.display()))
}

/// Under another name until all of it is on the disk and `check` finds nothing wrong with it. What it replaces is kept.
fn copy(
    source: &Connection,
    to: &Path,
    replaces: bool,
    check: impl FnOnce(&mut Connection) -> Result<(), String>,
) -> Result<(), String> {
    let part = connect::beside(to, "new");
    let named = |e: &dyn Display| format!("{}: {e}", to.display());
    files::remove_if_present(&part).map_err(|e| e.to_string())?;
    drop(files::open_append(&part).map_err(|e| e.to_string())?);
    let done = Connection::open(&part)
        .map_err(|e| named(&e))
        .and_then(|mut copy| copy_pages(source, &mut copy).map_err(|e| named(&e)).and_then(|()| check(&mut copy)))
        .and_then(|()| File::open(&part).and_then(|file| file.sync_all()).map_err(|e| named(&e)))
        .and_then(|()| if replaces { keep(to) } else { Ok(()) })
        .and_then(|()| files::rename(&part, to).map_err(|e| named(&e)));
    if done.is_err() {
        let _ = files::remove_if_present(&part);
    }
    done
}

fn copy_pages(source: &Connection, copy: &mut Connection) -> Result<(), Unavailable> {
    let backup = Backup::new(source, copy)?;
    // In one step: it reads one moment, which a writer does not disturb and by which it is not held up.
    for _ in 0..TRIES {
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            _ => std::thread::sleep(BETWEEN),
        }
    }
    Err(Unavailable("the registry's database is locked by another process".to_owned()))
}
