//! What other instances changed, and who of them leads.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};

use super::super::{Changed, Unavailable, tell};
use super::connect::{DEADLINE, Fault, LOCKS, Server, late};

/// Commits are told on this channel, with the tenants' ids.
pub(super) const CHANNEL: &str = "openclaw_registry";
const LEADER_LOCK: i32 = 1;
/// A silent connection is asked whether it lives, so often.
const PING: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(500);

/// A connection, and the task that moves its data; the task ends with the connection.
#[derive(Debug)]
struct Line {
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(server: &Server, changes: Option<broadcast::Sender<Changed>>) -> Result<Line, Fault> {
    let (client, mut connection) = server.connect().await?;
    let task = tokio::spawn(async move {
        let mut messages = stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let (AsyncMessage::Notification(told), Some(changes)) = (message, &changes) {
                tell(changes, told.payload().split(',').map(str::to_owned).collect());
            }
        }
    });
    Ok(Line { client, task })
}

/// Ends with the store.
#[derive(Debug)]
pub(super) struct Listening(JoinHandle<()>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens from now on.
pub(super) async fn listen(server: Server, changes: broadcast::Sender<Changed>) -> Result<Listening, Fault> {
    let mut line = subscribe(&server, &changes).await?;
    Ok(Listening(tokio::spawn(async move {
        loop {
            while !line.task.is_finished() && alive(&mut line).await {}
            line = loop {
                match subscribe(&server, &changes).await {
                    Ok(line) => break line,
                    Err(_) => sleep(RETRY).await,
                }
            };
            // What was told meanwhile was not heard.
            tell(&changes, vec![String::new()]);
        }
    })))
}

async fn subscribe(server: &Server, changes: &broadcast::Sender<Changed>) -> Result<Line, Fault> {
    let line = connect(server, Some(changes.clone())).await?;
    timeout(DEADLINE, line.client.batch_execute(&format!("LISTEN {CHANNEL}"))).await.map_err(|_| late())??;
    Ok(line)
}

/// Waits a while for the connection's end; then whether it answers.
async fn alive(line: &mut Line) -> bool {
    if timeout(PING, &mut line.task).await.is_ok() {
        return false;
    }
    timeout(DEADLINE, line.client.batch_execute("")).await.is_ok_and(|answer| answer.is_ok())
}

/// The connection that holds, or would hold, the leader's lock: the lock lasts as long as it.
#[derive(Debug, Default)]
pub(super) struct Leading {
    line: Option<Line>,
    leads: bool,
}

impl Leading {
    /// Whether this instance leads now.
    pub(super) async fn ask(&mut self, server: &Server) -> Result<bool, Unavailable> {
        let line = if let Some(line) = self.line.take().filter(|line| !line.client.is_closed()) {
            line
        } else {
            self.leads = false;
            connect(server, None).await?
        };
        // Asked once: a lock that is held could be taken again, and an answer says that it is held still.
        let sql = if self.leads { "SELECT true" } else { "SELECT pg_try_advisory_lock($1, $2)" };
        let asked = if self.leads {
            line.client.query_one(sql, &[]).await
        } else {
            line.client.query_one(sql, &[&LOCKS, &LEADER_LOCK]).await
        };
        // On an error the connection is closed, and the lock with it.
        self.leads = false;
        self.leads = asked.and_then(|row| row.try_get(0)).map_err(Fault::from)?;
        self.line = Some(line);
        Ok(self.leads)
    }
}
