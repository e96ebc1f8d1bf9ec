//! The store that several registries share: PostgreSQL.
//!
//! Rows a batch names are locked in the order of their ids, the rules run here, and what comes out is written with one
//! statement for each table. Positions of history lines appear in their order, because whoever appends holds a lock
//! until the commit. Where the connection breaks during a commit it is not known whether it was kept: the caller is
//! told that it was not, and what it tries again has to bear that.

mod amend;
mod connect;
mod listen;
#[cfg(test)]
pub(super) mod tests;
mod tls;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use deadpool_postgres::Pool;
use futures_util::FutureExt;
use tokio::sync::{Mutex, broadcast};
use tokio::time::timeout;
use tokio_postgres::Row as Found;
use tokio_postgres::types::ToSql;

use self::connect::{DEADLINE, Fault, Lease, Server, late};
use self::listen::{Leading, Listening};
use super::facts::{self, Columns, Group, Wanted, int, int_u64, int_usize, kinds_text, ms, plain};
use super::{
    Answered, Blind, CHANGES_KEPT, Changed, Counts, Filter, Key, Order, Outcome, RETIRED_DAYS, Store, TIMELINE_DAYS,
    Unavailable, Webhook, Work,
};
use crate::clock::UnixMs;
use crate::registry::tenant::{Digest, Entry, Row};

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Most rows of each kind removed at once.
const PRUNED_AT_ONCE: i64 = 1000;
const DAY_MS: u64 = 24 * 3600 * 1000;
const ROW: &str = "SELECT id, label, created_at, retired_at, credentials, status, status_since, last, report
    FROM tenant LEFT JOIN said ON said.tenant = id ";
const ENTRY: &str = "SELECT seq, tenant, at, kind, text, data FROM entry ";

/// The registry's data in a PostgreSQL database.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    pool: Pool,
    changes: broadcast::Sender<Changed>,
    leading: Arc<Mutex<Leading>>,
    _listening: Listening,
}

/// Whether a URL and the authorities it needs can be read.
///
/// # Errors
/// The key and what is wrong, without a password.
pub fn check(url: &str, ca_file: Option<&Path>) -> Result<(), String> {
    let keyed = |why: String| if why.starts_with("store") { why } else { format!("store: {why}") };
    Server::named(url, ca_file).map(drop).map_err(keyed)
}

impl Postgres {
    /// Connects to the database of a `postgres://` URL and brings its schema to the newest. Another machine is reached
    /// over TLS and has to prove its name, unless the URL says `sslmode=disable`.
    ///
    /// # Errors
    /// The URL is wrong, the database cannot be reached or belongs to a newer version; in plain words, without the
    /// password.
    pub async fn connect(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        let server = Server::named(url, ca_file)?;
        let said = |fault| Unavailable::from(fault).to_string();
        let (mut client, connection) = server.connect().await.map_err(said)?;
        let moving = tokio::spawn(connection);
        let migrated = connect::migrate(&mut client).await;
        drop(client);
        let _ = moving.await;
        migrated.map_err(said)?;
        let changes = broadcast::Sender::new(CHANGES_KEPT);
        let listening = listen::listen(server.clone(), changes.clone()).await.map_err(said)?;
        let pool = server.pool()?;
        Ok(Self { server, pool, changes, leading: Arc::default(), _listening: listening })
    }

    async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Found>, Fault> {
        let mut lease = Lease::from(&self.pool).await?;
        let client = lease.client()?;
        let statement = client.prepare_cached(sql).await?;
        let found = client.query(&statement, params).await?;
        lease.give_back();
        Ok(found)
    }

