//! The daemon's life: build everything, bind, run until told to stop, stop in order.

mod diagnosis;

use std::collections::HashSet;
use std::fs::File;
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::Either;
use sd_notify::NotifyState;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, About, Context, Control};
use crate::audit::Audit;
use crate::auth::Auth;
use crate::checkin::destination::Destination;
use crate::checkin::wire::Intent;
use crate::checkin::{self, BYE, CheckIns};
use crate::clock::RegistryClock;
use crate::config::{self, Config, Fault, fault};
use crate::desired::history::DECOMMISSIONED;
use crate::files;
use crate::gateway::identity::Identity;
use crate::gateway::{Gateway, connection};
use crate::harden;
use crate::http::Shared;
use crate::http::connections::Connections;
use crate::http::listen::{self, Bound};
use crate::http::serve::random_id;
use crate::http::tls::Certificate;
use crate::launcher::handle::{self, Handle};
use crate::metrics::Metrics;
use crate::op::decommission::Decommission;
use crate::op::desired::Desired;
use crate::op::lifecycle::{self, Lifecycle};
use crate::op::pairing::Pairings;
use crate::op::secrets::Secrets;
use crate::state::{Code, Found, State};
use crate::suspend::{self, Clocks};
use crate::watch::Watch;

/// Requests under way get so long to finish after the signal.
const DRAIN: Duration = Duration::from_secs(3);
/// Files are looked at so often even without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Several writes of one change arrive as one.
const SETTLE: Duration = Duration::from_millis(100);

/// Why the daemon does not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration cannot work: nothing changes by trying again.
    #[error("{0}")]
    Config(String),
    /// Another process or the system stands in the way.
    #[error("{0}")]
    Unavailable(String),
}

/// What would keep the daemon from starting, beyond the form of its configuration: nobody could call, or a given
/// certificate cannot be used.
pub fn faults(config: &Config) -> Vec<Fault> {
    let auth = Auth::load(&config.auth).err().map(|why| fault("auth", &why));
    let given = config.tls.cert_file.is_some() && config.tls.key_file.is_some();
    let certificate = given.then(|| Certificate::load(&config.tls, &config.state_dir).err()).flatten();
    let registry = checkin::faults(config).into_iter().map(|(key, why)| fault(key, &why));
    auth.into_iter().chain(certificate.map(|why| Fault::said(&why))).chain(registry).collect()
}

/// What the daemon needs of the machine; everything else can be given up.
pub fn limits(config: &Config, launched: bool) -> harden::Limits {
    let mut limits = harden::Limits::base();
    limits.write.push(config.state_dir.clone());
    limits.write.extend(config.listen.unix.as_ref().and_then(|path| path.parent()).map(Path::to_owned));
    let given = [&config.auth.credentials_file, &config.tls.cert_file, &config.tls.key_file];
    let registry = [&config.registry.credential_file, &config.registry.ca_file];
    let more = [&config.gateway.token_file, &config.machine.secret_file, &config.launch.desired_file];
    for file in given.into_iter().chain(more).chain(registry).flatten() {
        limits = limits.with_file(file);
    }
    if let Some(file) = config.gateway.config_path.as_ref().filter(|_| !launched) {
        limits = limits.with_file(file);
    }
    limits.bind.extend([config.listen.tls, config.listen.edge].into_iter().flatten().map(|address| address.port()));
    limits.connect.push(config.gateway.address.port());
    let registry = config.registry.url.as_deref().map(|url| Destination::parse(url, config.registry.allow_private));
    limits.connect.extend(registry.and_then(Result::ok).map(|registry| registry.port()));
    limits
}

