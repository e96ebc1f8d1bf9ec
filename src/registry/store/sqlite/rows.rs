//! The statements.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::super::batch::{self, Batch, MAX_ROUNDS, Owners};
use super::super::facts::{self, Columns, Facts, Group, Wanted, int, int_u64, int_usize, ms};
use super::super::{Blind, Counts, Filter, Order, RETIRED_DAYS, TIMELINE_DAYS, Unavailable, Work};
use crate::clock::UnixMs;
use crate::registry::tenant::{Digest, Entry, Row};

pub(super) type Done<T> = Result<T, Unavailable>;

/// Most rows of each kind removed at once.
pub(super) const PRUNED_AT_ONCE: i64 = 1000;
const DAY_MS: u64 = 24 * 3600 * 1000;

// No outer join: SQLite prepares a statement with one anew each time that its parameters change.
const ROW: &str = "SELECT id, label, created_at, retired_at, credentials, status, status_since,
    (SELECT last FROM said WHERE said.tenant = tenant.id) FROM tenant ";

fn columns(row: &rusqlite::Row<'_>) -> rusqlite::Result<Columns> {
    Ok(Columns {
        id: row.get(0)?,
        label: row.get(1)?,
        created_at: row.get(2)?,
        retired_at: row.get(3)?,
        credentials: row.get(4)?,
        status: row.get(5)?,
        status_since: row.get(6)?,
        last: row.get(7)?,
    })
}

/// All rows of a statement.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    mut read: impl FnMut(&rusqlite::Row<'_>) -> Done<T>,
) -> Done<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

