//! The only module that writes files: durable, atomic replacement, and bounded reading of files we do not trust.
//!
//! A replacement is: one fixed temporary name beside the target, write, fsync, rename, fsync of the directory. One
//! fixed name (not a random one) means that a process killed at any moment leaves at most one stray file, which the
//! next write of the same file takes over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Room made for a file before its size is known, in bytes.
const USUAL: u64 = 4096;

/// Creates `dir` and its parents, `dir` itself with mode 0700, or checks that an existing one is a real directory.
///
/// # Errors
/// `dir` is a symbolic link or no directory, belongs to another user, or cannot be created.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    private_dir_parts(dir, 0o700)
}

fn private_dir_parts(dir: &Path, mode: u32) -> io::Result<()> {
    // With a slash at its end, a link would be followed.
    let dir: &Path = &dir.components().collect::<PathBuf>();
    fs::DirBuilder::new().recursive(true).mode(mode).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() {
        return Err(io::Error::other("is a symbolic link or not a directory"));
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!("belongs to uid {}, not to this process", found.uid())));
    }
    if found.mode() & 0o777 != mode {
        fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Replaces `path` with `content`, atomically and durably: when this returns `Ok`, the new content survives a power
/// cut; when it returns an error, the old content is untouched, or all of the new is there ([`holds`]) and may be gone
/// after a power cut.
///
/// # Errors
/// Any error of the file system, with the path in its text.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_parts(path, content, mode, None).map_err(|e| named(path, &e))
}

fn replace_parts(path: &Path, content: &[u8], mode: u32, group: Option<u32>) -> io::Result<()> {
    let temporary = temporary_name(path)?;
    // Whatever lies at that name is ours from an interrupted write, or was planted: never write through it.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // Opened first: without a descriptor for it nothing is begun.
    let dir = File::open(parent(path))?;
    let written = write_new(&temporary, content, mode, group);
    if let Err(e) = written.and_then(|()| move_to(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    dir.sync_all()
}

/// Whether `path` holds exactly this: after a failed [`replace`] it may, only not durably.
pub fn holds(path: &Path, content: &[u8]) -> bool {
    read_bounded(path, content.len() as u64).is_ok_and(|found| found == content)
}

fn write_new(path: &Path, content: &[u8], mode: u32, group: Option<u32>) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    if group.is_some() {
        std::os::unix::fs::fchown(&file, None, group)?;
    }
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a rename or a newly created name in the directory of `path` durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

/// Opens `path` for appending, created with mode 0600, never through a symbolic link.
///
/// # Errors
/// Any error of the file system, with the path in its text.
pub fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path)
        .map_err(|e| named(path, &e))
}

/// Reads a whole regular file of at most `limit` bytes. Safe on files that somebody else may swap: a FIFO or a device
/// is refused instead of waited for, and an endless file is refused at the limit.
///
/// # Errors
/// The file is missing, not regular, larger than `limit`, or not readable; the path is in the text.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_bounded_parts(path, limit).map_err(|e| named(path, &e))
}

fn read_bounded_parts(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_to_limit(OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?, limit)
}

fn read_to_limit(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    // Files of the kernel have no size beforehand, and would be read in many small pieces.
    let room = found.len().max(USUAL).min(limit) + 1;
    let mut content = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::other(format!("is larger than {limit} bytes")));
    }
    Ok(content)
}

/// Reads a text file of at most `limit` bytes, as [`read_bounded`] does.
///
/// # Errors
/// As [`read_bounded`], or the content is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read_bounded(path, limit)?).map_err(|_| named(path, &io::Error::other("is not UTF-8 text")))
}

