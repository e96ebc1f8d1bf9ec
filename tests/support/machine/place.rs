//! Where a machine lies: its volume below directories only root may change, its ports, and files beside the volume.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::gateway::gateways_dir;
use super::ports::PortRange;
use super::{GATEWAY_UID, SIDECAR_UID, is_root};

/// A gateway claims ports up to 110 above its own; the range that is held goes a little further.
const TLS_ABOVE: u16 = 115;

#[derive(Debug)]
pub struct Place {
    dir: tempfile::TempDir,
    ports: PortRange,
    starts: AtomicU32,
}

impl Place {
    pub(super) fn new() -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("machine-").tempdir()?;
        let place = Self { dir, ports: PortRange::take()?, starts: AtomicU32::new(0) };
        set_mode(place.root(), 0o755)?;
        for (path, owner, mode) in [
            (place.volume(), 0, 0o755),
            (place.programs(), 0, 0o755),
            (place.root().join("etc"), 0, 0o755),
            (place.root().join("run"), SIDECAR_UID, 0o755),
            (place.home(), GATEWAY_UID, 0o700),
        ] {
            std::fs::create_dir(&path)?;
            set_mode(&path, mode)?;
            give(&path, owner)?;
        }
        Ok(place)
    }

    /// The one part of its paths that no other machine's have.
    pub fn id(&self) -> &str {
        self.root().file_name().and_then(|name| name.to_str()).expect("a name of our own")
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    pub fn volume(&self) -> PathBuf {
        self.root().join("data")
    }

    pub fn gateway_dir(&self) -> PathBuf {
        self.volume().join("openclaw")
    }

    pub fn sidecar_dir(&self) -> PathBuf {
        self.volume().join("sidecar")
    }

    pub fn config_path(&self) -> PathBuf {
        self.gateway_dir().join("openclaw.json")
    }

    /// The gateway's home, outside the volume as in most images.
    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    pub fn socket(&self) -> PathBuf {
        self.root().join("run/control.sock")
    }

    pub fn credentials(&self) -> PathBuf {
        self.root().join("etc/credentials.json")
    }

    /// Stand-ins for gateways; only root may change them.
    pub fn programs(&self) -> PathBuf {
        self.root().join("bin")
    }

    pub fn port(&self) -> u16 {
        self.ports.base()
    }

    pub fn tls_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.base() + TLS_ABOVE).into()
    }

    /// Fresh files for what the next start says.
    pub(super) fn next_logs(&self) -> (PathBuf, PathBuf) {
        let n = self.starts.fetch_add(1, Ordering::Relaxed) + 1;
        (self.root().join(format!("log-{n}.jsonl")), self.root().join(format!("gateway-{n}.log")))
    }

    /// Writes a file as root, or whoever runs the tests, for this owner alone.
    pub fn put(&self, path: &Path, text: &str, owner: u32, mode: u32) -> anyhow::Result<()> {
        std::fs::write(path, text)?;
        set_mode(path, mode)?;
        give(path, owner)
    }

    /// Replaces the gateway's configuration behind everybody's back, as the tenant's agent would.
    pub fn poison_config(&self, text: &str) -> anyhow::Result<()> {
        let staged = self.gateway_dir().join("openclaw.json.staged");
        self.put(&staged, text, GATEWAY_UID, 0o600)?;
        Ok(std::fs::rename(staged, self.config_path())?)
    }
}

/// Scratch space all runs of a version share: compiled code lies there, and making it anew costs seconds.
pub(super) fn scratch(version: &str) -> anyhow::Result<PathBuf> {
    let dir = gateways_dir().join(version).join(if is_root() { "tmp-launch" } else { "tmp" });
    std::fs::create_dir_all(&dir)?;
    give(&dir, GATEWAY_UID)?;
    Ok(dir)
}

pub(super) fn give(path: &Path, owner: u32) -> anyhow::Result<()> {
    if is_root() {
        chown(path, Some(owner), Some(owner))?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}
