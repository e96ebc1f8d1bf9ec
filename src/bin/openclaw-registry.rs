//! The registry: everything is in the library, see `openclaw_sidecar::registry::cli`.

use std::process::ExitCode;

/// musl's allocator has one lock, which several threads would wait for.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    openclaw_sidecar::registry::cli::main(std::env::args_os(), &openclaw_sidecar::config::process_env())
}
