//! Pairing: the view kept equal to the gateway's, and the operations on it.

pub mod book;
pub mod expect;

mod approve;
mod change;
mod observe;
mod resolve;

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::audit::chain::Entry;
use crate::audit::{Audit, Durable};
use crate::clock::UnixMs;
use crate::files;
use crate::gateway::records::Lists;
use crate::gateway::{CallError, Gateway};
use crate::op::{Caller, Refused, entry};
use crate::state::{Approved, Code, Found, Kind, Pending, State};
use book::{Book, Credit, Happened};

pub use approve::{Approval, ApproveCommand};
pub use change::{ChangeCommand, Changed};
pub use resolve::Target;

const MAX_CREDITS_FILE: u64 = 1024 * 1024;

/// Newest records of the audit that are looked at for approvals not written down yet.
const RECALLED: usize = 500;

/// A list that events kept overtaking is believed after so many tries.
const LIST_TRIES: u32 = 4;

/// The pairing operations and what they share.
#[derive(Debug)]
pub struct Pairings {
    gateway: Gateway,
    state: State,
    audit: Audit,
    /// Held for moments only, never across an await.
    book: Mutex<Book>,
    credits_file: PathBuf,
    /// Asks the observer to look at the lists now.
    look: Notify,
    /// Tells the observer that who approved what may have to be written down.
    unkept: Notify,
}

#[derive(Serialize, Deserialize)]
struct CreditsFile {
    version: u32,
    approved: Vec<Credit>,
}

