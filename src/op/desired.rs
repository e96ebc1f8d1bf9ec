//! Changing the desired state: checked, kept durably as a new generation, applied by the next start of the gateway.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::audit::Audit;
use crate::config::Config;
use crate::desired::applied::Applied;
use crate::desired::document::Document;
use crate::desired::history::{FILE, Generation, History, MAX_FILE, Outcome};
use crate::desired::openclaw_json;
use crate::desired::plan::{self, Change, Facts};
use crate::files;
use crate::launcher::handle::Handle;
use crate::launcher::layout::Layout;
use crate::launcher::machine::State as Launched;
use crate::launcher::verbs::{Status, Verb};
use crate::op::{Caller, Refused, recorded};
use crate::state::{Code, DesiredState, Found, State};

/// The desired state and what it needs to change.
#[derive(Debug)]
pub struct Desired {
    history: Mutex<History>,
    path: PathBuf,
    port: u16,
    state_dir: PathBuf,
    launcher: Handle,
    state: State,
    audit: Audit,
}

/// What a caller expects the newest generation to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// Whatever it is.
    Any,
    /// Exactly this one.
    Generation(u64),
}

/// What a change did, or would do.
#[derive(Debug)]
pub struct Put {
    /// The new generation; for a dry run the one there is.
    pub generation: u64,
    /// What changes in the gateway's configuration, as it is now.
    pub changes: Vec<Change>,
}

impl Desired {
    /// Reads the generations kept, or takes what the platform gave for the first boot.
    ///
    /// # Errors
    /// The file is damaged: it is not replaced, since what is owned would be lost.
    pub fn load(config: &Config, launcher: Handle, state: State, audit: Audit) -> Result<Self, String> {
        let path = config.state_dir.join(FILE);
        let history = if files::exists(&path) {
            let text = files::read_text(&path, MAX_FILE).map_err(|e| e.to_string())?;
            History::parse(&text).map_err(|e| format!("{}: {e}; restore or remove the file", path.display()))?
        } else {
            let first = History::first_boot(&config.launch);
            first.unwrap_or_else(|why| {
                state.publish(|d| d.snapshot.set_finding(Code::DesiredUnreadable, Some(Found::new(why))));
                History::default()
            })
        };
        let state_dir = Layout::new(&config.launch.volume).gateway;
        let port = config.gateway.address.port();
        let desired = Self { history: Mutex::new(history), path, port, state_dir, launcher, state, audit };
        if desired.history().newest() > 0 && !files::exists(&desired.path) {
            desired.keep(&desired.history()).map_err(|e| e.to_string())?;
        }
        desired.publish();
        Ok(desired)
    }

    fn history(&self) -> History {
        self.locked().clone()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, history: &History) -> std::io::Result<()> {
        let text = serde_json::to_vec(history).map_err(std::io::Error::other)?;
        files::replace(&self.path, &text, 0o600)
    }

    fn is_kept(&self, history: &History) -> bool {
        serde_json::to_vec(history).is_ok_and(|text| files::holds(&self.path, &text))
    }

    fn publish(&self) {
        let history = self.locked();
        let desired = DesiredState {
            generation: history.newest(),
            status: history.last().map(|g| g.status),
            error: history.last().and_then(|g| g.error.clone()),
        };
        drop(history);
        self.state.publish(|draft| draft.snapshot.desired = desired);
    }

    /// All generations kept, oldest first.
    pub fn generations(&self) -> Vec<Generation> {
        self.locked().all().to_vec()
    }

    /// Checks a document and says what it would change now, without keeping it.
    ///
    /// # Errors
    /// The caller's generation is not the newest, or the gateway's configuration cannot be read.
    pub async fn dry_run(&self, document: &Document, if_match: IfMatch) -> Result<Put, Refused> {
        let generation = self.locked().newest();
        check(if_match, generation)?;
        let faults = document.faults();
        if !faults.is_empty() {
            return Err(Refused::InvalidDesired(faults.join("; ")));
        }
        self.check_port(document)?;
        Ok(Put { generation, changes: self.changes(document).await? })
    }

