//! What we know of pairing, kept equal to the gateway's view: a pure structure without clock, I/O or waiting.
//!
//! ```text
//!              requested                resolved | vanished from a list
//!   (unknown) ----------> waiting -----------------------------------------> fate: approved, rejected, expired,
//!                            |  same device, new id                                superseded by, withdrawn
//!                            '---------------------> superseded, the new one waits
//! ```
//!
//! Fates are remembered for a while, so that a late call about an old id gets a true answer.

use std::collections::{HashMap, HashSet, VecDeque};

use super::expect::Expect;
use crate::clock::UnixMs;
use crate::gateway::records::Lists;
use crate::state::{Approved, Kind, OutOfBand, Pairing, Pending};

/// Fates remembered.
const FATES: usize = 512;
/// Our own approvals remembered, to tell them from others'.
const OURS: usize = 256;
/// Paired devices whose approver is remembered.
const CREDITS: usize = 2048;
/// An expiry time is moved only when it moves by so much: old gateways refresh it with every retry of the device.
const EXPIRY_STEP_MS: u64 = 30_000;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was approved.
    Approved,
    /// It was rejected.
    Rejected,
    /// It lapsed.
    Expired,
    /// The device asked again under this id.
    Superseded(String),
    /// It is gone, and nothing says why.
    Withdrawn,
}

impl Fate {
    /// The fate's name in events.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Superseded(_) => "superseded",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Something that happened, to be told to listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A request was raised.
    Requested(Pending),
    /// A request is gone.
    Resolved(Pending, Fate),
    /// Somebody else let a device or node in.
    OutOfBand(Approved),
    /// A device or node is no longer paired.
    Removed(Approved),
    /// An approval of ours granted more than its caller expected, in these words.
    Exceeded(Approved, String),
}

/// Who approved a paired device, and when.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Credit {
    /// Device or node.
    pub kind: Kind,
    /// Its id.
    pub device_id: String,
    /// The gateway's time of the approval, in milliseconds.
    pub approved_at_ms: u64,
    /// A credential's id, `out_of_band` or `before_sidecar`.
    pub by: String,
}

#[derive(Clone, Debug)]
struct Past {
    kind: Kind,
    request_id: String,
    device_id: String,
    fate: Fate,
}

#[derive(Clone, Debug)]
struct Ours {
    kind: Kind,
    request_id: String,
    device_id: String,
    actor: String,
    expect: Expect,
    /// A list showed the device as approved while our own answer was still to come.
    taken: bool,
}

/// The whole knowledge.
#[derive(Debug, Default)]
pub struct Book {
    pending: Vec<Pending>,
    approved: Vec<Approved>,
    past: VecDeque<Past>,
    /// Rejected, but not by us: the next event or list tells whether it was a supersession (2026.9.6 says it so).
    unsettled: Vec<Pending>,
    ours: VecDeque<Ours>,
    credits: HashMap<(Kind, String), Credit>,
    /// Raised by every change of the credits, and the one that is written down.
    credits_version: u64,
    kept_version: u64,
    /// Kinds whose paired list was seen, now or by an earlier process: from then on a new one is news.
    baseline: HashSet<Kind>,
    presence: HashSet<String>,
    last_out_of_band: Option<OutOfBand>,
    /// Counts events taken in, so that a list that was asked for before one is not believed after it.
    events: u64,
}

impl Book {
    /// A book that knows who approved what, from an earlier process.
    pub fn with_credits(credits: Option<Vec<Credit>>) -> Self {
        let mut book = Self::default();
        if let Some(credits) = credits {
            book.baseline = HashSet::from([Kind::Device, Kind::Node]);
            book.credits = credits.into_iter().map(|c| ((c.kind, c.device_id.clone()), c)).collect();
        }
        book
    }

    /// Count of events taken in so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The view to publish.
    pub fn view(&self) -> Pairing {
        let mut pending = self.pending.clone();
        pending.sort_by(|a, b| (a.requested_at, &a.request_id).cmp(&(b.requested_at, &b.request_id)));
        let mut approved = self.approved.clone();
        approved.sort_by(|a, b| (a.approved_at, &a.device_id).cmp(&(b.approved_at, &b.device_id)));
        Pairing { pending, approved, last_out_of_band: self.last_out_of_band.clone() }
    }

    /// Takes up an approval that is on record but was not written down when the process ended.
    pub fn recall(&mut self, credit: Credit) {
        let key = (credit.kind, credit.device_id.clone());
        if self.credits.get(&key).is_none_or(|known| known.approved_at_ms < credit.approved_at_ms) {
            self.credits.insert(key, credit);
        }
    }

