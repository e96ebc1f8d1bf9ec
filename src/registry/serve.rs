//! The registry's life: build everything, bind, run until told to stop, stop in order.

use std::future::Future;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{Context, Registry};
use super::callers::{Callers, Signer};
use super::config::Config;
use super::ingest::Ingest;
use super::metrics::Metrics;
use super::{store, sweep, webhooks};
use crate::checkin::tls::Trust;
use crate::config::Faults;
use crate::daemon::Failure;
use crate::files;
use crate::http::Shared;
use crate::http::connections::Connections;
use crate::http::listen::{self, Bound};
use crate::http::tls::Certificate;

/// Requests under way get so long to finish after the signal.
const DRAIN: Duration = Duration::from_secs(5);
/// A given certificate is looked at so often.
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// Runs the registry until `stop` resolves, then stops in order.
///
/// # Errors
/// It could not start.
pub async fn run(config: Config, stop: impl Future<Output = &'static str>) -> Result<(), Failure> {
    let (auth, secret) = config.credentials().map_err(Failure::Config)?;
    let faults = config.faults();
    if !faults.is_empty() {
        return Err(Failure::Config(Faults(faults).to_string()));
    }
    let signer = Arc::new(Signer::new(&secret));
    files::private_dir(&config.state_dir).map_err(|e| {
        Failure::Config(format!("state_dir: {}: {e}; create it, or set another", config.state_dir.display()))
    })?;
    let certificate = Arc::new(Certificate::load(&config.tls, &config.state_dir).map_err(Failure::Config)?);
    let listeners = bind(&config)?;
    let store = store::open(config.store_place().expose(), config.store_ca_file.as_deref())
        .await
        .map_err(Failure::Unavailable)?;
    let trust = config.webhooks_ca_file.clone().map_or(Trust::System, Trust::Authorities);
    let (stopping, stored) = (CancellationToken::new(), store.clone());
    let context = Arc::new(Context {
        ingest: Ingest::start(&store),
        callers: Callers::new(store.clone(), signer.clone(), auth),
        store,
        signer,
        blind: RwLock::default(),
        unwritable: RwLock::default(),
        metrics: Metrics::default(),
        interval_s: config.interval_s,
        outbound: webhooks::Outbound { private: config.webhooks_private, trust },
        stopping: stopping.clone(),
    });
    // Before the first check-in or look: what was overdue while nobody ran is not called unreachable.
    if let Err(why) = sweep::sweep(&context, crate::clock::UnixMs::now()).await {
        tracing::warn!(error = %why, "the first sweep waits for the store");
    }
    let shared = shared(&config, &context, &certificate, &stopping);
    let tls = certificate.server_config().map_err(|e| Failure::Unavailable(e.to_string()))?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    for bound in listeners {
        announce(&bound, &certificate);
        shared.tasks.spawn(listen::accept(shared.clone(), bound, Some(acceptor.clone())));
    }
    let core = TaskTracker::new();
    core.spawn(sweep::run(context.clone(), stopping.clone()));
    core.spawn(webhooks::run(context, stopping.clone()));
    core.spawn(renew(certificate, stopping.clone()));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let signal = stop.await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tracing::info!(signal, "stopping");
    stopping.cancel();
    for tasks in [&shared.tasks, &core] {
        tasks.close();
        if timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!("not finished in time, cut off");
        }
    }
    if let Err(why) = stored.close().await {
        tracing::warn!(error = %why, "the store was not closed; the next start makes up for it");
    }
    Ok(())
}

fn bind(config: &Config) -> Result<Vec<Bound>, Failure> {
    let mut bound = Vec::new();
    if let Some(address) = config.tls_address {
        bound.push(Bound::Tls(listen::tcp(address).map_err(|e| Failure::Unavailable(format!("listen.tls: {e}")))?));
    }
    if let Some(address) = config.edge {
        bound.push(Bound::Edge(listen::tcp(address).map_err(|e| Failure::Unavailable(format!("listen.edge: {e}")))?));
    }
    Ok(bound)
}

fn shared(
    config: &Config,
    context: &Arc<Context>,
    certificate: &Certificate,
    stopping: &CancellationToken,
) -> Arc<Shared> {
    let metrics = &context.metrics;
    Arc::new(Shared {
        app: Arc::new(Registry(context.clone())),
        connections: Connections::new(config.max_connections, &metrics.connections, &metrics.evicted),
        streams: Arc::new(Semaphore::new(config.max_connections / 4)),
        local_root_only: true,
        host_names: config.tls.server_names.iter().cloned().chain(certificate.names()).collect(),
        tasks: TaskTracker::new(),
        stop: stopping.clone(),
    })
}

fn announce(bound: &Bound, certificate: &Certificate) {
    let (listener, address) = bound.describe();
    let fingerprint = certificate.fingerprint().lock().map(|f| f.clone()).unwrap_or_default();
    if let Some(certificate_sha256) = fingerprint.filter(|_| listener == "tls") {
        tracing::info!(listener, address, certificate_sha256, "listening");
    } else {
        tracing::info!(listener, address, "listening");
    }
}

/// Takes a renewed certificate over.
async fn renew(certificate: Arc<Certificate>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(RENEW_EVERY) => {}
        }
        if let Err(why) = certificate.reload() {
            tracing::error!(error = why, "the certificate cannot be read, the last good one stays in force");
        }
    }
}
