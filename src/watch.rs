//! Hints that files may have changed. A hint is only that: whoever gets one reads again and compares.
//!
//! The directory is watched, not the file: an atomic replacement gives the name another inode, and secret mounts of
//! orchestrators swap a link beside it.

use std::path::PathBuf;
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

const WRITTEN: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

/// Keeps the watch alive; dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    _watcher: Option<RecommendedWatcher>,
    hint: Arc<Notify>,
}

impl Watch {
    /// Watches the directories of `files`. Where that is impossible (limits of the kernel) there are no hints, and the
    /// caller's own slow timer has to do.
    pub fn new(files: &[PathBuf]) -> Self {
        let hint = Arc::new(Notify::new());
        let told = hint.clone();
        if files.is_empty() {
            return Self { _watcher: None, hint };
        }
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name().map(std::ffi::OsStr::to_owned)).collect();
        // Secret mounts swap a link whose name starts with two dots.
        let ours = move |path: &PathBuf| {
            path.file_name().is_some_and(|n| names.iter().any(|o| o == n) || n.as_encoded_bytes().starts_with(b".."))
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading raises events too: without this it would call for the next reading.
            let counts = |e: notify::Event| {
                (!e.kind.is_access() || e.kind == WRITTEN) && (e.need_rescan() || e.paths.iter().any(&ours))
            };
            if event.is_ok_and(counts) {
                told.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            for dir in files.iter().filter_map(|file| file.parent()) {
                watcher.watch(dir, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "files are not watched; changes are seen by looking now and then");
        }
        Self { _watcher: watcher.ok(), hint }
    }

    /// Resolves at the next hint.
    pub async fn hint(&self) {
        self.hint.notified().await;
    }
}
