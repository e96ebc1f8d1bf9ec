//! Group commit: changes that arrive while one transaction is written go into the next one together.
//!
//! An answer is given only after the commit, so what was acknowledged is durable.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::store::{Outcome, Store, Unavailable, Work};

/// Most changes in one transaction.
const BATCH: usize = 512;
/// Most changes that wait; one more is told to come back later.
const QUEUE: usize = 8192;
/// Whoever waits longer for a commit is told to come back later. The change may still be kept, which does no harm.
const PATIENCE: Duration = Duration::from_secs(8);

type Waiting = (Work, oneshot::Sender<Result<Outcome, Unavailable>>);

/// The way into the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest(mpsc::Sender<Waiting>);

impl Ingest {
    /// Starts the tasks that commit to `store`; they end when every handle is gone.
    pub fn start(store: &Arc<dyn Store>) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(tokio::sync::Mutex::new(queue));
        for _ in 0..store.writers() {
            tokio::spawn(write(store.clone(), queue.clone()));
        }
        Self(sender)
    }

    /// Does one piece of work, durably.
    ///
    /// # Errors
    /// The store cannot do it now, or too much waits.
    pub async fn amend(&self, work: Work) -> Result<Outcome, Unavailable> {
        let (sender, answer) = oneshot::channel();
        self.0.try_send((work, sender)).map_err(|_| Unavailable("too many changes wait to be written".to_owned()))?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Unavailable("the writer ended".to_owned())),
            Err(_) => Err(Unavailable(format!("nothing was written within {} s", PATIENCE.as_secs()))),
        }
    }
}

async fn write(store: Arc<dyn Store>, queue: Arc<tokio::sync::Mutex<mpsc::Receiver<Waiting>>>) {
    let mut batch: Vec<Waiting> = Vec::with_capacity(BATCH);
    loop {
        if queue.lock().await.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        // Whoever gave up meanwhile is told nothing; the change is kept all the same.
        let (work, waiting): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        match store.amend(work).await {
            Ok(outcomes) => {
                for (sender, outcome) in waiting.into_iter().zip(outcomes) {
                    let _ = sender.send(Ok(outcome));
                }
            }
            Err(why) => {
                for sender in waiting {
                    let _ = sender.send(Err(why.clone()));
                }
            }
        }
    }
}