/// Runs the daemon until `stop` resolves to its reason, then stops in order: goodbye is said, no new connections,
/// requests under way finish, the gateway's session closes, the audit is durable.
///
/// # Errors
/// It could not start.
pub async fn run(
    config: Config,
    env: config::Env,
    hardening: harden::Report,
    launcher: Option<UnixStream>,
    stop: impl Future<Output = &'static str>,
) -> Result<(), Failure> {
    let auth = Auth::load(&config.auth).map_err(Failure::Config)?;
    files::private_dir(&config.state_dir).map_err(|e| {
        Failure::Config(format!("state_dir: {}: {e}; create it, or set another", config.state_dir.display()))
    })?;
    let _lock = lock(&config.state_dir)?;
    let in_state = |name: &str| config.state_dir.join(name);

    let certificate = Arc::new(Certificate::load(&config.tls, &config.state_dir).map_err(Failure::Config)?);
    let identity = Identity::load_or_create(&in_state("identity.pk8")).map_err(unusable)?;
    let audit = Audit::open(&config.state_dir).map_err(unusable)?;
    let state = State::new(random_id());
    let launcher = launcher.map(handle::new);
    let handle = launcher.as_ref().map(|(handle, ..)| handle.clone());
    let registry_clock = RegistryClock::default();
    let (secrets, given) = Secrets::load(&config, env.clone(), audit.clone()).map_err(Failure::Config)?;
    let (connection, gateway, notices) = connection::new(config.gateway.clone(), given, identity, handle.clone());
    let metrics = Arc::new(Metrics::default());
    let served = if config.listen.tls.is_some() { certificate.fingerprint() } else { Arc::default() };
    let sources = checkin::Sources {
        env: &env,
        state: &state,
        gateway: &gateway,
        metrics: &metrics,
        certificate: &served,
        registry_clock: &registry_clock,
    };
    let checkins = CheckIns::start(&config, sources, handle.is_some());
    let launch = handle.map(|handle| launch_mode(&config, handle, &gateway, &state, &audit, secrets, &checkins));
    let launch = launch.transpose().map_err(Failure::Config)?;
    let pairings = Pairings::load(gateway.clone(), state.clone(), audit.clone(), in_state("approvals.json"));
    let pairings = Arc::new(pairings.await.map_err(unusable)?);

    let listeners = bind(&config, &state)?;
    let about = announce(&listeners, hardening, served);
    let watch = diagnosis::watch(&config, &env, launch.as_ref(), &state, &gateway, certificate.clone(), registry_clock);
    let following = launch.as_ref().map(|launch| (launch.lifecycle.clone(), launch.desired.clone()));
    let resume = lifecycle::resume(&gateway, &checkins, &state);
    let context = Context {
        launch,
        state: state.clone(),
        gateway,
        pairings: pairings.clone(),
        audit: audit.clone(),
        auth: auth.clone(),
        checkins: checkins.clone(),
        metrics,
        about,
        stopping: CancellationToken::new(),
    };
    let shared = serve(context, listeners, &config, &certificate)?;
    // What calls under way still need ends after them.
    let (core, last) = (TaskTracker::new(), CancellationToken::new());
    core.spawn(connection.run(last.clone()));
    core.spawn(pairings.observe(notices, last.clone()));
    core.spawn(watch.run(last.clone()));
    core.spawn(keep_fresh(auth, certificate, state, checkins.clone(), last.clone()));
    core.spawn(checkins.clone().follow(audit, last.clone()));
    let mut farewell = None;
    let launcher_gone = if let (Some((_, link, news)), Some((lifecycle, desired))) = (launcher, following) {
        core.spawn(lifecycle.clone().follow(desired, news, last.clone()));
        farewell = Some(lifecycle);
        Either::Left(link.run())
    } else {
        core.spawn(suspend::watch(Clocks::now, resume, last.clone()));
        Either::Right(std::future::pending())
    };
    core.spawn(watchdog(last.clone()));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    // Kept to the end: a launcher that finds the line cut takes us for broken.
    tokio::pin!(launcher_gone);
    let planned = tokio::select! {
        // What the launcher said last comes before its signal: whether the machine sleeps or stops.
        biased;
        () = &mut launcher_gone => None,
        why = stop => Some(why),
    };
    tokio::join!(say_goodbye(planned, farewell, &checkins), stop_in_order(&shared, &core, &last));
    Ok(())
}

/// Begins to answer calls.
fn serve(
    context: Context,
    listeners: Vec<Bound>,
    config: &Config,
    certificate: &Arc<Certificate>,
) -> Result<Arc<Shared>, Failure> {
    let metrics = &context.metrics;
    let shared = Arc::new(Shared {
        connections: Connections::new(config.max_connections, &metrics.connections, &metrics.evicted),
        streams: Arc::new(Semaphore::new(config.max_connections / 4)),
        local_root_only: context.launch.is_some() && one_user_with_the_launcher(),
        host_names: host_names(config, certificate),
        tasks: TaskTracker::new(),
        stop: context.stopping.clone(),
        app: Arc::new(Control(Arc::new(context))),
    });
    let tls = certificate.server_config().map_err(|e| Failure::Unavailable(e.to_string()))?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    for bound in listeners {
        shared.tasks.spawn(listen::accept(shared.clone(), bound, Some(acceptor.clone())));
    }
    Ok(shared)
}

async fn say_goodbye(planned: Option<&str>, launched: Option<Lifecycle>, checkins: &CheckIns) {
    match (planned, launched) {
        // Nobody meant this: the registry is to see that the machine went silent.
        (None, _) => tracing::warn!("the launcher is gone"),
        (Some(_), Some(lifecycle)) => lifecycle.say_last_goodbye().await,
        (Some(why), None) => checkins.bye(Intent::Stop, why, BYE).await,
    }
}

/// A damaged file stays damaged; a failing disk may recover.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn unusable(e: std::io::Error) -> Failure {
    match e.kind() {
        std::io::ErrorKind::Other => Failure::Config(e.to_string()),
        _ => Failure::Unavailable(e.to_string()),
    }
}

async fn stop_in_order(shared: &Shared, core: &TaskTracker, last: &CancellationToken) {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    tracing::info!("stopping");
    shared.stop.cancel();
    drained(&shared.tasks, "calls under way").await;
    last.cancel();
    drained(core, "the gateway's session").await;
}

