//! Who calls: bearer credentials, tiers, and the check before anything else of a request is looked at.
//!
//! Only SHA-256 digests of credentials are held. Every attempt costs the same work, whatever is wrong with it, and is
//! compared in constant time against every entry. Entries are looked up per request, so that a removed one is dead
//! within a second, on open connections too.

pub mod credentials;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::UnixMs;
use crate::config;
use crate::files;
use credentials::Entry;

/// The file's metadata is looked at once in this time at most, by the requests themselves.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MAX_FILE: u64 = 256 * 1024;

/// What a route demands, and what a credential may do; each tier includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Anyone, without a credential; tells nothing about the tenant.
    Public,
    /// Reading.
    Safe,
    /// Everything that can be undone.
    Dangerous,
    /// What cannot be undone: asked for by a dangerous credential, done only once a second person granted it.
    Destructive,
    /// Granting that: only credentials marked `approver`, whatever else they may do.
    Approver,
}

impl Tier {
    /// The tier's name as written in credential files and the API's description.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Safe => "safe",
            Self::Dangerous => "dangerous",
            Self::Destructive => "destructive",
            Self::Approver => "approver",
        }
    }
}

/// A caller that proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// A credential's id, or `local:<uid>`.
    pub id: String,
    /// What it may do.
    pub tier: Tier,
    /// Whether it may grant what cannot be undone to somebody else.
    pub approver: bool,
    /// Digest of its credential; `None` for the local socket.
    digest: Option<[u8; 32]>,
}

impl Principal {
    /// A caller on the local socket, whose uid the kernel vouches for.
    pub fn local(uid: u32) -> Self {
        Self { id: format!("local:{uid}"), tier: Tier::Dangerous, approver: uid == 0, digest: None }
    }

    /// A caller that proved who it is by a credential of this digest.
    pub fn known(id: String, tier: Tier, digest: [u8; 32]) -> Self {
        Self { id, tier, approver: false, digest: Some(digest) }
    }

    /// SHA-256 of its credential; none on the local socket.
    pub fn digest(&self) -> Option<&[u8; 32]> {
        self.digest.as_ref()
    }

    /// Whether this caller may use a route of `tier`.
    pub fn may(&self, tier: Tier) -> bool {
        match tier {
            Tier::Approver => self.approver,
            Tier::Destructive => self.tier >= Tier::Dangerous,
            tier => self.tier >= tier,
        }
    }
}

/// The credentials, hot-reloaded; cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Option<PathBuf>,
    entries: watch::Sender<Arc<Vec<Entry>>>,
    looked: Mutex<Looked>,
}

#[derive(Debug)]
struct Looked {
    at: Instant,
    stamp: Stamp,
    fault: Option<String>,
}

/// What tells that a file may have changed.
type Stamp = Option<(SystemTime, u64)>;

impl Auth {
    /// Reads the configured credentials. There must be at least one: without, nobody could call, or anybody.
    ///
    /// # Errors
    /// In plain words what is wrong, with the remedy.
    pub fn load(config: &config::Auth) -> Result<Self, String> {
        let (file, text) = match (&config.credentials_file, &config.credentials) {
            (Some(path), _) => (Some(path.clone()), read(path)?),
            (None, Some(inline)) => (None, inline.clone()),
            (None, None) => return Err(NO_CREDENTIAL.to_owned()),
        };
        let entries = credentials::parse(&text)?;
        let stamp = file.as_ref().and_then(|path| stamp(path));
        let looked = Mutex::new(Looked { at: Instant::now(), stamp, fault: None });
        Ok(Self(Arc::new(Inner { file, entries: watch::Sender::new(Arc::new(entries)), looked })))
    }

    /// The file that is watched, if there is one.
    pub fn file(&self) -> Option<&PathBuf> {
        self.0.file.as_ref()
    }

    /// Who sent these headers; `None` for anything but one valid bearer.
    pub fn authenticate(&self, headers: &HeaderMap) -> Option<Principal> {
        self.look();
        let presented = bearer(headers).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let now = UnixMs::now();
        let mut found = None;
        for entry in self.0.entries.borrow().iter() {
            // No early exit: the work does not tell which entry fits, or whether one does.
            if bool::from(entry.digest.ct_eq(&digest)) && entry.valid_at(now) {
                found = Some(Principal {
                    id: entry.id.clone(),
                    tier: entry.tier,
                    approver: entry.approver,
                    digest: Some(digest),
                });
            }
        }
        found
    }

