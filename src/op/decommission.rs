//! What cannot be undone, and the second person it takes: a grant bound to one caller and one request.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::desired::Desired;
use super::lifecycle::{Lifecycle, Order};
use super::secrets::Secrets;
use super::{Caller, Refused, recorded};
use crate::audit::Audit;
use crate::checkin::BYE;
use crate::checkin::wire::Intent;
use crate::clock::UnixMs;
use crate::desired::history::DECOMMISSIONED;
use crate::files;
use crate::launcher::verbs::Verb;

/// A grant that was not used lapses.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// Waiting grants; asking again for one that waits makes no other.
const MOST: usize = 16;
/// The gateway gets so long to stop.
const STOP: Duration = Duration::from_secs(40);

/// One request that waits for a second person.
#[derive(Clone, Debug)]
struct Grant {
    id: String,
    asked_by: String,
    /// What exactly was asked for.
    request: [u8; 32],
    granted_by: Option<String>,
    until: Instant,
    /// The same moment as people read it.
    expires_at: UnixMs,
}

/// Requests that wait for a second person. They are forgotten when the process ends: then both begin anew.
#[derive(Debug, Default)]
pub struct Grants(Mutex<Vec<Grant>>);

/// What asking leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// A second person must grant this one, before this moment.
    Waits(String, UnixMs),
    /// It was granted by this one; the grant is used up.
    Granted(String),
}

impl Grants {
    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<Grant>> {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants.retain(|grant| grant.until > Instant::now());
        grants
    }

    /// Asks for `request` in the name of `asked_by`.
    ///
    /// # Errors
    /// Too many requests wait.
    pub fn ask(&self, asked_by: &str, request: [u8; 32], new_id: impl FnOnce() -> String) -> Result<Asked, Refused> {
        let mut grants = self.locked();
        let found = grants.iter().position(|g| g.asked_by == asked_by && g.request == request);
        if let Some(at) = found {
            return Ok(match grants[at].granted_by.clone() {
                Some(by) => {
                    grants.remove(at);
                    Asked::Granted(by)
                }
                None => Asked::Waits(grants[at].id.clone(), grants[at].expires_at),
            });
        }
        if grants.len() >= MOST {
            return Err(Refused::TooManyGrants);
        }
        let id = new_id();
        let until = Instant::now() + LIFETIME;
        let expires_at = UnixMs::now().plus_ms(u64::try_from(LIFETIME.as_millis()).unwrap_or(0));
        let asked_by = asked_by.to_owned();
        grants.push(Grant { id: id.clone(), asked_by, request, granted_by: None, until, expires_at });
        Ok(Asked::Waits(id, expires_at))
    }

    /// Grants what waits under `id`.
    ///
    /// # Errors
    /// Nothing waits there, or who asked would grant it to himself.
    pub fn grant(&self, id: &str, by: &str) -> Result<(), Refused> {
        let mut grants = self.locked();
        let grant = grants.iter_mut().find(|g| g.id == id).ok_or_else(|| Refused::NoSuchGrant(id.to_owned()))?;
        if grant.asked_by == by {
            return Err(Refused::SamePerson);
        }
        grant.granted_by = Some(by.to_owned());
        Ok(())
    }
}

/// Wiping a tenant.
#[derive(Debug)]
pub struct Decommission {
    grants: Grants,
    lifecycle: Lifecycle,
    desired: Arc<Desired>,
    secrets: Arc<Secrets>,
    audit: Audit,
    marker: PathBuf,
}

impl Decommission {
    /// Takes what is needed to wipe everything; `state_dir` keeps the mark that the tenant is gone.
    pub fn new(
        lifecycle: Lifecycle,
        desired: Arc<Desired>,
        secrets: Arc<Secrets>,
        audit: Audit,
        state_dir: &std::path::Path,
    ) -> Self {
        Self { grants: Grants::default(), lifecycle, desired, secrets, audit, marker: state_dir.join(DECOMMISSIONED) }
    }

