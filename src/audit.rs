//! The audit: who asked for what, and what came of it, in a hash chain on disk.
//!
//! Its own thread owns the file. A caller learns twice: when the record is *written* (before the effect begins; a full
//! disk stops the effect) and when it is *durable* (before the answer leaves), so that the fsync runs beside the
//! gateway's work instead of before it.

pub mod chain;

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::{broadcast, oneshot};

use crate::clock::UnixMs;
use crate::files;
use chain::{Entry, Head, OLD_SEGMENTS, Record, current_segment, old_segment};

/// A segment is closed when it has grown to this size; with the old ones the audit stays below 20 MiB.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Records waiting for the writer; more means that the disk hangs.
const QUEUE: usize = 256;
/// How long a record that nobody waits for may stay without an fsync.
const SOON: Duration = Duration::from_millis(500);
/// Records that share one fsync.
const BATCH: usize = 64;
/// Records kept for a follower that is slow; it learns how many it missed.
const FOLLOWED: usize = 512;

/// Handle to the audit; cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: mpsc::SyncSender<Append>,
    dir: PathBuf,
    told: broadcast::Sender<Record>,
}

#[derive(Debug)]
struct Append {
    entry: Entry,
    /// Somebody waits for it to be durable.
    urgent: bool,
    written: oneshot::Sender<io::Result<()>>,
    durable: oneshot::Sender<io::Result<()>>,
}

/// The second half of an append: resolves when the record survives a power cut.
#[derive(Debug)]
pub struct Durable(oneshot::Receiver<io::Result<()>>);

impl Durable {
    /// Waits for the fsync.
    ///
    /// # Errors
    /// The fsync failed, or the writer is gone.
    pub async fn wait(self) -> io::Result<()> {
        self.0.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// A page of the audit.
#[derive(Debug)]
pub struct Page {
    /// The newest record's position and hash.
    pub head: Head,
    /// Records in order.
    pub records: Vec<Record>,
    /// Whether records after the last one of this page exist.
    pub more: bool,
}

impl Audit {
    /// Opens the audit in `dir`, repairs a line cut short by a crash, and starts the writer's thread.
    ///
    /// # Errors
    /// The files cannot be read or created.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let writer = Writer::open(dir)?;
        let (queue, appends) = mpsc::sync_channel(QUEUE);
        let told = writer.told.clone();
        std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&appends))?;
        Ok(Self { queue, dir: dir.to_owned(), told })
    }

    /// Every record from now on, once it is durable: what was told of never goes away again.
    pub fn follow(&self) -> broadcast::Receiver<Record> {
        self.told.subscribe()
    }

    /// Appends a record. Returns once it is written; the result then tells when it is durable.
    ///
    /// # Errors
    /// The disk is full or failing, or too many records wait: nothing may be done that is not on record.
    pub async fn append(&self, entry: Entry) -> io::Result<Durable> {
        self.enqueue(entry, true).await
    }

    /// Appends a record that need not be durable at once: it becomes so with the next one, or after a moment.
    ///
    /// # Errors
    /// As [`Audit::append`].
    pub async fn append_soon(&self, entry: Entry) -> io::Result<()> {
        self.enqueue(entry, false).await.map(|_| ())
    }

    async fn enqueue(&self, entry: Entry, urgent: bool) -> io::Result<Durable> {
        let (written_tx, written) = oneshot::channel();
        let (durable_tx, durable) = oneshot::channel();
        let append = Append { entry, urgent, written: written_tx, durable: durable_tx };
        self.queue.try_send(append).map_err(|_| io::Error::other("the audit's queue is full"))?;
        written.await.unwrap_or_else(|_| Err(gone()))?;
        Ok(Durable(durable))
    }

    /// Reads at most `limit` records: those after position `after`, or the newest ones.
    ///
    /// # Errors
    /// The files cannot be read, or the chain is broken.
    pub async fn page(&self, after: Option<u64>, limit: usize) -> io::Result<Page> {
        let dir = self.dir.clone();
        let read = tokio::task::spawn_blocking(move || read_page(&dir, after, limit));
        read.await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }
}

