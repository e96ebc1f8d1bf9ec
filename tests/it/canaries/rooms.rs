//! What other users can read: files of the machine, and environments of processes. And where a secret may be.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::secrets::{Canaries, forms};
use crate::support::machine::{GATEWAY_UID, Machine, proc, run_as};

/// What the gateway's user has in files, for it is its own: its configuration holds the shared token as the tenant set
/// it, and the tenant's own key; ours of these files is only what is below `.sidecar`, where the last good one is a copy.
/// What else lies in its directory the gateway wrote itself, of what it was given.
const GATEWAYS_OWN_FILES: [&str; 4] =
    ["gateway token in its file", "tenant's key", "gateway token by name", "variable passed on"];
/// What the gateway is given by its environment, which its own user can read.
pub const GATEWAYS_ENVIRONMENT: [&str; 5] =
    ["provider's key", "passphrase", "private key", "gateway token by name", "variable passed on"];

/// Looks for the secrets as other users.
pub struct Rooms {
    dir: tempfile::TempDir,
    canaries: Canaries,
}

impl Rooms {
    pub fn new(canaries: &Canaries) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("canaries-").tempdir()?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
        // `grep` would take a halved line for the whole one: each hit counts, whatever its form.
        let all: Vec<String> = canaries.0.iter().flat_map(|c| forms(&c.value)).map(|(_, form)| form).collect();
        let rooms = Self { dir, canaries: canaries.clone() };
        std::fs::write(rooms.patterns(), all.join("\n") + "\n")?;
        std::fs::set_permissions(rooms.patterns(), PermissionsExt::from_mode(0o644))?;
        Ok(rooms)
    }

    fn patterns(&self) -> PathBuf {
        self.dir.path().join("patterns")
    }

    /// Path and slot of everything that this user finds.
    async fn search(&self, uid: u32, paths: &[PathBuf], recurse: bool) -> anyhow::Result<Vec<(String, &'static str)>> {
        let patterns = self.patterns();
        let mut args = vec!["-aoHsF", "-D", "skip"];
        args.extend(recurse.then_some("-r"));
        args.extend(["-f", patterns.to_str().context("UTF-8")?, "--"]);
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        args.extend(paths.iter().map(String::as_str));
        let ran = run_as(uid, "grep", &args).await?;
        ensure!(!ran.err.contains("hangs"), "{}", ran.err);
        let hits = ran.out.lines().filter_map(|line| {
            let (path, form) = line.split_once(':')?;
            Some((path.to_owned(), self.canaries.slot_of(form)))
        });
        let mut hits: Vec<_> = hits.collect();
        hits.sort();
        hits.dedup();
        Ok(hits)
    }

    /// Files that this user can read and that hold what they may not.
    pub async fn files(&self, machine: &Machine, uid: u32) -> anyhow::Result<Vec<String>> {
        let place = machine.place();
        let places =
            [place.volume(), place.home(), place.root().join("run"), place.root().join("run-given"), "/run".into()];
        let here: Vec<PathBuf> = places.into_iter().filter(|path| path.exists()).collect();
        let hits = self.search(uid, &here, true).await?;
        let wrong = hits.into_iter().filter(|(path, slot)| !is_the_owners(machine, uid, Path::new(path), slot));
        Ok(wrong.map(|(path, slot)| format!("uid {uid} finds {slot} in {path}")).collect())
    }

    /// Environments that this user can read and that hold what they may not.
    pub async fn environments(&self, uid: u32) -> anyhow::Result<Vec<String>> {
        let all = proc::all().into_iter().map(|stat| PathBuf::from(format!("/proc/{}/environ", stat.pid)));
        let hits = self.search(uid, &all.collect::<Vec<_>>(), false).await?;
        let wrong = hits.into_iter().filter(|(path, slot)| {
            let pid = path.split('/').nth(2).and_then(|pid| pid.parse().ok()).unwrap_or_default();
            let own = proc::status(pid, "Uid").first().is_some_and(|owner| *owner == GATEWAY_UID.to_string());
            !(uid == GATEWAY_UID && own && GATEWAYS_ENVIRONMENT.contains(slot))
        });
        Ok(wrong.map(|(path, slot)| format!("uid {uid} finds {slot} in {path}")).collect())
    }

    /// What is found in one file by its owner, whatever it may hold.
    pub async fn found_in(&self, uid: u32, path: &Path) -> anyhow::Result<Vec<&'static str>> {
        let hits = self.search(uid, &[path.to_owned()], true).await?;
        Ok(hits.into_iter().map(|(_, slot)| slot).collect())
    }
}

fn is_the_owners(machine: &Machine, uid: u32, path: &Path, slot: &str) -> bool {
    let own = machine.place().gateway_dir();
    if uid != GATEWAY_UID {
        return false;
    }
    let Ok(name) = path.strip_prefix(&own) else {
        // The gateway's home is its own too.
        return path.starts_with(machine.place().home()) && GATEWAYS_ENVIRONMENT.contains(&slot);
    };
    let config = name.to_string_lossy().starts_with("openclaw.json");
    if config || name.starts_with(".sidecar") {
        return ["gateway token in its file", "tenant's key"].contains(&slot);
    }
    GATEWAYS_OWN_FILES.contains(&slot) || GATEWAYS_ENVIRONMENT.contains(&slot)
}
