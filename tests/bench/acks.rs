//! The registry with everything but durability: the same listener, limits, credentials and messages; whatever a machine
//! says is read whole and acknowledged, and forgotten. It serves plain HTTP to the first so many of the bench's fleet.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    dead_code,
    reason = "a part of the bench, which talks to the terminal; what the bench and this have in common is more than this needs"
)]

#[path = "fleet.rs"]
mod fleet;

use std::{
    collections::HashSet,
    sync::{Arc, RwLock},
};

use anyhow::{Context as _, Error};
use futures_util::future::BoxFuture;
use hyper::{HeaderMap, Method, StatusCode};
use openclaw_sidecar::{
    api::problem::Problem,
    auth::{Auth, Principal, credentials},
    checkin::{
        tls::Trust,
        wire::{Ack, Answer as Acknowledged, CheckIn},
    },
    clock::UnixMs,
    http::{
        Shared,
        app::{Answer, App, Call, Found, Matched},
        connections::Connections,
        listen::{self, Bound},
    },
    registry::{
        api::{Context, Registry},
        callers::{Callers, Signer},
        ingest::Ingest,
        metrics::Metrics,
        store::{self, Change, Store, Work},
        tenant::Row,
        webhooks::Outbound,
    },
    secret::Secret,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The registry's allocator.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Acknowledges what the registry would keep.
#[derive(Debug)]
struct Acks(Arc<Registry>);

impl App for Acks {
    fn find(&self, method: &Method, path: &str) -> Found {
        self.0.find(method, path)
    }

    fn admit<'a>(
        &'a self,
        route: Option<&'a Matched>,
        local: Option<&'a Principal>,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Option<Principal>, Problem>> {
        self.0.admit(route, local, headers)
    }

    fn still_valid(&self, principal: &Principal) -> bool {
        self.0.still_valid(principal)
    }

    fn answer(self: Arc<Self>, _: Matched, call: Call) -> BoxFuture<'static, Result<Answer, Problem>> {
        Box::pin(async move { acknowledge(&call).map_err(|e| Problem::new("invalid_body", e.to_string())) })
    }

    fn count(&self, route: &'static str, status: u16) {
        self.0.count(route, status);
    }
}

fn acknowledge(call: &Call) -> serde_json::Result<Answer> {
    let message: CheckIn = serde_json::from_slice(&call.body)?;
    let events = message.events.last().map_or(0, |event| event.seq);
    let answer = Acknowledged { ack: Ack { boot_id: message.boot_id, seq: message.seq, events }, next_s: 300 };
    Ok(Answer::Json(StatusCode::OK, serde_json::to_vec(&answer)?.into(), None))
}

fn main() -> anyhow::Result<()> {
    let members: usize = std::env::args().nth(1).context("how many machines")?.parse()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(members))
}

async fn serve(members: usize) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("registry.db");
    let store = store::open(path.to_str().context("a path")?, None).await.map_err(Error::msg)?;
    know(&store, members).await?;
    let app = Acks(Arc::new(Registry(context(store)?)));
    let metrics = &app.0.0.metrics;
    let shared = Arc::new(Shared {
        connections: Connections::new(4096, &metrics.connections, &metrics.evicted),
        streams: Arc::new(Semaphore::new(1)),
        local_root_only: true,
        host_names: HashSet::new(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        app: Arc::new(app),
    });
    let listener = Bound::Edge(listen::tcp(([127, 0, 0, 1], 0).into())?);
    println!("{}", listener.describe().1);
    listen::accept(shared, listener, None).await;
    Ok(())
}

/// Machines whose credentials are looked up as the registry does it.
async fn know(store: &Arc<dyn Store>, members: usize) -> anyhow::Result<()> {
    let work = (0..members).map(|n| {
        let member = fleet::Member::ready(n);
        let row = Row::new(&member.id(), "", vec![member.digest()], UnixMs::now());
        let act = move |_: Option<&Row>| Change { row: Some(row.clone()), ..Change::default() };
        Work { tenant: member.id(), act: Box::new(act) }
    });
    store.amend(work.collect()).await?;
    Ok(())
}

fn context(store: Arc<dyn Store>) -> anyhow::Result<Arc<Context>> {
    let signer = Arc::new(Signer::new(&Secret::new("0123456789abcdef".repeat(2))));
    let token = credentials::Token::random().map_err(Error::msg)?;
    let entry = credentials::entry_json("admin", &token, openclaw_sidecar::auth::Tier::Dangerous, false);
    let auth = openclaw_sidecar::config::Auth { credentials_file: None, credentials: Some(format!("[{entry}]")) };
    let auth = Auth::load(&auth).map_err(Error::msg)?;
    Ok(Arc::new(Context {
        ingest: Ingest::start(&store),
        callers: Callers::new(store.clone(), signer.clone(), auth),
        store,
        signer,
        blind: RwLock::default(),
        unwritable: RwLock::default(),
        metrics: Metrics::default(),
        interval_s: 300,
        outbound: Outbound { private: false, trust: Trust::System },
        stopping: CancellationToken::new(),
    }))
}