    /// Keeps a document as the newest generation.
    ///
    /// # Errors
    /// As [`Desired::dry_run`], or it cannot be written.
    pub async fn put(&self, document: Document, if_match: IfMatch, caller: &Caller) -> Result<Put, Refused> {
        let Put { changes, .. } = self.dry_run(&document, if_match).await?;
        let target = format!("generation:{}", self.locked().newest() + 1);
        let kept = recorded(&self.audit, caller, "desired.put", &target, async {
            // Decided and written under one lock: of two callers with one generation, one wins.
            let mut history = self.locked();
            check(if_match, history.newest())?;
            let mut next = history.clone();
            let generation = next.push(document, &caller.actor);
            let kept = self.keep(&next);
            // What lies there is what the next start uses, durable or not.
            if kept.is_ok() || self.is_kept(&next) {
                *history = next;
            }
            kept.map_err(|e| Refused::StateNotWritten(e.to_string()))?;
            Ok(generation)
        });
        let kept = kept.await;
        self.publish();
        let generation = kept?;
        Ok(Put { generation, changes })
    }

    fn check_port(&self, document: &Document) -> Result<(), Refused> {
        match document.gateway.port {
            Some(port) if port != self.port => Err(Refused::InvalidDesired(format!(
                "gateway.port: this machine's gateway has port {} (gateway.address of the sidecar); leave it out, or change \
                 both",
                self.port
            ))),
            _ => Ok(()),
        }
    }

    async fn changes(&self, document: &Document) -> Result<Vec<Change>, Refused> {
        let read = self.launcher.ask(Verb::ReadConfig).await.map_err(Refused::LauncherFailed)?;
        let unreadable = |why| Refused::LauncherFailed(format!("openclaw.json: {why}"));
        let present = match read["config"].as_str() {
            Some(text) => openclaw_json::read(text).map_err(unreadable)?,
            None => Map::new(),
        };
        let applied: Applied = serde_json::from_str(read["applied"].as_str().unwrap_or_default()).unwrap_or_default();
        let facts = Facts {
            generation: applied.generation,
            port: self.port,
            state_dir: &self.state_dir,
            gateway_version: &applied.gateway_version,
            fresh_token: "generated",
        };
        Ok(plan::plan(&present, document, &applied, &facts).changes)
    }

    /// Notes what became of generations, from what the launcher tells.
    pub fn settle(&self, status: &Status) {
        let mut history = self.locked();
        let mut news = false;
        let works = (status.state == Launched::Ready).then_some(status.generation);
        if let Some(failed) = status.failed_generation.filter(|failed| Some(*failed) != works) {
            let why = status.last_exit.as_ref().map(|exit| exit.reason.clone());
            let why = why.unwrap_or_else(|| "the gateway did not become ready with it".to_owned());
            news |= history.settle(failed, Outcome::Failed, Some(why));
        }
        if let Some(works) = works {
            news |= history.settle(works, Outcome::Applied, None);
        }
        if !news {
            return;
        }
        let failed = self
            .keep(&history)
            .err()
            .map(|e| Found::new(format!("the desired state's outcome could not be written: {e}")));
        drop(history);
        self.publish();
        self.state.publish(|draft| draft.snapshot.set_finding(Code::DesiredNotWritten, failed));
    }

    /// Forgets every generation: the tenant is gone.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn wipe(&self) -> std::io::Result<()> {
        files::remove_if_present(&self.path)?;
        *self.locked() = History::default();
        self.publish();
        Ok(())
    }
}

fn check(if_match: IfMatch, newest: u64) -> Result<(), Refused> {
    match if_match {
        IfMatch::Generation(expected) if expected != newest => Err(Refused::PreconditionFailed(newest)),
        _ => Ok(()),
    }
}

/// The document of a generation as the API shows it.
pub fn shown(generation: Option<&Generation>) -> Value {
    let document = generation.map(|g| g.document.clone()).unwrap_or_default();
    serde_json::to_value(document).unwrap_or_default()
}
