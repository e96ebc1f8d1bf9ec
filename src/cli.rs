//! The command line: for the operator on the machine, over the local socket, and for setting things up.
//!
//! Tables for people, `--json` for programs, exit codes for both (see `--help`).

mod client;
mod doctor;
pub(crate) mod frame;
mod pairing;
mod setup;
mod show;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::keys;
use crate::config::{Config, Env};
use crate::daemon;
use crate::harden;
use crate::launcher::output::Output;
use crate::launcher::{self, layout, seed};
use client::Client;
use frame::{exit, log, out, stop_signal};
use setup::{registry_credential, token, verify};

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

Exit codes: 0 done (status: ready) | 1 no (status: not ready; doctor: errors; refused; not found) | 64 usage | 69 daemon not \
reachable | 75 try again later | 78 configuration";

#[derive(Debug, Subcommand)]
enum Command {
    /// Launch a gateway and stay beside it: `run -- node dist/index.js gateway`; without a command, only run the daemon
    /// beside a gateway that somebody else starts
    Run {
        /// The gateway's command
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// The daemon, as the launcher starts it
    #[command(hide = true)]
    Daemon,
    /// The process that becomes the gateway, as the launcher starts it
    #[command(hide = true, subcommand)]
    Seed(seed::Mission),
    /// Move a tenant whose files lie directly in the volume into the layout (the launcher does it by itself)
    Migrate {
        /// Say what would be done, and touch nothing
        #[arg(long, required = true)]
        dry_run: bool,
    },
    /// Show what the machine is doing; exit code 0 only while the gateway is ready
    Status(StatusArgs),
    /// Say what is wrong on this machine and what to do, worst first; exit code 1 if there are errors. (OpenClaw's own
    /// doctor, which repairs a gateway's files, is `POST /v1/gateway/doctor`)
    Doctor {
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Start, stop or restart the gateway (launch mode)
    #[command(subcommand)]
    Gateway(GatewayCommand),
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

#[derive(Clone, Copy, Debug, Subcommand)]
enum GatewayCommand {
    /// Start it if it does not run
    Start,
    /// Stop it; it stays stopped until it is started
    Stop,
    /// Stop and start it
    Restart,
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
        /// May grant to others what cannot be undone
        #[arg(long)]
        approver: bool,
        /// Print one JSON object {token, entry}
        #[arg(long)]
        json: bool,
    },
    /// Print the SHA-256 of a token read from standard input
    Hash,
    /// Print the SHA-256 of this machine's credential for the registry, for creating its tenant there
    Registry,
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
    let args: Vec<_> = args.collect();
    let announced = args.iter().any(|word| word == "--");
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
        Command::Run { command } if command.is_empty() && announced => {
            err(
                "run: no gateway command follows `--`; without `--` the daemon runs beside a gateway that somebody else starts",
            );
            exit::USAGE
        }
        Command::Run { command } if command.is_empty() => with_config(load_to_run(), |config| {
            log(&config.log, std::io::stderr);
            run(config, env.clone(), None)
        }),
        Command::Run { command } => launch(file.as_deref(), env, command),
        Command::Daemon => daemon(file.as_deref(), env),
        Command::Seed(mission) => seeding(file.as_deref(), env, mission),
        Command::Migrate { .. } => with_config(load(), |config| migrate(&config)),
        Command::Status(args) => with_config(load(), |config| status(&config, &args)),
        Command::Doctor { json } => doctor::run(file.as_deref(), env, json),
        Command::Gateway(command) => with_config(load(), |config| gateway(&config, command)),
        Command::Pairing(command) => with_config(load(), |config| pairing::run(&config, command)),
        Command::Token(TokenCommand::Registry) => with_config(load(), |config| registry_credential(&config)),
        Command::Token(command) => token(command),
        Command::Audit(AuditCommand::Verify { dir: Some(dir) }) => verify(&dir),
        Command::Audit(AuditCommand::Verify { dir: None }) => {
            with_config(load(), |config| verify(&config.state_dir_in_use()))
        }
        Command::Config(ConfigCommand::Check) => with_config(load_to_run(), |_| {
            out("ok\n");
            exit::OK
        }),
        Command::Config(ConfigCommand::Init) => {
            out(&keys::SIDECAR.example());
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

/// Launch mode. What only the daemon needs may be wrong: the gateway runs, and the daemon says what to correct.
fn launch(file: Option<&Path>, env: &Env, command: Vec<String>) -> u8 {
    let (config, others) = match Config::load_to_launch(file, env) {
        Ok(loaded) => loaded,
        Err(faults) => {
            err(&faults.to_string());
            return exit::CONFIG;
        }
    };
    if let Err(e) = harden::close_inherited() {
        err(&format!("inherited descriptors: {e}"));
    }
    if let Err(failure) = launcher::block_signals() {
        err(&failure.to_string());
        return exit::UNAVAILABLE;
    }
    let output = match Output::start() {
        Ok(output) => output,
        Err(e) => {
            err(&format!("output: {e}"));
            return exit::UNAVAILABLE;
        }
    };
    let writer = output.clone();
    log(&config.log, move || writer.clone());
    for fault in others.0 {
        tracing::error!(key = fault.key, "{}", fault.what);
    }
    let mut env = env.clone();
    if let Some(file) = file {
        env.insert("OPENCLAW_SIDECAR_CONFIG".to_owned(), file.display().to_string());
    }
    match launcher::run(config, env, command, output) {
        Ok(()) => exit::OK,
        Err(failure) => {
            err(&failure.to_string());
            if matches!(failure, launcher::Failure::Config(_)) { exit::CONFIG } else { exit::UNAVAILABLE }
        }
    }
}

/// The daemon under a launcher: its standard input is the way to it.
fn daemon(file: Option<&Path>, env: &Env) -> u8 {
    use std::os::fd::AsFd as _;
    let _ = harden::unblock_signals();
    let _ = harden::close_inherited();
    let loaded = Config::load_for(file, env, |config| daemon::faults(&config.clone().for_launch()));
    with_config(loaded, |config| {
        log(&config.log, std::io::stderr);
        match std::io::stdin().as_fd().try_clone_to_owned() {
            Ok(stdin) => run(config.for_launch(), env.clone(), Some(stdin.into())),
            Err(e) => {
                err(&format!("standard input: {e}"));
                exit::UNAVAILABLE
            }
        }
    })
}

fn seeding(file: Option<&Path>, env: &Env, mission: seed::Mission) -> u8 {
    let _ = harden::unblock_signals();
    let _ = harden::close_inherited();
    let config = match Config::load_to_launch(file, env) {
        Ok((config, _)) => config,
        Err(faults) => {
            err(&faults.to_string());
            return exit::CONFIG;
        }
    };
    log(&config.log, std::io::stderr);
    match seed::run(mission, &config, env) {
        Ok(code) => code,
        Err(why) => {
            err(&why);
            exit::UNAVAILABLE
        }
    }
}

fn migrate(config: &Config) -> u8 {
    match layout::dry_run(&config.launch.volume) {
        Ok(lines) => {
            out(&(lines.join("\n") + "\n"));
            exit::OK
        }
        Err(refused) => {
            err(&refused.to_string());
            exit::NO
        }
    }
}

/// Gives up what the daemon does not need, before any thread starts.
fn harden(config: &Config, launched: bool) -> Result<harden::Report, String> {
    // What does not exist now stays out of reach; why it cannot be made is said when it is used.
    let _ = crate::files::private_dir(&config.state_dir);
    let _ = config.listen.unix.as_deref().map(crate::http::listen::socket_dir);
    let report = harden::apply(&daemon::limits(config, launched));
    match report.complete() {
        Err(why) if config.hardening_required => Err(format!("hardening.mode is require: {why}")),
        Err(why) => {
            tracing::warn!(why, "not every layer of hardening holds");
            Ok(report)
        }
        Ok(()) => Ok(report),
    }
}

fn run(config: Config, env: Env, launcher: Option<UnixStream>) -> u8 {
    let hardening = match harden(&config, launcher.is_some()) {
        Ok(report) => report,
        Err(why) => {
            tracing::error!("{why}");
            return exit::CONFIG;
        }
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let result = runtime.block_on(async { daemon::run(config, env, hardening, launcher, stop_signal()?).await });
    // What is still under way in other threads (a read of the audit, say) is not waited for.
    runtime.shutdown_background();
    frame::ended(result)
}

fn runtime() -> Result<tokio::runtime::Runtime, u8> {
    // One thread: a tenant's machine often has one small core, and the work is waiting.
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build().map_err(|e| {
        err(&format!("no runtime: {e}"));
        exit::UNAVAILABLE
    })
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

fn gateway(config: &Config, command: GatewayCommand) -> u8 {
    let path = match command {
        GatewayCommand::Start => "/v1/gateway/start?wait_s=60",
        GatewayCommand::Stop => "/v1/gateway/stop?wait_s=60",
        GatewayCommand::Restart => "/v1/gateway/restart?wait_s=60",
    };
    match Client::new(config).and_then(|client| client.post(path, &serde_json::json!({}))) {
        Ok(reply) if reply.status == 200 => {
            out(&show::order(&reply.body));
            if reply.body["outcome"] == "done" { exit::OK } else { exit::TRY_LATER }
        }
        Ok(reply) => {
            err(&show::problem(&reply.body));
            if reply.body["retryable"] == true { exit::TRY_LATER } else { exit::NO }
        }
        Err(why) => {
            err(&why);
            exit::UNAVAILABLE
        }
    }
}

fn err(text: &str) {
    frame::err("openclaw-sidecar", text);
}
