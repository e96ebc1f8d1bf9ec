//! Connections: where to, the schema, what errors mean.

use std::error::Error as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tokio::time::timeout;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Connection, Socket};

use super::super::Unavailable;
use super::tls::{Secured, Tls};

/// A call is given up after this time, whatever it waits for.
pub(super) const DEADLINE: Duration = Duration::from_secs(4);
/// One connection is made in this time.
const CONNECT: Duration = Duration::from_secs(2);
/// A schema is made, or another instance that makes it is waited for, so long.
const MIGRATE: Duration = Duration::from_secs(300);
const CONNECTIONS: usize = 8;
/// Schemas, each made from the one before. Never change one that was released: add the next.
pub(super) const MIGRATIONS: &[&str] = &[include_str!("0001.sql"), include_str!("0002.sql"), include_str!("0003.sql")];
/// First half of our advisory locks: `OCRG`.
pub(super) const LOCKS: i32 = 0x4f43_5247;
const MIGRATION_LOCK: i32 = 3;

/// What a connection that hangs may cost.
const LIMITS: &str = "-c statement_timeout=4000 -c lock_timeout=3000 -c idle_in_transaction_session_timeout=5000";
/// Every statement but the counts names its rows by a key, whose index is the way however small the table seems: a plan
/// made when it was empty is kept for as long as the connection. Such plans are not made anew for each batch, nor compiled.
const PLANS: &str = "-c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off \
    -c plan_cache_mode=force_generic_plan";

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Fault {
    Database(tokio_postgres::Error),
    Other(Unavailable),
}

impl Fault {
    /// Somebody else was first, or stood in the way: the same again may succeed.
    pub(super) fn passes(&self) -> bool {
        let Self::Database(error) = self else { return false };
        let passing =
            [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::UNIQUE_VIOLATION];
        error.code().is_some_and(|code| passing.contains(code))
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Unavailable> for Fault {
    fn from(why: Unavailable) -> Self {
        Self::Other(why)
    }
}

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => Self::Database(error),
            PoolError::Timeout(_) => Self::Other(late()),
            other => Self::Other(Unavailable(format!("PostgreSQL: {other}"))),
        }
    }
}

impl From<Fault> for Unavailable {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Other(why) => why,
            Fault::Database(error) => {
                if let Some(error) = error.as_db_error() {
                    return Self(format!("PostgreSQL refused: {} ({})", error.message(), error.code().code()));
                }
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                Self(format!("PostgreSQL cannot be reached ({error}{cause})"))
            }
        }
    }
}

pub(super) fn late() -> Unavailable {
    Unavailable(format!("PostgreSQL did not answer in {} s", DEADLINE.as_secs()))
}

/// Where to connect, and how.
#[derive(Clone, Debug)]
pub(super) struct Server {
    config: Config,
    tls: Tls,
}

impl Server {
    /// The one of a URL, with limits that it keeps.
    pub(super) fn named(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        // What is wrong is not said: it may be the password that holds a sign it should not.
        let mut config: Config = url.parse().map_err(|_| "the PostgreSQL URL cannot be read".to_owned())?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("the PostgreSQL URL names no host".to_owned());
        }
        if config.get_ssl_mode() == SslMode::Prefer {
            // Preferred only, it would be given up where somebody between us and the server says so.
            let plain = ca_file.is_none() && is_near(&config);
            config.ssl_mode(if plain { SslMode::Disable } else { SslMode::Require });
        }
        let tls = if config.get_ssl_mode() == SslMode::Disable { Tls::none() } else { Tls::trusting(ca_file)? };
        let options = format!("{} {LIMITS} {PLANS}", config.get_options().unwrap_or_default());
        config.options(options).connect_timeout(CONNECT).keepalives_idle(Duration::from_secs(30));
        config.tcp_user_timeout(DEADLINE).application_name("openclaw-registry");
        Ok(Self { config, tls })
    }

    /// One connection.
    pub(super) async fn connect(&self) -> Result<(Client, Connection<Socket, Secured>), Fault> {
        let connecting = self.config.connect(self.tls.clone());
        Ok(timeout(DEADLINE, connecting).await.map_err(|_| late())??)
    }

    /// Connections for calls, made when they are needed.
    pub(super) fn pool(&self) -> Result<Pool, String> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        let pool = Pool::builder(manager).max_size(CONNECTIONS).runtime(Runtime::Tokio1);
        let pool = pool.wait_timeout(Some(DEADLINE)).create_timeout(Some(DEADLINE)).recycle_timeout(Some(DEADLINE));
        pool.build().map_err(|e| format!("PostgreSQL: {e}"))
    }
}

/// Whether nothing leaves this machine on the way to any of the hosts.
fn is_near(config: &Config) -> bool {
    let near = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    };
    config.get_hosts().iter().all(near) && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// A connection that goes back to the others only after all went well: one that is given up in the middle of
/// something is closed.
#[derive(Debug)]
pub(super) struct Lease(Option<Object>);

impl Lease {
    pub(super) async fn from(pool: &Pool) -> Result<Self, Fault> {
        Ok(Self(Some(pool.get().await?)))
    }

    pub(super) fn client(&mut self) -> Result<&mut Object, Fault> {
        self.0.as_mut().ok_or_else(|| Fault::Other(late()))
    }

    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

/// Brings the schema to the newest; one instance at a time, all or nothing.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Fault> {
    let encoding: String = client.query_one("SHOW server_encoding", &[]).await?.try_get(0)?;
    if encoding != "UTF8" {
        return Err(Unavailable(format!("the database's encoding is {encoding}; create it with UTF8")).into());
    }
    let transaction = client.transaction().await?;
    let limit = MIGRATE.as_secs();
    transaction
        .batch_execute(&format!(
            "SET LOCAL statement_timeout = '{limit}s'; SET LOCAL lock_timeout = '{limit}s';
             SET LOCAL client_min_messages = warning;
             SELECT pg_advisory_xact_lock({LOCKS}, {MIGRATION_LOCK});
             CREATE TABLE IF NOT EXISTS registry_schema (version integer NOT NULL)"
        ))
        .await?;
    let found = transaction.query_opt("SELECT max(version) FROM registry_schema", &[]).await?;
    let found: Option<i32> = found.map(|row| row.try_get(0)).transpose()?.flatten();
    let version = usize::try_from(found.unwrap_or(0)).unwrap_or(usize::MAX);
    if version > MIGRATIONS.len() {
        return Err(Unavailable(format!(
            "the registry's database was written by a newer version (schema {version}, this one knows {}); install \
             that version",
            MIGRATIONS.len()
        ))
        .into());
    }
    for step in &MIGRATIONS[version..] {
        transaction.batch_execute(step).await?;
        transaction
            .batch_execute("INSERT INTO registry_schema SELECT coalesce(max(version), 0) + 1 FROM registry_schema")
            .await?;
    }
    Ok(transaction.commit().await?)
}