impl Pairings {
    /// Takes up what an earlier process knew of who approved what, from `credits_file`.
    ///
    /// # Errors
    /// The file exists but cannot be read. It is not replaced: whose approval is whose would be lost.
    pub async fn load(gateway: Gateway, state: State, audit: Audit, credits_file: PathBuf) -> io::Result<Self> {
        let credits = if credits_file.exists() {
            let text = files::read_text(&credits_file, MAX_CREDITS_FILE)?;
            let kept: CreditsFile = serde_json::from_str(&text).map_err(|e| {
                io::Error::other(format!("{}: {e}; restore or remove the file", credits_file.display()))
            })?;
            Some(kept.approved)
        } else {
            None
        };
        let mut book = Book::with_credits(credits);
        // The file is written a moment after the answer; the audit was before it.
        for record in audit.page(None, RECALLED).await?.records {
            if let Some(credit) = credit_on_record(&record.entry) {
                book.recall(credit);
            }
        }
        let book = Mutex::new(book);
        Ok(Self { gateway, state, audit, book, credits_file, look: Notify::new(), unkept: Notify::new() })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the book and publishes what follows from it: the view, the events, the audit of what was not ours.
    async fn update(&self, change: impl FnOnce(&mut Book) -> Vec<Happened>) {
        let (happened, unkept) = {
            let mut book = self.book();
            let happened = change(&mut book);
            let view = book.view();
            self.state.publish(|draft| {
                if *draft.snapshot.pairing != view {
                    draft.snapshot.pairing = view.into();
                }
                for (name, data) in happened.iter().filter_map(event_of) {
                    draft.tell(name, data);
                }
            });
            (happened, book.has_unkept())
        };
        if unkept {
            self.unkept.notify_one();
        }
        for event in happened {
            if let Happened::Exceeded(device, what) = &event {
                self.take_back(device, what).await;
            }
            if let Happened::OutOfBand(device) = event {
                tracing::warn!(
                    device.id = device.device_id,
                    via = device.approved_via,
                    "a device was approved, but not by this sidecar"
                );
                self.note_out_of_band(&device).await;
            }
        }
    }

    async fn note_out_of_band(&self, device: &Approved) {
        let entry = Entry {
            at: UnixMs::now().rfc3339(),
            actor: "unknown".to_owned(),
            verb: "pairing.approve".to_owned(),
            target: on_record(device.kind, &device.device_id),
            outcome: "out_of_band".to_owned(),
            detail: device.approved_via.clone(),
            ..Entry::default()
        };
        if let Err(e) = self.audit.append(entry).await {
            tracing::error!(error = %e, "an out-of-band approval could not be put on record");
        }
    }

    /// Writes down who approved what, if that changed.
    async fn keep_credits(&self) {
        let Some((version, approved)) = self.book().unkept_credits() else { return };
        let path = self.credits_file.clone();
        let written = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&CreditsFile { version: 1, approved }).map_err(io::Error::other)?;
            files::replace(&path, &text, 0o600)
        });
        let failed = match written.await {
            Ok(Ok(())) => {
                self.book().kept(version);
                None
            }
            Ok(Err(e)) => Some(e.to_string()),
            Err(e) => Some(e.to_string()),
        };
        let text = failed.map(|why| {
            tracing::error!(error = why, "the list of approvers could not be written");
            Found::new(format!("the list of who approved what could not be written: {why}"))
        });
        self.state.publish(|draft| draft.snapshot.set_finding(Code::StateNotWritten, text));
    }

    /// Asks the gateway for one kind's list and takes it in.
    async fn refresh(&self, kind: Kind, deadline: Instant) -> Result<(), CallError> {
        for tries in 1..=LIST_TRIES {
            let before = self.book().events();
            let lists = match kind {
                Kind::Device => self.device_lists(deadline).await?,
                Kind::Node => self.gateway.node_list(deadline).await?,
                Kind::Channel => Lists { pending: self.gateway.channel_list(deadline).await?, approved: Vec::new() },
            };
            // An event that came while the list was under way may be newer than the list.
            if self.book().events() == before || tries == LIST_TRIES {
                self.update(|book| book.merge(kind, lists, UnixMs::now())).await;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The device list, and where it does not say who is connected, that too.
    async fn device_lists(&self, deadline: Instant) -> Result<Lists, CallError> {
        let mut lists = self.gateway.device_list(deadline).await?;
        if lists.approved.iter().any(|a| a.connected.is_none()) {
            let connected = self.gateway.presence(deadline).await?;
            for device in &mut lists.approved {
                device.connected = Some(connected.contains(&device.device_id));
            }
        }
        Ok(lists)
    }

    /// Puts the intent on record before anything is done; the returned half tells when it is durable.
    async fn record_intent(&self, caller: &Caller, verb: &str, target: &str) -> Result<Durable, Refused> {
        let intent = entry(caller, verb, target, "intent", "");
        self.audit.append(intent).await.map_err(|e| {
            self.tell_audit(Some(&e));
            Refused::AuditUnavailable(e.to_string())
        })
    }

    /// Puts the outcome on record and waits until both records are durable.
    async fn record_outcome(&self, caller: &Caller, verb: &str, target: &str, outcome: (&str, &str), intent: Durable) {
        let entry = entry(caller, verb, target, outcome.0, outcome.1);
        // The outcome may wait for the next fsync: the intent tells who asked for what.
        let (intent, outcome) = tokio::join!(intent.wait(), self.audit.append_soon(entry));
        self.tell_audit(intent.and(outcome).err().as_ref());
    }

    /// Opens or closes the finding about the audit.
    fn tell_audit(&self, failed: Option<&io::Error>) {
        let text = failed.map(|e| {
            tracing::error!(error = %e, "the audit cannot be written");
            Found::new(format!("the audit cannot be written: {e}"))
        });
        self.state.publish(|draft| draft.snapshot.set_finding(Code::AuditNotDurable, text));
    }
}

/// What an entry of the audit tells about who let a device or node in.
fn credit_on_record(entry: &Entry) -> Option<Credit> {
    let by = match entry.outcome.as_str() {
        "approved" => entry.actor.clone(),
        "out_of_band" => "out_of_band".to_owned(),
        _ => return None,
    };
    let (kind, device_id) = match entry.target.split_once(':')? {
        ("device", id) => (Kind::Device, id),
        ("node", id) => (Kind::Node, id),
        _ => return None,
    };
    let approved_at_ms = UnixMs::parse(&entry.at)?.0;
    Some(Credit { kind, device_id: device_id.to_owned(), approved_at_ms, by })
}

/// A device or node in the audit; [`credit_on_record`] reads it back.
fn on_record(kind: Kind, device_id: &str) -> String {
    format!("{}:{device_id}", if kind == Kind::Node { "node" } else { "device" })
}

fn event_of(happened: &Happened) -> Option<(&'static str, serde_json::Value)> {
    Some(match happened {
        Happened::Requested(p) => ("pairing.requested", request_data(p)),
        Happened::Resolved(p, fate) => {
            let mut data = request_data(p);
            data["decision"] = fate.name().into();
            if let book::Fate::Superseded(by) = fate {
                data["superseded_by"] = by.as_str().into();
            }
            ("pairing.resolved", data)
        }
        Happened::OutOfBand(a) => (
            "pairing.out_of_band",
            json!({ "kind": a.kind, "device_id": a.device_id, "label": a.label, "via": a.approved_via }),
        ),
        Happened::Removed(a) => {
            ("pairing.removed", json!({ "kind": a.kind, "device_id": a.device_id, "label": a.label }))
        }
        Happened::Exceeded(..) => return None,
    })
}

fn request_data(p: &Pending) -> serde_json::Value {
    json!({
        "kind": p.kind,
        "request_id": p.request_id,
        "device_id": p.device_id,
        "label": p.label,
        "client_id": p.client_id,
        "scopes": p.scopes,
        "remote_ip": p.remote_ip,
    })
}