fn read_page(dir: &Path, after: Option<u64>, limit: usize) -> io::Result<Page> {
    let mut records = std::collections::VecDeque::new();
    let mut more = false;
    let walked = chain::walk(&chain::segments(dir), |record| match after {
        Some(after) if record.n <= after => {}
        Some(_) if records.len() == limit => more = true,
        Some(_) => records.push_back(record),
        None => {
            if records.len() == limit {
                records.pop_front();
            }
            records.push_back(record);
        }
    })?;
    let head = walked.map_err(|broken| io::Error::other(format!("audit record {}: {}", broken.n, broken.why)))?;
    Ok(Page { head, records: records.into(), more })
}

struct Writer {
    dir: PathBuf,
    file: File,
    length: u64,
    head: Head,
    /// So much of the file survives a power cut; `unsynced` follows it.
    synced: u64,
    unsynced: Vec<u8>,
    /// What the file holds beyond `synced` is not known: it has to be written anew.
    distrusted: bool,
    /// Records to tell of once they are durable.
    untold: Vec<Record>,
    told: broadcast::Sender<Record>,
}

impl Writer {
    fn open(dir: &Path) -> io::Result<Self> {
        let mut file = files::open_append(&current_segment(dir))?;
        files::sync_parent(&current_segment(dir))?;
        let length = cut_torn_line(&mut file)?;
        let found = chain::walk(&chain::segments(dir), |_| ())?;
        match found {
            Ok(head) => {
                file.sync_data()?;
                Ok(Self::new(dir, file, length, head))
            }
            Err(broken) => Self::restart(dir, &broken),
        }
    }

    /// A broken chain is set aside whole, for an investigation, and a new one begins that says so.
    fn restart(dir: &Path, broken: &chain::Broken) -> io::Result<Self> {
        tracing::error!(audit.n = broken.n, why = broken.why, "the audit's chain is broken; set aside and begun anew");
        let stamp = UnixMs::now().0;
        for (k, path) in chain::segments(dir).iter().enumerate() {
            files::rename(path, &dir.join(format!("audit.broken-{stamp}-{k}.jsonl")))?;
        }
        let file = files::open_append(&current_segment(dir))?;
        let mut writer = Self::new(dir, file, 0, Head::default());
        writer.write(&Entry {
            at: UnixMs::now().rfc3339(),
            actor: "sidecar".to_owned(),
            verb: "audit.restart".to_owned(),
            outcome: "restarted".to_owned(),
            detail: format!(
                "the chain broke at record {}: {}; set aside as audit.broken-{stamp}",
                broken.n, broken.why
            ),
            ..Entry::default()
        })?;
        writer.make_durable()?;
        Ok(writer)
    }

    fn new(dir: &Path, file: File, length: u64, head: Head) -> Self {
        let dir = dir.to_owned();
        let told = broadcast::Sender::new(FOLLOWED);
        let (synced, unsynced, untold) = (length, Vec::new(), Vec::new());
        Self { dir, file, length, head, synced, unsynced, distrusted: false, untold, told }
    }

