//! Files that the platform gives to root (credentials, certificates), handed over to the daemon's user.
//!
//! The copies lie in a directory that only root may change and only the daemon's group may read: neither the gateway
//! nor a daemon that was taken over can let anybody in by them. A source that others may write is not handed over.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::process::Account;
use crate::config::{Config, ENV_PREFIX};
use crate::files;

/// Not on the volume, which outlives the machine: among these files is what unseals it.
const DIR: &str = "/run/openclaw-sidecar-given";
const MAX_FILE: u64 = 1024 * 1024;
/// A change is looked for so often even without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The files and where their copies are.
#[derive(Debug)]
pub(super) struct Given {
    /// The variable that names it to the daemon, and the platform's file.
    files: Vec<(String, PathBuf)>,
    dir: PathBuf,
    gid: u32,
    hints: Option<Inotify>,
    looked: Option<Instant>,
    failed: bool,
}

impl Given {
    pub(super) fn new(config: &Config, sidecar: &Account, separate: bool) -> Self {
        let named = [
            ("AUTH_CREDENTIALS_FILE", &config.auth.credentials_file),
            ("TLS_CERT_FILE", &config.tls.cert_file),
            ("TLS_KEY_FILE", &config.tls.key_file),
            ("GATEWAY_TOKEN_FILE", &config.gateway.token_file),
            ("MACHINE_SECRET_FILE", &config.machine.secret_file),
            ("LAUNCH_DESIRED_FILE", &config.launch.desired_file),
            ("REGISTRY_CREDENTIAL_FILE", &config.registry.credential_file),
            ("REGISTRY_CA_FILE", &config.registry.ca_file),
        ];
        // Where all are one user there is nothing to hand over.
        let files = named
            .into_iter()
            .filter(|_| separate)
            .filter_map(|(name, path)| path.clone().map(|path| (format!("{ENV_PREFIX}{name}"), path)));
        let files: Vec<_> = files.collect();
        let hints = watch(&files).inspect_err(|e| tracing::warn!(error = %e, "files of the platform are not watched"));
        // Beside the directory of the local socket, so that two sidecars on one system stay apart.
        let beside = config.listen.unix.as_deref().and_then(Path::parent).and_then(Path::to_str);
        let beside = beside.filter(|dir| !["/", "/run", "/tmp", "/var/run"].contains(dir));
        let dir = PathBuf::from(beside.map_or_else(|| DIR.to_owned(), |socket| format!("{socket}-given")));
        Self { files, dir, gid: sidecar.gid, hints: hints.ok(), looked: None, failed: false }
    }

    /// What the daemon finds instead of the platform's paths.
    pub(super) fn variables(&self) -> Vec<(String, PathBuf)> {
        self.files.iter().map(|(name, _)| (name.clone(), self.dir.join(name))).collect()
    }

    pub(super) fn hints(&self) -> Option<BorrowedFd<'_>> {
        self.hints.as_ref().filter(|_| !self.files.is_empty()).map(|hints| hints.as_fd())
    }

    /// A directory of these files changed.
    pub(super) fn changed(&mut self) {
        while self.hints.as_ref().is_some_and(|hints| hints.read_events().is_ok_and(|events| !events.is_empty())) {}
        self.renew();
    }

    pub(super) fn look_due(&self) -> bool {
        !self.files.is_empty() && self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY)
    }

    /// Copies what changed. A file that cannot be read keeps its last copy, and is said once.
    pub(super) fn renew(&mut self) {
        self.looked = Some(Instant::now());
        let mut failed = false;
        for (name, path) in &self.files {
            if let Err(e) = self.copy(path, &self.dir.join(name)) {
                failed = true;
                if !self.failed {
                    tracing::error!(error = %e, "a file of the platform cannot be handed to the daemon");
                }
            }
        }
        self.failed = failed;
    }

    fn copy(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        let mode = std::fs::metadata(from).map_err(|e| named(from, &e))?.mode();
        if mode & 0o022 != 0 {
            return Err(std::io::Error::other(format!("{}: others may write it: chmod go-w", from.display())));
        }
        let content = files::read_bounded(from, MAX_FILE)?;
        files::group_dir(&self.dir, self.gid)?;
        let ours = std::fs::metadata(to).is_ok_and(|found| found.gid() == self.gid);
        if ours && files::read_bounded(to, MAX_FILE).is_ok_and(|known| known == content) {
            return Ok(());
        }
        files::replace_for_group(to, &content, self.gid)
    }
}

fn named(path: &Path, e: &std::io::Error) -> std::io::Error {
    std::io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// Directories are watched, not files: a replacement is another file.
fn watch(files: &[(String, PathBuf)]) -> nix::Result<Inotify> {
    let hints = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    for dir in files.iter().filter_map(|(_, path)| path.parent()) {
        let news = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
        // One that is not there yet is looked for now and then.
        if let Err(e) = hints.add_watch(dir, news | AddWatchFlags::IN_ATTRIB) {
            tracing::warn!(dir = %dir.display(), error = %e, "changes there are seen within a minute only");
        }
    }
    Ok(hints)
}
