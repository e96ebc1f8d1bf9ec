//! One batch, one transaction.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use deadpool_postgres::{Pool, Transaction};
use tokio_postgres::Row as Found;

use super::super::batch::{self, Batch, MAX_ROUNDS, Owners};
use super::super::facts::{self, Facts, int};
use super::super::{Outcome, Unavailable, Work};
use super::connect::{Fault, LOCKS, Lease};
use super::listen::CHANNEL;
use super::{Params, columns};
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

async fn query(transaction: &Transaction<'_>, sql: &str, params: Params<'_>) -> Result<Vec<Found>, Fault> {
    let statement = transaction.prepare_cached(sql).await?;
    Ok(transaction.query(&statement, params).await?)
}

/// The tenants' rows, which nobody else changes before the transaction ends.
async fn locked(transaction: &Transaction<'_>, ids: &[String]) -> Result<HashMap<String, Row>, Fault> {
    let rows = "SELECT id, label, created_at, retired_at, credentials, status, status_since, NULL::text FROM tenant
        WHERE id = ANY($1) ORDER BY id FOR UPDATE";
    let rows = query(transaction, rows, &[&ids]).await?;
    // Read after all locks are there: this statement sees what those we waited for have written.
    let docs = query(transaction, "SELECT tenant, doc FROM last WHERE tenant = ANY($1)", &[&ids]).await?;
    let mut said = HashMap::new();
    for doc in &docs {
        said.insert(doc.try_get::<_, String>(0)?, doc.try_get::<_, String>(1)?);
    }
    let mut stored = HashMap::new();
    for row in &rows {
        let mut columns = columns(row)?;
        columns.last = said.remove(&columns.id);
        stored.insert(columns.id.clone(), columns.row()?);
    }
    Ok(stored)
}

async fn look_up(transaction: &Transaction<'_>, missing: Vec<Digest>, owners: &mut Owners) -> Result<(), Fault> {
    let asked: Vec<&[u8]> = missing.iter().map(Digest::as_slice).collect();
    let sql = "SELECT digest, tenant FROM credential WHERE digest = ANY($1)";
    let found = query(transaction, sql, &[&asked]).await?;
    owners.extend(missing.iter().map(|digest| (*digest, None)));
    for row in &found {
        owners.insert(facts::digest(row.try_get(0)?)?, row.try_get(1)?);
    }
    Ok(())
}

async fn write(transaction: &Transaction<'_>, batch: &Batch, stored: &HashMap<String, Row>) -> Result<(), Fault> {
    // First: who waits for it holds nothing yet that another appender could wait for.
    if !batch.entries.is_empty() {
        query(transaction, "SELECT pg_advisory_xact_lock($1, $2)", &[&LOCKS, &ENTRY_LOCK]).await?;
    }
    if !batch.freed.is_empty() {
        let freed: Vec<&[u8]> = batch.freed.iter().map(Digest::as_slice).collect();
        query(transaction, "DELETE FROM credential WHERE digest = ANY($1)", &[&freed]).await?;
    }
    if !batch.taken.is_empty() {
        let mut taken: Vec<(&[u8], &str)> = batch.taken.iter().map(|(d, t)| (d.as_slice(), t.as_str())).collect();
        // In one order, so that two batches that want the same ones wait for each other and not in a circle.
        taken.sort_unstable();
        let (digests, tenants): (Vec<&[u8]>, Vec<&str>) = taken.into_iter().unzip();
        let sql = "INSERT INTO credential SELECT * FROM unnest($1::bytea[], $2::text[])";
        query(transaction, sql, &[&digests, &tenants]).await?;
    }
    let (known, new): (Vec<&Row>, Vec<&Row>) = batch.rows.values().partition(|row| stored.contains_key(&row.id));
    write_rows(transaction, &new, INSERT).await?;
    write_rows(transaction, &known, UPDATE).await?;
    let (tenants, docs): (Vec<&String>, Vec<&String>) = batch.reports.iter().unzip();
    write_docs(transaction, "report", &tenants, &docs).await?;
    append(transaction, &batch.entries).await?;
    let changed = batch.changed();
    if !changed.is_empty() {
        let mut told = changed.join(",");
        if told.len() > MAX_TOLD {
            told.clear();
        }
        query(transaction, "SELECT pg_notify($1, $2)", &[&CHANNEL, &told]).await?;
    }
    Ok(())
}

