//! What the registry keeps, behind one trait: SQLite inside the process, or PostgreSQL shared by several of them.
//!
//! The rules (what a check-in changes, what is overdue) are pure functions elsewhere; a store runs them inside its
//! transaction on the row as it is then. So both stores behave the same, and one conformance suite proves it.

mod batch;
#[cfg(test)]
mod conformance;
mod facts;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod sqlite;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::broadcast;

use super::tenant::{Digest, Entry, EntryKind, Row, Status};
use crate::clock::UnixMs;

/// History lines of a tenant are kept so long, in days.
pub const TIMELINE_DAYS: u64 = 90;
/// A retired tenant is kept so long, in days.
pub const RETIRED_DAYS: u64 = 30;
/// Most changes told to one listener before it is told that it missed some.
pub const CHANGES_KEPT: usize = 4096;

/// The store cannot do it now: locked, full, gone, restarting. Nothing of the work was kept; trying again is safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// What a store's calls return.
pub type Answered<'a, T> = BoxFuture<'a, Result<T, Unavailable>>;

/// A pure function of a tenant's row to what becomes of it.
pub type Rule = Box<dyn Fn(Option<&Row>) -> Change + Send + Sync>;

/// One tenant's change: a pure function of the row as the transaction finds it (none when there is no such tenant). It
/// may be called more than once, when a transaction has to be repeated.
pub struct Work {
    /// Whose row.
    pub tenant: String,
    /// What becomes of it.
    pub act: Rule,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// What becomes of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The row as it is to be; none leaves it as it is.
    pub row: Option<Row>,
    /// The report as JSON text, to be kept beside it; none leaves the one there.
    pub report: Option<String>,
    /// Lines for its history, oldest first; the store gives them their positions.
    pub entries: Vec<Entry>,
    /// For whoever asked: what happened.
    pub outcome: Outcome,
}

/// What happened to a piece of work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    #[default]
    Done,
    /// Nothing was to be done: it is so already, or something newer is there.
    Unchanged,
    /// There is no such tenant.
    NoTenant,
    /// The tenant was retired.
    Retired,
    /// The credential is not this tenant's.
    NotYours,
    /// There is such a tenant already, with other credentials.
    Exists,
    /// Another tenant holds this credential.
    CredentialTaken,
}

impl Outcome {
    /// The name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::NoTenant => "no_tenant",
            Self::Retired => "retired",
            Self::NotYours => "not_yours",
            Self::Exists => "exists",
            Self::CredentialTaken => "credential_taken",
        }
    }
}

/// Which tenants a list shows. Retired ones are never listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this stored status.
    pub status: Option<Status>,
    /// With somebody waiting to be let in, whatever the status.
    pub pairing: bool,
    /// With this finding open.
    pub finding: Option<String>,
    /// In this region.
    pub region: Option<String>,
    /// With a gateway of this version.
    pub version: Option<String>,
    /// With this text in id or label, letters of any case.
    pub text: Option<String>,
}

/// In which order a list is, and after whom it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// By id, after this one: whatever changes from page to page, each tenant comes once.
    Id(Option<String>),
    /// The most urgent first ([`Row::urgency`] of the stored status), then by id; after this one. Who becomes more or less
    /// urgent from page to page may come twice, or not at all.
    Urgency(Option<(u8, String)>),
}

impl Default for Order {
    fn default() -> Self {
        Self::Id(None)
    }
}

/// How many tenants are how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counts {
    /// By stored status name.
    pub status: BTreeMap<String, u64>,
    /// With somebody waiting to be let in.
    pub pairing: u64,
    /// By gateway version.
    pub version: BTreeMap<String, u64>,
    /// By region.
    pub region: BTreeMap<String, u64>,
    /// By code of open finding.
    pub finding: BTreeMap<String, u64>,
}

/// A support or admin key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub id: String,
    /// SHA-256 of it.
    pub digest: Digest,
    /// Whether it may create and retire; else it reads.
    pub admin: bool,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it stops working.
    pub expires_at: Option<UnixMs>,
}

/// Where history lines are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its name.
    pub id: String,
    /// Where to.
    pub url: String,
    /// Which kinds of lines.
    pub kinds: Vec<EntryKind>,
    /// When it was made.
    pub created_at: UnixMs,
    /// Lines up to this position were delivered.
    pub cursor: u64,
    /// Tries since the last success.
    pub failures: u64,
    /// Not before this time.
    pub next_at: UnixMs,
    /// How the last try went.
    pub last_error: String,
}

/// A time in which no instance of the registry was running, or none could write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Blind {
    /// Last sign of life before.
    pub from: UnixMs,
    /// First sign of life after.
    pub to: UnixMs,
}

/// Something changed that a page may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Whose; empty when so much changed that everything has to be read anew.
    pub tenant: String,
}

/// The store. Every call has a deadline of its own (a few seconds) and then answers [`Unavailable`].
pub trait Store: fmt::Debug + Send + Sync {
    /// Does all of it in one transaction, in the given order (a tenant may occur more than once and then sees its own
    /// changes), durably, and tells listeners. One outcome for each piece of work. Credentials are unique over the
    /// fleet: a change that gives a tenant another tenant's credential is not kept and answers
    /// [`Outcome::CredentialTaken`]. Either all of it is kept or nothing.
    fn amend(&self, work: Vec<Work>) -> Answered<'_, Vec<Outcome>>;

    /// The tenant that holds a credential.
    fn owner(&self, digest: Digest) -> Answered<'_, Option<String>>;

    /// A tenant, with its report.
    fn tenant(&self, id: String) -> Answered<'_, Option<(Row, Option<String>)>>;

