//! Who calls: machines by their credential, people and programs by a key, browsers by a session made from a key.
//!
//! Each audience has routes of its own, and no credential of one is good for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use data_encoding::BASE64URL_NOPAD;
use hyper::header::{COOKIE, HeaderMap};
use tokio::time::Instant;

use super::store::{Key, Store, Unavailable};
use super::tenant::{Digest, is_id};
use crate::auth::{Auth, Principal, Tier, bearer_digest};
use crate::checkin::wire::TICKET_HEADER;
use crate::clock::UnixMs;
use crate::secret::Secret;

/// The name of the session cookie. The prefix makes browsers keep it to this host and to TLS.
pub const COOKIE_NAME: &str = "__Host-openclaw-registry";
/// A session lasts so long, in seconds.
pub const SESSION_S: u64 = 12 * 3600;
/// Every ticket begins so.
const TICKET_PREFIX: &str = "oct_";
/// A credential that was looked up is not looked up again for so long. What it may do is decided on the row itself.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// Most credentials remembered.
const MOST_KNOWN: usize = 200_000;

/// Signs with keys derived from the registry's secret. `Debug` names only algorithms.
#[derive(Debug)]
pub struct Signer(hmac::Key);

impl Signer {
    /// Takes the registry's secret.
    pub fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()))
    }

    /// A signature over texts that cannot be mistaken for one over other texts or for another purpose.
    pub fn sign(&self, purpose: &str, parts: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in std::iter::once(&purpose).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        BASE64URL_NOPAD.encode(context.sign().as_ref())
    }

    fn check(&self, purpose: &str, parts: &[&str], signature: &str) -> bool {
        constant_time::verify_slices_are_equal(self.sign(purpose, parts).as_bytes(), signature.as_bytes()).is_ok()
    }

    /// The ticket that binds a tenant and its credential: with it the tenant is taken in again after a loss of the
    /// database. It is worth nothing without the credential.
    pub fn ticket(&self, tenant: &str, credential: &Digest) -> String {
        let digest = data_encoding::HEXLOWER.encode(credential);
        format!("{TICKET_PREFIX}{tenant}.{}", self.sign("ticket", &[tenant, &digest]))
    }

    /// The tenant that a ticket binds to this credential.
    pub fn ticket_owner(&self, ticket: &str, credential: &Digest) -> Option<String> {
        let (tenant, signature) = ticket.strip_prefix(TICKET_PREFIX)?.rsplit_once('.')?;
        let digest = data_encoding::HEXLOWER.encode(credential);
        (is_id(tenant) && self.check("ticket", &[tenant, &digest], signature)).then(|| tenant.to_owned())
    }

    /// A session for whoever showed the key `id`.
    pub fn session(&self, id: &str, fingerprint: &str, now: UnixMs) -> String {
        let expires = (now.0 / 1000 + SESSION_S).to_string();
        format!("{id}!{expires}!{}", self.sign("session", &[id, fingerprint, &expires]))
    }
}

/// Everybody who may call.
#[derive(Debug)]
pub struct Callers {
    store: Arc<dyn Store>,
    signer: Arc<Signer>,
    configured: Auth,
    keys: RwLock<Arc<Vec<Key>>>,
    machines: Mutex<HashMap<Digest, (String, Instant)>>,
}

/// A machine that showed a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The tenant it is good for.
    pub tenant: String,
    /// SHA-256 of it.
    pub credential: Digest,
    /// A ticket vouches for it.
    pub ticket: bool,
}

impl Callers {
    /// Callers by the configured keys and those in the store.
    pub fn new(store: Arc<dyn Store>, signer: Arc<Signer>, configured: Auth) -> Self {
        Self { store, signer, configured, keys: RwLock::default(), machines: Mutex::default() }
    }

