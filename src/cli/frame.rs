//! What the command lines of both programs have in common.

use std::future::Future;
use std::io::Write as _;

use crate::config::Log;
use crate::daemon::Failure;

/// Exit codes, after sysexits(3).
pub(crate) mod exit {
    /// Done; for `status`: the gateway is ready.
    pub(crate) const OK: u8 = 0;
    /// Not so; for `status`: the gateway is not ready.
    pub(crate) const NO: u8 = 1;
    /// The command line is wrong.
    pub(crate) const USAGE: u8 = 64;
    /// The daemon is not reachable, or could not start.
    pub(crate) const UNAVAILABLE: u8 = 69;
    /// The same may work later.
    pub(crate) const TRY_LATER: u8 = 75;
    /// The configuration is wrong.
    pub(crate) const CONFIG: u8 = 78;
}

/// The exit code of a program that ran until it was told to stop, or could not.
pub(crate) fn ended(result: Result<(), Failure>) -> u8 {
    let Err(failure) = result else { return exit::OK };
    tracing::error!("{failure}");
    match failure {
        Failure::Config(_) => exit::CONFIG,
        Failure::Unavailable(_) => exit::UNAVAILABLE,
    }
}

/// Resolves at SIGTERM or SIGINT alike: platforms differ in which one they send.
///
/// # Errors
/// The signals cannot be waited for.
pub(crate) fn stop_signal() -> Result<impl Future<Output = &'static str>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Failure::Unavailable(format!("signals: {e}"));
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}

/// Begins the log.
pub(crate) fn log<W: std::io::Write + 'static>(log: &Log, writer: impl Fn() -> W + Send + Sync + 'static) {
    let builder = tracing_subscriber::fmt().with_writer(writer).with_max_level(log.level);
    let builder = builder.with_ansi(false).with_target(false);
    if log.json { builder.json().init() } else { builder.init() }
}

/// Prints to standard output; a reader that left early is no error.
pub(crate) fn out(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints to standard error, each line with the program's name.
pub(crate) fn err(program: &str, text: &str) {
    for line in text.lines() {
        let _ = writeln!(std::io::stderr(), "{program}: {line}");
    }
}