    /// Whether a request of ours with this id is known; then its event tells nothing new.
    pub fn is_ours(&self, kind: Kind, request_id: &str) -> bool {
        self.ours.iter().any(|o| o.kind == kind && o.request_id == request_id)
    }

    /// Whether who approved what has yet to be written down.
    pub fn has_unkept(&self) -> bool {
        self.kept_version != self.credits_version
    }

    /// Who approved what and its version, if that is not written down yet.
    pub fn unkept_credits(&self) -> Option<(u64, Vec<Credit>)> {
        if !self.has_unkept() {
            return None;
        }
        let mut credits: Vec<Credit> = self.credits.values().cloned().collect();
        credits.sort_by(|a, b| b.approved_at_ms.cmp(&a.approved_at_ms).then_with(|| a.device_id.cmp(&b.device_id)));
        credits.truncate(CREDITS);
        Some((self.credits_version, credits))
    }

    /// Notes that a version is written down.
    pub fn kept(&mut self, version: u64) {
        self.kept_version = version;
    }

    /// A waiting request by its id.
    pub fn pending(&self, kind: Kind, request_id: &str) -> Option<&Pending> {
        self.pending.iter().find(|p| p.kind == kind && p.request_id == request_id)
    }

    /// The waiting request of a device or node; there is at most one in practice.
    pub fn pending_of(&self, kind: Kind, device_id: &str) -> Option<&Pending> {
        self.pending.iter().find(|p| p.kind == kind && p.device_id == device_id)
    }

    /// All waiting requests of a kind.
    pub fn all_pending(&self, kind: Kind) -> Vec<Pending> {
        self.pending.iter().filter(|p| p.kind == kind).cloned().collect()
    }

    /// A paired device or node.
    pub fn approved(&self, kind: Kind, device_id: &str) -> Option<&Approved> {
        self.approved.iter().find(|a| a.kind == kind && a.device_id == device_id)
    }

    /// What became of a request, with its device.
    pub fn fate(&self, kind: Kind, request_id: &str) -> Option<(Fate, String)> {
        let past = self.past.iter().rev().find(|p| p.kind == kind && p.request_id == request_id)?;
        Some((past.fate.clone(), past.device_id.clone()))
    }

    /// What became of the last request of a device.
    pub fn last_fate_of(&self, kind: Kind, device_id: &str) -> Option<Fate> {
        self.past.iter().rev().find(|p| p.kind == kind && p.device_id == device_id).map(|p| p.fate.clone())
    }

    /// Notes that we are about to approve, so that what follows is known to be ours.
    pub fn sending(&mut self, request: &Pending, actor: &str, expect: &Expect) {
        self.ours.retain(|o| o.kind != request.kind || o.request_id != request.request_id);
        if self.ours.len() == OURS {
            self.ours.pop_front();
        }
        self.ours.push_back(Ours {
            kind: request.kind,
            request_id: request.request_id.clone(),
            device_id: request.device_id.clone(),
            actor: actor.to_owned(),
            expect: expect.clone(),
            taken: false,
        });
    }

    /// Takes that back: the gateway refused, so an approval that a list shows, now or later, is not ours.
    pub fn not_sent(&mut self, kind: Kind, request_id: &str, now: UnixMs) -> Vec<Happened> {
        let at = self.ours.iter().position(|o| o.kind == kind && o.request_id == request_id);
        let disowned = at.and_then(|at| self.ours.remove(at)).filter(|ours| ours.taken);
        let Some(record) = disowned.and_then(|ours| self.approved(kind, &ours.device_id).cloned()) else {
            return Vec::new();
        };
        self.credits.remove(&(kind, record.device_id.clone()));
        self.settle(record, now)
    }

    /// The gateway's record of a device that `actor` approved through us, whoever seems to have been quicker.
    pub fn approved_by_us(&mut self, record: Approved, request_id: &str, actor: &str, now: UnixMs) -> Vec<Happened> {
        self.events += 1;
        let mut happened = self.take_pending(record.kind, request_id, Fate::Approved);
        self.ours.retain(|o| o.kind != record.kind || o.device_id != record.device_id);
        self.credit(&record, actor);
        happened.extend(self.settle(record, now));
        happened
    }

