//! The command line: for the operator on the machine, over the local socket, and for setting things up.
//!
//! Tables for people, `--json` for programs, exit codes for both (see `--help`).

mod client;
mod pairing;
mod show;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::audit::chain;
use crate::auth::Tier;
use crate::auth::credentials::{Token, entry_json};
use crate::config::keys;
use crate::config::{Config, Env};
use crate::daemon::{self, Failure};
use client::Client;

/// Exit codes, after sysexits(3).
mod exit {
    /// Done; for `status`: the gateway is ready.
    pub(super) const OK: u8 = 0;
    /// Not so; for `status`: the gateway is not ready.
    pub(super) const NO: u8 = 1;
    /// The command line is wrong.
    pub(super) const USAGE: u8 = 64;
    /// The daemon is not reachable, or could not start.
    pub(super) const UNAVAILABLE: u8 = 69;
    /// The same may work later.
    pub(super) const TRY_LATER: u8 = 75;
    /// The configuration is wrong.
    pub(super) const CONFIG: u8 = 78;
}

/// The control daemon beside an OpenClaw gateway.
#[derive(Debug, Parser)]
#[command(name = "openclaw-sidecar", version, after_help = EXIT_HELP)]
struct Cli {
    /// Configuration file [default: /etc/openclaw-sidecar/sidecar.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXIT_HELP: &str = "Every configuration key can be set as an environment variable OPENCLAW_SIDECAR_*; \
`config init` lists them.

Exit codes: 0 done (status: ready) | 1 no (status: not ready; refused; not found) | 64 usage | 69 daemon not \
reachable | 75 try again later | 78 configuration";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon beside a gateway that somebody else starts
    Run,
    /// Show what the machine is doing; exit code 0 only while the gateway is ready
    Status(StatusArgs),
    /// What waits for approval, and approving it
    #[command(subcommand)]
    Pairing(pairing::Command),
    /// Make credentials for callers of the API
    #[command(subcommand)]
    Token(TokenCommand),
    /// The record of who did what
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// Print the state as JSON
    #[arg(long)]
    json: bool,
    /// Print nothing: only the exit code counts (for a HEALTHCHECK)
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token: the token goes to its holder, the JSON entry into the credentials file
    New {
        /// Name of the holder in log and audit
        #[arg(long, default_value = "control-plane")]
        id: String,
        /// safe (read only) or dangerous (may approve)
        #[arg(long, default_value = "dangerous", value_parser = ["safe", "dangerous"])]
        tier: String,
        /// Print one JSON object {token, entry}
        #[arg(long)]
        json: bool,
    },
    /// Print the SHA-256 of a token read from standard input
    Hash,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check that no record was changed, removed or swapped
    Verify {
        /// Directory that holds the audit [default: `state_dir`]
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the configuration; all errors at once
    Check,
    /// Print a commented example with every key
    Init,
}

/// Parses the command line and does what it says.
pub fn main(args: impl Iterator<Item = std::ffi::OsString>, env: &Env) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let file = cli.config.or_else(|| env.get("OPENCLAW_SIDECAR_CONFIG").map(PathBuf::from));
    let load = || Config::load(file.as_deref(), env);
    let load_to_run = || Config::load_for(file.as_deref(), env, daemon::faults);
    ExitCode::from(match cli.command {
        Command::Run => with_config(load_to_run(), |config| run(config, env.clone())),
        Command::Status(args) => with_config(load(), |config| status(&config, &args)),
        Command::Pairing(command) => with_config(load(), |config| pairing::run(&config, command)),
        Command::Token(command) => token(command),
        Command::Audit(AuditCommand::Verify { dir: Some(dir) }) => verify(&dir),
        Command::Audit(AuditCommand::Verify { dir: None }) => with_config(load(), |config| verify(&config.state_dir)),
        Command::Config(ConfigCommand::Check) => with_config(load_to_run(), |_| {
            out("ok\n");
            exit::OK
        }),
        Command::Config(ConfigCommand::Init) => {
            out(&keys::example());
            exit::OK
        }
    })
}

fn with_config(loaded: Result<Config, crate::config::Faults>, go: impl FnOnce(Config) -> u8) -> u8 {
    match loaded {
        Ok(config) => go(config),
        Err(faults) => {
            err(&faults.to_string());
            exit::CONFIG
        }
    }
}

