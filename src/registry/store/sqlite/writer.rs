//! The one thread that writes. A piece of work is a transaction: all of it, durable, or nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::{Counts, Unavailable};
use super::Idle;
use super::claim::Claim;
use super::connect;
use super::files::{self, Files};
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
    /// The files that are written to; none while there is no connection.
    pub(super) files: Arc<Mutex<Option<Files>>>,
}

/// What the thread has.
pub(super) struct Writer {
    path: PathBuf,
    open: Option<(Connection, Files)>,
    /// Somebody else wrote into the file: it is read as a whole before it is used again.
    touched: bool,
    /// What was found then, and in which files.
    damage: Option<(Files, Unavailable)>,
    counts: Arc<Mutex<Option<Counts>>>,
    files: Arc<Mutex<Option<Files>>>,
    readers: Idle,
    claim: Claim,
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
    pub(super) fn start(path: PathBuf, claim: Claim, readers: Idle) -> Result<Self, Unavailable> {
        let (counts, files) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (shown, written) = (counts.clone(), files.clone());
        let mut writer = Writer { path, open: None, touched: false, damage: None, counts, files, readers, claim };
        writer.connection()?;
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new().name("registry-writer".to_owned()).spawn(move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut writer);
            }
        });
        let thread = thread.map_err(|e| Unavailable(format!("no thread for the registry's database: {e}")))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), counts: shown, files: written })
    }

    /// Closes every connection: the log goes into the file, which is all there is afterwards.
    pub(super) async fn close(&self) -> Result<(), Unavailable> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            writer.close();
            let _ = reply.send(());
        });
        let asked = async {
            self.jobs.as_ref()?.send(job).await.ok()?;
            answer.await.ok()
        };
        timeout(DEADLINE, asked).await.ok().flatten().ok_or_else(late)
    }

    /// Runs `act` in a transaction, and after its commit `then`, both on the thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Transaction<'_>) -> Result<T, Unavailable> + Send + 'static,
        then: impl FnOnce(&T, &mut Counts) + Send + 'static,
    ) -> Result<T, Unavailable> {
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

/// What is said of a file that takes too long.
pub(super) fn late() -> Unavailable {
    Unavailable(format!("the registry's database did not answer in {} s", DEADLINE.as_secs()))
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

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Writer {
    fn forget_readers(&self) {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn close(&mut self) {
        // Before ours: the last connection to close brings the log into the file, and readers leave it alone.
        self.forget_readers();
        if self.open.take().is_some()
            && let Err(e) = self.claim.closed()
        {
            tracing::warn!(error = %e, "the database's lock file cannot be written");
        }
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.show(None);
    }

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
            self.show(None);
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
        self.keep()?;
        Ok(value)
    }

    /// What was just committed is in files that are still there.
    fn keep(&mut self) -> Result<(), Unavailable> {
        let now = Files::of(&self.path)?;
        if let Some((_, files)) = &mut self.open
            && now.same(files)
            && !now.shorter_than(files)
        {
            // A commit may bring the log into the database.
            *files = now;
            return Ok(());
        }
        self.connection().map(|_| ())
    }

    /// The connection, to the files that are at the path now.
    fn connection(&mut self) -> Result<&mut Connection, Unavailable> {
        let now = Files::of(&self.path);
        if let Some((connection, files)) = self.open.take_if(|(_, files)| now.as_ref() != Ok(files)) {
            self.leave(connection, files, now.ok())?;
        }
        if self.open.is_none() {
            self.open()?;
        }
        self.open.as_mut().map(|(connection, _)| connection).ok_or_else(|| Unavailable("no connection".to_owned()))
    }

    /// Leaves files that are not those at the path any more, or that others wrote to. What the log still holds goes into
    /// the database it belongs to, before another connection looks at either.
    fn leave(&mut self, connection: Connection, files: Files, now: Option<Files>) -> Result<(), Unavailable> {
        self.show(None);
        self.forget_readers();
        if now.is_some_and(|now| now.log_written_since(&files)) {
            // Nothing of it is brought into the database unread: the next connection takes what is whole.
            self.touched = true;
            tracing::error!(
                path = %self.path.display(),
                "others wrote into the database's log: what was acknowledged and was not yet in the database may be lost"
            );
            return Ok(connect::leave_log_alone(&connection)?);
        }
        self.touched |= now.is_some_and(|now| now.written_since(&files));
        let saved = connect::save(&connection);
        let path = self.path.display();
        if now.is_some_and(|now| now.same_database(&files)) {
            tracing::warn!(%path, saved = saved.is_ok(), "others changed the database's files");
        } else {
            tracing::error!(
                %path,
                "the database was replaced or removed: what was acknowledged is in the file that was there, not in this one"
            );
        }
        if !self.touched && now.is_some_and(|now| now.same_database(&files)) && saved.is_err() {
            // Nobody else has what is in the log.
            self.open = Some((connection, files));
            return saved;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), Unavailable> {
        let before = Files::of(&self.path)?;
        if let Some((files, damage)) = &self.damage
            && *files == before
        {
            return Err(damage.clone());
        }
        let used = self.claim.is_used();
        if used && before.is_empty() {
            return Err(files::emptied());
        }
        if self.touched {
            self.check()?;
        }
        let (mut connection, _) = connect::connect(&self.path)?;
        if used && connect::schema(&connection, connect::MIGRATIONS.len())? == 0 {
            return Err(files::emptied());
        }
        connect::migrate(&mut connection, connect::MIGRATIONS)?;
        self.claim.opened().map_err(|e| Unavailable(format!("the database's lock file cannot be written: {e}")))?;
        let counts = rows::counts(&connection)?;
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Some(counts);
        let files = Files::of(&self.path)?.opened(&before);
        self.open = Some((connection, files));
        self.show(Some(files));
        Ok(())
    }

    /// Reads all of a file that others wrote to.
    fn check(&mut self) -> Result<(), Unavailable> {
        let read = || {
            let (connection, _) = connect::connect(&self.path)?;
            let damaged = |what| Unavailable(format!("the registry's database is damaged; restore a backup ({what})"));
            connect::check(&connection)?.map_err(damaged)
        };
        match read() {
            Ok(()) => (self.touched, self.damage) = (false, None),
            // As the files are after it was read: whoever mends them changes them again.
            Err(why) => {
                self.damage = Files::of(&self.path).ok().map(|files| (files, why.clone()));
                return Err(why);
            }
        }
        Ok(())
    }

    /// Lets readers know which files these are.
    fn show(&self, files: Option<Files>) {
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }
}
