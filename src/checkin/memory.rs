//! What outlives the process: how often it started, and which audit records the registry has.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::files;

/// The file in the sidecar's state directory.
pub const FILE: &str = "checkin.json";
const MAX_FILE: u64 = 4096;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    epoch: u64,
    audit_sent: u64,
}

/// The kept numbers. Nothing about them keeps the machine from starting.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    kept: Kept,
}

impl Memory {
    /// Raises the epoch, durably where the disk allows, before the first message can leave.
    pub fn raise(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let kept = match files::read_text(&path, MAX_FILE) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| e.to_string()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
            Err(e) => Err(e.to_string()),
        };
        let kept = kept.unwrap_or_else(|why| {
            tracing::error!(why, "{FILE} cannot be read; check-ins are numbered by the clock from now on");
            // No machine was started so often.
            Kept { epoch: UnixMs::now().0 / 1000, audit_sent: 0 }
        });
        let memory = Self { path, kept: Kept { epoch: kept.epoch.saturating_add(1), ..kept } };
        memory.save();
        memory
    }

    /// Higher than in every earlier process of this machine.
    pub fn epoch(&self) -> u64 {
        self.kept.epoch
    }

    /// The registry has every audit record up to this one.
    pub fn audit_sent(&self) -> u64 {
        self.kept.audit_sent
    }

    /// The registry has every audit record up to `n`.
    pub fn set_audit_sent(&mut self, n: u64) {
        if std::mem::replace(&mut self.kept.audit_sent, n) != n {
            self.save();
        }
    }

    fn save(&self) {
        let text = serde_json::to_vec(&self.kept).unwrap_or_default();
        if let Err(e) = files::replace(&self.path, &text, 0o600) {
            tracing::error!(error = %e, "what the registry has cannot be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_is_a_later_one() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Memory::raise(dir.path()).epoch(), 1);
        let mut second = Memory::raise(dir.path());
        assert_eq!((second.epoch(), second.audit_sent()), (2, 0));
        second.set_audit_sent(17);
        let third = Memory::raise(dir.path());
        assert_eq!((third.epoch(), third.audit_sent()), (3, 17));
    }

    #[test]
    fn a_damaged_file_never_leads_back() {
        let dir = tempfile::tempdir().unwrap();
        let max = format!("{{\"epoch\":{},\"audit_sent\":0}}", u64::MAX);
        for damaged in ["", "{}", "{\"epoch\":-1,\"audit_sent\":0}", "\u{0}", max.as_str()] {
            std::fs::write(dir.path().join(FILE), damaged).unwrap();
            let epoch = Memory::raise(dir.path()).epoch();
            assert!(epoch > 1_700_000_000, "{damaged:?}: {epoch}");
        }
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        std::fs::create_dir(dir.path().join(FILE)).unwrap();
        assert!(Memory::raise(dir.path()).epoch() > 1_700_000_000);
    }
}