    fn credit(&mut self, record: &Approved, by: &str) {
        let credit = Credit {
            kind: record.kind,
            device_id: record.device_id.clone(),
            approved_at_ms: record.approved_at.0,
            by: by.to_owned(),
        };
        self.credits.insert((record.kind, record.device_id.clone()), credit);
        self.credits_version += 1;
    }

    /// Takes in the event of a new request.
    pub fn requested(&mut self, request: Pending) -> Vec<Happened> {
        self.events += 1;
        self.add_pending(request)
    }

    /// Takes in the event of a resolved request. A rejection is told only when it is known not to be a supersession.
    pub fn resolved(&mut self, kind: Kind, request_id: &str, approved: bool) -> Vec<Happened> {
        self.events += 1;
        if approved {
            return self.take_pending(kind, request_id, Fate::Approved);
        }
        if let Some(at) = self.pending.iter().position(|p| p.kind == kind && p.request_id == request_id) {
            let request = self.pending.remove(at);
            self.remember(&request, Fate::Rejected);
            self.unsettled.push(request);
        }
        Vec::new()
    }

    /// A rejection that we made.
    pub fn rejected_by_us(&mut self, kind: Kind, request_id: &str) -> Vec<Happened> {
        self.events += 1;
        let mut happened = self.take_pending(kind, request_id, Fate::Rejected);
        happened.extend(self.settle_rejections(|p| p.kind == kind && p.request_id == request_id));
        happened
    }

    fn settle_rejections(&mut self, which: impl Fn(&Pending) -> bool) -> Vec<Happened> {
        let (settled, unsettled) = std::mem::take(&mut self.unsettled).into_iter().partition(|p| which(p));
        self.unsettled = unsettled;
        let settled: Vec<Pending> = settled;
        settled.into_iter().map(|p| Happened::Resolved(p, Fate::Rejected)).collect()
    }

    /// Takes in who is connected. Lists of new gateways say it too; this is quicker, and all that old ones have.
    pub fn presence(&mut self, connected: HashSet<String>) {
        for approved in &mut self.approved {
            approved.connected = Some(connected.contains(&approved.device_id));
        }
        self.presence = connected;
    }

    /// Takes in a whole list of one kind: what is not in it is gone.
    pub fn merge(&mut self, kind: Kind, lists: Lists, now: UnixMs) -> Vec<Happened> {
        let mut happened = Vec::new();
        let listed: HashSet<&str> = lists.pending.iter().map(|p| p.request_id.as_str()).collect();
        let vanished: Vec<Pending> = self
            .pending
            .iter()
            .filter(|p| p.kind == kind && !listed.contains(p.request_id.as_str()))
            .cloned()
            .collect();
        for gone in vanished {
            let fate = fate_of_vanished(&gone, &lists, now);
            happened.extend(self.take_pending(kind, &gone.request_id, fate));
        }
        for request in lists.pending {
            happened.extend(self.add_pending(request));
        }
        happened.extend(self.settle_rejections(|p| p.kind == kind));
        if kind != Kind::Channel {
            happened.extend(self.merge_approved(kind, lists.approved, now));
        }
        happened
    }

    fn merge_approved(&mut self, kind: Kind, listed: Vec<Approved>, now: UnixMs) -> Vec<Happened> {
        let ids: HashSet<String> = listed.iter().map(|a| a.device_id.clone()).collect();
        let (kept, gone): (Vec<Approved>, Vec<Approved>) =
            std::mem::take(&mut self.approved).into_iter().partition(|a| a.kind != kind || ids.contains(&a.device_id));
        self.approved = kept;
        let mut happened: Vec<Happened> = gone.into_iter().map(Happened::Removed).collect();
        let credits_before = self.credits.len();
        self.credits.retain(|(k, id), _| *k != kind || ids.contains(id));
        self.credits_version += u64::from(self.credits.len() != credits_before);
        for record in listed {
            happened.extend(self.settle(record, now));
        }
        self.credits_version += u64::from(self.baseline.insert(kind));
        happened
    }

