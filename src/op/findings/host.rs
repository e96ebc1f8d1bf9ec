//! The machine's own numbers: disks, memory, and how much of the processor it is given. Read from the kernel, which the
//! tenant's programs cannot forge.

use std::path::{Path, PathBuf};

use crate::files;

/// Kernel files are short.
const MAX_FILE: u64 = 64 * 1024;
const MIB: u64 = 1024 * 1024;
const CGROUPS: &str = "/sys/fs/cgroup";

/// What is free of something, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Where: a path, or `machine` or `cgroup` for memory.
    pub of: String,
    /// Free, for programs that are not root.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

impl Room {
    /// Whether too little is free. Once low, it takes half as much again not to be.
    pub fn is_low(&self, was_low: bool, most: u64) -> bool {
        let free = if was_low { self.free / 3 * 2 } else { self.free };
        free < most && free < self.total / 20
    }

    /// Free, in MiB.
    pub fn free_mib(&self) -> u64 {
        self.free / MIB
    }
}

/// Turns in which the control group had something to compute, and in how many of them it was kept waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// All of them so far.
    pub all: u64,
    /// Those in which it had to wait.
    pub kept_waiting: u64,
}

impl Turns {
    /// Per cent of the turns since `earlier` in which it was kept waiting; `None` when there were too few to tell.
    pub fn waited_percent(self, earlier: Self) -> Option<u64> {
        let all = self.all.checked_sub(earlier.all).filter(|all| *all >= 20)?;
        Some(self.kept_waiting.saturating_sub(earlier.kept_waiting) * 100 / all)
    }
}

/// What there is of the disk that `path` lies on.
pub fn disk(path: &Path) -> Option<Room> {
    let found = nix::sys::statvfs::statvfs(path).ok()?;
    let block = found.fragment_size();
    let (free, total) = (found.blocks_available() * block, found.blocks() * block);
    Some(Room { of: path.display().to_string(), free, total })
}

/// What there is of the memory: of the machine, or of our control group if that has less.
pub fn memory() -> Option<Room> {
    let machine = machine_memory(&read(Path::new("/proc/meminfo"))?)?;
    let own = group("memory").and_then(|dir| group_memory(&dir)).filter(|own| own.total < machine.total);
    Some(match own {
        Some(own) if own.free < machine.free => own,
        _ => machine,
    })
}

/// How our control group is served by the processor, where it says so.
pub fn turns() -> Option<Turns> {
    let text = read(&group("cpu")?.join("cpu.stat"))?;
    Some(Turns { all: field(&text, "nr_periods ")?, kept_waiting: field(&text, "nr_throttled ")? })
}

fn machine_memory(meminfo: &str) -> Option<Room> {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let (free, total) = (kib("MemAvailable:")? * 1024, kib("MemTotal:")? * 1024);
    Some(Room { of: "machine".to_owned(), free, total })
}

/// Of what is used, pages of files that nobody looked at lately can be had back.
fn group_memory(dir: &Path) -> Option<Room> {
    let number = |name: &str| read(&dir.join(name))?.trim().parse::<u64>().ok();
    let total = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let stat = read(&dir.join("memory.stat")).unwrap_or_default();
    let idle = field(&stat, "total_inactive_file ").or_else(|| field(&stat, "inactive_file ")).unwrap_or(0);
    let free = total.saturating_sub(used.saturating_sub(idle));
    Some(Room { of: "cgroup".to_owned(), free, total })
}

/// The directory of our control group for `controller`, in either version; inside a container that is the root.
fn group(controller: &str) -> Option<PathBuf> {
    let own = read(Path::new("/proc/self/cgroup"))?;
    let of = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let mount = match controllers {
            "" => Path::new(CGROUPS).to_owned(),
            list if list.split(',').any(|name| name == controller) => Path::new(CGROUPS).join(controller),
            _ => return None,
        };
        [mount.join(path), mount].into_iter().find(|dir| files::exists(&dir.join(format!("{controller}.stat"))))
    };
    own.lines().find_map(of)
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn read(path: &Path) -> Option<String> {
    files::read_text(path, MAX_FILE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_disk_and_memory() {
        let disk = disk(Path::new("/")).unwrap();
        assert!(disk.total > 0 && disk.free <= disk.total);
        let memory = memory().unwrap();
        assert!(memory.total > 16 * MIB && memory.free <= memory.total, "{memory:?}");
        let text = "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:     40 kB\n";
        let low = machine_memory(text).unwrap();
        assert!(low.is_low(false, u64::MAX) && low.free == 40 * 1024);
    }

    #[test]
    fn low_ends_later_than_it_begins() {
        let room = |free| Room { of: String::new(), free, total: 1000 };
        assert!(room(49).is_low(false, u64::MAX) && !room(50).is_low(false, u64::MAX));
        assert!(room(60).is_low(true, u64::MAX) && !room(90).is_low(true, u64::MAX));
        assert!(!room(49).is_low(false, 40), "much is not little because it is a small part");
    }

    #[test]
    fn turns_are_compared() {
        let (before, after) = (Turns { all: 100, kept_waiting: 10 }, Turns { all: 200, kept_waiting: 90 });
        assert_eq!(after.waited_percent(before), Some(80));
        assert_eq!(after.waited_percent(after), None);
        assert_eq!(before.waited_percent(after), None);
    }
}
