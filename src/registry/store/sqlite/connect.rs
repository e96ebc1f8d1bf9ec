//! Connections to the file: how they are opened, its schema, and what its errors mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::super::{Unavailable, facts};
use super::files::{self as named, Files};
use crate::files;

/// Schemas, each made from the one before. Never change one that was released: add the next.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("0001.sql"), include_str!("0002.sql"), include_str!("0003.sql")];
/// Marks the file as ours: `OCRG`.
pub(super) const APPLICATION_ID: i32 = 0x4f43_5247;
/// A lock of another process is waited for so long, less than the deadline of a call.
const BUSY: Duration = Duration::from_secs(2);

/// Where the database lies.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether there is a place for the database: its directory is made, the one above it is not.
///
/// # Errors
/// The key and what is missing.
pub fn check_place(path: &Path) -> Result<(), String> {
    let dir = directory(path);
    match dir.parent().filter(|above| !above.as_os_str().is_empty() && !files::exists(above)) {
        // A volume that is not mounted, most likely: a database made there would be lost with it.
        Some(_) => Err(format!("store: {} does not exist; create it, or correct store", dir.display())),
        None => Ok(()),
    }
}

/// The name of a file that belongs to the database.
pub(super) fn beside(path: &Path, what: &str) -> PathBuf {
    named::with(path, &format!(".{what}"))
}

/// Opens an existing file.
pub(super) fn connect(path: &Path) -> Result<(Connection, Files), Unavailable> {
    let before = Files::of(path)?;
    if before.is_emptied() {
        return Err(named::emptied());
    }
    let connection = open(path)?;
    Ok((connection, Files::of(path)?.opened(&before)))
}

/// The same for reading: when it closes it leaves the log alone, which may be another file's by then.
pub(super) fn reader(path: &Path) -> Result<(Connection, Files), Unavailable> {
    let (connection, files) = connect(path)?;
    leave_log_alone(&connection)?;
    Ok((connection, files))
}

/// Opens an existing file; its log is there then.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(std::fs::canonicalize(path).unwrap_or_else(|_| path.into()), flags)?;
    connection.busy_timeout(BUSY)?;
    // 32 MiB of log before it goes into the file: a page that changes often goes there once.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA mmap_size = 0;
         PRAGMA trusted_schema = OFF; PRAGMA cache_size = -16384; PRAGMA journal_size_limit = 67108864;
         PRAGMA wal_autocheckpoint = 8192;",
    )?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Brings what the log still holds into the database that this connection has open, wherever its files are by now.
pub(super) fn save(connection: &Connection) -> Result<(), Unavailable> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(Unavailable("the registry's database is locked by another process".to_owned())) }
}

/// Whether the connection closes without bringing the log into the file.
pub(super) fn leave_log_alone(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// Reads all of a database.
///
/// # Errors
/// What is wrong in it.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<Result<(), String>> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    let line = found.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(if found == "ok" { Ok(()) } else { Err(line) })
}

/// Brings the schema to the newest, one step and one transaction at a time.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), Unavailable> {
    let mut version = schema(connection, migrations.len())?;
    while let Some(step) = migrations.get(version) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        version += 1;
        transaction.pragma_update(None, "user_version", facts::int_usize(version))?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.commit()?;
    }
    Ok(())
}

/// The schema's number; 0 for an empty file.
pub(super) fn schema(connection: &Connection, known: usize) -> Result<usize, Unavailable> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let version = number("PRAGMA user_version")?;
    let ours = number("PRAGMA application_id")? == i64::from(APPLICATION_ID);
    if !ours && (version != 0 || number("SELECT count(*) FROM sqlite_schema")? != 0) {
        return Err(Unavailable("the file is another program's database".to_owned()));
    }
    match usize::try_from(version) {
        Ok(version) if version <= known => Ok(version),
        _ => Err(Unavailable(format!(
            "the registry's database was written by a newer version (schema {version}, this one knows {known}); install \
             that version, or restore a backup made before it"
        ))),
    }
}

impl From<rusqlite::Error> for Unavailable {
    fn from(error: rusqlite::Error) -> Self {
        let known = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "is locked by another process",
            Some(ErrorCode::DiskFull) => "cannot grow: the disk is full",
            Some(ErrorCode::ReadOnly) => "is read-only",
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => "cannot be opened",
            Some(ErrorCode::SystemIoFailure) => "cannot be read or written",
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "is damaged; restore a backup",
            _ => "refused",
        };
        Self(format!("the registry's database {known} ({error})"))
    }
}