    /// Asks for `request` in the name of the caller, on record.
    ///
    /// # Errors
    /// Too many requests wait, or the audit cannot be written.
    pub async fn ask(&self, request: [u8; 32], id: impl FnOnce() -> String, caller: &Caller) -> Result<Asked, Refused> {
        recorded(&self.audit, caller, "decommission.ask", "tenant", async {
            self.grants.ask(&caller.actor, request, id)
        })
        .await
    }

    /// Grants what waits under `id` in the name of the caller, on record.
    ///
    /// # Errors
    /// Nothing waits there, or who asked would grant it to himself.
    pub async fn grant(&self, id: &str, caller: &Caller) -> Result<(), Refused> {
        recorded(&self.audit, caller, "decommission.grant", id, async { self.grants.grant(id, &caller.actor) }).await
    }

    /// Stops the gateway for good and wipes its state, the desired state and the secrets. The audit stays.
    ///
    /// # Errors
    /// A step failed; the ones before it are done, and the call can be repeated.
    pub async fn wipe(&self, granted_by: &str, caller: &Caller) -> Result<(), Refused> {
        let target = format!("tenant; granted by {granted_by}");
        let failed = |e: std::io::Error| Refused::StateNotWritten(e.to_string());
        recorded(&self.audit, caller, "decommission", &target, async {
            files::replace(&self.marker, b"this tenant was decommissioned\n", 0o600).map_err(failed)?;
            let stopped = self.lifecycle.order(Order::Stop, caller, Instant::now() + STOP).await?;
            if !stopped {
                return Err(Refused::LauncherFailed("the gateway did not stop".to_owned()));
            }
            self.secrets.wipe().map_err(failed)?;
            self.desired.wipe().map_err(failed)?;
            self.lifecycle.launcher.ask_until(Verb::Wipe, Instant::now() + STOP).await.map_err(Refused::LauncherFailed)
        })
        .await?;
        self.lifecycle.checkins.bye(Intent::Decommission, "the tenant was wiped", BYE).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(grants: &Grants, by: &str, request: [u8; 32], new: &str) -> Option<String> {
        match grants.ask(by, request, id(new)).unwrap() {
            Asked::Waits(id, _) => Some(id),
            Asked::Granted(_) => None,
        }
    }

    fn id(text: &str) -> impl FnOnce() -> String + use<'_> {
        move || text.to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_is_bound_to_caller_and_request_used_once_and_lapses() {
        let grants = Grants::default();
        let (this, other) = ([1; 32], [2; 32]);
        assert_eq!(waits(&grants, "control", this, "g1").as_deref(), Some("g1"));
        assert_eq!(waits(&grants, "control", this, "x").as_deref(), Some("g1"), "no second one");
        assert_eq!(grants.grant("g1", "control"), Err(Refused::SamePerson));
        assert!(matches!(grants.grant("nope", "boss"), Err(Refused::NoSuchGrant(_))));
        grants.grant("g1", "boss").unwrap();
        assert_eq!(waits(&grants, "control", other, "g2").as_deref(), Some("g2"));
        assert_eq!(waits(&grants, "somebody", this, "g3").as_deref(), Some("g3"));
        assert_eq!(grants.ask("control", this, id("x")).unwrap(), Asked::Granted("boss".into()));
        assert_eq!(waits(&grants, "control", this, "g4").as_deref(), Some("g4"), "used up");
        grants.grant("g4", "boss").unwrap();
        tokio::time::advance(LIFETIME).await;
        assert_eq!(waits(&grants, "control", this, "g5").as_deref(), Some("g5"), "lapsed");
        for n in 0..MOST {
            let _ = grants.ask(&n.to_string(), this, id("many"));
        }
        assert_eq!(grants.ask("one more", this, id("x")), Err(Refused::TooManyGrants));
    }
}