fn run(config: Config, env: Env) -> u8 {
    log(&config);
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let result = runtime.block_on(async {
        let stop = stop_signal().map_err(|e| Failure::Unavailable(format!("signals: {e}")))?;
        daemon::run(config, env, stop).await
    });
    // What is still under way in other threads (a read of the audit, say) is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => exit::OK,
        Err(failure) => {
            tracing::error!("{failure}");
            match failure {
                Failure::Config(_) => exit::CONFIG,
                Failure::Unavailable(_) => exit::UNAVAILABLE,
            }
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, u8> {
    // One thread: a tenant's machine often has one small core, and the work is waiting.
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().map_err(|e| {
        err(&format!("no runtime: {e}"));
        exit::UNAVAILABLE
    })
}

/// Resolves at SIGTERM or SIGINT alike: platforms differ in which one they send.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

fn log(config: &Config) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(config.log.level)
        .with_ansi(false)
        .with_target(false);
    if config.log.json { builder.json().init() } else { builder.init() }
}

fn status(config: &Config, args: &StatusArgs) -> u8 {
    let state = match Client::new(config).and_then(|client| client.get("/v1/state")) {
        Ok(reply) => reply,
        Err(why) if args.quiet => {
            tracing::debug!(why, "status");
            return exit::UNAVAILABLE;
        }
        Err(why) => {
            err(&why);
            return exit::UNAVAILABLE;
        }
    };
    if args.json {
        out(&show::pretty(&state.body));
    } else if !args.quiet {
        out(&show::state(&state.body));
    }
    if state.body["phase"] == "ready" { exit::OK } else { exit::NO }
}

fn token(command: TokenCommand) -> u8 {
    match command {
        TokenCommand::New { id, tier, json } => {
            let tier = if tier == "safe" { Tier::Safe } else { Tier::Dangerous };
            let token = match Token::random() {
                Ok(token) => token,
                Err(why) => {
                    err(&why);
                    return exit::UNAVAILABLE;
                }
            };
            let entry = entry_json(&id, &token, tier);
            if let Err(why) = crate::auth::credentials::parse(&format!("[{entry}]")) {
                err(&why);
                return exit::USAGE;
            }
            if json {
                out(&format!("{{\"token\":\"{}\",\"entry\":{entry}}}\n", token.expose()));
            } else {
                out(&format!("token for the holder (shown only now):\n  {}\n\n", token.expose()));
                out(&format!("entry for the credentials file (a JSON list of such entries):\n  {entry}\n"));
            }
            exit::OK
        }
        TokenCommand::Hash => {
            let mut text = String::new();
            let read = std::io::stdin().take(4096).read_to_string(&mut text).map_err(|e| e.to_string());
            match read.and_then(|_| Token::parse(&text)) {
                Ok(token) => {
                    out(&format!("{}\n", token.sha256()));
                    exit::OK
                }
                Err(why) => {
                    err(&why);
                    exit::NO
                }
            }
        }
    }
}

fn verify(dir: &std::path::Path) -> u8 {
    let files = chain::segments(dir);
    if files.is_empty() {
        err(&format!("{}: holds no audit", dir.display()));
        return exit::NO;
    }
    let mut count = 0u64;
    match chain::walk(&files, |_| count += 1) {
        Ok(Ok(head)) => {
            out(&format!("ok: {count} records, up to {} with hash {}\n", head.n, head.hash));
            set_aside(dir)
        }
        Ok(Err(broken)) => {
            err(&format!("BROKEN at record {}: {}", broken.n, broken.why));
            exit::NO
        }
        Err(e) => {
            err(&e.to_string());
            exit::UNAVAILABLE
        }
    }
}

/// Says so when an earlier chain was found broken and set aside by the daemon.
fn set_aside(dir: &std::path::Path) -> u8 {
    let names = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
    let mut broken: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    broken.retain(|name| name.starts_with("audit.broken-"));
    broken.sort();
    for name in &broken {
        err(&format!("BROKEN before that: {name} was set aside; keep it elsewhere once it is looked into"));
    }
    if broken.is_empty() { exit::OK } else { exit::NO }
}

/// Prints to standard output; a reader that left early is no error.
fn out(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn err(text: &str) {
    for line in text.lines() {
        let _ = writeln!(std::io::stderr(), "openclaw-sidecar: {line}");
    }
}
