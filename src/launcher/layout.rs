//! The directories of a volume: whose they are, and how a tenant whose files lie directly in the volume gets there.
//!
//! ```text
//! <volume>           root's, 0755: nobody else may exchange what lies in it
//!   openclaw/        the gateway's, 0700: its state, configuration and workspace
//!   sidecar/         the sidecar's, 0700
//!   before-sidecar/  root's, 0700: what the volume of a migrated tenant held before
//!   .sidecar-layout  root's: how far it has come
//!
//! (no marker)    everything is checked; what is refused was not touched
//! copying <uid>  the volume is root's, its files are copied to .before-sidecar.partial; begun anew when interrupted
//! moving <uid>   that is renamed to before-sidecar; the files move into openclaw/, links stay behind, the owner
//!                changes: each of these sees for itself what was done before an interruption
//! done           from now on only owners and modes are seen to
//! ```
//!
//! `<uid>` is whose the volume was. Not root, everything belongs to one user, and no owner changes.

#![expect(
    clippy::unnecessary_debug_formatting,
    reason = "a tenant may put line breaks and escape sequences into names"
)]

mod migration;

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::tree::{self, step};
use crate::files;
pub use migration::dry_run;

const GATEWAY: &str = "openclaw";
const SIDECAR: &str = "sidecar";
/// The copy of what a migrated tenant held before.
pub const COPY: &str = "before-sidecar";
const PARTIAL: &str = ".before-sidecar.partial";
/// The file on the volume that says how far it is laid out.
pub const MARKER: &str = ".sidecar-layout";
const CONFIG: &str = "openclaw.json";
/// Where the templates of some platforms have the state: it becomes `openclaw/` itself.
const NESTED: &str = ".openclaw";
/// What stays in the volume, beside the directory of the sidecar; the last is the marker while it is written.
const RESERVED: &[&str] = &["lost+found", GATEWAY, COPY, PARTIAL, MARKER, "..sidecar-layout.new"];
/// A volume that holds one of these is that of a tenant from before the sidecar.
const TENANT: &[&str] =
    &[CONFIG, NESTED, "agents", "credentials", "devices", "identity", "nodes", "state", "workspace"];

/// A user and its group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Owner {
    fn of_process() -> Self {
        Self { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }
}

/// Why a volume cannot be used as it is.
#[derive(Debug, thiserror::Error)]
#[error("{what}. {remedy}")]
pub struct Refused {
    /// What was found.
    pub what: String,
    /// What a person can do.
    pub remedy: String,
}

fn refused<T>(what: String, remedy: &str) -> Result<T, Refused> {
    Err(Refused { what, remedy: remedy.to_owned() })
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Self {
        let remedy = match e.kind() {
            io::ErrorKind::StorageFull => "Extend the volume, or remove what is not needed, and start again.",
            _ => "Correct this and start again; what was begun is finished then.",
        };
        Self { what: e.to_string(), remedy: remedy.to_owned() }
    }
}

impl From<nix::Error> for Refused {
    fn from(e: nix::Error) -> Self {
        io::Error::from(e).into()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Nothing,
    Copying(u32),
    Moving(u32),
    Done,
}

/// The directories of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the platform mounts.
    pub volume: PathBuf,
    /// The gateway's state directory.
    pub gateway: PathBuf,
    /// The sidecar's state directory.
    pub sidecar: PathBuf,
}

impl Layout {
    /// The layout of `volume`.
    pub fn new(volume: &Path) -> Self {
        let volume: PathBuf = volume.components().collect();
        Self { gateway: volume.join(GATEWAY), sidecar: volume.join(SIDECAR), volume }
    }

    /// The same with the sidecar's directory elsewhere.
    #[must_use]
    pub fn with_sidecar(self, dir: &Path) -> Self {
        Self { sidecar: dir.components().collect(), ..self }
    }

