//! What `/proc` tells of processes, seen from outside any namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process as `/proc/<pid>/stat` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub pid: u32,
    pub state: char,
    pub parent: u32,
    pub group: u32,
    /// In clock ticks since boot: with the pid it names a process for ever.
    pub started: u64,
}

impl Stat {
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

pub fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold spaces and brackets, so count from its last one.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    Some(Stat {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.is_dead())
}

pub fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| stat(entry.ok()?.file_name().to_str()?.parse().ok()?)).collect()
}

/// Children that are alive, by every thread of the parent.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>());
    pids.filter(|pid| is_alive(*pid)).collect()
}

/// Dead children that nobody reaped.
pub fn zombies_of(parent: u32) -> Vec<u32> {
    all().into_iter().filter(|stat| stat.parent == parent && stat.state == 'Z').map(|stat| stat.pid).collect()
}

pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut at = 0;
    while at < found.len() {
        found.extend(children(found[at]));
        at += 1;
    }
    found
}

/// Processes whose environment names this machine's directory: launcher, daemon, gateway, and what that started.
pub fn of_machine(id: &str) -> Vec<u32> {
    let marked = |pid: u32| {
        let text = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        text.windows(id.len()).any(|part| part == id.as_bytes())
    };
    all().into_iter().filter(|stat| !stat.is_dead() && marked(stat.pid)).map(|stat| stat.pid).collect()
}

pub fn command_line(pid: u32) -> Vec<String> {
    nul_separated(format!("/proc/{pid}/cmdline").into()).unwrap_or_default()
}

pub fn environment(pid: u32) -> Option<BTreeMap<String, String>> {
    let variables = nul_separated(format!("/proc/{pid}/environ").into())?;
    Some(variables.iter().filter_map(|v| v.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
}

fn nul_separated(path: PathBuf) -> Option<Vec<String>> {
    let text = fs::read(path).ok()?;
    let parts = text.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    Some(parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect())
}

/// A line of `/proc/<pid>/status`, its words.
pub fn status(pid: u32, name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The process's number where it lives: in its own namespace.
pub fn inner_pid(pid: u32) -> Option<u32> {
    status(pid, "NSpid").last()?.parse().ok()
}

/// Where the open files of a process lead.
pub fn open_files(pid: u32) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
}

pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
}
