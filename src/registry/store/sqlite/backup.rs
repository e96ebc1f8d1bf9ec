//! Copies of the database: made while a registry runs, put in its place while none does.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::super::Unavailable;
use super::connect::{self, MIGRATIONS};
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
    let (source, _) = connect::connect(from).map_err(|e| format!("{}: {e}", from.display()))?;
    let schema = connect::schema(&source, MIGRATIONS.len()).map_err(|e| format!("{}: {e}", from.display()))?;
    if schema == 0 {
        return Err(format!("{}: is empty", from.display()));
    }
    copy(&source, to)
}

/// Puts a backup in the place of the database at `to`; the one that was there stays beside it as `<name>.replaced`.
///
/// # Errors
/// A registry runs on it, the backup is damaged, not ours or of a newer version, or it cannot be read or written.
/// The database is then as it was.
pub fn restore(from: &Path, to: &Path) -> Result<(), String> {
    let source = checked(from).map_err(|e| format!("{}: {e}", from.display()))?;
    let fresh = !files::exists(to);
    let _lock = connect::claim(to)?;
    if !fresh {
        keep(to)?;
    }
    let made = copy(&source, to);
    if made.is_err() && fresh {
        let _ = files::remove_if_present(to);
    }
    made
}

fn checked(path: &Path) -> Result<Connection, Unavailable> {
    let (source, _) = connect::connect(path)?;
    if connect::schema(&source, MIGRATIONS.len())? == 0 {
        return Err(Unavailable("is empty".to_owned()));
    }
    let found: String = source.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Err(Unavailable(format!("is damaged: {found}")));
    }
    Ok(source)
}

/// Leaves the old database under another name, with what its log still held, as far as it can be read.
fn keep(path: &Path) -> Result<(), String> {
    if let Ok((old, _)) = connect::connect(path) {
        let _ = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
    for log in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(log);
        files::remove_if_present(Path::new(&name)).map_err(|e| e.to_string())?;
    }
    let kept = connect::beside(path, "replaced");
    files::remove_if_present(&kept).map_err(|e| e.to_string())?;
    std::fs::hard_link(path, &kept).map_err(|e| format!("{}: {e}", kept.display()))
}

/// Under another name until all of it is on the disk.
fn copy(source: &Connection, to: &Path) -> Result<(), String> {
    let part = connect::beside(to, "new");
    let named = |e: String| format!("{}: {e}", to.display());
    files::remove_if_present(&part).map_err(|e| e.to_string())?;
    drop(files::open_append(&part).map_err(|e| e.to_string())?);
    let done = copy_pages(source, &part)
        .map_err(|e| e.to_string())
        .and_then(|()| File::open(&part).and_then(|file| file.sync_all()).map_err(|e| e.to_string()))
        .and_then(|()| files::rename(&part, to).map_err(|e| e.to_string()));
    if done.is_err() {
        let _ = files::remove_if_present(&part);
    }
    done.map_err(named)
}

fn copy_pages(source: &Connection, to: &Path) -> Result<(), Unavailable> {
    let mut copy = Connection::open(to)?;
    let backup = Backup::new(source, &mut copy)?;
    // In one step: it reads one moment, which a writer does not disturb and by which it is not held up.
    for _ in 0..TRIES {
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            _ => std::thread::sleep(BETWEEN),
        }
    }
    Err(Unavailable("the registry's database is locked by another process".to_owned()))
}
