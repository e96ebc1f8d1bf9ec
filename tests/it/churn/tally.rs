//! Counts answers by their code, with the time they took.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Tally {
    times: Mutex<BTreeMap<String, Vec<Duration>>>,
    wrong: Mutex<Vec<String>>,
    claimed: AtomicU64,
}

impl Tally {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Duration>>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer that is not true; the run goes on, to show how many there are.
    pub fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// An approval that the answer claims, and somebody else made.
    pub fn claimed(&self) {
        self.claimed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn claims(&self) -> u64 {
        self.claimed.load(Ordering::Relaxed)
    }

    pub fn wrongs(&self) -> Vec<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn add(&self, code: &str, took: Duration) {
        self.lock().entry(code.to_owned()).or_default().push(took);
    }

    pub fn count(&self, code: &str) -> u64 {
        self.lock().get(code).map_or(0, |times| times.len() as u64)
    }

    pub fn total(&self) -> u64 {
        self.lock().values().map(|times| times.len() as u64).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (code, times) in self.lock().iter() {
            let mut sorted = times.clone();
            sorted.sort_unstable();
            let at = |part: usize| sorted[(sorted.len() - 1) * part / 100];
            let (median, late, last) = (at(50), at(99), at(100));
            writeln!(f, "{code:22} {:6}   p50 {median:9.1?}  p99 {late:9.1?}  max {last:9.1?}", sorted.len())?;
        }
        Ok(())
    }
}
