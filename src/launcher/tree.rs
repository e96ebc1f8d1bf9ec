//! Walking and copying trees that somebody hostile owns.
//!
//! Every name is opened relative to its open parent and never through a link, and what is decided about a file is
//! decided about the file that is open: whoever renames and replaces things meanwhile leads us nowhere else.

#![expect(
    clippy::unnecessary_debug_formatting,
    reason = "a tenant may put line breaks and escape sequences into names"
)]

use std::ffi::{CStr, OsStr};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, UtimensatFlags, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

/// Deeper trees are refused: every level holds two descriptors and a piece of the stack.
const DEPTH: usize = 100;
/// What a file takes on disk is a multiple of this.
const BLOCK: u64 = 4096;

/// Something below the directory that is walked.
pub(super) struct Entry<'a> {
    parent: &'a File,
    name: &'a CStr,
    /// Its place, relative to the directory that is walked.
    pub(super) path: &'a Path,
    /// Itself, open but not for reading; a link is open itself, not what it leads to.
    pub(super) itself: File,
    /// What was found when it was opened.
    pub(super) meta: Metadata,
}

/// Called with everything that is found; directories come twice, the second time (`true`) when all in them was seen.
/// The first answer for a directory tells whether to look into it.
pub(super) type Visit<'a> = dyn FnMut(&Entry, bool) -> io::Result<bool> + 'a;

/// Opens a real directory.
pub(super) fn open(dir: &Path) -> io::Result<File> {
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    OpenOptions::new().read(true).custom_flags(flags).open(dir).map_err(|e| named(dir, &e))
}

/// Walks everything below `dir`, a directory before what is in it.
pub(super) fn each(dir: &File, visit: &mut Visit) -> io::Result<()> {
    walk(dir, &mut PathBuf::new(), 0, visit)
}

fn walk(dir: &File, path: &mut PathBuf, depth: usize, visit: &mut Visit) -> io::Result<()> {
    if depth > DEPTH {
        return Err(named(path, &io::Error::other(format!("lies deeper than {DEPTH} directories"))));
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut listing = Dir::openat(dir, c".", flags, Mode::empty()).map_err(|e| named(path, &e.into()))?;
    for found in listing.iter() {
        let found = found.map_err(|e| named(path, &e.into()))?;
        let name = found.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        path.push(OsStr::from_bytes(name.to_bytes()));
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => one(dir, name, File::from(fd), path, depth, visit)?,
            // Its owner removed it just now.
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(named(path, &e.into())),
        }
        path.pop();
    }
    Ok(())
}

fn one(
    parent: &File,
    name: &CStr,
    itself: File,
    path: &mut PathBuf,
    depth: usize,
    visit: &mut Visit,
) -> io::Result<()> {
    let meta = itself.metadata().map_err(|e| named(path, &e))?;
    let mut entry = Entry { parent, name, path, itself, meta };
    if !visit(&entry, false).map_err(|e| named(path, &e))? || !entry.meta.is_dir() {
        return Ok(());
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // From the descriptor, not by its name: it may be another directory by now.
    entry.itself = openat(&entry.itself, c".", flags, Mode::empty()).map_err(|e| named(path, &e.into()))?.into();
    let Entry { itself, meta, .. } = entry;
    walk(&itself, path, depth + 1, visit)?;
    visit(&Entry { parent, name, path, itself, meta }, true).map_err(|e| named(path, &e)).map(|_| ())
}

/// What a copy takes.
#[derive(Default)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) entries: u64,
}

impl Size {
    /// Counts one entry and returns what it takes.
    pub(super) fn add(&mut self, meta: &Metadata) -> u64 {
        // Holes are filled by a copy.
        let content = if meta.is_file() { meta.len().next_multiple_of(BLOCK) } else { BLOCK };
        self.bytes = self.bytes.saturating_add(content);
        self.entries += 1;
        content
    }

