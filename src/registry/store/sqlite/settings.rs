//! What admins set: keys and webhooks.

use rusqlite::{Connection, Transaction, params};

use super::super::facts::{self, int, int_u64, ms};
use super::super::{Key, Webhook};
use super::rows::{Done, all, execute};

pub(super) fn keys(connection: &Connection) -> Done<Vec<Key>> {
    all(connection, "SELECT id, digest, admin, created_at, expires_at FROM key ORDER BY id", [], |row| {
        Ok(Key {
            id: row.get(0)?,
            digest: facts::digest(&row.get::<_, Vec<u8>>(1)?)?,
            admin: row.get(2)?,
            created_at: ms(row.get(3)?),
            expires_at: row.get::<_, Option<i64>>(4)?.map(ms),
        })
    })
}

pub(super) fn put_key(transaction: &Transaction<'_>, key: &Key) -> Done<bool> {
    let digest = key.digest.as_slice();
    let params = params![key.id, digest, key.admin, int(key.created_at), key.expires_at.map(int)];
    let sql = "INSERT INTO key VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING";
    Ok(execute(transaction, sql, params)? == 1)
}

pub(super) fn drop_key(transaction: &Transaction<'_>, id: &str) -> Done<bool> {
    Ok(execute(transaction, "DELETE FROM key WHERE id = ?1", [id])? == 1)
}

pub(super) fn webhooks(connection: &Connection) -> Done<Vec<Webhook>> {
    let sql = "SELECT id, url, kinds, created_at, position, failures, next_at, last_error FROM webhook ORDER BY id";
    all(connection, sql, [], |row| {
        Ok(Webhook {
            id: row.get(0)?,
            url: row.get(1)?,
            kinds: facts::kinds(&row.get::<_, String>(2)?),
            created_at: ms(row.get(3)?),
            cursor: row.get::<_, i64>(4)?.unsigned_abs(),
            failures: row.get::<_, i64>(5)?.unsigned_abs(),
            next_at: ms(row.get(6)?),
            last_error: row.get(7)?,
        })
    })
}

pub(super) fn put_webhook(transaction: &Transaction<'_>, hook: &Webhook) -> Done<()> {
    let sql = "INSERT INTO webhook SELECT ?1, ?2, ?3, ?4, coalesce(max(seq), 0), 0, 0, '' FROM entry WHERE true
        ON CONFLICT (id) DO UPDATE SET url = excluded.url, kinds = excluded.kinds";
    execute(transaction, sql, params![hook.id, hook.url, facts::kinds_text(&hook.kinds), int(hook.created_at)])?;
    Ok(())
}

pub(super) fn delivered(transaction: &Transaction<'_>, hook: &Webhook) -> Done<()> {
    // Never back: one that was added anew begins after what an earlier one of that name had yet to deliver.
    let sql = "UPDATE webhook SET position = max(position, ?2), failures = ?3, next_at = ?4, last_error = ?5
        WHERE id = ?1";
    let params = params![
        hook.id,
        int_u64(hook.cursor),
        int_u64(hook.failures),
        int(hook.next_at),
        facts::plain(&hook.last_error)
    ];
    execute(transaction, sql, params)?;
    Ok(())
}

pub(super) fn drop_webhook(transaction: &Transaction<'_>, id: &str) -> Done<bool> {
    Ok(execute(transaction, "DELETE FROM webhook WHERE id = ?1", [id])? == 1)
}
