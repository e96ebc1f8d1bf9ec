//! Listeners: bind first, so that addresses are known and errors come before anything runs; accept later.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::connections::{Permit, Use};
use super::serve::{Peer, serve};
use super::{FIRST_HEAD, HANDSHAKE, IDLE, Shared, WRITE};
use crate::auth::Principal;
use crate::files;

/// Heads up to this size are read; the credential check refuses long tokens itself.
const MAX_HEAD: usize = 128 * 1024;
/// Callers that wait in the kernel while a flood is paced.
const BACKLOG: u32 = 4096;
/// After a failed accept (usually: out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const LOG_EVERY: Duration = Duration::from_secs(1);

/// A bound listener that does not accept yet.
#[derive(Debug)]
pub enum Bound {
    /// HTTPS.
    Tls(TcpListener),
    /// Plain HTTP behind a platform edge.
    Edge(TcpListener),
    /// The local socket, its path, and its inode: the path is removed at the end if it is still ours.
    Unix(UnixListener, PathBuf, u64),
}

impl Bound {
    /// `tls`, `edge` or `unix`, and where.
    pub fn describe(&self) -> (&'static str, String) {
        let shown = |l: &TcpListener| l.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string());
        match self {
            Self::Tls(listener) => ("tls", shown(listener)),
            Self::Edge(listener) => ("edge", shown(listener)),
            Self::Unix(_, path, _) => ("unix", path.display().to_string()),
        }
    }
}

/// Binds a TCP address.
///
/// # Errors
/// The address is in use or not ours.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))
}

/// Makes the directory of the local socket, if it is not there.
///
/// # Errors
/// It cannot be made.
pub fn socket_dir(path: &Path) -> io::Result<()> {
    path.parent().filter(|dir| !dir.exists()).map_or(Ok(()), files::private_dir)
}

/// Binds the local socket, taking over one that an earlier process left. Its directory is made if missing.
///
/// # Errors
/// Something else lies at the path, or the directory cannot be made.
pub fn unix(path: &Path) -> io::Result<Bound> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    socket_dir(path).map_err(named)?;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(named(io::Error::other("another process listens there")));
            }
            files::remove_if_present(path)?;
        }
        Ok(_) => return Err(named(io::Error::other("something that is no socket lies there"))),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(named)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(named)?;
    let inode = fs::symlink_metadata(path).map_err(named)?.ino();
    Ok(Bound::Unix(listener, path.to_owned(), inode))
}

/// Accepts until `shared.stop`.
pub async fn accept(shared: Arc<Shared>, bound: Bound, tls: Option<TlsAcceptor>) {
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => break,
            accepted = accept_one(&shared, &bound, tls.as_ref()) => accepted,
        };
        if let Err(error) = accepted {
            if logged.is_none_or(|at| at.elapsed() > LOG_EVERY) {
                tracing::warn!(%error, listener = bound.describe().0, "a connection could not be accepted");
                logged = Some(Instant::now());
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }
    if let Bound::Unix(_, path, inode) = &bound
        && fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode)
    {
        let _ = files::remove_if_present(path);
    }
}

async fn accept_one(shared: &Arc<Shared>, bound: &Bound, tls: Option<&TlsAcceptor>) -> io::Result<()> {
    match bound {
        Bound::Tls(listener) | Bound::Edge(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let Some(permit) = admit(shared).await else { return Ok(()) };
            let shared = shared.clone();
            match (bound, tls.cloned()) {
                (Bound::Tls(_), Some(acceptor)) => shared.tasks.clone().spawn(async move {
                    if let Some(stream) = handshake(acceptor, stream, &permit).await {
                        permit.set(Use::Unproven);
                        connection(shared, stream, permit, None).await;
                    }
                }),
                _ => shared.tasks.clone().spawn(connection(shared, stream, permit, None)),
            };
        }
        Bound::Unix(listener, ..) => {
            let (stream, _) = listener.accept().await?;
            // The gateway's agent can reach this path too: only root and our own user are let in.
            let uid = stream.peer_cred()?.uid();
            let own = !shared.local_root_only && uid == nix::unistd::geteuid().as_raw();
            if uid != 0 && !own {
                return Ok(());
            }
            let Some(permit) = admit(shared).await else { return Ok(()) };
            permit.set(Use::Idle);
            shared.tasks.spawn(connection(shared.clone(), stream, permit, Some(Principal::local(uid))));
        }
    }
    Ok(())
}

/// A place for a new connection. At the cap this waits for a moment, and with it all that come after; `None` when
/// every place is busy.
async fn admit(shared: &Shared) -> Option<Permit> {
    // Let those that were accepted before speak first.
    tokio::task::yield_now().await;
    loop {
        match shared.connections.admit() {
            Ok(permit) => return Some(permit),
            Err(Some(at)) => sleep_until(at).await,
            Err(None) => return None,
        }
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    acceptor: TlsAcceptor,
    stream: S,
    permit: &Permit,
) -> Option<tokio_rustls::server::TlsStream<S>> {
    tokio::select! {
        shaken = timeout(HANDSHAKE, acceptor.accept(stream)) => shaken.ok()?.ok(),
        () = permit.evicted() => None,
    }
}

/// Serves one connection until it ends, idles too long, or has to give way.
async fn connection<S>(shared: Arc<Shared>, stream: S, permit: Permit, local: Option<Principal>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let peer = Arc::new(Peer { permit, local, served: AtomicBool::new(false) });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE));
    let service = {
        let (shared, peer) = (shared.clone(), peer.clone());
        service_fn(move |request| serve(shared.clone(), peer.clone(), request))
    };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_header_size(MAX_HEAD).max_buf_size(MAX_HEAD);
    let serving = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::pin!(serving);
    let first_head = Instant::now() + FIRST_HEAD;
    let mut stopping = false;
    loop {
        tokio::select! {
            // Errors of a connection concern its peer; the requests were logged one by one.
            _ = &mut serving => return,
            () = peer.permit.evicted() => return,
            () = sleep_until(first_head), if !peer.served.load(Ordering::Relaxed) => {
                if !peer.served.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = shared.stop.cancelled(), if !stopping => {
                stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
