//! Which files a connection has open, and whether they are still those at its paths.
//!
//! SQLite goes on writing into a log that was removed, and into a database that was emptied; what it acknowledges then is
//! lost with the process. So both are looked at before and after each commit.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::Unavailable;

/// A database's files at its path, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Files {
    database: Inode,
    /// Size and time of the last write, in seconds and nanoseconds: only our own commits may change them.
    size: u64,
    written: (i64, i64),
    /// The log, and the index to it: there while a connection is.
    log: Option<Inode>,
    index: Option<Inode>,
}

/// Device and number.
type Inode = (u64, u64);

impl Files {
    /// Looks at the files.
    ///
    /// # Errors
    /// There is no database.
    pub(super) fn of(path: &Path) -> Result<Self, Unavailable> {
        let gone = |e| {
            Unavailable(format!(
                "the registry's database file is gone ({e}); put it back, or restart to begin with an empty one"
            ))
        };
        let inode = |found: &Metadata| (found.dev(), found.ino());
        let found = std::fs::metadata(path).map_err(gone)?;
        let other = |suffix| std::fs::metadata(with(path, suffix)).ok().as_ref().map(inode);
        Ok(Self {
            database: inode(&found),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            log: other("-wal"),
            index: other("-shm"),
        })
    }

    /// Whether these are the same files, whatever is in them.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.same_database(other) && (self.log, self.index) == (other.log, other.index)
    }

    /// Whether the database is the same file.
    pub(super) fn same_database(&self, other: &Self) -> bool {
        self.database == other.database
    }

    /// Whether the same file was written to since `before`.
    pub(super) fn written_since(&self, before: &Self) -> bool {
        self.same_database(before) && (self.size, self.written) != (before.size, before.written)
    }

    /// Whether the same file lost pages since `before`, which no commit does.
    pub(super) fn shorter_than(&self, before: &Self) -> bool {
        self.same_database(before) && self.size < before.size
    }

    /// These files, with the database of `before`: the one that was opened.
    pub(super) fn opened(self, before: &Self) -> Self {
        Self { database: before.database, ..self }
    }

    /// Refuses an empty file that is not a new one: SQLite would take it for that, and remove its log.
    pub(super) fn not_emptied(&self, path: &Path) -> Result<(), Unavailable> {
        let log = with(path, "-wal");
        let left = std::fs::metadata(log).is_ok_and(|log| log.len() > 0);
        if self.size == 0 && left { Err(emptied()) } else { Ok(()) }
    }

    /// Whether there is nothing in the database.
    pub(super) fn is_empty(&self) -> bool {
        self.size == 0
    }
}

/// What is said of a database that was emptied.
pub(super) fn emptied() -> Unavailable {
    Unavailable(
        "the registry's database file was emptied; restore a backup, or remove the file and restart to begin with an \
         empty one"
            .to_owned(),
    )
}

/// The name of a file that SQLite keeps beside a database.
pub(super) fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
