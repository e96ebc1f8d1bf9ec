//! The one thread that writes. A piece of work is a transaction: all of it, durable, or nothing.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::fcntl::Flock;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::{Counts, Unavailable};
use super::connect::{self, FileId};
use super::rows;

/// A call that has not begun to commit by then is given up.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// The disk has this long to take a commit that has begun.
const COMMIT: Duration = Duration::from_secs(1);
/// Calls that may wait for the writer.
const QUEUE: usize = 256;

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// The way to the thread. Dropping it ends the thread, and waits for that: the file is free afterwards.
#[derive(Debug)]
pub(super) struct Writing {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// How many tenants are how, after the last commit; none while there is no connection.
    pub(super) counts: Arc<Mutex<Option<Counts>>>,
}

/// What the thread has.
pub(super) struct Writer {
    path: PathBuf,
    open: Option<(Connection, FileId)>,
    counts: Arc<Mutex<Option<Counts>>>,
    _lock: Flock<File>,
}

/// A caller that gives up, and a writer that begins to commit: one of them is first.
#[derive(Debug, Default)]
struct Fate(AtomicU8);

impl Fate {
    const COMMITTING: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn become_(&self, end: u8) -> bool {
        self.0.compare_exchange(0, end, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn given_up(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Self::GIVEN_UP
    }
}

/// The caller's side; work nobody waits for any more is not done.
struct Caller(Arc<Fate>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.become_(Fate::GIVEN_UP);
    }
}

impl Writing {
    /// Opens the database, which must exist, and starts the thread.
    pub(super) fn start(path: PathBuf, lock: Flock<File>) -> Result<Self, Unavailable> {
        let counts = Arc::new(Mutex::new(None));
        let mut writer = Writer { path, open: None, counts: counts.clone(), _lock: lock };
        writer.connection()?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new().name("registry-writer".to_owned()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut writer);
            }
        });
        let thread = thread.map_err(|e| Unavailable(format!("no thread for the registry's database: {e}")))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), counts })
    }

    /// Runs `act` in a transaction, and after its commit `then`, both on the thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, Unavailable> + Send + 'static,
        then: impl FnOnce(&T, &mut Counts) + Send + 'static,
    ) -> Result<T, Unavailable> {
        let late = || Unavailable(format!("the registry's database did not answer in {} s", DEADLINE.as_secs()));
        let fate = Arc::new(Fate::default());
        let caller = Caller(fate.clone());
        let (reply, mut answer) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            if !fate.given_up() {
                let _ = reply.send(writer.transact(&fate, act, then));
            }
        });
        let jobs = self.jobs.as_ref().ok_or_else(late)?;
        let asked = async {
            jobs.send(job).await.map_err(|_| late())?;
            (&mut answer).await.map_err(|_| late())?
        };
        if let Ok(done) = timeout(DEADLINE, asked).await {
            return done;
        }
        if caller.0.become_(Fate::GIVEN_UP) {
            return Err(late());
        }
        timeout(COMMIT, answer).await.ok().and_then(Result::ok).unwrap_or_else(|| Err(late()))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.jobs = None;
        // Everybody who waited is gone, so that at most the work it is at is left.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Writer {
    fn transact<T>(
        &mut self,
        fate: &Fate,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, Unavailable>,
        then: impl FnOnce(&T, &mut Counts),
    ) -> Result<T, Unavailable> {
        // A rule that panics costs its batch, not the thread.
        let tried = catch_unwind(AssertUnwindSafe(|| self.attempt(fate, act)));
        let done = tried.unwrap_or_else(|_| Err(Unavailable("the registry failed inside".to_owned())));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(value), Some(counts)) = (&done, counts.as_mut()) {
            then(value, counts);
        } else {
            // Whatever it was: the next call begins with a new connection.
            (self.open, *counts) = (None, None);
        }
        done
    }

    fn attempt<T>(
        &mut self,
        fate: &Fate,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, Unavailable>,
    ) -> Result<T, Unavailable> {
        let transaction = self.connection()?.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = act(&transaction)?;
        if !fate.become_(Fate::COMMITTING) {
            return Err(Unavailable("nobody waits for it any more".to_owned()));
        }
        transaction.commit()?;
        Ok(value)
    }

    /// The connection, to the file that is at the path now.
    fn connection(&mut self) -> Result<&mut Connection, Unavailable> {
        let now = FileId::of(&self.path);
        // Closed before another file can come to be there: the old one's log must not meet it.
        self.open.take_if(|(_, id)| now.as_ref() != Ok(id));
        if self.open.is_none() {
            let (mut connection, id) = connect::connect(&self.path)?;
            connect::migrate(&mut connection, connect::MIGRATIONS)?;
            let counts = rows::counts(&connection)?;
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Some(counts);
            self.open = Some((connection, id));
        }
        self.open.as_mut().map(|(connection, _)| connection).ok_or_else(|| Unavailable("no connection".to_owned()))
    }
}