    /// Makes the directories, and migrates a tenant whose files lie directly in the volume. Returns what was done. A
    /// migration that was interrupted while files moved is finished even without `migrate`: a half-moved tenant
    /// cannot run.
    ///
    /// # Errors
    /// The volume is not safe to use, or the tenant cannot be migrated.
    pub fn prepare(&self, gateway: Owner, sidecar: Owner, migrate: bool) -> Result<Vec<String>, Refused> {
        let mut said = Vec::new();
        guarded(&self.volume)?;
        let found = real_dir(&self.volume)?;
        self.check_sidecar(sidecar)?;
        match self.progress()? {
            Progress::Done => {}
            Progress::Moving(former) => {
                guarded(&self.gateway)?;
                self.move_in(former, gateway, &mut said)?;
            }
            _ if ![0, Owner::of_process().uid, gateway.uid].contains(&found.uid()) => {
                let what = format!("{:?} belongs to uid {}, not to root or the gateway", self.volume, found.uid());
                return refused(
                    what,
                    "Give all in it to the gateway (chown -R), or set launch.gateway_user to its user.",
                );
            }
            progress if self.is_flat() && migrate => self.migrate(progress, &found, gateway, &mut said)?,
            _ if self.is_flat() => {
                let what = format!("the files of a gateway lie directly in {:?}", self.volume);
                return refused(what, "Set launch.migrate to \"auto\" to have them moved; a copy is kept.");
            }
            _ => {
                if self.take_over(&found, &mut said)? {
                    self.mark(Progress::Done)?;
                }
            }
        }
        // Only now: a tenant's volume was made ours by this.
        guarded(&self.gateway)?;
        guarded(&self.sidecar)?;
        directory(&self.gateway, gateway, &mut said)?;
        self.check_sidecar(sidecar)?;
        directory(&self.sidecar, sidecar, &mut said)?;
        Ok(said)
    }

    /// What somebody else made in the sidecar's place (keys, records) must never become the sidecar's own.
    fn check_sidecar(&self, sidecar: Owner) -> Result<(), Refused> {
        match fs::symlink_metadata(&self.sidecar) {
            Ok(found) if ![0, Owner::of_process().uid, sidecar.uid].contains(&found.uid()) => {
                let what = format!("{:?} belongs to uid {}, not to the sidecar", self.sidecar, found.uid());
                refused(what, "Remove it or, if you know what is in it, give all in it to the sidecar's user.")
            }
            _ => Ok(()),
        }
    }

    fn progress(&self) -> Result<Progress, Refused> {
        let path = self.volume.join(MARKER);
        let text = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Progress::Nothing),
            Ok(found) if found.is_file() && [0, Owner::of_process().uid].contains(&found.uid()) => {
                files::read_text(&path, 64)?
            }
            _ => String::new(),
        };
        match text.trim_end().split_once(' ').map(|(how, uid)| (how, uid.parse())) {
            None if text == "done\n" => Ok(Progress::Done),
            Some(("copying", Ok(uid))) => Ok(Progress::Copying(uid)),
            Some(("moving", Ok(uid))) => Ok(Progress::Moving(uid)),
            _ => refused(format!("{path:?} was not made by this sidecar"), "Find out who made it, and remove it."),
        }
    }

    fn mark(&self, progress: Progress) -> Result<(), Refused> {
        step()?;
        let path = self.volume.join(MARKER);
        let text = match progress {
            Progress::Nothing => return Ok(files::remove_if_present(&path)?),
            Progress::Copying(former) => format!("copying {former}\n"),
            Progress::Moving(former) => format!("moving {former}\n"),
            Progress::Done => "done\n".to_owned(),
        };
        Ok(files::replace(&path, text.as_bytes(), 0o644)?)
    }

    fn is_flat(&self) -> bool {
        TENANT.iter().map(|name| self.volume.join(name)).any(|path| there(&path) && !is_left_behind(&path))
    }

    /// Whether something in the volume, by its relative path, is not the tenant's.
    fn is_reserved(&self, path: &Path) -> bool {
        RESERVED.iter().any(|name| path == Path::new(name)) || self.sidecar.starts_with(self.volume.join(path))
    }

    /// Makes the volume ours; not root, we leave that of root as it is.
    fn take_over(&self, found: &Metadata, said: &mut Vec<String>) -> Result<bool, Refused> {
        let me = Owner::of_process();
        if me.uid != 0 && found.uid() == 0 {
            return Ok(false);
        }
        if own(&self.volume, me, 0o755)? {
            said.push(format!("{:?} taken over from uid {}, mode {:o}", self.volume, found.uid(), bits(found)));
        }
        Ok(true)
    }
}

