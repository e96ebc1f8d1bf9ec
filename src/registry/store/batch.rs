//! Runs a batch of work on rows in memory: what both stores do between reading and writing.
//!
//! A store reads the rows the batch names, runs it, reads the owners of credentials it asks for and runs it again, and
//! writes what came out. So order, uniqueness and refusal are the same in every store.

use std::collections::{BTreeMap, HashMap};

use super::facts::plain;
use super::{Change, Outcome, Work};
use crate::registry::tenant::{Digest, Entry, Row};

/// Times a batch is run again for credentials it newly asks for, before it is given up.
pub(super) const MAX_ROUNDS: usize = 8;

/// Who holds a credential; none when nobody does. One that is not named was not looked up.
pub(super) type Owners = HashMap<Digest, Option<String>>;

/// What a batch comes to.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// One for each piece of work.
    pub(super) outcomes: Vec<Outcome>,
    /// Rows to be written.
    pub(super) rows: BTreeMap<String, Row>,
    /// Reports to be written.
    pub(super) reports: BTreeMap<String, String>,
    /// History lines to be appended, in this order.
    pub(super) entries: Vec<Entry>,
    /// Credentials that stop being a tenant's; they go before others come.
    pub(super) freed: Vec<Digest>,
    /// Credentials that become a tenant's.
    pub(super) taken: Vec<(Digest, String)>,
}

/// Tenants a batch names, each once, in order.
pub(super) fn tenants(work: &[Work]) -> Vec<String> {
    let mut ids: Vec<String> = work.iter().map(|piece| piece.tenant.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Runs the batch on the rows as they are stored.
///
/// # Errors
/// Credentials whose owner has to be looked up first.
pub(super) fn run(work: &[Work], stored: &HashMap<String, Row>, known: &Owners) -> Result<Batch, Vec<Digest>> {
    let mut before = known.clone();
    for row in stored.values() {
        before.extend(row.credentials.iter().map(|digest| (*digest, Some(row.id.clone()))));
    }
    let mut owners = before.clone();
    let mut missing = Vec::new();
    let mut batch = Batch::default();
    for piece in work {
        let current = batch.rows.get(&piece.tenant).or_else(|| stored.get(&piece.tenant));
        let change = (piece.act)(current);
        if let Some(row) = &change.row {
            missing.extend(row.credentials.iter().filter(|digest| !owners.contains_key(*digest)).copied());
            let taken =
                |digest| owners.get(digest).is_some_and(|owner| owner.as_ref().is_some_and(|o| *o != piece.tenant));
            if row.credentials.iter().any(taken) {
                batch.outcomes.push(Outcome::CredentialTaken);
                continue;
            }
            let old = current.map(|row| row.credentials.as_slice()).unwrap_or_default();
            owners.extend(old.iter().map(|digest| (*digest, None)));
            owners.extend(row.credentials.iter().map(|digest| (*digest, Some(piece.tenant.clone()))));
        }
        let there = current.is_some();
        batch.take(&piece.tenant, there, change);
    }
    if !missing.is_empty() {
        return Err(missing);
    }
    for (digest, owner) in owners {
        let was = before.get(&digest).and_then(Option::as_ref);
        if was != owner.as_ref() {
            batch.freed.extend(was.map(|_| digest));
            batch.taken.extend(owner.map(|tenant| (digest, tenant)));
        }
    }
    Ok(batch)
}

impl Batch {
    fn take(&mut self, tenant: &str, there: bool, change: Change) {
        let there = there || change.row.is_some();
        if let Some(row) = change.row {
            let row = Row { id: tenant.to_owned(), label: plain(&row.label).into_owned(), ..row };
            self.rows.insert(tenant.to_owned(), row);
        }
        // A report alone makes no tenant.
        if let (Some(report), true) = (change.report, there) {
            self.reports.insert(tenant.to_owned(), plain(&report).into_owned());
        }
        self.entries.extend(change.entries.into_iter().map(|entry| Entry {
            tenant: tenant.to_owned(),
            text: plain(&entry.text).into_owned(),
            ..entry
        }));
        self.outcomes.push(change.outcome);
    }

    /// Tenants whose listeners are to be told, each once, in order.
    pub(super) fn changed(&self) -> Vec<String> {
        let entries = self.entries.iter().map(|entry| &entry.tenant);
        let mut ids: Vec<String> = self.rows.keys().chain(self.reports.keys()).chain(entries).cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}
