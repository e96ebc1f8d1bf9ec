//! The sidecar: everything is in the library, see `openclaw_sidecar::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    openclaw_sidecar::cli::main(std::env::args_os(), &openclaw_sidecar::config::process_env())
}