    /// Reads the keys in the store anew.
    ///
    /// # Errors
    /// The store cannot say; those known stay in force.
    pub async fn refresh(&self) -> Result<(), Unavailable> {
        let keys = Arc::new(self.store.keys().await?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The machine that sent these headers; `None` when its credential is not known.
    ///
    /// # Errors
    /// The store cannot say.
    pub async fn machine(&self, headers: &HeaderMap) -> Result<Option<Machine>, Unavailable> {
        let Some(credential) = bearer_digest(headers) else { return Ok(None) };
        let ticket = headers.get(TICKET_HEADER).and_then(|t| t.to_str().ok());
        let ticket = ticket.and_then(|ticket| self.signer.ticket_owner(ticket, &credential));
        if let Some((tenant, at)) = self.machines().get(&credential)
            && at.elapsed() < KNOWN_FOR
        {
            let ticket = ticket.as_ref() == Some(tenant);
            return Ok(Some(Machine { tenant: tenant.clone(), credential, ticket }));
        }
        if let Some(tenant) = self.store.owner(credential).await? {
            let mut machines = self.machines();
            if machines.len() >= MOST_KNOWN {
                machines.clear();
            }
            machines.insert(credential, (tenant.clone(), Instant::now()));
            let ticket = ticket.as_ref() == Some(&tenant);
            return Ok(Some(Machine { tenant, credential, ticket }));
        }
        Ok(ticket.map(|tenant| Machine { tenant, credential, ticket: true }))
    }

    fn machines(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, (String, Instant)>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who sent these headers with a support or admin key; `None` for anything but one valid key.
    pub fn person(&self, headers: &HeaderMap) -> Option<Principal> {
        if let Some(principal) = self.configured.authenticate(headers) {
            return Some(principal);
        }
        let digest = bearer_digest(headers)?;
        self.by_digest(&digest)
    }

    /// Who holds this key, given as text (the login form).
    pub fn by_key(&self, key: &str) -> Option<Principal> {
        let mut headers = HeaderMap::new();
        headers.insert(hyper::header::AUTHORIZATION, format!("Bearer {key}").parse().ok()?);
        self.person(&headers)
    }

    fn by_digest(&self, digest: &Digest) -> Option<Principal> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let now = UnixMs::now();
        let mut found = None;
        for key in keys.iter() {
            // No early exit: the work does not tell which key fits, or whether one does.
            if constant_time::verify_slices_are_equal(&key.digest, digest).is_ok() && lives(key, now) {
                let tier = if key.admin { Tier::Dangerous } else { Tier::Safe };
                found = Some(Principal::known(key.id.clone(), tier, *digest));
            }
        }
        found
    }

    /// The cookie of a session for this caller.
    pub fn session_cookie(&self, principal: &Principal) -> String {
        let session = self.signer.session(&principal.id, &fingerprint(principal), UnixMs::now());
        format!("{COOKIE_NAME}={session}; Path=/; Max-Age={SESSION_S}; Secure; HttpOnly; SameSite=Strict")
    }

    /// Who holds the session in these headers, while its key is still good. A session only reads, whatever the key may.
    pub fn session(&self, headers: &HeaderMap) -> Option<Principal> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let value = cookies.flat_map(|text| text.split(';')).find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == COOKIE_NAME).then_some(value)
        })?;
        let mut parts = value.splitn(3, '!');
        let (id, expires, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let expired = expires.parse::<u64>().ok()? <= UnixMs::now().0 / 1000;
        let principal = self.by_id(id).filter(|_| !expired)?;
        let valid = self.signer.check("session", &[id, &fingerprint(&principal), expires], signature);
        let digest = principal.digest().copied()?;
        valid.then(|| Principal::known(principal.id, Tier::Safe, digest))
    }

    fn by_id(&self, id: &str) -> Option<Principal> {
        if let Some(principal) = self.configured.holder(id) {
            return Some(principal);
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let key = keys.iter().find(|key| key.id == id && lives(key, UnixMs::now()))?;
        Some(Principal::known(key.id.clone(), Tier::Safe, key.digest))
    }

    /// Whether a caller that was let in earlier still would be.
    pub fn still_valid(&self, principal: &Principal) -> bool {
        self.by_id(&principal.id).is_some_and(|now| fingerprint(&now) == fingerprint(principal))
    }

    /// Whether this id is taken by a configured key.
    pub fn is_configured(&self, id: &str) -> bool {
        self.configured.holder(id).is_some()
    }
}

fn lives(key: &Key, now: UnixMs) -> bool {
    key.expires_at.is_none_or(|at| now < at)
}

/// Tells one key from another under the same name, without telling anything of it.
fn fingerprint(principal: &Principal) -> String {
    principal.digest().map(|digest| data_encoding::HEXLOWER.encode(&digest[..8])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secret: &str) -> Signer {
        Signer::new(&Secret::new(secret.to_owned()))
    }

    #[test]
    fn a_ticket_binds_one_tenant_and_one_credential() {
        let (ours, theirs) = (signer("a".repeat(32).as_str()), signer("b".repeat(32).as_str()));
        let ticket = ours.ticket("acme.eu-1", &[7; 32]);
        assert_eq!(ours.ticket_owner(&ticket, &[7; 32]).as_deref(), Some("acme.eu-1"));
        assert_eq!(ours.ticket_owner(&ticket, &[8; 32]), None);
        assert_eq!(theirs.ticket_owner(&ticket, &[7; 32]), None);
        assert_eq!(ours.ticket_owner(&ticket.replace("acme", "acne"), &[7; 32]), None);
        for bad in ["", "oct_", "oct_.", "oct_a", "oct_a.b", "ocs_a.b"] {
            assert_eq!(ours.ticket_owner(bad, &[7; 32]), None, "{bad}");
        }
    }

    #[test]
    fn signatures_do_not_run_together() {
        let signer = signer("a".repeat(32).as_str());
        assert_ne!(signer.sign("x", &["ab", "c"]), signer.sign("x", &["a", "bc"]));
        assert_ne!(signer.sign("x", &["a"]), signer.sign("xa", &[]));
    }
}