    async fn rows(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Fault> {
        self.query(sql, params).await?.iter().map(|found| columns(found)?.row().map_err(Fault::from)).collect()
    }

    async fn entries(&self, sql: &str, params: Params<'_>) -> Result<Vec<Entry>, Fault> {
        let entry = |row: &Found| {
            let (kind, data) = (row.try_get(3)?, row.try_get(5)?);
            Ok(facts::entry(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, kind, row.try_get(4)?, data)?)
        };
        self.query(sql, params).await?.iter().map(entry).collect()
    }

    /// Whether a statement that names one row found it.
    async fn one(&self, sql: &str, params: Params<'_>) -> Result<bool, Fault> {
        Ok(!self.query(sql, params).await?.is_empty())
    }
}

/// A call with its deadline.
fn bounded<'a, T: Send + 'a>(call: impl Future<Output = Result<T, Fault>> + Send + 'a) -> Answered<'a, T> {
    async move { timeout(DEADLINE, call).await.map_err(|_| late())?.map_err(Unavailable::from) }.boxed()
}

/// A row's own columns and, as the last of them, what its machine said.
fn columns(row: &Found) -> Result<Columns, Fault> {
    Ok(Columns {
        id: row.try_get(0)?,
        label: row.try_get(1)?,
        created_at: row.try_get(2)?,
        retired_at: row.try_get(3)?,
        credentials: row.try_get(4)?,
        status: row.try_get(5)?,
        status_since: row.try_get(6)?,
        last: row.try_get(7)?,
    })
}

fn group(row: &Found) -> Result<(Group<'_>, i64), Fault> {
    let (version, region, codes) = (row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
    Ok((Group { status: row.try_get(0)?, waits: row.try_get(1)?, version, region, codes }, row.try_get(5)?))
}

fn key(row: &Found) -> Result<Key, Fault> {
    Ok(Key {
        id: row.try_get(0)?,
        digest: facts::digest(row.try_get(1)?)?,
        admin: row.try_get(2)?,
        created_at: ms(row.try_get(3)?),
        expires_at: row.try_get::<_, Option<i64>>(4)?.map(ms),
    })
}

fn webhook(row: &Found) -> Result<Webhook, Fault> {
    Ok(Webhook {
        id: row.try_get(0)?,
        url: row.try_get(1)?,
        kinds: facts::kinds(row.try_get(2)?),
        created_at: ms(row.try_get(3)?),
        cursor: row.try_get::<_, i64>(4)?.unsigned_abs(),
        failures: row.try_get::<_, i64>(5)?.unsigned_abs(),
        next_at: ms(row.try_get(6)?),
        last_error: row.try_get(7)?,
    })
}

impl Store for Postgres {
    fn amend(&self, work: Vec<Work>) -> Answered<'_, Vec<Outcome>> {
        bounded(async move { amend::amend(&self.pool, &work).await })
    }

    fn owner(&self, digest: Digest) -> Answered<'_, Option<String>> {
        bounded(async move {
            let sql = "SELECT tenant FROM credential WHERE digest = $1";
            Ok(self.query(sql, &[&digest.as_slice()]).await?.first().map(|row| row.try_get(0)).transpose()?)
        })
    }

    fn tenant(&self, id: String) -> Answered<'_, Option<(Row, Option<String>)>> {
        bounded(async move {
            let found = self.query(&format!("{ROW} WHERE id = $1"), &[&plain(&id)]).await?;
            let Some(found) = found.first() else { return Ok(None) };
            Ok(Some((columns(found)?.row()?, found.try_get(8)?)))
        })
    }

