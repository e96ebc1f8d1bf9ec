//! Who listens at the gateway's port: its token is for the gateway alone, and while that boots anybody may listen there.

use std::net::SocketAddr;
use std::path::Path;

use crate::files;
use crate::launcher::handle::Handle;
use crate::launcher::verbs::Verb;

/// The kernel's table of sockets, at most: a machine with more connections has other worries.
const MAX_TABLE: u64 = 16 * 1024 * 1024;
/// State LISTEN in that table.
const LISTEN: &str = "0A";

/// The sockets that a connection to `address` may reach, as inode and user; none while nothing listens.
fn listening(address: SocketAddr) -> Vec<(u64, u32)> {
    let read = |name: &str| files::read_text(Path::new(name), MAX_TABLE).unwrap_or_default();
    let tables = read("/proc/net/tcp") + &read("/proc/net/tcp6");
    reachable(&tables, address.port())
}

/// The user whose process listens at `address`, as the kernel has it; `None` while nobody does.
pub fn owner(address: SocketAddr) -> Option<u32> {
    listening(address).first().map(|(_, uid)| *uid)
}

/// A socket on the loopback address goes before one on all addresses, so only that one counts where there is one.
fn reachable(tables: &str, port: u16) -> Vec<(u64, u32)> {
    let (mut exact, mut wild) = (Vec::new(), Vec::new());
    for line in tables.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (Some(local), Some(&LISTEN), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else { continue };
        let Some((host, found)) = local.split_once(':') else { continue };
        let (Ok(inode), Ok(uid)) = (inode.parse(), fields[7].parse()) else { continue };
        if u16::from_str_radix(found, 16) == Ok(port) {
            let all = host.bytes().all(|digit| digit == b'0');
            if all { wild.push((inode, uid)) } else { exact.push((inode, uid)) }
        }
    }
    if exact.is_empty() { wild } else { exact }
}

/// Proves that the gateway's own processes listen there, by asking the launcher; remembers what was proven.
#[derive(Debug)]
pub(super) struct Guard {
    launcher: Handle,
    /// The process and the sockets that were proven its own.
    proven: Option<(i32, Vec<u64>)>,
}

impl Guard {
    pub(super) fn new(launcher: Handle) -> Self {
        Self { launcher, proven: None }
    }

    pub(super) fn launcher(&self) -> &Handle {
        &self.launcher
    }

    /// # Errors
    /// Somebody else listens there, or it cannot be known.
    pub(super) async fn check(&mut self, address: SocketAddr) -> Result<(), String> {
        let pid = self.launcher.status().pid.ok_or("the gateway does not run")?;
        let sockets: Vec<u64> = listening(address).into_iter().map(|(inode, _)| inode).collect();
        if sockets.is_empty() {
            return Err("nothing listens there any more".to_owned());
        }
        let now = Some((pid, sockets));
        if self.proven == now {
            return Ok(());
        }
        self.proven = None;
        for inode in now.iter().flat_map(|(_, sockets)| sockets) {
            let held = self.launcher.ask(Verb::Listener { inode: *inode }).await?;
            if held != true {
                return Err(format!("port {} is held by a process that is not the gateway", address.port()));
            }
        }
        self.proven = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_specific_listener_is_the_one_that_counts() {
        let line = |local: &str, state: &str, inode: u64| {
            format!(
                "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1\n"
            )
        };
        let wild = line("00000000:4965", "0A", 10);
        assert_eq!(reachable(&wild, 0x4965), [(10, 1000)]);
        let both = wild.clone() + &line("0100007F:4965", "0A", 11) + &line("0100007F:4965", "01", 12);
        assert_eq!(reachable(&both, 0x4965), [(11, 1000)]);
        let six = line("00000000000000000000000000000000:4965", "0A", 13);
        assert_eq!(reachable(&(wild + &six), 0x4965), [(10, 1000), (13, 1000)]);
        assert!(reachable("  sl  local_address rem_address st\ngarbage\n", 1).is_empty());
    }

    #[test]
    fn a_real_listener_is_seen() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listening(listener.local_addr().unwrap()).len(), 1);
        assert_eq!(owner(listener.local_addr().unwrap()), Some(nix::unistd::geteuid().as_raw()));
    }
}
