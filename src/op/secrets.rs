//! Secrets for the gateway: sealed at rest, given to it as environment at its next start, never shown.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::audit::Audit;
use crate::clock::UnixMs;
use crate::config::{Config, Env};
use crate::desired::secrets::{SecretInfo, Store, Vault};
use crate::op::{Caller, Refused, recorded};
use crate::secret::Secret;

const FILE: &str = "secrets.json";

/// The stored secrets.
#[derive(Debug)]
pub struct Secrets {
    store: Mutex<Store>,
    /// Absent where the platform gives no machine secret.
    vault: Option<Vault>,
    path: PathBuf,
    /// Our own environment, with what the gateway gets added.
    base: Env,
    env: watch::Sender<Env>,
    /// What must not appear in texts that are shown.
    known: Mutex<Vec<Secret>>,
    audit: Audit,
}

/// Shorter values are words that texts are full of.
const SHOWN_BELOW: usize = 6;

impl Secrets {
    /// Reads the stored secrets; the receiver always has the environment that the gateway's configuration may name.
    ///
    /// # Errors
    /// The file is damaged, or the machine's secret cannot be used.
    pub fn load(config: &Config, env: Env, audit: Audit) -> Result<(Self, watch::Receiver<Env>), String> {
        let path = config.state_dir.join(FILE);
        let store = Store::load(&path)?;
        let vault = config.machine.find()?.map(|secret| Vault::new(&secret)).transpose()?;
        let (tx, rx) = watch::channel(env.clone());
        let secrets =
            Self { store: Mutex::new(store), vault, path, base: env, env: tx, known: Mutex::default(), audit };
        secrets.publish();
        Ok((secrets, rx))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, store: &mut Store, next: Store) -> Result<(), Refused> {
        let saved = next.save(&self.path);
        // What lies there is what the next start uses, durable or not.
        if saved.is_ok() || Store::load(&self.path).is_ok_and(|found| found == next) {
            *store = next;
        }
        saved.map_err(|e| Refused::StateNotWritten(e.to_string()))
    }

    fn publish(&self) {
        let Some(vault) = &self.vault else { return };
        match self.locked().open_all(vault) {
            Ok(opened) => {
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = opened.values().cloned().collect();
                let values = opened.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned()));
                self.env.send_replace(self.base.clone().into_iter().chain(values).collect());
            }
            Err(why) => tracing::error!(error = why, "the stored secrets cannot be unsealed"),
        }
    }

    /// A text without the stored secrets, should the gateway have printed one.
    pub fn redact(&self, text: &str) -> String {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let long = known.iter().filter(|secret| secret.expose().len() >= SHOWN_BELOW);
        long.fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "[redacted]"))
    }

    /// Names, times and fingerprints.
    pub fn list(&self) -> Vec<SecretInfo> {
        self.locked().list()
    }

    /// Stores a secret; the gateway gets it at its next start.
    ///
    /// # Errors
    /// The name or value is not usable, no machine secret is given, or it cannot be written.
    pub async fn put(
        &self,
        name: &str,
        value: &Secret,
        expires_at: Option<UnixMs>,
        caller: &Caller,
    ) -> Result<SecretInfo, Refused> {
        let vault = self.vault.as_ref().ok_or(Refused::NoMachineSecret)?;
        let mut next = self.locked().clone();
        next.set(vault, name, value, expires_at).map_err(Refused::InvalidSecret)?;
        let put = async {
            let mut store = self.locked();
            let mut next = store.clone();
            next.set(vault, name, value, expires_at).map_err(Refused::InvalidSecret)?;
            self.keep(&mut store, next)?;
            Ok(())
        };
        let put = recorded(&self.audit, caller, "secrets.put", name, put).await;
        self.publish();
        put?;
        self.list().into_iter().find(|info| info.name == name).ok_or_else(|| Refused::NotFound(name.to_owned()))
    }

    /// Forgets a secret; the gateway has it until its next start.
    ///
    /// # Errors
    /// There is none of this name, or the file cannot be written.
    pub async fn remove(&self, name: &str, caller: &Caller) -> Result<(), Refused> {
        let remove = async {
            let mut store = self.locked();
            let mut next = store.clone();
            if !next.remove(name) {
                return Err(Refused::NoSuchSecret(name.to_owned()));
            }
            self.keep(&mut store, next)?;
            Ok(())
        };
        let removed = recorded(&self.audit, caller, "secrets.delete", name, remove).await;
        self.publish();
        removed
    }

    /// Forgets all of them: the tenant is gone.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn wipe(&self) -> std::io::Result<()> {
        crate::files::remove_if_present(&self.path)?;
        *self.locked() = Store::default();
        self.publish();
        Ok(())
    }
}