    fn run(mut self, appends: &mpsc::Receiver<Append>) {
        let (mut unsynced, mut urgent) = (Vec::new(), false);
        loop {
            let next = if unsynced.is_empty() { appends.recv().ok() } else { appends.recv_timeout(SOON).ok() };
            let Some(first) = next else {
                if unsynced.is_empty() {
                    return;
                }
                self.sync(std::mem::take(&mut unsynced));
                continue;
            };
            let batch = std::iter::once(first).chain(std::iter::from_fn(|| appends.try_recv().ok()));
            for append in batch.take(BATCH) {
                let written = self.write(&append.entry);
                if written.is_ok() {
                    unsynced.push(append.durable);
                    urgent |= append.urgent;
                }
                let _ = append.written.send(written);
            }
            if std::mem::take(&mut urgent) {
                self.sync(std::mem::take(&mut unsynced));
            }
        }
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        if self.distrusted {
            self.write_anew()?;
        }
        if self.length >= SEGMENT_BYTES {
            self.make_durable()?;
            self.rotate()?;
        }
        let (line, head) = self.head.append(entry)?;
        if let Err(e) = self.file.write_all(line.as_bytes()) {
            // Half a line must not stay in front of the next record.
            self.distrusted = self.file.set_len(self.length).is_err();
            return Err(e);
        }
        self.length += line.len() as u64;
        self.unsynced.extend_from_slice(line.as_bytes());
        if self.told.receiver_count() > 0 {
            let (prev, hash) = (std::mem::take(&mut self.head.hash), head.hash.clone());
            self.untold.push(Record { n: head.n, entry: entry.clone(), prev, hash });
        }
        self.head = head;
        Ok(())
    }

    fn sync(&mut self, waiting: Vec<oneshot::Sender<io::Result<()>>>) {
        let synced = self.make_durable();
        if let Err(e) = &synced {
            tracing::error!(error = %e, "the audit could not be made durable");
        }
        if synced.is_ok() {
            self.untold.drain(..).for_each(|record| drop(self.told.send(record)));
        }
        for durable in waiting {
            let _ = durable.send(synced.as_ref().copied().map_err(|e| io::Error::new(e.kind(), e.to_string())));
        }
    }

    fn make_durable(&mut self) -> io::Result<()> {
        if self.distrusted || self.file.sync_data().is_err() {
            return self.write_anew();
        }
        self.synced = self.length;
        self.unsynced.clear();
        Ok(())
    }

    /// After a failed fsync the kernel forgets which pages were lost, so this file is never synced again: what is known
    /// to be durable and what followed it goes into another one. What is on record already is never given up for that.
    fn write_anew(&mut self) -> io::Result<()> {
        self.distrusted = true;
        let path = current_segment(&self.dir);
        let mut content = files::read_bounded(&path, 2 * SEGMENT_BYTES)?;
        content.truncate(usize::try_from(self.synced).unwrap_or(usize::MAX));
        content.extend_from_slice(&self.unsynced);
        files::replace(&path, &content, 0o600)?;
        self.file = files::open_append(&path)?;
        self.length = content.len() as u64;
        (self.synced, self.distrusted) = (self.length, false);
        self.unsynced.clear();
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // A rotation that failed half-way left no current file, or a gap: only what is before the gap moves.
        if current_segment(&self.dir).exists() {
            let gap = (1..OLD_SEGMENTS).find(|k| !old_segment(&self.dir, *k).exists()).unwrap_or(OLD_SEGMENTS);
            for k in (1..gap).rev() {
                files::rename(&old_segment(&self.dir, k), &old_segment(&self.dir, k + 1))?;
            }
            files::rename(&current_segment(&self.dir), &old_segment(&self.dir, 1))?;
        }
        self.file = files::open_append(&current_segment(&self.dir))?;
        (self.length, self.synced) = (0, 0);
        self.unsynced.clear();
        files::sync_parent(&current_segment(&self.dir))
    }
}

/// Cuts what follows the last newline (a record that was never acknowledged) and returns the length.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let mut content = Vec::new();
    file.rewind()?;
    file.take(2 * SEGMENT_BYTES).read_to_end(&mut content)?;
    let whole = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) as u64;
    if whole < content.len() as u64 {
        tracing::warn!(bytes = content.len() as u64 - whole, "an audit record cut short by a crash was removed");
        file.set_len(whole)?;
    }
    Ok(whole)
}

fn gone() -> io::Error {
    io::Error::other("the audit's writer has stopped")
}

#[cfg(test)]
mod tests;
