//! Which files a connection has open, and whether they are still those at its paths.
//!
//! SQLite goes on writing into a log that was removed, and into files that others wrote to; what it acknowledges then is
//! lost with the process. So all of them are looked at before and after each commit.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::Unavailable;

/// No database is shorter: that is its smallest page.
const SHORTEST: u64 = 512;

/// A database's files at its path, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Files {
    database: Seen,
    /// The log, and the index to it: there while a connection is.
    log: Option<Seen>,
    index: Option<Inode>,
}

/// A file at one moment. Only our own commits may change its size and the time it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: Inode,
    size: u64,
    written: (i64, i64),
}

/// Device and number.
type Inode = (u64, u64);

impl Seen {
    fn of(found: &Metadata) -> Self {
        let inode = (found.dev(), found.ino());
        Self { inode, size: found.size(), written: (found.mtime(), found.mtime_nsec()) }
    }

    fn written_since(&self, before: &Self) -> bool {
        self.inode == before.inode && self != before
    }
}

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
        let database = Seen::of(&std::fs::metadata(path).map_err(gone)?);
        let beside = |suffix| std::fs::metadata(with(path, suffix)).ok().map(|found| Seen::of(&found));
        Ok(Self { database, log: beside("-wal"), index: beside("-shm").map(|index| index.inode) })
    }

    /// Whether these are the same files, whatever is in them.
    pub(super) fn same(&self, other: &Self) -> bool {
        let log = |files: &Self| files.log.map(|log| log.inode);
        self.same_database(other) && log(self) == log(other) && self.index == other.index
    }

    /// Whether the database is the same file.
    pub(super) fn same_database(&self, other: &Self) -> bool {
        self.database.inode == other.database.inode
    }

    /// Whether the same database was written to since `before`.
    pub(super) fn written_since(&self, before: &Self) -> bool {
        self.database.written_since(&before.database)
    }

    /// Whether the same log was written to since `before`.
    pub(super) fn log_written_since(&self, before: &Self) -> bool {
        self.log.zip(before.log).is_some_and(|(log, before)| log.written_since(&before))
    }

    /// Whether the same database lost pages since `before`, which no commit does.
    pub(super) fn shorter_than(&self, before: &Self) -> bool {
        self.same_database(before) && self.database.size < before.database.size
    }

    /// These files, with the database of `before`: the one that was opened.
    pub(super) fn opened(self, before: &Self) -> Self {
        let database = Seen { inode: before.database.inode, ..self.database };
        Self { database, ..self }
    }

    /// Whether there is nothing in the database. SQLite takes such a file for a new one, and removes its log.
    pub(super) fn is_empty(&self) -> bool {
        self.database.size < SHORTEST
    }

    /// Whether there is nothing in the database, and something in its log.
    pub(super) fn is_emptied(&self) -> bool {
        self.is_empty() && self.log.is_some_and(|log| log.size > 0)
    }

    /// Whether a log is there.
    pub(super) fn has_log(&self) -> bool {
        self.log.is_some()
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
