//! Processes as the launcher sees them: who they run as, what `/proc` tells of them, how they ended.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Gid, Pid, Uid, User};

use crate::files;

/// A user that processes run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Numeric user.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Its home, where the system knows one.
    pub home: Option<PathBuf>,
}

impl Account {
    /// The account of `text`: a name, or `uid:gid`.
    ///
    /// # Errors
    /// There is no such user, or it is root.
    pub fn find(text: &str) -> Result<Self, String> {
        let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        let account = match numbers {
            Some((uid, gid)) => {
                let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
                Self { uid, gid, home: known.map(|user| user.dir) }
            }
            None => match User::from_name(text) {
                Ok(Some(user)) => Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: Some(user.dir) },
                _ => return Err(format!("there is no user {text:?}; create it, or give numbers as uid:gid")),
            },
        };
        if account.uid == 0 || account.gid == 0 {
            return Err("must not be root, nor of root's group".to_owned());
        }
        Ok(account)
    }

    /// The account of this process, for machines where we are not root.
    pub fn own() -> Self {
        let uid = Uid::effective();
        let home = User::from_uid(uid).ok().flatten().map(|user| user.dir);
        Self { uid: uid.as_raw(), gid: Gid::effective().as_raw(), home }
    }

    /// Gives up every privilege for good; nothing happens for the account we are already.
    ///
    /// # Errors
    /// The system refuses, or a way back is left open.
    pub fn become_it(&self) -> Result<(), String> {
        if !Uid::effective().is_root() {
            return Ok(());
        }
        let failed = |what: &str, e: nix::Error| format!("{what}: {e}");
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        nix::unistd::setgroups(&[]).map_err(|e| failed("setgroups", e))?;
        nix::unistd::setresgid(gid, gid, gid).map_err(|e| failed("setresgid", e))?;
        nix::unistd::setresuid(uid, uid, uid).map_err(|e| failed("setresuid", e))?;
        if nix::unistd::setuid(Uid::from_raw(0)).is_ok() {
            return Err("root could be regained".to_owned());
        }
        Ok(())
    }
}

/// Our own program again.
pub fn own_program(subcommand: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("openclaw-sidecar").args(subcommand);
    command
}

/// The next child that ended and was not reaped yet; it stays a zombie, so that its number cannot be given to another
/// process meanwhile.
pub fn next_ended() -> Option<Pid> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, flags).ok().and_then(|status| status.pid())
}

/// Reaps a child that ended.
pub fn reap(pid: Pid) -> Option<Ended> {
    match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::Exited(_, code)) => Some(Ended { code: Some(code), signal: None }),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ended { code: None, signal: Some(signal) }),
        _ => None,
    }
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, if it had one.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<Signal>,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "{signal}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// Sends a signal to one process; one that is gone already is fine.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// Kills a process and its whole group.
pub fn kill_group(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    let _ = killpg(pid, Signal::SIGKILL);
}

/// Whether a process is stopped (state T), and its processor time in clock ticks.
pub fn look(pid: Pid) -> Option<(bool, u64)> {
    let text = files::read_text(&PathBuf::from(format!("/proc/{pid}/stat")), 4096).ok()?;
    stat_fields(&text)
}

/// The name stands in brackets and may hold anything: what follows the last one is counted.
fn stat_fields(text: &str) -> Option<(bool, u64)> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let stopped = fields.next()? == "T";
    let times: Vec<u64> = fields.skip(10).take(2).filter_map(|f| f.parse().ok()).collect();
    (times.len() == 2).then(|| (stopped, times.iter().sum()))
}

/// Processes the kernel killed for lack of memory in our control group so far; 0 where it does not say.
pub fn oom_kills() -> u64 {
    const PLACES: [(&str, &str); 2] =
        [("/sys/fs/cgroup/memory.events", "oom_kill "), ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill ")];
    let read = |(path, name): (&str, &str)| {
        let text = files::read_text(std::path::Path::new(path), 4096).ok()?;
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    PLACES.into_iter().find_map(read).unwrap_or(0)
}

/// Whether a process of the group `group` holds the socket `inode` open. To see it, one must be of the same user.
pub fn group_holds(group: i32, inode: u64) -> bool {
    let wanted = format!("socket:[{inode}]");
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let in_group = |pid: &i32| nix::unistd::getpgid(Some(Pid::from_raw(*pid))).is_ok_and(|g| g.as_raw() == group);
    numbers.filter(in_group).any(|pid| {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.filter_map(Result::ok)
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|link| link.as_os_str() == wanted.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_a_hostile_name() {
        let stat = "42 (a) T 1 (x) S 1 42 42 0 -1 4194304 100 0 0 0 17 5 0 0 20 0 1";
        assert_eq!(stat_fields(stat), Some((false, 22)));
        assert_eq!(stat_fields("1 (x) T 1 1 1 0 -1 0 1 0 0 0 1 2 0"), Some((true, 3)));
        assert_eq!(stat_fields("1 (x"), None);
        assert!(look(Pid::this()).is_some());
    }

    #[test]
    fn accounts_are_names_or_numbers_and_never_root() {
        assert_eq!(Account::find("12001:12002").unwrap().gid, 12002);
        assert!(Account::find("root").unwrap_err().contains("root"));
        assert!(Account::find("0:5").is_err());
        assert!(Account::find("no-such-user-here").unwrap_err().contains("uid:gid"));
    }

    #[test]
    fn a_listener_is_found_by_its_socket() {
        use std::os::unix::fs::MetadataExt as _;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let inode = std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino();
        let group = nix::unistd::getpgrp().as_raw();
        assert!(group_holds(group, inode));
        assert!(!group_holds(group, inode + 1_000_000));
        assert!(!group_holds(1, inode) || group == 1);
    }
}
