//! One batch, one transaction.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use deadpool_postgres::{Pool, Transaction};
use futures_util::future::try_join_all;
use tokio_postgres::Row as Found;
use tokio_postgres::types::ToSql;

use super::super::batch::{self, Batch, MAX_ROUNDS, Owners};
use super::super::facts::{self, Facts, int};
use super::super::{Outcome, Unavailable, Work};
use super::columns;
use super::connect::{Fault, LOCKS, Lease};
use super::listen::CHANNEL;
use crate::registry::tenant::{Digest, Entry, Row};

/// Times a batch that another one stood in the way of is tried.
const TRIES: usize = 8;
/// Whoever appends history lines holds this lock until its commit.
const ENTRY_LOCK: i32 = 2;
/// Longest text told to other instances, in bytes; PostgreSQL takes 8000.
const MAX_TOLD: usize = 7900;

pub(super) async fn amend(pool: &Pool, work: &[Work]) -> Result<Vec<Outcome>, Fault> {
    let mut tries = 1;
    loop {
        let mut lease = Lease::from(pool).await?;
        let done = try_amend(&mut lease, work).await;
        match done {
            // Another batch made the same tenant, took the same credential, or locked in another order.
            Err(fault) if fault.passes() && tries < TRIES => tries += 1,
            Err(fault) => return Err(fault),
            Ok(outcomes) => {
                lease.give_back();
                return Ok(outcomes);
            }
        }
    }
}

async fn try_amend(lease: &mut Lease, work: &[Work]) -> Result<Vec<Outcome>, Fault> {
    let transaction = lease.client()?.transaction().await?;
    let stored = locked(&transaction, &batch::tenants(work)).await?;
    let mut owners = Owners::new();
    for _ in 0..MAX_ROUNDS {
        // A rule that panics costs its batch.
        let ran = catch_unwind(AssertUnwindSafe(|| batch::run(work, &stored, &owners)));
        match ran.map_err(|_| Unavailable("the registry failed inside".to_owned()))? {
            Ok(batch) => {
                write(&transaction, &batch, &stored).await?;
                transaction.commit().await?;
                return Ok(batch.outcomes);
            }
            Err(missing) => look_up(&transaction, missing, &mut owners).await?,
        }
    }
    Err(Unavailable("the work asks for ever more credentials".to_owned()).into())
}

/// A statement and what it takes.
struct Statement<'a> {
    sql: &'static str,
    params: Vec<Param<'a>>,
}

type Param<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Runs statements in their order, all of them sent before the first answer is waited for.
async fn run(transaction: &Transaction<'_>, statements: Vec<Statement<'_>>) -> Result<Vec<Vec<Found>>, Fault> {
    let mut prepared = Vec::with_capacity(statements.len());
    for statement in &statements {
        let params: Vec<_> = statement.params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect();
        prepared.push((transaction.prepare_cached(statement.sql).await?, params));
    }
    // Looked at in their order, and the first look sends.
    Ok(try_join_all(prepared.iter().map(|(statement, params)| transaction.query(statement, params))).await?)
}