    /// The tenants that a filter lets through, at most `limit`.
    fn list(&self, filter: Filter, order: Order, limit: usize) -> Answered<'_, Vec<Row>>;

    /// How many tenants are how; retired ones do not count.
    fn counts(&self) -> Answered<'_, Counts>;

    /// History lines of a tenant (of the fleet without one) before a position, newest first, at most `limit`.
    fn timeline(&self, tenant: Option<String>, before: Option<u64>, limit: usize) -> Answered<'_, Vec<Entry>>;

    /// History lines of the fleet after a position, oldest first, at most `limit`. A line that is not there yet never
    /// gets a lower position than one that is.
    fn entries_after(&self, seq: u64, limit: usize) -> Answered<'_, Vec<Entry>>;

    /// Ids of tenants that may have become overdue (`due_at` before `now`, stored status neither asleep nor
    /// unreachable) or whose oldest request waits since before `pending_before` without that having been told; at
    /// most `limit`, in the order of their ids, after the one named.
    fn overdue(
        &self,
        now: UnixMs,
        pending_before: UnixMs,
        after: Option<String>,
        limit: usize,
    ) -> Answered<'_, Vec<String>>;

    /// Whether this instance leads (sweeps, delivers webhooks): always with SQLite, by an advisory lock with
    /// PostgreSQL. Asks the database, so that an answer also says that it is there.
    fn leads(&self) -> Answered<'_, bool>;

    /// Notes that the registry runs, by the time given. Where the last sign of life is older than `gap_ms`, the time
    /// between was blind and is kept as such.
    fn alive(&self, now: UnixMs, gap_ms: u64) -> Answered<'_, ()>;

    /// Blind times that ended after `since`, oldest first.
    fn blind(&self, since: UnixMs) -> Answered<'_, Vec<Blind>>;

    /// Removes history lines, blind times and retired tenants past their time, a bounded number at once; how many.
    fn prune(&self, now: UnixMs) -> Answered<'_, u64>;

    /// The keys.
    fn keys(&self) -> Answered<'_, Vec<Key>>;
    /// Adds a key; false when the name is taken.
    fn put_key(&self, key: Key) -> Answered<'_, bool>;
    /// Removes a key; false when there is none of that name.
    fn drop_key(&self, id: String) -> Answered<'_, bool>;

    /// The webhooks.
    fn webhooks(&self) -> Answered<'_, Vec<Webhook>>;
    /// Adds a webhook, or changes url and kinds of the one of that name (its cursor stays). A new one begins after the
    /// newest history line.
    fn put_webhook(&self, webhook: Webhook) -> Answered<'_, ()>;
    /// Notes how a delivery went: cursor, failures, `next_at`, `last_error`; nothing if it is gone.
    fn delivered(&self, webhook: Webhook) -> Answered<'_, ()>;
    /// Removes a webhook; false when there is none of that name.
    fn drop_webhook(&self, id: String) -> Answered<'_, bool>;

    /// How many batches it writes side by side. With more writers than that, the second takes the first check-in that
    /// comes along and makes all the others wait behind a batch of one.
    fn writers(&self) -> usize;

    /// Leaves the data as it is to be without a registry. Whoever asks for something afterwards opens it again.
    fn close(&self) -> Answered<'_, ()>;

    /// Told of every change, on this instance and the others.
    fn changes(&self) -> broadcast::Receiver<Changed>;
}

/// Tells listeners of a commit.
fn tell(changes: &broadcast::Sender<Changed>, tenants: Vec<String>) {
    // More than a listener takes at once: it reads everything anew instead.
    let tenants = if tenants.len() > CHANGES_KEPT / 4 { vec![String::new()] } else { tenants };
    for tenant in tenants {
        // Without listeners nobody is told.
        let _ = changes.send(Changed { tenant });
    }
}

/// What keeps a place from being opened, as far as it can be found out without opening it.
///
/// # Errors
/// The key and what is wrong, in plain words, without a password.
pub fn check(location: &str, ca_file: Option<&Path>) -> Result<(), String> {
    if is_postgres(location) {
        #[cfg(feature = "postgres")]
        return postgres::check(location, ca_file);
        #[cfg(not(feature = "postgres"))]
        return Err(NO_POSTGRES.to_owned());
    }
    // Only PostgreSQL has one.
    let _ = ca_file;
    sqlite::check_place(Path::new(location))
}

fn is_postgres(location: &str) -> bool {
    location.starts_with("postgres://") || location.starts_with("postgresql://")
}

#[cfg(not(feature = "postgres"))]
const NO_POSTGRES: &str = "store: this build has no PostgreSQL; build with `--features postgres`, or name a file";

/// Opens the store at a path (SQLite) or at a `postgres://` URL, whose certificate the authorities in `ca_file` or else
/// the system's vouch for.
///
/// # Errors
/// The key and why it cannot be opened, or that this build has no such store; in plain words, without a password.
#[cfg_attr(not(feature = "postgres"), expect(clippy::unused_async, reason = "the other store connects"))]
pub async fn open(location: &str, ca_file: Option<&Path>) -> Result<Arc<dyn Store>, String> {
    check(location, ca_file)?;
    #[cfg(feature = "postgres")]
    if is_postgres(location) {
        let connected = postgres::Postgres::connect(location, ca_file).await;
        return Ok(Arc::new(connected.map_err(|why| format!("store: {why}"))?));
    }
    let opened = sqlite::Sqlite::open(Path::new(location));
    Ok(Arc::new(opened.map_err(|why| format!("store: {why}"))?))
}
