//! A small disk that can be filled. The store's own tests use it too.
#![allow(clippy::disallowed_methods, reason = "what is written here need not outlive a crash")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory on a disk of its own.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, with a line that says so, where a disk cannot be mounted.
    pub(crate) fn new(dir: &Path) -> Option<Self> {
        let place = dir.join("disk");
        std::fs::create_dir(&place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m,mode=0700", "none"]).arg(&place).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(place));
        }
        eprintln!("NOT TESTED: a full disk (needs root, to mount a small one)");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes all the space there is.
    pub(crate) fn fill(&self) {
        let fits = std::fs::write(self.ballast(), vec![0; 4 << 20]);
        assert!(fits.is_err(), "the disk is not small");
    }

    /// Gives it back.
    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
