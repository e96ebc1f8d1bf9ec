//! The database's place: what lies there, whose it is, and how the last run left it. Nothing is touched that is not ours.

use std::fmt::Display;
use std::fs::{File, Metadata};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::connect::{APPLICATION_ID, beside, directory};
use super::files::{Files, emptied, with};
use crate::files;

/// What every database begins with, and where it says whose it is (`https://sqlite.org/fileformat.html`, 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";
const APPLICATION_ID_AT: std::ops::Range<usize> = 68..72;
/// What the lock's file says: a registry runs on the database, or the last one ended in order.
const IN_USE: &str = "a registry has this database open\n";
const CLOSED: &str = "a registry has closed this database\n";

/// The database is one process's, for as long as it holds this.
#[derive(Debug)]
pub(super) struct Claim(Flock<File>);

impl Claim {
    /// Takes the database for this process, and makes an empty file where there is none.
    ///
    /// # Errors
    /// Another process has it, its directory is open to others, something else lies there, or it was emptied; in plain
    /// words. No database was changed then.
    pub(super) fn take(path: &Path) -> Result<Self, String> {
        let named = |e: &dyn Display| format!("{}: {e}", path.display());
        is_ours(path).map_err(|e| named(&e))?;
        let mut claim = Self::lock(path)?;
        claim.look(path).map_err(|e| named(&e))?;
        let file = files::open_append(path).map_err(|e| e.to_string())?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(|e| named(&e))?;
        files::sync_parent(path).map_err(|e| named(&e))?;
        Ok(claim)
    }

    /// Takes the place for this process, whatever lies there.
    ///
    /// # Errors
    /// Another process has it, or its directory is open to others.
    pub(super) fn lock(path: &Path) -> Result<Self, String> {
        own_directory(directory(path))?;
        let file = files::open_append(&beside(path, "lock")).map_err(|e| e.to_string())?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        lock.map(Self).map_err(|_| format!("{}: another process has it open", path.display()))
    }

    /// What the last run left.
    fn look(&mut self, path: &Path) -> Result<(), String> {
        let state = self.state();
        match Files::of(path) {
            Ok(found) if found.is_empty() && !state.is_empty() => Err(emptied().0),
            Ok(found) => {
                if state == IN_USE && !found.has_log() {
                    tracing::error!(
                        path = %path.display(),
                        "the log of the last run is gone: what was acknowledged and was not yet in the database is lost"
                    );
                }
                Ok(())
            }
            Err(_) if state.is_empty() => {
                tracing::info!(path = %path.display(), "a new database is begun");
                set_log_aside(path)
            }
            Err(_) => {
                tracing::warn!(
                    path = %path.display(),
                    "the database is gone, so the registry begins with an empty one: tenants come back with their next \
                     check-ins, keys and webhooks do not"
                );
                self.say("").map_err(|e| e.to_string())?;
                set_log_aside(path)
            }
        }
    }

    /// Whether there was a database with something in it.
    pub(super) fn is_used(&mut self) -> bool {
        !self.state().is_empty()
    }

    /// From now on there is one, and a log that belongs to it.
    pub(super) fn opened(&mut self) -> std::io::Result<()> {
        self.say(IN_USE)
    }

    /// All there is is in the database.
    pub(super) fn closed(&mut self) -> std::io::Result<()> {
        self.say(CLOSED)
    }

    fn state(&mut self) -> String {
        let mut text = String::new();
        let read = self.0.rewind().and_then(|()| (&mut *self.0).take(100).read_to_string(&mut text));
        // Unreadable: then at least it is not a new one.
        if read.is_err() { IN_USE.to_owned() } else { text }
    }

    fn say(&mut self, state: &str) -> std::io::Result<()> {
        if self.state() == state {
            return Ok(());
        }
        self.0.set_len(0)?;
        self.0.write_all(state.as_bytes())?;
        self.0.sync_all()
    }
}

/// Whether what lies at the path may be a registry's database, or nothing does.
fn is_ours(path: &Path) -> Result<(), String> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let found: Metadata = if found.is_symlink() {
        std::fs::metadata(path).map_err(|e| format!("is a link to nothing ({e}); correct store"))?
    } else {
        found
    };
    if !found.is_file() {
        return Err("is no file; correct store".to_owned());
    }
    let mut head = Vec::new();
    File::open(path).and_then(|file| file.take(100).read_to_end(&mut head)).map_err(|e| e.to_string())?;
    if head.len() >= MAGIC.len() && !head.starts_with(MAGIC) {
        return Err("is damaged, or no database; restore a backup, or correct store".to_owned());
    }
    let owner = head.get(APPLICATION_ID_AT).and_then(|four| Some(i32::from_be_bytes(four.try_into().ok()?)));
    if owner.is_some_and(|owner| owner != 0 && owner != APPLICATION_ID) {
        return Err("is another program's database; correct store".to_owned());
    }
    Ok(())
}

fn own_directory(dir: &Path) -> Result<(), String> {
    let named = |e: &dyn Display| format!("{}: {e}", dir.display());
    if !files::exists(dir) {
        return files::private_dir(dir).map_err(|e| named(&e));
    }
    let mode = std::fs::metadata(dir).map_err(|e| named(&e))?.mode();
    if mode & 0o022 != 0 {
        return Err(named(&"others may write there; give the database a directory of its own"));
    }
    Ok(())
}

/// A log without its database is of no use to another, and is not removed either.
fn set_log_aside(path: &Path) -> Result<(), String> {
    let log = with(path, "-wal");
    if files::exists(&log) {
        let aside = beside(path, "lost-log");
        files::rename(&log, &aside).map_err(|e| e.to_string())?;
        tracing::warn!(aside = %aside.display(), "the log of the database that is gone is kept here");
    }
    files::remove_if_present(&with(path, "-shm")).map_err(|e| e.to_string())
}