pub(super) fn execute(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Done<usize> {
    Ok(connection.prepare_cached(sql)?.execute(params)?)
}

fn row(connection: &Connection, id: &str) -> Done<Option<Row>> {
    let mut statement = connection.prepare_cached(&format!("{ROW} WHERE id = ?1"))?;
    statement.query_row([id], columns).optional()?.map(Columns::row).transpose()
}

pub(super) fn owner(connection: &Connection, digest: &Digest) -> Done<Option<String>> {
    let mut statement = connection.prepare_cached("SELECT tenant FROM credential WHERE digest = ?1")?;
    Ok(statement.query_row([digest.as_slice()], |row| row.get(0)).optional()?)
}

/// In one statement, so that row and report are of one moment.
const TENANT: &str = "SELECT id, label, created_at, retired_at, credentials, status, status_since, last, report FROM
    (SELECT * FROM tenant WHERE id = ?1) LEFT JOIN (SELECT last, report FROM said WHERE tenant = ?1)";

pub(super) fn tenant(connection: &Connection, id: &str) -> Done<Option<(Row, Option<String>)>> {
    let mut statement = connection.prepare_cached(TENANT)?;
    let found = statement.query_row([id], |row| Ok((columns(row)?, row.get(8)?))).optional()?;
    found.map(|(columns, report)| Ok((columns.row()?, report))).transpose()
}

/// What became of a batch.
pub(super) struct Amended {
    pub(super) batch: Batch,
    /// The rows as they were.
    pub(super) stored: HashMap<String, Row>,
    /// Tenants that lists and counts find changed.
    pub(super) news: Vec<String>,
}

/// Runs the batch on the rows as they are and writes what comes of it.
pub(super) fn amend(transaction: &Transaction<'_>, work: &[Work]) -> Done<Amended> {
    let mut stored = HashMap::new();
    for id in batch::tenants(work) {
        if let Some(row) = row(transaction, &id)? {
            stored.insert(id, row);
        }
    }
    let mut owners = Owners::new();
    for _ in 0..MAX_ROUNDS {
        match batch::run(work, &stored, &owners) {
            Ok(batch) => {
                let news = write(transaction, &batch, &stored)?;
                return Ok(Amended { batch, stored, news });
            }
            Err(missing) => {
                for digest in missing {
                    owners.insert(digest, owner(transaction, &digest)?);
                }
            }
        }
    }
    Err(Unavailable("the work asks for ever more credentials".to_owned()))
}

fn write(transaction: &Transaction<'_>, batch: &Batch, stored: &HashMap<String, Row>) -> Done<Vec<String>> {
    let mut news = Vec::new();
    for digest in &batch.freed {
        execute(transaction, "DELETE FROM credential WHERE digest = ?1", [digest.as_slice()])?;
    }
    for (digest, tenant) in &batch.taken {
        execute(transaction, "INSERT INTO credential VALUES (?1, ?2)", params![digest.as_slice(), tenant])?;
    }
    for row in batch.rows.values() {
        if let Some(facts) = facts::news(stored.get(&row.id), row) {
            write_row(transaction, row, &facts)?;
            news.push(row.id.clone());
        }
        write_said(transaction, row, batch.reports.get(&row.id))?;
    }
    for (tenant, report) in batch.reports.iter().filter(|(tenant, _)| !batch.rows.contains_key(*tenant)) {
        let sql = "INSERT INTO said (tenant, report) VALUES (?1, ?2)
            ON CONFLICT (tenant) DO UPDATE SET report = excluded.report";
        execute(transaction, sql, [tenant, report])?;
    }
    for entry in &batch.entries {
        execute(
            transaction,
            "INSERT INTO entry (tenant, at, kind, text, data) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![entry.tenant, int(entry.at), entry.kind.name(), entry.text, entry.data.to_string()],
        )?;
    }
    Ok(news)
}

fn write_row(transaction: &Transaction<'_>, row: &Row, facts: &Facts) -> Done<()> {
    execute(
        transaction,
        "INSERT INTO tenant VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)
         ON CONFLICT (id) DO UPDATE SET label = excluded.label, created_at = excluded.created_at,
            retired_at = excluded.retired_at, credentials = excluded.credentials, status = excluded.status,
            status_since = excluded.status_since, waits = excluded.waits,
            untold_since = excluded.untold_since, version = excluded.version, region = excluded.region,
            codes = excluded.codes, search = excluded.search, urgency = excluded.urgency",
        params![
            row.id,
            row.label,
            int(row.created_at),
            row.retired_at.map(int),
            facts.credentials,
            row.status.name(),
            int(row.status_since),
            facts.waits,
            facts.untold_since,
            facts.version,
            facts.region,
            facts.codes,
            facts.search,
            facts.urgency,
        ],
    )?;
    Ok(())
}

/// What its machine said; a report that is not there stays the one before.
fn write_said(transaction: &Transaction<'_>, row: &Row, report: Option<&String>) -> Done<()> {
    let said = params![row.id, facts::due(row), facts::doc(row)?, report];
    let sql = "UPDATE said SET due_at = ?2, last = ?3, report = coalesce(?4, report) WHERE tenant = ?1";
    if execute(transaction, sql, said)? == 0 && (row.last.is_some() || report.is_some()) {
        execute(transaction, "INSERT INTO said VALUES (?1, ?2, ?3, ?4)", said)?;
    }
    Ok(())
}

/// Reads the tenants in a row. By itself SQLite takes an index on part of them for the better way, even to read all.
const BY_ID: &str = "WHERE id > ''";

pub(super) fn list(connection: &Connection, filter: Filter, order: Order, limit: usize) -> Done<Vec<Row>> {
    let wanted = Wanted::of(filter, order);
    let (way, begin, sort) = match (wanted.by_urgency, wanted.chooses()) {
        (false, _) => ("WHERE id > ?1", "+urgency BETWEEN ?9 AND ?10", "id"),
        (true, false) => {
            ("INDEXED BY tenant_urgency WHERE true", "(urgency, id) > (?9, ?1) AND urgency <= ?10", "urgency, id")
        }
        // A filter may let few through: then to read all in a row and to sort is better than to look each up.
        (true, true) => (BY_ID, "(+urgency, id) > (?9, ?1) AND +urgency <= ?10", "+urgency, id"),
    };
    let sql = format!(
        "{ROW} WHERE id IN (SELECT id FROM tenant {way} AND {begin} AND retired_at IS NULL
            AND (?2 IS NULL OR status = ?2) AND (NOT ?3 OR waits) AND (?4 IS NULL OR instr(codes, ?4) > 0)
            AND (?5 IS NULL OR region = ?5) AND (?6 IS NULL OR version = ?6)
            AND (?7 IS NULL OR instr(search, ?7) > 0) ORDER BY {sort} LIMIT ?8) ORDER BY {sort}"
    );
    let params = params![
        wanted.after,
        wanted.status,
        wanted.pairing,
        wanted.code,
        wanted.region,
        wanted.version,
        wanted.text,
        int_usize(limit),
        wanted.first,
        wanted.last,
    ];
    all(connection, &sql, params, |row| columns(row)?.row())
}

pub(super) fn counts(connection: &Connection) -> Done<Counts> {
    let mut counts = Counts::default();
    let sql = format!(
        "SELECT status, waits, version, region, codes, count(*) FROM tenant {BY_ID} AND retired_at IS NULL
            GROUP BY 1, 2, 3, 4, 5"
    );
    all(connection, &sql, [], |row| {
        let text = |n| row.get_ref(n).map(|text| text.as_str().unwrap_or_default());
        Group { status: text(0)?, waits: row.get(1)?, version: text(2)?, region: text(3)?, codes: text(4)? }
            .count(&mut counts, row.get(5)?);
        Ok(())
    })?;
    Ok(counts)
}