    /// Puts a paired record in its place and settles who approved it.
    fn settle(&mut self, mut record: Approved, now: UnixMs) -> Vec<Happened> {
        let key = (record.kind, record.device_id.clone());
        let known = self.credits.get(&key).filter(|c| c.approved_at_ms >= record.approved_at.0);
        let mut happened = Vec::new();
        if let Some(credit) = known {
            record.approved_by.clone_from(&credit.by);
        } else {
            let before = self.approved(record.kind, &record.device_id).cloned();
            let mine = |o: &&mut Ours| !o.taken && o.kind == record.kind && o.device_id == record.device_id;
            let by = match self.ours.iter_mut().rev().find(mine) {
                Some(ours) => {
                    ours.taken = true;
                    if let Err(what) = ours.expect.check_record(&record, before.as_ref()) {
                        happened.push(Happened::Exceeded(record.clone(), what));
                    }
                    ours.actor.clone()
                }
                None if !self.baseline.contains(&record.kind) => "before_sidecar".to_owned(),
                None => "out_of_band".to_owned(),
            };
            if by == "out_of_band" {
                self.last_out_of_band = Some(OutOfBand {
                    device_id: record.device_id.clone(),
                    noticed_at: now,
                    via: record.approved_via.clone(),
                });
            }
            record.approved_by = by;
            if record.approved_by == "out_of_band" {
                happened.push(Happened::OutOfBand(record.clone()));
            }
            let by = record.approved_by.clone();
            self.credit(&record, &by);
        }
        record.connected = record.connected.or_else(|| Some(self.presence.contains(&record.device_id)));
        match self.approved.iter_mut().find(|a| a.kind == record.kind && a.device_id == record.device_id) {
            Some(place) => *place = record,
            None => self.approved.push(record),
        }
        happened
    }

    fn add_pending(&mut self, mut request: Pending) -> Vec<Happened> {
        // An id that comes back was rejected before, whatever came of its device.
        let mut happened = self.settle_rejections(|p| p.kind == request.kind && p.request_id == request.request_id);
        if let Some(known) =
            self.pending.iter_mut().find(|p| p.kind == request.kind && p.request_id == request.request_id)
        {
            request.requested_at = known.requested_at;
            let moved = request.expires_at.unwrap_or_default().0.saturating_sub(known.expires_at.unwrap_or_default().0);
            if moved < EXPIRY_STEP_MS {
                request.expires_at = known.expires_at;
            }
            *known = request;
            return happened;
        }
        if request.kind != Kind::Channel {
            let older: Vec<String> = self
                .pending
                .iter()
                .filter(|p| p.kind == request.kind && p.device_id == request.device_id)
                .map(|p| p.request_id.clone())
                .collect();
            for id in older {
                happened.extend(self.take_pending(request.kind, &id, Fate::Superseded(request.request_id.clone())));
            }
            happened.extend(self.turn_rejection_into_supersession(&request));
        }
        self.pending.push(request.clone());
        happened.push(Happened::Requested(request));
        happened
    }

    fn turn_rejection_into_supersession(&mut self, request: &Pending) -> Vec<Happened> {
        let same = |p: &Pending| p.kind == request.kind && p.device_id == request.device_id;
        let Some(at) = self.unsettled.iter().position(same) else { return Vec::new() };
        let old = self.unsettled.remove(at);
        let fate = Fate::Superseded(request.request_id.clone());
        if let Some(past) = self.past.iter_mut().rev().find(|p| p.kind == old.kind && p.request_id == old.request_id) {
            past.fate = fate.clone();
        }
        vec![Happened::Resolved(old, fate)]
    }

    fn take_pending(&mut self, kind: Kind, request_id: &str, fate: Fate) -> Vec<Happened> {
        let Some(at) = self.pending.iter().position(|p| p.kind == kind && p.request_id == request_id) else {
            return Vec::new();
        };
        let request = self.pending.remove(at);
        self.remember(&request, fate.clone());
        vec![Happened::Resolved(request, fate)]
    }

    fn remember(&mut self, request: &Pending, fate: Fate) {
        if self.past.len() == FATES {
            self.past.pop_front();
        }
        self.past.push_back(Past {
            kind: request.kind,
            request_id: request.request_id.clone(),
            device_id: request.device_id.clone(),
            fate,
        });
    }
}

/// No event tells of expiry, of supersession (before 2026.9) or of what was missed: the lists have to.
fn fate_of_vanished(gone: &Pending, lists: &Lists, now: UnixMs) -> Fate {
    let next = lists.pending.iter().find(|p| gone.kind != Kind::Channel && p.device_id == gone.device_id);
    let paired = lists.approved.iter().find(|a| !gone.device_id.is_empty() && a.device_id == gone.device_id);
    match (next, paired) {
        (Some(next), _) => Fate::Superseded(next.request_id.clone()),
        (None, Some(paired)) if paired.approved_at >= gone.requested_at => Fate::Approved,
        _ if gone.expires_at.is_some_and(|at| now >= at) => Fate::Expired,
        _ => Fate::Withdrawn,
    }
}

#[cfg(test)]
mod tests;
