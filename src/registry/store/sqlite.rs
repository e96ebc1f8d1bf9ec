//! The store inside the process: one SQLite file, one thread that writes, a few connections that read.
//!
//! A commit is on the disk before anybody is told of it (`synchronous = FULL`). Whatever goes wrong with the file, the
//! connection is given up and the next call begins with a new one: when the cause is gone, so is the fault.

mod backup;
mod claim;
mod connect;
mod files;
mod rows;
mod settings;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use rusqlite::{Connection, Transaction};
use tokio::sync::{Semaphore, broadcast};
use tokio::time::timeout;

use self::claim::Claim;
use self::files::Files;
use self::rows::Amended;
use self::writer::{DEADLINE, Writing, late};
use super::facts::{Facts, plain};
use super::{
    Answered, Blind, CHANGES_KEPT, Changed, Counts, Filter, Key, Order, Outcome, Store, Unavailable, Webhook, Work,
    tell,
};
use crate::clock::UnixMs;
use crate::registry::tenant::{Digest, Entry, Row};

pub use self::backup::{backup, restore};
pub use self::connect::check_place;

/// Reads at once; each is a few milliseconds at most.
const READERS: usize = 4;

/// The registry's data in one file, for one process.
#[derive(Debug)]
pub struct Sqlite {
    writing: Writing,
    reading: Arc<Reading>,
    changes: broadcast::Sender<Changed>,
}

/// Connections that nobody reads with now, and the files they have open.
type Idle = Arc<Mutex<Vec<(Connection, Files)>>>;

#[derive(Debug)]
struct Reading {
    path: PathBuf,
    idle: Idle,
    /// Those that are written to.
    written: Arc<Mutex<Option<Files>>>,
    slots: Arc<Semaphore>,
}

impl Sqlite {
    /// Opens the database at `path`, creates it where there is none, and brings its schema to the newest.
    ///
    /// # Errors
    /// Another process has it open, it belongs to a newer version, or it cannot be opened; in plain words.
    pub fn open(path: &Path) -> Result<Self, String> {
        let claim = Claim::take(path)?;
        let idle = Idle::default();
        let writing =
            Writing::start(path.to_owned(), claim, idle.clone()).map_err(|e| format!("{}: {e}", path.display()))?;
        let reading = Reading {
            path: path.to_owned(),
            idle,
            written: writing.files.clone(),
            slots: Arc::new(Semaphore::new(READERS)),
        };
        Ok(Self { writing, reading: Arc::new(reading), changes: broadcast::Sender::new(CHANGES_KEPT) })
    }

    fn read<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Connection) -> Result<T, Unavailable> + Send + 'static,
    ) -> Answered<'_, T> {
        let reading = self.reading.clone();
        let asked = async move {
            if reading.behind() {
                // The writer saves what a removed log holds, so that it can be read.
                self.write(|_| Ok(())).await?;
            }
            let slot = reading.slots.clone().acquire_owned().await.map_err(|_| late())?;
            let read = move || {
                let _slot = slot;
                reading.run(act)
            };
            tokio::task::spawn_blocking(read).await.map_err(|_| Unavailable("the registry failed inside".to_owned()))?
        };
        async move { timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(late())) }.boxed()
    }

    fn write<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, Unavailable> + Send + 'static,
    ) -> Answered<'_, T> {
        self.writing.run(act, |_, _| ()).boxed()
    }
}

impl Reading {
    /// Whether the files at the path are others than those that are written to.
    fn behind(&self) -> bool {
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.is_some_and(|written| Files::of(&self.path).is_ok_and(|now| !now.same(&written)))
    }

    fn run<T>(&self, act: impl FnOnce(&Connection) -> Result<T, Unavailable>) -> Result<T, Unavailable> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Files::of(&self.path);
        // All of them, at once: another file's log must not meet this one's.
        idle().retain(|(_, files)| now.as_ref().is_ok_and(|now| now.same(files)));
        let kept = idle().pop();
        let (connection, files) = kept.map_or_else(|| connect::reader(&self.path), Ok)?;
        let found = act(&connection)?;
        idle().push((connection, files));
        Ok(found)
    }
}

