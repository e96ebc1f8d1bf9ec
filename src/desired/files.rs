//! The files of the desired state, written as the gateway's user into its own directories.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::applied::AppliedFile;
use super::document::SeedFile;
use crate::files;

/// Largest file compared; the document allows less.
const MAX_FILE: u64 = 1024 * 1024;

/// Writes what is wanted, removes what is no longer wanted and still as we left it; returns what is ours now.
///
/// # Errors
/// A file cannot be written; its path is in the text. Those before it are.
pub fn write(dir: &Path, workspace: &Path, wanted: &[SeedFile], ours: &[AppliedFile]) -> io::Result<Vec<AppliedFile>> {
    let place = |path: &str| -> PathBuf {
        match path.strip_prefix("workspace/") {
            Some(rest) => workspace.join(rest),
            None => dir.join(path),
        }
    };
    let mut now = Vec::new();
    for file in wanted {
        let target = place(&file.path);
        let sha256 = digest(file.content.as_bytes());
        if present(&target).as_deref() != Some(sha256.as_str()) {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            files::replace(&target, file.content.as_bytes(), file.mode())?;
        }
        now.push(AppliedFile { path: file.path.clone(), sha256 });
    }
    for old in ours.iter().filter(|old| wanted.iter().all(|file| file.path != old.path)) {
        let target = place(&old.path);
        if present(&target).as_deref() == Some(old.sha256.as_str()) {
            files::remove_if_present(&target)?;
        }
    }
    Ok(now)
}

fn present(path: &Path) -> Option<String> {
    files::read_bounded(path, MAX_FILE).ok().map(|content| digest(&content))
}

fn digest(content: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(content))
}