/// Refuses a path in which anybody but root and this process could exchange a directory.
fn guarded(path: &Path) -> Result<(), Refused> {
    if !path.is_absolute() || path.components().any(|c| c == Component::ParentDir) {
        return refused(format!("{path:?} is not an absolute path without \"..\""), "Give it as one.");
    }
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    for dir in above {
        let found = real_dir(dir)?;
        if ![0, Owner::of_process().uid].contains(&found.uid()) {
            let what = format!("{dir:?} belongs to uid {}, who can exchange what lies in it", found.uid());
            return refused(what, "Give it to root (chown root), and look whether everything in it is as it was.");
        }
        if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
            let what = format!("{dir:?} can be written by others than its owner (mode {:o})", bits(&found));
            return refused(what, "Take that from them (chmod go-w), and look whether everything in it is as it was.");
        }
    }
    Ok(())
}

fn real_dir(dir: &Path) -> Result<Metadata, Refused> {
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() => Ok(found),
        Ok(found) if found.is_symlink() => {
            refused(format!("{dir:?} is a symbolic link"), "Put or name a real directory instead.")
        }
        Ok(_) => refused(format!("{dir:?} is not a directory"), "Put a directory in its place."),
        Err(e) => refused(format!("{dir:?}: {e}"), "Mount or create it, or configure another."),
    }
}

/// Makes a directory that only `owner` can read, or sees to it that an existing one is that.
fn directory(path: &Path, owner: Owner, said: &mut Vec<String>) -> Result<(), Refused> {
    let fresh = !there(path);
    if fresh {
        step()?;
        DirBuilder::new().mode(0o700).create(path).map_err(|e| tree::named(path, &e))?;
        files::sync_parent(path)?;
    }
    real_dir(path)?;
    if own(path, owner, 0o700)? || fresh {
        said.push(format!("{path:?} {} for uid {}", if fresh { "made" } else { "set right" }, owner.uid));
    }
    Ok(())
}

/// Sees to owner and mode of a real directory; tells whether they were others.
fn own(path: &Path, owner: Owner, mode: u32) -> Result<bool, Refused> {
    let dir = tree::open(path)?;
    let found = dir.metadata()?;
    let foreign = (found.uid(), found.gid()) != (owner.uid, owner.gid);
    if foreign && Owner::of_process().uid == 0 {
        step()?;
        std::os::unix::fs::fchown(&dir, Some(owner.uid), Some(owner.gid))?;
    } else if found.uid() != owner.uid {
        let what = format!("{path:?} belongs to uid {}, not to uid {}", found.uid(), owner.uid);
        return refused(what, "Change its owner, or start as root.");
    }
    if bits(&found) != mode {
        step()?;
        dir.set_permissions(fs::Permissions::from_mode(mode))?;
        return Ok(true);
    }
    Ok(foreign && Owner::of_process().uid == 0)
}

fn bits(found: &Metadata) -> u32 {
    found.mode() & 0o7777
}

fn there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether something is a link that a migration left where a directory was.
fn is_left_behind(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|to| to.starts_with(GATEWAY))
}

#[cfg(test)]
pub(super) mod tests;
