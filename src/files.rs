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

/// Creates `dir` and its parents, `dir` itself with mode 0700, or checks that an existing one is a real directory.
///
/// # Errors
/// `dir` is a symbolic link or no directory, belongs to another user, or cannot be created.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    // With a slash at its end, a link would be followed.
    let dir: &Path = &dir.components().collect::<PathBuf>();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() {
        return Err(io::Error::other("is a symbolic link or not a directory"));
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!("belongs to uid {}, not to this process", found.uid())));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces `path` with `content`, atomically and durably: when this returns `Ok`, the new content survives a power
/// cut; when it returns an error, the old content is untouched.
///
/// # Errors
/// Any error of the file system, with the path in its text.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace_parts(path, content, mode).map_err(|e| named(path, &e))
}

fn replace_parts(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_name(path)?;
    // Whatever lies at that name is ours from an interrupted write, or was planted: never write through it.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let written = write_new(&temporary, content, mode);
    if let Err(e) = written.and_then(|()| move_to(&temporary, path)) {
        let _ = fs::remove_file(&temporary);
        return Err(e);
    }
    sync_parent(path)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
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
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut content = Vec::new();
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