macro_rules! statement {
    ($sql:expr $(, $param:expr)*) => {
        Statement { sql: $sql, params: vec![$(Box::new($param) as Param<'_>),*] }
    };
}

/// The tenants' rows, which nobody else changes before the transaction ends.
async fn locked(transaction: &Transaction<'_>, ids: &[String]) -> Result<HashMap<String, Row>, Fault> {
    let rows = "SELECT id, label, created_at, retired_at, credentials, status, status_since, NULL::text FROM tenant
        WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    // Begins after all locks are there: this statement sees what those we waited for have written.
    let docs = "SELECT tenant, last FROM said WHERE tenant = ANY($1)";
    let found = run(transaction, vec![statement!(rows, ids), statement!(docs, ids)]).await?;
    let mut said = HashMap::new();
    for doc in found.iter().skip(1).flatten() {
        said.insert(doc.try_get::<_, String>(0)?, doc.try_get::<_, Option<String>>(1)?);
    }
    let mut stored = HashMap::new();
    for row in found.iter().take(1).flatten() {
        let mut columns = columns(row)?;
        columns.last = said.remove(&columns.id).flatten();
        stored.insert(columns.id.clone(), columns.row()?);
    }
    Ok(stored)
}

async fn look_up(transaction: &Transaction<'_>, missing: Vec<Digest>, owners: &mut Owners) -> Result<(), Fault> {
    let asked: Vec<&[u8]> = missing.iter().map(Digest::as_slice).collect();
    let sql = "SELECT digest, tenant FROM credential WHERE digest = ANY($1)";
    let found = run(transaction, vec![statement!(sql, asked)]).await?;
    owners.extend(missing.iter().map(|digest| (*digest, None)));
    for row in found.iter().flatten() {
        owners.insert(facts::digest(row.try_get(0)?)?, row.try_get(1)?);
    }
    Ok(())
}

async fn write(transaction: &Transaction<'_>, batch: &Batch, stored: &HashMap<String, Row>) -> Result<(), Fault> {
    let (mut new, mut news, mut usual) = (Vec::new(), Vec::new(), Vec::new());
    for row in batch.rows.values() {
        let before = stored.get(&row.id);
        match facts::news(before, row) {
            Some(facts) => if before.is_some() { &mut news } else { &mut new }.push((row, facts)),
            None => usual.push(row),
        }
    }
    let mut statements = Vec::new();
    // First: who waits for it holds nothing yet that another appender could wait for.
    if !batch.entries.is_empty() {
        statements.push(statement!("SELECT pg_advisory_xact_lock($1, $2)", LOCKS, ENTRY_LOCK));
    }
    if !batch.freed.is_empty() {
        let freed: Vec<&[u8]> = batch.freed.iter().map(Digest::as_slice).collect();
        statements.push(statement!("DELETE FROM credential WHERE digest = ANY($1)", freed));
    }
    if !batch.taken.is_empty() {
        let mut taken: Vec<(&[u8], &str)> = batch.taken.iter().map(|(d, t)| (d.as_slice(), t.as_str())).collect();
        // In one order, so that two batches that want the same ones wait for each other and not in a circle.
        taken.sort_unstable();
        let (digests, tenants): (Vec<&[u8]>, Vec<&str>) = taken.into_iter().unzip();
        let sql = "INSERT INTO credential SELECT * FROM unnest($1::bytea[], $2::text[])";
        statements.push(statement!(sql, digests, tenants));
    }
    statements.extend([(&new, INSERT), (&news, UPDATE)].into_iter().filter_map(|(rows, sql)| write_rows(rows, sql)));
    if !usual.is_empty() {
        let sql = "UPDATE tenant SET due_at = n.b FROM unnest($1::text[], $2::int8[]) AS n (a, b) WHERE id = n.a";
        statements.push(statement!(sql, of(&usual, |row| row.id.as_str()), of(&usual, |row| facts::due(row))));
    }
    write_said(&mut statements, batch, stored)?;
    statements.extend(append(&batch.entries));
    let changed = batch.changed();
    if !changed.is_empty() {
        let mut told = changed.join(",");
        if told.len() > MAX_TOLD {
            told.clear();
        }
        statements.push(statement!("SELECT pg_notify($1, $2)", CHANNEL, told));
    }
    run(transaction, statements).await.map(|_| ())
}

// A tenant that another batch made meanwhile is a conflict: then all of it is done again.
const INSERT: &str = "INSERT INTO tenant SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[],
    $5::bytea[], $6::text[], $7::int8[], $8::int8[], $9::bool[], $10::int8[], $11::text[], $12::text[], $13::text[],
    $14::text[], $15::int8[])";
const UPDATE: &str = "UPDATE tenant SET label = n.b, created_at = n.c, retired_at = n.d, credentials = n.e,
    status = n.f, status_since = n.g, due_at = n.h, waits = n.i, untold_since = n.j, version = n.k, region = n.l,
    codes = n.m, search = n.n, urgency = n.o FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::bytea[], $6::text[],
    $7::int8[], $8::int8[], $9::bool[], $10::int8[], $11::text[], $12::text[], $13::text[], $14::text[],
    $15::int8[]) AS n (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o) WHERE id = n.a";

fn write_rows<'a>(rows: &'a [(&Row, Facts)], sql: &'static str) -> Option<Statement<'a>> {
    let statement = statement!(
        sql,
        of(rows, |(row, _)| row.id.as_str()),
        of(rows, |(row, _)| row.label.as_str()),
        of(rows, |(row, _)| int(row.created_at)),
        of(rows, |(row, _)| row.retired_at.map(int)),
        of(rows, |(_, facts)| facts.credentials.as_slice()),
        of(rows, |(row, _)| row.status.name()),
        of(rows, |(row, _)| int(row.status_since)),
        of(rows, |(row, _)| facts::due(row)),
        of(rows, |(_, facts)| facts.waits),
        of(rows, |(_, facts)| facts.untold_since),
        of(rows, |(_, facts)| facts.version.as_str()),
        of(rows, |(_, facts)| facts.region.as_str()),
        of(rows, |(_, facts)| facts.codes.as_str()),
        of(rows, |(_, facts)| facts.search.as_str()),
        of(rows, |(_, facts)| facts.urgency)
    );
    (!rows.is_empty()).then_some(statement)
}

/// One column.
fn of<'a, R, C>(rows: &'a [R], column: impl Fn(&'a R) -> C) -> Vec<C> {
    rows.iter().map(column).collect()
}

/// What machines said; a report that is not there stays the one before.
fn write_said<'a>(
    statements: &mut Vec<Statement<'a>>,
    batch: &'a Batch,
    stored: &HashMap<String, Row>,
) -> Result<(), Unavailable> {
    let (mut known, mut new) = (Vec::new(), Vec::new());
    for row in batch.rows.values() {
        let (last, report) = (facts::doc(row)?, batch.reports.get(&row.id));
        if stored.get(&row.id).is_some_and(|before| before.last.is_some()) {
            known.push((row.id.as_str(), last, report));
        } else if last.is_some() || report.is_some() {
            new.push((row.id.as_str(), last, report));
        }
    }
    for (rows, sql) in [(known, SAID_AGAIN), (new, SAID)] {
        if !rows.is_empty() {
            let (tenants, rest): (Vec<&str>, Vec<_>) = rows.into_iter().map(|(a, b, c)| (a, (b, c))).unzip();
            let (lasts, reports): (Vec<Option<String>>, Vec<Option<&String>>) = rest.into_iter().unzip();
            statements.push(statement!(sql, tenants, lasts, reports));
        }
    }
    let alone = batch.reports.iter().filter(|(tenant, _)| !batch.rows.contains_key(*tenant));
    let (tenants, reports): (Vec<&String>, Vec<&String>) = alone.unzip();
    if !tenants.is_empty() {
        statements.push(statement!(REPORTED, tenants, reports));
    }
    Ok(())
}

const SAID_AGAIN: &str = "UPDATE said SET last = n.b, report = coalesce(n.c, report)
    FROM unnest($1::text[], $2::text[], $3::text[]) AS n (a, b, c) WHERE tenant = n.a";
const SAID: &str = "INSERT INTO said SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
    ON CONFLICT (tenant) DO UPDATE SET last = excluded.last, report = coalesce(excluded.report, said.report)";
const REPORTED: &str = "INSERT INTO said (tenant, report) SELECT * FROM unnest($1::text[], $2::text[])
    ON CONFLICT (tenant) DO UPDATE SET report = excluded.report";

fn append(entries: &[Entry]) -> Option<Statement<'_>> {
    let sql = "INSERT INTO entry (tenant, at, kind, text, data) SELECT a, b, c, d, e
        FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS n (a, b, c, d, e, o)
        ORDER BY o";
    let statement = statement!(
        sql,
        of(entries, |entry| entry.tenant.as_str()),
        of(entries, |entry| int(entry.at)),
        of(entries, |entry| entry.kind.name()),
        of(entries, |entry| entry.text.as_str()),
        of(entries, |entry| entry.data.to_string())
    );
    (!entries.is_empty()).then_some(statement)
}
