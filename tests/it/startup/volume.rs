//! A small file system of its own for a test, taken away at the end.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Volume {
    /// `None` where mounting is not permitted, which is said aloud.
    pub fn mount(options: &str) -> anyhow::Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("volume");
        std::fs::create_dir(&path)?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Some(Self { path, _dir: dir })),
            other => {
                eprintln!("SKIPPED: a file system cannot be mounted here: {other:?}");
                Ok(None)
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it to the last byte; removing the file makes room again.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.path.join("filler");
        let mut file = std::fs::File::create(&path).expect("a new file on the volume");
        for size in [4096, 512, 64, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a daemon that a failed test left may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
