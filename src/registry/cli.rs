//! The registry's command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::config::{Config, REGISTRY};
use super::serve;
use super::store::sqlite;
use crate::cli::frame::{self, exit, out};
use crate::config::{Env, Faults};

/// Where OpenClaw sidecars phone home to, and support sees what is wrong and why.
#[derive(Debug, Parser)]
#[command(name = "openclaw-registry", version, after_help = EXIT_HELP)]
struct Cli {
    /// Configuration file [default: /etc/openclaw-registry/registry.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXIT_HELP: &str = "Every configuration key can be set as an environment variable OPENCLAW_REGISTRY_*; \
`config init` lists them.

Exit codes: 0 done | 64 usage | 69 could not start, or the database cannot be used | 78 configuration";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the registry until SIGTERM or SIGINT
    Serve,
    /// Copy the SQLite database to a new file, while the registry runs or not
    Backup {
        /// The new file
        file: PathBuf,
    },
    /// Put a backup in the place of the SQLite database; no registry may run with it
    Restore {
        /// The backup
        file: PathBuf,
    },
    /// Check or write the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print a commented example with every key
    Init,
    /// Say what is wrong with the configuration
    Check,
}

/// Runs the command line and says how it went.
pub fn main(args: impl Iterator<Item = OsString>, env: &Env) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    if let Command::Config { command: ConfigCommand::Init } = cli.command {
        out(&REGISTRY.example());
        return ExitCode::from(exit::OK);
    }
    let file = cli.config.or_else(|| env.get("OPENCLAW_REGISTRY_CONFIG").map(PathBuf::from));
    let config = match Config::load(file.as_deref(), env) {
        Ok(config) => config,
        Err(faults) => {
            err(&faults.to_string());
            return ExitCode::from(exit::CONFIG);
        }
    };
    ExitCode::from(match cli.command {
        Command::Serve => run(config),
        Command::Backup { file } => copy(&config, |database| sqlite::backup(database, &file), "written", &file),
        Command::Restore { file } => copy(&config, |database| sqlite::restore(&file, database), "restored", &file),
        Command::Config { .. } => check(&config),
    })
}

fn check(config: &Config) -> u8 {
    let files = Faults(config.faults()).to_string();
    let faults: Vec<String> =
        [config.credentials().err().unwrap_or_default(), files].into_iter().filter(|text| !text.is_empty()).collect();
    if faults.is_empty() {
        out("the configuration is fine\n");
        return exit::OK;
    }
    err(&faults.join("\n"));
    exit::CONFIG
}

fn copy(config: &Config, work: impl FnOnce(&Path) -> Result<(), String>, done: &str, file: &Path) -> u8 {
    let place = config.store_place();
    if place.expose().starts_with("postgres") {
        err("store: PostgreSQL has tools of its own: pg_dump and pg_restore");
        return exit::USAGE;
    }
    match work(Path::new(place.expose())) {
        Ok(()) => {
            out(&format!("{done}: {}\n", file.display()));
            exit::OK
        }
        Err(why) => {
            err(&why);
            exit::UNAVAILABLE
        }
    }
}

fn run(config: Config) -> u8 {
    frame::log(&config.log, std::io::stderr);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            err(&format!("no runtime: {e}"));
            return exit::UNAVAILABLE;
        }
    };
    let result = runtime.block_on(async { serve::run(config, frame::stop_signal()?).await });
    runtime.shutdown_background();
    frame::ended(result)
}

fn err(text: &str) {
    frame::err("openclaw-registry", text);
}