    fn list(&self, filter: Filter, order: Order, limit: usize) -> Answered<'_, Vec<Row>> {
        bounded(async move {
            let Wanted { by_urgency, after, first, last, status, pairing, code, region, version, text } =
                Wanted::of(filter, order);
            let (begin, sort) = if by_urgency {
                ("(urgency, id) > ($9, $1)", "urgency, id")
            } else {
                ("id > $1 AND urgency >= $9", "id")
            };
            let sql = format!(
                "{ROW} WHERE id IN (SELECT id FROM tenant WHERE {begin} AND urgency <= $10 AND retired_at IS NULL
                    AND ($2::text IS NULL OR status = $2) AND (NOT $3 OR waits)
                    AND ($4::text IS NULL OR strpos(codes, $4) > 0) AND ($5::text IS NULL OR region = $5)
                    AND ($6::text IS NULL OR version = $6) AND ($7::text IS NULL OR strpos(search, $7) > 0)
                    ORDER BY {sort} LIMIT $8) ORDER BY {sort}"
            );
            let limit = int_usize(limit);
            self.rows(&sql, &[&after, &status, &pairing, &code, &region, &version, &text, &limit, &first, &last]).await
        })
    }

    fn counts(&self) -> Answered<'_, Counts> {
        bounded(async move {
            let sql = "SELECT status, waits, version, region, codes, count(*) FROM tenant WHERE retired_at IS NULL
                GROUP BY 1, 2, 3, 4, 5";
            let mut counts = Counts::default();
            for row in self.query(sql, &[]).await? {
                let (group, n) = group(&row)?;
                group.count(&mut counts, n);
            }
            Ok(counts)
        })
    }

    fn timeline(&self, tenant: Option<String>, before: Option<u64>, limit: usize) -> Answered<'_, Vec<Entry>> {
        bounded(async move {
            let (before, limit) = (before.map_or(i64::MAX, int_u64), int_usize(limit));
            if let Some(tenant) = tenant {
                let sql = format!("{ENTRY} WHERE tenant = $1 AND seq < $2 ORDER BY seq DESC LIMIT $3");
                self.entries(&sql, &[&plain(&tenant), &before, &limit]).await
            } else {
                let sql = format!("{ENTRY} WHERE seq < $1 ORDER BY seq DESC LIMIT $2");
                self.entries(&sql, &[&before, &limit]).await
            }
        })
    }

    fn entries_after(&self, seq: u64, limit: usize) -> Answered<'_, Vec<Entry>> {
        bounded(async move {
            let sql = format!("{ENTRY} WHERE seq > $1 ORDER BY seq LIMIT $2");
            self.entries(&sql, &[&int_u64(seq), &int_usize(limit)]).await
        })
    }

    fn overdue(
        &self,
        now: UnixMs,
        pending_before: UnixMs,
        after: Option<String>,
        limit: usize,
    ) -> Answered<'_, Vec<String>> {
        bounded(async move {
            let sql = "SELECT id FROM tenant WHERE id > $3 AND retired_at IS NULL
                AND (untold_since < $2 OR due_at < $1) ORDER BY id LIMIT $4";
            let after = plain(&after.unwrap_or_default()).into_owned();
            let found = self.query(sql, &[&int(now), &int(pending_before), &after, &int_usize(limit)]).await?;
            Ok(found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
        })
    }

    fn leads(&self) -> Answered<'_, bool> {
        // Given up in the middle, it has no connection and thus no lock.
        bounded(async move { Ok(self.leading.lock().await.ask(&self.server).await?) })
    }

    fn alive(&self, now: UnixMs, gap_ms: u64) -> Answered<'_, ()> {
        bounded(async move {
            // Locked: of several instances that come back at once, the first one notes the gap. Counted: the gap has to
            // be noted before the sign of life it is seen by is overwritten.
            let sql = "WITH was AS (SELECT at FROM alive FOR UPDATE),
                gap AS (INSERT INTO blind SELECT at, $1::bigint FROM was WHERE $1::bigint - at > $2::bigint RETURNING 1),
                noted AS (SELECT count(*) FROM gap)
                INSERT INTO alive SELECT 1, $1::bigint FROM noted
                ON CONFLICT (one) DO UPDATE SET at = excluded.at";
            self.query(sql, &[&int(now), &int_u64(gap_ms)]).await.map(|_| ())
        })
    }

    fn blind(&self, since: UnixMs) -> Answered<'_, Vec<Blind>> {
        bounded(async move {
            let sql = "SELECT from_at, to_at FROM blind WHERE to_at > $1 ORDER BY from_at";
            let blind = |row: &Found| Ok(Blind { from: ms(row.try_get(0)?), to: ms(row.try_get(1)?) });
            self.query(sql, &[&int(since)]).await?.iter().map(blind).collect()
        })
    }

    fn prune(&self, now: UnixMs) -> Answered<'_, u64> {
        bounded(async move {
            // A tenant that is being changed is left for the next time.
            let sql = "WITH old AS (SELECT id FROM tenant WHERE retired_at < $2 LIMIT $3 FOR UPDATE SKIP LOCKED),
                a AS (DELETE FROM said WHERE tenant IN (SELECT id FROM old)),
                b AS (DELETE FROM credential WHERE tenant IN (SELECT id FROM old)),
                gone AS (DELETE FROM tenant WHERE id IN (SELECT id FROM old) RETURNING 1),
                lines AS (DELETE FROM entry WHERE at < $1
                    AND seq IN (SELECT seq FROM entry ORDER BY seq LIMIT $3) RETURNING 1),
                blinds AS (DELETE FROM blind WHERE to_at < $1 RETURNING 1)
                SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM lines) + (SELECT count(*) FROM blinds)";
            let before = |days: u64| int_u64(now.0.saturating_sub(days * DAY_MS));
            let params: Params<'_> = &[&before(TIMELINE_DAYS), &before(RETIRED_DAYS), &PRUNED_AT_ONCE];
            let found = self.query(sql, params).await?;
            Ok(found.first().map(|row| row.try_get::<_, i64>(0)).transpose()?.unwrap_or(0).unsigned_abs())
        })
    }

    fn keys(&self) -> Answered<'_, Vec<Key>> {
        bounded(async move {
            let sql = "SELECT id, digest, admin, created_at, expires_at FROM key ORDER BY id";
            self.query(sql, &[]).await?.iter().map(key).collect()
        })
    }

    fn put_key(&self, key: Key) -> Answered<'_, bool> {
        bounded(async move {
            let sql = "INSERT INTO key VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING RETURNING id";
            let (digest, expires_at) = (key.digest.as_slice(), key.expires_at.map(int));
            self.one(sql, &[&plain(&key.id), &digest, &key.admin, &int(key.created_at), &expires_at]).await
        })
    }

    fn drop_key(&self, id: String) -> Answered<'_, bool> {
        bounded(async move { self.one("DELETE FROM key WHERE id = $1 RETURNING id", &[&plain(&id)]).await })
    }

    fn webhooks(&self) -> Answered<'_, Vec<Webhook>> {
        bounded(async move {
            let sql = "SELECT id, url, kinds, created_at, position, failures, next_at, last_error FROM webhook
                ORDER BY id";
            self.query(sql, &[]).await?.iter().map(webhook).collect()
        })
    }

    fn put_webhook(&self, webhook: Webhook) -> Answered<'_, ()> {
        bounded(async move {
            let sql = "INSERT INTO webhook SELECT $1::text, $2::text, $3::text, $4::bigint, coalesce(max(seq), 0), 0, 0, '' FROM entry
                ON CONFLICT (id) DO UPDATE SET url = excluded.url, kinds = excluded.kinds";
            let (url, kinds) = (plain(&webhook.url), kinds_text(&webhook.kinds));
            self.query(sql, &[&plain(&webhook.id), &url, &kinds, &int(webhook.created_at)]).await.map(|_| ())
        })
    }

    fn delivered(&self, webhook: Webhook) -> Answered<'_, ()> {
        bounded(async move {
            let sql = "UPDATE webhook SET position = greatest(position, $2), failures = $3, next_at = $4,
                last_error = $5 WHERE id = $1";
            let (cursor, failures) = (int_u64(webhook.cursor), int_u64(webhook.failures));
            let (id, error) = (plain(&webhook.id), plain(&webhook.last_error));
            self.query(sql, &[&id, &cursor, &failures, &int(webhook.next_at), &error]).await.map(|_| ())
        })
    }

    fn drop_webhook(&self, id: String) -> Answered<'_, bool> {
        bounded(async move { self.one("DELETE FROM webhook WHERE id = $1 RETURNING id", &[&plain(&id)]).await })
    }

    fn writers(&self) -> usize {
        2
    }

    fn close(&self) -> Answered<'_, ()> {
        std::future::ready(Ok(())).boxed()
    }

    fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }
}