const ENTRY: &str = "SELECT seq, tenant, at, kind, text, data FROM entry ";

fn entry(row: &rusqlite::Row<'_>) -> Done<Entry> {
    let (kind, data): (String, String) = (row.get(3)?, row.get(5)?);
    facts::entry(row.get(0)?, row.get(1)?, row.get(2)?, &kind, row.get(4)?, &data)
}

pub(super) fn timeline(
    connection: &Connection,
    tenant: Option<&str>,
    before: Option<u64>,
    limit: usize,
) -> Done<Vec<Entry>> {
    let (before, limit) = (before.map_or(i64::MAX, int_u64), int_usize(limit));
    if let Some(tenant) = tenant {
        let sql = format!("{ENTRY} WHERE tenant = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3");
        all(connection, &sql, params![tenant, before, limit], entry)
    } else {
        let sql = format!("{ENTRY} WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2");
        all(connection, &sql, params![before, limit], entry)
    }
}

pub(super) fn entries_after(connection: &Connection, seq: u64, limit: usize) -> Done<Vec<Entry>> {
    let sql = format!("{ENTRY} WHERE seq > ?1 ORDER BY seq LIMIT ?2");
    all(connection, &sql, params![int_u64(seq), int_usize(limit)], entry)
}

// The indexes are told, since by itself it takes the tenants' order for the better way.
pub(super) const OVERDUE: &str = "
    SELECT id FROM tenant INDEXED BY tenant_untold WHERE id > ?3 AND retired_at IS NULL AND untold_since < ?2
    UNION SELECT tenant FROM said INDEXED BY said_due WHERE tenant > ?3 AND due_at < ?1 ORDER BY 1 LIMIT ?4";

pub(super) fn overdue(
    connection: &Connection,
    now: UnixMs,
    pending_before: UnixMs,
    after: Option<&str>,
    limit: usize,
) -> Done<Vec<String>> {
    let params = params![int(now), int(pending_before), after.unwrap_or_default(), int_usize(limit)];
    all(connection, OVERDUE, params, |row| Ok(row.get(0)?))
}

/// Asks each table for nothing, to find out that it is there.
pub(super) fn read_each(connection: &Connection) -> Done<()> {
    for table in ["tenant", "said", "credential", "entry", "key", "webhook", "alive", "blind"] {
        connection.prepare(&format!("SELECT * FROM {table} LIMIT 0"))?;
    }
    Ok(())
}

pub(super) fn alive(transaction: &Transaction<'_>, now: UnixMs, gap_ms: u64) -> Done<()> {
    execute(
        transaction,
        "INSERT INTO blind SELECT at, ?1 FROM alive WHERE ?1 - at > ?2",
        params![int(now), int_u64(gap_ms)],
    )?;
    execute(transaction, "INSERT INTO alive VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET at = ?1", [int(now)])?;
    Ok(())
}

pub(super) fn blind(connection: &Connection, since: UnixMs) -> Done<Vec<Blind>> {
    all(connection, "SELECT from_at, to_at FROM blind WHERE to_at > ?1 ORDER BY from_at", [int(since)], |row| {
        Ok(Blind { from: ms(row.get(0)?), to: ms(row.get(1)?) })
    })
}

pub(super) fn prune(transaction: &Transaction<'_>, now: UnixMs) -> Done<u64> {
    let before = |days: u64| int_u64(now.0.saturating_sub(days * DAY_MS));
    let lines = execute(
        transaction,
        "DELETE FROM entry WHERE seq IN (SELECT seq FROM entry ORDER BY seq LIMIT ?2) AND at < ?1",
        [before(TIMELINE_DAYS), PRUNED_AT_ONCE],
    )?;
    let blind = execute(transaction, "DELETE FROM blind WHERE to_at < ?1", [before(TIMELINE_DAYS)])?;
    let sql = "SELECT id FROM tenant WHERE retired_at < ?1 LIMIT ?2";
    let ids: Vec<String> = all(transaction, sql, [before(RETIRED_DAYS), PRUNED_AT_ONCE], |row| Ok(row.get(0)?))?;
    for id in &ids {
        if let Some(row) = row(transaction, id)? {
            for digest in &row.credentials {
                execute(transaction, "DELETE FROM credential WHERE digest = ?1", [digest.as_slice()])?;
            }
        }
        for sql in ["DELETE FROM said WHERE tenant = ?1", "DELETE FROM tenant WHERE id = ?1"] {
            execute(transaction, sql, [id])?;
        }
    }
    Ok((lines + blind + ids.len()) as u64)
}
