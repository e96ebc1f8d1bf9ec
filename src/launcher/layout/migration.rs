//! The migration of a tenant whose files lie directly in the volume; the steps are drawn above, in `layout`.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::renameat;
use nix::unistd::syncfs;

use super::super::tree::{self, Size, readable, step};
use super::{CONFIG, COPY, GATEWAY, Layout, NESTED, Owner, PARTIAL, Progress, Refused};
use super::{directory, guarded, is_left_behind, own, real_dir, refused, there};
use crate::files;

/// A dry run names so many entries, a message a tenth of that.
const SHOWN: usize = 100;

/// What a migration would move.
struct Plan {
    /// Name, whether it is a directory, bytes.
    entries: Vec<(PathBuf, bool, u64)>,
    size: Size,
    free: u64,
    left_out: Vec<PathBuf>,
}

impl Layout {
    /// Looks at all that would be moved, and refuses what cannot be.
    fn plan(&self, begun: bool) -> Result<Plan, Refused> {
        for copy in [COPY, PARTIAL].map(|name| self.volume.join(name)) {
            if there(&copy) && !(begun && copy.ends_with(PARTIAL)) {
                let remedy = "It may be the only copy of an earlier state: move it to another place.";
                return refused(format!("{copy:?} is there already"), remedy);
            }
        }
        for dir in [&self.gateway, &self.sidecar] {
            let inside = dir.starts_with(&self.volume) && there(dir);
            if inside && real_dir(dir).and_then(|_| Ok(fs::read_dir(dir)?.next().is_some()))? {
                let what = format!("{dir:?} is not empty, and files of a gateway lie directly in {:?}", self.volume);
                return refused(what, "Decide which of them are to be used, and move the others to another place.");
            }
        }
        let volume = tree::open(&self.volume)?;
        let mut plan = self.weigh(&volume)?;
        let nested = self.volume.join(NESTED);
        if let Some((name, ..)) = plan.entries.iter().find(|e| is_state(&nested) && there(&nested.join(&e.0))) {
            let what = format!("{name:?} is both in {:?} and in {nested:?}", self.volume);
            return refused(what, "Decide which of them is to be used, and move the other to another place.");
        }
        plan.free = plan.size.fits(&volume)?;
        Ok(plan)
    }

    fn weigh(&self, volume: &File) -> io::Result<Plan> {
        let device = volume.metadata()?.dev();
        let mut plan = Plan { entries: Vec::new(), size: Size::default(), free: 0, left_out: Vec::new() };
        tree::each(volume, &mut |entry, leaving| {
            if leaving || self.is_reserved(entry.path) {
                return Ok(false);
            }
            if entry.meta.dev() != device {
                return Err(io::Error::other("is on another file system; mount it elsewhere"));
            }
            let (bytes, kind) = (plan.size.add(&entry.meta), entry.meta.file_type());
            match plan.entries.last_mut() {
                Some(top) if entry.path.starts_with(&top.0) => top.2 = top.2.saturating_add(bytes),
                _ => plan.entries.push((entry.path.to_owned(), kind.is_dir(), bytes)),
            }
            if !(kind.is_dir() || kind.is_file() || kind.is_symlink()) {
                plan.left_out.push(entry.path.to_owned());
            }
            Ok(true)
        })?;
        plan.entries.sort();
        Ok(plan)
    }

    /// Migrates a tenant from the beginning, or from a copy that was interrupted.
    pub(super) fn migrate(
        &self,
        progress: Progress,
        found: &Metadata,
        gateway: Owner,
        said: &mut Vec<String>,
    ) -> Result<(), Refused> {
        if progress != Progress::Nothing {
            tree::remove(&self.volume.join(PARTIAL))?;
        }
        self.plan(false)?;
        let former = match progress {
            Progress::Copying(former) if found.uid() == Owner::of_process().uid => former,
            // Whoever could write root's volume need not have been root.
            _ if found.uid() == 0 && found.mode() & 0o022 != 0 => gateway.uid,
            _ => found.uid(),
        };
        self.mark(Progress::Copying(former))?;
        if let Err(why) = self.take_over(found, said).and_then(|_| self.copy(said)) {
            // As it was, so that the tenant can go on without a sidecar.
            tree::remove(&self.volume.join(PARTIAL))?;
            own(&self.volume, Owner { uid: found.uid(), gid: found.gid() }, found.mode() & 0o7777)?;
            self.mark(Progress::Nothing)?;
            return Err(why);
        }
        self.mark(Progress::Moving(former))?;
        self.move_in(former, gateway, said)
    }

    fn copy(&self, said: &mut Vec<String>) -> Result<(), Refused> {
        // Looked at again: from now on nobody else can change what lies in the volume.
        let plan = self.plan(false)?;
        tracing::info!(names = plan.size.entries, bytes = plan.size.bytes, "a copy is made before the migration");
        let partial = self.volume.join(PARTIAL);
        step()?;
        DirBuilder::new().mode(0o700).create(&partial)?;
        let volume = tree::open(&self.volume)?;
        let left_out = tree::copy(&volume, &partial, &|path| !self.is_reserved(path), true)?;
        // One sync for all: one for each of the many small files of a workspace takes minutes.
        syncfs(&volume)?;
        said.push(format!("copied {} names, {}, to {COPY}", plan.size.entries, readable(plan.size.bytes)));
        if !left_out.is_empty() {
            said.push(format!("not copied, for they are no files: {}", listed(&left_out)));
        }
        Ok(())
    }