    /// Who holds the credential named `id` now.
    pub fn holder(&self, id: &str) -> Option<Principal> {
        self.look();
        let now = UnixMs::now();
        let entries = self.0.entries.borrow();
        let entry = entries.iter().find(|entry| entry.id == id && entry.valid_at(now))?;
        let (tier, approver) = (entry.tier, entry.approver);
        Some(Principal { id: entry.id.clone(), tier, approver, digest: Some(entry.digest) })
    }

    /// Whether a caller that was let in earlier would still be: for streams that last.
    pub fn still_valid(&self, principal: &Principal) -> bool {
        self.look();
        let Some(digest) = principal.digest else { return true };
        let now = UnixMs::now();
        self.0.entries.borrow().iter().any(|e| {
            e.digest == digest
                && e.id == principal.id
                && e.tier >= principal.tier
                && e.approver >= principal.approver
                && e.valid_at(now)
        })
    }

    /// A receiver that is told when the credentials change.
    pub fn watch(&self) -> watch::Receiver<Arc<Vec<Entry>>> {
        self.0.entries.subscribe()
    }

    /// What is wrong with the file now, if anything: the last good entries stay in force.
    pub fn fault(&self) -> Option<String> {
        self.looked().fault.clone()
    }

    /// Reads the file anew if its metadata changed; at most once a second, for the requests themselves call it.
    fn look(&self) {
        if self.looked().at.elapsed() >= LOOK_EVERY {
            self.look_now();
        }
    }

    /// Reads the file anew if its metadata changed.
    pub fn look_now(&self) {
        let mut looked = self.looked();
        let Some(path) = &self.0.file else { return };
        looked.at = Instant::now();
        let stamp = stamp(path);
        if stamp.is_some() && stamp == looked.stamp && looked.fault.is_none() {
            return;
        }
        looked.stamp = stamp;
        let fault = match read(path).and_then(|text| credentials::parse(&text)) {
            Ok(entries) => {
                self.0.entries.send_if_modified(|now| {
                    let changed = **now != entries;
                    if changed {
                        tracing::info!(count = entries.len(), "credentials reloaded");
                        *now = Arc::new(entries);
                    }
                    changed
                });
                None
            }
            Err(why) => Some(why),
        };
        if fault.is_some() && fault != looked.fault {
            tracing::error!(error = fault, "credentials cannot be reloaded; the last good ones stay in force");
        }
        looked.fault = fault;
    }

    fn looked(&self) -> std::sync::MutexGuard<'_, Looked> {
        self.0.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_CREDENTIAL: &str = "no credential is configured, so nobody could call: make one with `openclaw-sidecar token \
     new`, put its JSON entry into a file and set auth.credentials_file (OPENCLAW_SIDECAR_AUTH_CREDENTIALS_FILE), or \
     give the JSON in OPENCLAW_SIDECAR_AUTH_CREDENTIALS";

fn read(path: &std::path::Path) -> Result<String, String> {
    use std::os::unix::fs::MetadataExt as _;
    let text = files::read_text(path, MAX_FILE).map_err(|e| e.to_string())?;
    let mode = std::fs::metadata(path).map_err(|e| e.to_string())?.mode();
    if mode & 0o022 != 0 {
        let remedy = "others may write it and so let themselves in: chmod go-w";
        return Err(format!("{}: {remedy}", path.display()));
    }
    Ok(text)
}

fn stamp(path: &std::path::Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.ino() ^ found.len().rotate_left(32) ^ u64::from(found.mode())))
}

/// SHA-256 of the token of exactly one `Authorization: Bearer` header.
pub fn bearer_digest(headers: &HeaderMap) -> Option<[u8; 32]> {
    bearer(headers).map(|token| Sha256::digest(token).into())
}

/// The token of exactly one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    let usual = token.len() <= credentials::MAX_TOKEN && !token.is_empty();
    (scheme.eq_ignore_ascii_case(b"bearer ") && usual).then_some(token)
}

#[cfg(test)]
mod tests;
