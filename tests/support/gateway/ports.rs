//! Port ranges for gateways that run side by side, in one test process or in many.
//!
//! A gateway claims its port, port + 2 and more up to port + 110, so asking the system for one free port is not
//! enough. A range is held by a lock on a file, which the system drops with the process that held it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

// Below the range from which the system takes ports for outgoing connections.
const FIRST: u16 = 19_000;
const WIDTH: u16 = 120;
const COUNT: u16 = 110;

#[derive(Debug)]
pub(super) struct PortRange {
    base: u16,
    _lock: Flock<File>,
}

impl PortRange {
    /// Takes a range nobody else holds and whose important ports are free.
    pub(super) fn take() -> anyhow::Result<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/gateway-ports");
        fs::create_dir_all(&dir)?;
        // Start somewhere else in each process, so that parallel runs seldom try the same range.
        let start = (std::process::id() % u32::from(COUNT)) as u16;
        for turn in 0..COUNT {
            let slot = (start + turn) % COUNT;
            let base = FIRST + slot * WIDTH;
            let file = File::create(dir.join(base.to_string())).context("cannot create a port lock")?;
            let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
            if is_free(base) && is_free(base + 2) {
                return Ok(Self { base, _lock: lock });
            }
        }
        bail!("no free range of {WIDTH} ports from {FIRST} up")
    }

    pub(super) fn base(&self) -> u16 {
        self.base
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