    /// Refuses what the file system of `dir` has no room for, with a tenth to spare; returns the bytes that are free.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`], or the file system does not tell.
    pub(super) fn fits(&self, dir: &File) -> io::Result<u64> {
        let found = nix::sys::statvfs::fstatvfs(dir)?;
        let free = found.blocks_available().saturating_mul(found.fragment_size());
        // Some file systems have no number for inodes.
        let names = if found.files() == 0 { u64::MAX } else { found.files_available() };
        let enough = |has: u64, needs: u64| has >= needs.saturating_add(needs / 10);
        if enough(free, self.bytes) && enough(names, self.entries) {
            return Ok(free);
        }
        let text = format!(
            "a copy of {} names takes {} and a tenth more, but {} and {names} names are free",
            self.entries,
            readable(self.bytes),
            readable(free)
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }
}

/// Bytes for people.
pub(super) fn readable(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20),
    }
}

/// Copies what is `wanted` of `from` into the directory `to`, which must be ours alone, with modes, times and (as root)
/// owners; links as links or, without `links`, not at all. Returns what was left out. Not durable before a sync.
pub(super) fn copy(from: &File, to: &Path, wanted: &dyn Fn(&Path) -> bool, links: bool) -> io::Result<Vec<PathBuf>> {
    let mut left_out = Vec::new();
    each(from, &mut |entry, leaving| {
        let target = to.join(entry.path);
        let kind = entry.meta.file_type();
        if !wanted(entry.path) {
            return Ok(false);
        }
        step()?;
        if leaving {
            like(&open(&target)?, &entry.meta)?;
        } else if kind.is_dir() {
            DirBuilder::new().mode(0o700).create(&target)?;
        } else if kind.is_file() {
            copy_file(entry, &target)?;
        } else if kind.is_symlink() && links {
            symlink(readlinkat(&entry.itself, c"")?, &target)?;
            if nix::unistd::geteuid().is_root() {
                std::os::unix::fs::lchown(&target, Some(entry.meta.uid()), Some(entry.meta.gid()))?;
            }
            let (accessed, modified) = times(&entry.meta);
            let here = nix::fcntl::AT_FDCWD;
            utimensat(here, &target, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
        } else {
            left_out.push(entry.path.to_owned());
        }
        Ok(true)
    })?;
    Ok(left_out)
}

fn copy_file(entry: &Entry, target: &Path) -> io::Result<()> {
    // Not blocking: by now the name may be that of a FIFO.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let source = File::from(openat(entry.parent, entry.name, flags, Mode::empty())?);
    let meta = source.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("is being replaced by another process; stop it"));
    }
    let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    // No more than was counted, however fast it grows.
    io::copy(&mut source.take(meta.len()), &mut copy)?;
    like(&copy, &meta)
}

/// Gives `file` the owner, mode and times of another.
fn like(file: &File, meta: &Metadata) -> io::Result<()> {
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::fchown(file, Some(meta.uid()), Some(meta.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    let (accessed, modified) = times(meta);
    Ok(futimens(file, &accessed, &modified)?)
}

fn times(meta: &Metadata) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(meta.atime(), meta.atime_nsec()), TimeSpec::new(meta.mtime(), meta.mtime_nsec()))
}

/// Changes the owner of exactly what was found, whatever its name leads to by now.
pub(super) fn chown(entry: &Entry, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(fchownat(&entry.itself, c"", uid, gid, AtFlags::AT_EMPTY_PATH)?)
}

/// Removes a copy, or what there is of it; nothing happens when there is none.
pub(super) fn remove(copy: &Path) -> io::Result<()> {
    step()?;
    let removed = match fs::remove_dir_all(copy) {
        // Not root, nothing can be removed from a directory that was copied with its mode, read only.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root() => {
            each(&open(copy)?, &mut |entry, leaving| {
                if !leaving && entry.meta.is_dir() {
                    fs::set_permissions(copy.join(entry.path), fs::Permissions::from_mode(0o700))?;
                }
                Ok(true)
            })?;
            fs::remove_dir_all(copy)
        }
        removed => removed,
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(named(copy, &e)),
        _ => Ok(()),
    }
}

/// An error that says what it is about.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path:?}: {error}"))
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
pub(super) fn step() -> io::Result<()> {
    Ok(())
}

/// Tests stop the work here, before each change on disk.
#[cfg(test)]
pub(super) fn step() -> io::Result<()> {
    super::layout::tests::step()
}