    /// The second half: everything here is done only where it is not yet done.
    pub(super) fn move_in(&self, former: u32, gateway: Owner, said: &mut Vec<String>) -> Result<(), Refused> {
        let copy = self.volume.join(COPY);
        if there(&self.volume.join(PARTIAL)) {
            step()?;
            files::rename(&self.volume.join(PARTIAL), &copy)?;
        }
        let volume = tree::open(&self.volume)?;
        if is_state(&self.volume.join(NESTED)) {
            step()?;
            renameat(&volume, NESTED, &volume, GATEWAY).map_err(|e| tree::named(Path::new(NESTED), &e.into()))?;
        }
        // Ours until the end: a process of the tenant that still runs puts nothing in the way.
        directory(&self.gateway, Owner::of_process(), &mut Vec::new())?;
        let inside = tree::open(&self.gateway)?;
        for name in names(&self.volume)?.iter().filter(|name| !self.is_reserved(name)) {
            if is_left_behind(&self.volume.join(name)) {
                continue;
            }
            if there(&self.gateway.join(name)) {
                let what = format!("{name:?} is both in {:?} and in {:?}", self.volume, self.gateway);
                return refused(what, "Somebody wrote between two starts: move the one that is not needed away.");
            }
            step()?;
            renameat(&volume, name, &inside, name).map_err(|e| tree::named(name, &e.into()))?;
        }
        // The copy knows what there was. Files of sessions name their directories by absolute paths.
        let nested = is_state(&copy.join(NESTED));
        for name in names(&copy)?.iter().filter(|name| real_dir(&copy.join(name)).is_ok()) {
            let to = Path::new(GATEWAY);
            let to = if nested && name == Path::new(NESTED) { to.to_owned() } else { to.join(name) };
            if !there(&self.volume.join(name)) {
                step()?;
                symlink(to, self.volume.join(name))?;
            }
        }
        said.push(format!("moved all files of {:?} into {GATEWAY}; links stay where directories were", self.volume));
        if Owner::of_process().uid == 0 {
            let left = give(&inside, former, gateway)?;
            if !left.is_empty() {
                said.push(format!("left to their owners, for they may not be the tenant's: {}", listed(&left)));
            }
        }
        syncfs(&volume)?;
        self.mark(Progress::Done)
    }
}

/// Changes the owner of a tenant's files, and of nothing that may be somebody else's; returns what was left as it was.
///
/// A tenant can have names for files that are not its own: by a hard link, where the kernel lets it, and once root has
/// replaced that file elsewhere, the tenant's name is the only one left. So the number of names proves nothing, and only
/// what belongs to the tenant's former user is given. A tenant that ran as root could read everything anyway: there
/// everything is given, but not what has a second name, which may lie outside, and no device, for that is more than
/// its name.
fn give(dir: &File, former: u32, to: Owner) -> io::Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    tree::each(dir, &mut |entry, leaving| {
        let (meta, kind) = (&entry.meta, entry.meta.file_type());
        if leaving || (meta.uid(), meta.gid()) == (to.uid, to.gid) {
            return Ok(true);
        }
        let theirs = match former {
            0 => kind.is_dir() || meta.nlink() == 1,
            _ => meta.uid() == former || meta.uid() == to.uid,
        };
        if theirs && !kind.is_block_device() && !kind.is_char_device() {
            step()?;
            tree::chown(entry, to.uid, to.gid)?;
        } else {
            left.push(entry.path.to_owned());
        }
        Ok(true)
    })?;
    Ok(left)
}

/// What a start would do to a tenant whose files lie directly in `volume`, in lines for people; touches nothing.
///
/// # Errors
/// The migration would be refused.
pub fn dry_run(volume: &Path) -> Result<Vec<String>, Refused> {
    let layout = Layout::new(volume);
    guarded(&layout.volume)?;
    real_dir(&layout.volume)?;
    let progress = layout.progress()?;
    match progress {
        Progress::Done => return Ok(vec![format!("{:?} is laid out: nothing to migrate", layout.volume)]),
        Progress::Moving(_) => return Ok(vec!["a migration was interrupted: the next start finishes it".to_owned()]),
        _ if layout.is_flat() => {}
        _ => return Ok(vec![format!("no files of a gateway lie directly in {:?}: nothing to migrate", layout.volume)]),
    }
    let plan = layout.plan(progress != Progress::Nothing)?;
    let (entries, bytes, free) = (plan.size.entries, readable(plan.size.bytes), readable(plan.free));
    let mut lines = vec![format!("copy {entries} names, {bytes}, to {:?} ({free} free)", layout.volume.join(COPY))];
    for (name, is_dir, bytes) in plan.entries.iter().take(SHOWN) {
        let from = layout.volume.join(name);
        let becomes = name == Path::new(NESTED) && is_state(&from);
        let to = if becomes { layout.gateway.clone() } else { layout.gateway.join(name) };
        let link = if *is_dir { ", leaving a link" } else { "" };
        lines.push(format!("move {from:?} ({}) to {to:?}{link}", readable(*bytes)));
    }
    if plan.entries.len() > SHOWN {
        lines.push(format!("move {} more", plan.entries.len() - SHOWN));
    }
    if !plan.left_out.is_empty() {
        lines.push(format!("not copied, for they are no files: {}", listed(&plan.left_out)));
    }
    Ok(lines)
}

/// Whether a directory is a gateway's whole state, not just what somebody put into its home.
fn is_state(dir: &Path) -> bool {
    real_dir(dir).is_ok() && there(&dir.join(CONFIG))
}

fn names(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into())).collect()
}

fn listed(paths: &[PathBuf]) -> String {
    let mut text: Vec<String> = paths.iter().take(SHOWN / 10).map(|path| format!("{path:?}")).collect();
    if paths.len() > text.len() {
        text.push(format!("and {} more", paths.len() - text.len()));
    }
    text.join(", ")
}