/// Reads a text file in a directory that somebody else owns: only a regular file with one name, of user `owner` where
/// that is known, no link followed. A link to a file of another user, symbolic or hard, is refused.
///
/// # Errors
/// As [`read_text`], or it is not such a file.
pub fn read_owned_text(path: &Path, limit: u64, owner: Option<u32>) -> io::Result<String> {
    let open = OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits()).open(path);
    let file = open.map_err(|e| named(path, &e))?;
    let found = file.metadata().map_err(|e| named(path, &e))?;
    if owner.is_some_and(|owner| found.uid() != owner) || found.nlink() != 1 {
        return Err(named(path, &io::Error::other("is not a file of its own of the expected user")));
    }
    let content = read_to_limit(file, limit).map_err(|e| named(path, &e))?;
    String::from_utf8(content).map_err(|_| named(path, &io::Error::other("is not UTF-8 text")))
}

/// Whether something is at `path`, whatever it is.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Creates a directory for user `uid`, which nobody else may enter. An existing one is not taken from its owner, unless
/// it is our own, empty, and not for everybody.
///
/// # Errors
/// It exists and is not that user's, or any error of the file system.
pub fn private_dir_for(dir: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let ours = |found: &fs::Metadata| found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o1022 == 0;
    match fs::symlink_metadata(dir) {
        Ok(found) if found.is_dir() && found.uid() == uid => return Ok(()),
        Ok(found) if found.is_dir() && ours(&found) && fs::read_dir(dir)?.next().is_none() => {}
        Ok(_) => return Err(named(dir, &io::Error::other("exists and belongs to somebody else; name one of its own"))),
        Err(_) => {}
    }
    private_dir(dir).map_err(|e| named(dir, &e))?;
    std::os::unix::fs::chown(dir, Some(uid), Some(gid)).map_err(|e| named(dir, &e))
}

/// Creates a directory of this user that group `gid` may look into.
///
/// # Errors
/// It exists as something else, or any error of the file system.
pub fn group_dir(dir: &Path, gid: u32) -> io::Result<()> {
    private_dir_parts(dir, 0o750).map_err(|e| named(dir, &e))?;
    std::os::unix::fs::chown(dir, None, Some(gid)).map_err(|e| named(dir, &e))
}

/// As [`replace`], readable for group `gid`.
///
/// # Errors
/// As [`replace`].
pub fn replace_for_group(path: &Path, content: &[u8], gid: u32) -> io::Result<()> {
    replace_parts(path, content, 0o640, Some(gid)).map_err(|e| named(path, &e))
}

/// Removes a file that may be absent.
///
/// # Errors
/// Any error but "not found".
pub fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(named(path, &e)),
        _ => Ok(()),
    }
}

/// Renames `from` to `to` in the same directory, durably.
///
/// # Errors
/// Any error of the file system, with the path in its text.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    move_to(from, to).and_then(|()| sync_parent(to)).map_err(|e| named(from, &e))
}

#[expect(clippy::disallowed_methods, reason = "this is the module that may; every caller syncs the directory after")]
fn move_to(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("has no file name"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(".new");
    Ok(parent(path).join(temporary))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_with_mode_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(read_text(&path, 10).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn never_writes_through_a_planted_link() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(".state.json.new")).unwrap();
        replace(&dir.path().join("state.json"), b"mine", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn refuses_a_fifo_a_directory_and_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read_bounded(&fifo, 10).unwrap_err().to_string().contains("not a regular file"));
        assert!(read_bounded(dir.path(), 10).is_err());
        let big = dir.path().join("big");
        fs::write(&big, [b'x'; 11]).unwrap();
        assert!(read_bounded(&big, 10).unwrap_err().to_string().contains("larger than 10"));
        assert_eq!(read_bounded(&big, 11).unwrap().len(), 11);
    }

    #[test]
    fn a_failed_write_keeps_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        replace(&path, b"old", 0o600).unwrap();
        // A directory at the temporary name makes the write fail before the rename.
        fs::create_dir(dir.path().join(".state.json.new")).unwrap();
        assert!(replace(&path, b"new", 0o600).unwrap_err().to_string().contains("state.json"));
        assert_eq!(read_text(&path, 10).unwrap(), "old");
    }
}