fn launch_mode(
    config: &Config,
    launcher: Handle,
    gateway: &Gateway,
    state: &State,
    audit: &Audit,
    secrets: Secrets,
    checkins: &CheckIns,
) -> Result<api::Launch, String> {
    let desired = Arc::new(Desired::load(config, launcher.clone(), state.clone(), audit.clone())?);
    let secrets = Arc::new(secrets);
    let lifecycle = Lifecycle {
        launcher,
        gateway: gateway.clone(),
        state: state.clone(),
        audit: audit.clone(),
        secrets: secrets.clone(),
        checkins: checkins.clone(),
        decommissioned: config.state_dir.join(DECOMMISSIONED),
    };
    let decommission =
        Decommission::new(lifecycle.clone(), desired.clone(), secrets.clone(), audit.clone(), &config.state_dir);
    Ok(api::Launch { lifecycle, desired, secrets, decommission })
}

/// A launcher that is not root runs everything as its own user, the gateway too.
fn one_user_with_the_launcher() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let parent = format!("/proc/{}", nix::unistd::getppid());
    std::fs::metadata(parent).is_ok_and(|found| found.uid() == nix::unistd::geteuid().as_raw())
}

/// Tells a service manager that this loop turns, twice as often as it wants to know.
async fn watchdog(stop: CancellationToken) {
    let Some(every) = sd_notify::watchdog_enabled() else { return };
    while tokio::time::timeout(every / 2, stop.cancelled()).await.is_err() {
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}

async fn drained(tasks: &TaskTracker, what: &str) {
    tasks.close();
    if timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!(what, "not finished in time, cut off");
    }
}

/// Two daemons on one state directory would break each other's audit.
fn lock(state_dir: &Path) -> Result<nix::fcntl::Flock<File>, Failure> {
    let path = state_dir.join("lock");
    let file = files::open_append(&path).map_err(|e| Failure::Unavailable(e.to_string()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| {
        Failure::Unavailable(format!("{}: another openclaw-sidecar runs with this state_dir", path.display()))
    })
}

fn bind(config: &Config, state: &State) -> Result<Vec<Bound>, Failure> {
    let mut bound = Vec::new();
    if let Some(address) = config.listen.tls {
        let listener = listen::tcp(address).map_err(|e| Failure::Unavailable(format!("listen.tls: {e}")))?;
        bound.push(Bound::Tls(listener));
    }
    if let Some(address) = config.listen.edge {
        let listener = listen::tcp(address).map_err(|e| Failure::Unavailable(format!("listen.edge: {e}")))?;
        bound.push(Bound::Edge(listener));
    }
    if let Some(path) = &config.listen.unix {
        match listen::unix(path) {
            Ok(listener) => bound.push(listener),
            Err(e) if bound.is_empty() => return Err(Failure::Unavailable(format!("listen.unix: {e}"))),
            Err(e) => {
                tracing::warn!(error = %e, "the local socket is not available");
                let found = Found::new(format!("the local socket is not available: {e}"));
                state.publish(|d| d.snapshot.set_finding(Code::LocalSocketUnavailable, Some(found)));
            }
        }
    }
    Ok(bound)
}

/// Says where it listens, and with which certificate.
fn announce(listeners: &[Bound], hardening: harden::Report, certificate: Arc<Mutex<Option<String>>>) -> About {
    let listeners = listeners.iter().map(Bound::describe).collect();
    let about = About { started: Instant::now(), listeners, hardening, certificate_sha256: certificate };
    for (listener, address) in &about.listeners {
        let fingerprint = about.certificate_sha256.lock().map(|f| f.clone()).unwrap_or_default();
        if let Some(certificate_sha256) = fingerprint.filter(|_| *listener == "tls") {
            tracing::info!(listener, address, certificate_sha256, "listening");
        } else {
            tracing::info!(listener, address, "listening");
        }
    }
    about
}

fn host_names(config: &Config, certificate: &Certificate) -> HashSet<String> {
    config.tls.server_names.iter().cloned().chain(certificate.names()).collect()
}

/// Follows changes of the credentials file and the certificate, and says what is wrong with them.
async fn keep_fresh(
    auth: Auth,
    certificate: Arc<Certificate>,
    state: State,
    checkins: CheckIns,
    stop: CancellationToken,
) {
    let mut files: Vec<PathBuf> = auth.file().into_iter().cloned().collect();
    files.extend(certificate.files().into_iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]));
    let watch = Watch::new(&files);
    // Without files there is nothing to look at.
    let every = if files.is_empty() { Duration::from_secs(3600) } else { LOOK_EVERY };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = watch.hint() => sleep(SETTLE).await,
            () = sleep(every) => {}
        }
        auth.look_now();
        let credentials = auth
            .fault()
            .map(|why| Found::new(format!("the credentials cannot be read, the last good ones stay in force: {why}")));
        let certificate = certificate
            .reload()
            .err()
            .map(|why| Found::new(format!("the certificate cannot be read, the last good one stays in force: {why}")));
        state.publish(|draft| {
            draft.snapshot.set_finding(Code::CredentialsUnreadable, credentials);
            draft.snapshot.set_finding(Code::CertificateUnreadable, certificate);
        });
        checkins.look();
    }
}
