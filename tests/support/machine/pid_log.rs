//! Every gateway process a launcher ever had, by looking a hundred times a second: never two at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::proc;

const EVERY: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct Seen {
    /// Start time and pid: numbers come again, both together do not.
    gateways: BTreeSet<(u64, u32)>,
    /// With their command lines.
    overlaps: Vec<Vec<(u32, String)>>,
}

#[derive(Debug)]
pub struct PidLog {
    seen: Arc<Mutex<Seen>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PidLog {
    pub(super) fn start(launcher: u32) -> Self {
        let (seen, end) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, end) = (seen.clone(), end.clone());
            move || {
                while !end.load(Ordering::Relaxed) {
                    look(launcher, &mut seen.lock().unwrap_or_else(PoisonError::into_inner));
                    thread::sleep(EVERY);
                }
            }
        });
        Self { seen, end, thread: Some(thread) }
    }

    /// Gateway processes so far, oldest first.
    pub fn gateways(&self) -> Vec<u32> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.gateways.iter().map(|(_, pid)| *pid).collect()
    }

    /// Moments at which more than one was alive.
    pub fn overlaps(&self) -> Vec<Vec<(u32, String)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).overlaps.clone()
    }

    pub(super) fn stop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn look(launcher: u32, seen: &mut Seen) {
    let alive: Vec<_> =
        gateways(launcher).into_iter().filter_map(|pid| Some((proc::stat(pid)?.started, pid))).collect();
    // What the gateway detached may end up with the launcher too: it was never seen as it was seeded.
    let known = seen.gateways.clone();
    let counts = |found: &&(u64, u32)| alive.len() == 1 || known.contains(found) || seeds(found.1);
    let counted: Vec<_> = alive.iter().filter(counts).copied().collect();
    if counted.len() > 1 {
        seen.overlaps.push(counted.iter().map(|(_, pid)| (*pid, proc::command_line(*pid).join(" "))).collect());
    }
    seen.gateways.extend(counted);
}

/// Children of the launcher that are a gateway or about to become one.
pub(super) fn gateways(launcher: u32) -> Vec<u32> {
    let mut found: Vec<_> = proc::children(launcher).into_iter().filter(|pid| is_gateway(*pid)).collect();
    // Orphans of the gateway are adopted by the launcher: the oldest leader of a group is the gateway itself.
    found.sort_by_key(|pid| proc::stat(*pid).map(|stat| stat.started));
    found
}

fn seeds(pid: u32) -> bool {
    word(&proc::command_line(pid), 1) == "seed"
}

pub(super) fn is_daemon(pid: u32) -> bool {
    word(&proc::command_line(pid), 1) == "daemon"
}

/// It leads a group of its own, as orphans of the gateway do not, and is none of the launcher's other children.
fn is_gateway(pid: u32) -> bool {
    let words = proc::command_line(pid);
    let other = match word(&words, 1) {
        // The launcher itself between fork and exec.
        "daemon" | "run" => true,
        "seed" => word(&words, 2) != "launch",
        _ => words.is_empty() || words.iter().any(|word| TOOLS.contains(&word.as_str()) || is_worker(word)),
    };
    !other && proc::stat(pid).is_some_and(|stat| stat.group == pid && !stat.is_dead())
}

/// The gateway's own tools, which the launcher also runs.
const TOOLS: [&str; 4] = ["doctor", "pairing", "dashboard", "openclaw-doctor"];

fn word(words: &[String], at: usize) -> &str {
    words.get(at).map_or("", String::as_str)
}

/// What a gateway detaches into sessions of their own outlives a kill of it by a moment.
fn is_worker(word: &str) -> bool {
    ["spawn-broker", "sqlite-readonly"].iter().any(|worker| word.contains(worker))
}
