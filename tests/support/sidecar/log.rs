//! The daemon's log, kept in memory while it is written.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::time::timeout;

/// Lines kept in memory.
const LOG_LINES: usize = 20_000;

#[derive(Debug, Clone)]
pub struct Log {
    lines: Arc<Mutex<VecDeque<String>>>,
    count: watch::Sender<u64>,
}

impl Default for Log {
    fn default() -> Self {
        Self { lines: Arc::default(), count: watch::Sender::new(0) }
    }
}

impl Log {
    pub async fn follow(self, pipe: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(pipe).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == LOG_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
            drop(kept);
            self.count.send_modify(|count| *count += 1);
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub async fn wait(&self, wanted: impl Fn(&Value) -> bool, deadline: Duration) -> anyhow::Result<Value> {
        let mut count = self.count.subscribe();
        let wait = async {
            loop {
                count.borrow_and_update();
                let found =
                    self.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).find(|line| wanted(line));
                if let Some(line) = found {
                    return line;
                }
                // The sender lives in `self`, so this only ends with a new line.
                let _ = count.changed().await;
            }
        };
        timeout(deadline, wait).await.map_err(|_| anyhow!("no such log line within {deadline:?}"))
    }
}