/// Counts a row as it is now instead of as it was.
fn recount(counts: &mut Counts, before: Option<&Row>, now: Option<&Row>) {
    let signed = [(before, -1), (now, 1)];
    for (row, n) in signed.into_iter().filter_map(|(row, n)| Some((row?, n))) {
        if row.retired_at.is_none() {
            Facts::of(row).group(row.status).count(counts, n);
        }
    }
}

impl Store for Sqlite {
    fn amend(&self, work: Vec<Work>) -> Answered<'_, Vec<Outcome>> {
        let changes = self.changes.clone();
        let done = self.writing.run(
            move |transaction| rows::amend(transaction, &work),
            move |Amended { batch, stored, news }, counts| {
                for id in news {
                    recount(counts, stored.get(id), batch.rows.get(id));
                }
                tell(&changes, batch.changed());
            },
        );
        done.map(|done| done.map(|amended| amended.batch.outcomes)).boxed()
    }

    fn owner(&self, digest: Digest) -> Answered<'_, Option<String>> {
        self.read(move |connection| rows::owner(connection, &digest))
    }

    fn tenant(&self, id: String) -> Answered<'_, Option<(Row, Option<String>)>> {
        self.read(move |connection| rows::tenant(connection, &plain(&id)))
    }

    fn list(&self, filter: Filter, order: Order, limit: usize) -> Answered<'_, Vec<Row>> {
        self.read(move |connection| rows::list(connection, filter, order, limit))
    }

    fn counts(&self) -> Answered<'_, Counts> {
        let kept = self.writing.counts.clone();
        let kept = move || kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match kept() {
            Some(counts) => std::future::ready(Ok(counts)).boxed(),
            // Without a connection: the writer counts anew, or says what is wrong.
            None => self.write(move |_| Ok(kept().unwrap_or_default())),
        }
    }

    fn timeline(&self, tenant: Option<String>, before: Option<u64>, limit: usize) -> Answered<'_, Vec<Entry>> {
        self.read(move |connection| rows::timeline(connection, tenant.as_deref(), before, limit))
    }

    fn entries_after(&self, seq: u64, limit: usize) -> Answered<'_, Vec<Entry>> {
        self.read(move |connection| rows::entries_after(connection, seq, limit))
    }

    fn overdue(
        &self,
        now: UnixMs,
        pending_before: UnixMs,
        after: Option<String>,
        limit: usize,
    ) -> Answered<'_, Vec<String>> {
        self.read(move |connection| rows::overdue(connection, now, pending_before, after.as_deref(), limit))
    }

    fn leads(&self) -> Answered<'_, bool> {
        self.read(|connection| rows::blind(connection, UnixMs(u64::MAX)).map(|_| true))
    }

    fn alive(&self, now: UnixMs, gap_ms: u64) -> Answered<'_, ()> {
        self.write(move |transaction| rows::alive(transaction, now, gap_ms))
    }

    fn blind(&self, since: UnixMs) -> Answered<'_, Vec<Blind>> {
        self.read(move |connection| rows::blind(connection, since))
    }

    fn prune(&self, now: UnixMs) -> Answered<'_, u64> {
        self.write(move |transaction| rows::prune(transaction, now))
    }

    fn keys(&self) -> Answered<'_, Vec<Key>> {
        self.read(settings::keys)
    }

    fn put_key(&self, key: Key) -> Answered<'_, bool> {
        self.write(move |transaction| settings::put_key(transaction, &key))
    }

    fn drop_key(&self, id: String) -> Answered<'_, bool> {
        self.write(move |transaction| settings::drop_key(transaction, &id))
    }

    fn webhooks(&self) -> Answered<'_, Vec<Webhook>> {
        self.read(settings::webhooks)
    }

    fn put_webhook(&self, webhook: Webhook) -> Answered<'_, ()> {
        self.write(move |transaction| settings::put_webhook(transaction, &webhook))
    }

    fn delivered(&self, webhook: Webhook) -> Answered<'_, ()> {
        self.write(move |transaction| settings::delivered(transaction, &webhook))
    }

    fn drop_webhook(&self, id: String) -> Answered<'_, bool> {
        self.write(move |transaction| settings::drop_webhook(transaction, &id))
    }

    fn writers(&self) -> usize {
        1
    }

    fn close(&self) -> Answered<'_, ()> {
        self.writing.close().boxed()
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }
}