// A tenant that another batch made meanwhile is a conflict: then all of it is done again.
const INSERT: &str = "INSERT INTO tenant SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[],
    $5::bytea[], $6::text[], $7::int8[], $8::int8[], $9::bool[], $10::int8[], $11::text[], $12::text[], $13::text[],
    $14::text[])";
const UPDATE: &str = "UPDATE tenant SET label = n.b, created_at = n.c, retired_at = n.d, credentials = n.e,
    status = n.f, status_since = n.g, due_at = n.h, waits = n.i, untold_since = n.j, version = n.k, region = n.l,
    codes = n.m, search = n.n FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[], $5::bytea[], $6::text[],
    $7::int8[], $8::int8[], $9::bool[], $10::int8[], $11::text[], $12::text[], $13::text[], $14::text[])
    AS n (a, b, c, d, e, f, g, h, i, j, k, l, m, n) WHERE id = n.a";

async fn write_rows(transaction: &Transaction<'_>, rows: &[&Row], sql: &str) -> Result<(), Fault> {
    if rows.is_empty() {
        return Ok(());
    }
    let facts = rows.iter().map(|row| Facts::of(row)).collect::<Result<Vec<_>, _>>()?;
    let params: Params<'_> = &[
        &of(rows, |row| row.id.as_str()),
        &of(rows, |row| row.label.as_str()),
        &of(rows, |row| int(row.created_at)),
        &of(rows, |row| row.retired_at.map(int)),
        &of(&facts, |facts| facts.credentials.as_slice()),
        &of(rows, |row| row.status.name()),
        &of(rows, |row| int(row.status_since)),
        &of(&facts, |facts| facts.due_at),
        &of(&facts, |facts| facts.waits),
        &of(&facts, |facts| facts.untold_since),
        &of(&facts, |facts| facts.version.as_str()),
        &of(&facts, |facts| facts.region.as_str()),
        &of(&facts, |facts| facts.codes.as_str()),
        &of(&facts, |facts| facts.search.as_str()),
    ];
    query(transaction, sql, params).await?;
    let said = rows.iter().zip(&facts).filter_map(|(row, facts)| Some((&row.id, facts.last.as_ref()?)));
    let (tenants, docs): (Vec<&String>, Vec<&String>) = said.unzip();
    write_docs(transaction, "last", &tenants, &docs).await?;
    let silent: Vec<&str> = rows.iter().filter(|row| row.last.is_none()).map(|row| row.id.as_str()).collect();
    if !silent.is_empty() {
        query(transaction, "DELETE FROM last WHERE tenant = ANY($1)", &[&silent]).await?;
    }
    Ok(())
}

/// One column.
fn of<'a, R, C>(rows: &'a [R], column: impl Fn(&'a R) -> C) -> Vec<C> {
    rows.iter().map(column).collect()
}

async fn write_docs(
    transaction: &Transaction<'_>,
    table: &'static str,
    tenants: &[&String],
    docs: &[&String],
) -> Result<(), Fault> {
    if tenants.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "INSERT INTO {table} SELECT * FROM unnest($1::text[], $2::text[])
            ON CONFLICT (tenant) DO UPDATE SET doc = excluded.doc"
    );
    query(transaction, &sql, &[&tenants, &docs]).await.map(|_| ())
}

async fn append(transaction: &Transaction<'_>, entries: &[Entry]) -> Result<(), Fault> {
    if entries.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO entry (tenant, at, kind, text, data) SELECT a, b, c, d, e
        FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS n (a, b, c, d, e, o)
        ORDER BY o";
    let params: Params<'_> = &[
        &of(entries, |entry| entry.tenant.as_str()),
        &of(entries, |entry| int(entry.at)),
        &of(entries, |entry| entry.kind.name()),
        &of(entries, |entry| entry.text.as_str()),
        &of(entries, |entry| entry.data.to_string()),
    ];
    query(transaction, sql, params).await.map(|_| ())
}
