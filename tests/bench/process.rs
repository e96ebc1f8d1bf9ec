//! What a process costs, read from `/proc`.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File},
    io::Write as _,
};

use anyhow::Context;

/// A running process.
#[derive(Clone, Copy)]
pub struct Process(pub u32);

/// Kilobytes, from `smaps_rollup`.
pub struct Memory {
    pub rss: u64,
    pub pss: u64,
    pub private: u64,
}

impl Process {
    /// What its threads have done so far.
    pub fn threads(self) -> anyhow::Result<Threads> {
        let mut all = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{}/task", self.0)).context("the process is gone")?.flatten() {
            let read = |file: &str| fs::read_to_string(thread.path().join(file)).ok();
            // A thread may end while it is looked at.
            let (Some(schedule), Some(status)) = (read("schedstat"), read("status")) else { continue };
            let cpu_ns = schedule.split_whitespace().next().and_then(|field| field.parse().ok());
            let work = Work {
                cpu_ns: cpu_ns.context("odd schedstat")?,
                switches: number_after(&status, "voluntary_ctxt_switches:").context("odd status")?,
            };
            all.insert(thread.file_name(), work);
        }
        Ok(Threads(all))
    }

    pub fn memory(self) -> anyhow::Result<Memory> {
        let Ok(text) = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0)) else {
            return self.resident();
        };
        let read = |key| number_after(&text, key).with_context(|| format!("smaps_rollup has no {key}"));
        let private = read("Private_Clean:")? + read("Private_Dirty:")?;
        Ok(Memory { rss: read("Rss:")?, pss: read("Pss:")?, private })
    }

    /// A process that let nobody look into it shows anybody but root its size only; all of it counts as its own then.
    fn resident(self) -> anyhow::Result<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).context("the process is gone")?;
        let rss = number_after(&text, "VmRSS:").context("no VmRSS")?;
        Ok(Memory { rss, pss: rss, private: rss })
    }

    /// The largest resident set since `forget_peak`, in kilobytes; the kernel counts it to within some 100 kB.
    pub fn peak_kib(self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        number_after(&text, "VmHWM:").context("no VmHWM")
    }

    pub fn forget_peak(self) -> anyhow::Result<()> {
        let mut file = File::options().write(true).open(format!("/proc/{}/clear_refs", self.0))?;
        Ok(file.write_all(b"5")?)
    }
}

/// What was done by a thread, or by several.
#[derive(Clone, Copy, Default)]
pub struct Work {
    pub cpu_ns: u64,
    /// Voluntary context switches: how often it went to sleep.
    pub switches: u64,
}

impl Work {
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { cpu_ns: self.cpu_ns + other.cpu_ns, switches: self.switches + other.switches }
    }
}

/// Every thread's work at one moment.
pub struct Threads(HashMap<OsString, Work>);

impl Threads {
    /// What was done since `before`, except by threads that ended meanwhile.
    pub fn since(&self, before: &Self) -> Work {
        let done = self.0.iter().map(|(thread, now)| {
            let then = before.0.get(thread).copied().unwrap_or_default();
            Work { cpu_ns: now.cpu_ns - then.cpu_ns, switches: now.switches - then.switches }
        });
        done.fold(Work::default(), Work::plus)
    }

    /// All that was done by the threads there are.
    pub fn total(&self) -> Work {
        self.0.values().copied().fold(Work::default(), Work::plus)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// How many files this process may open.
pub fn file_limit() -> anyhow::Result<usize> {
    let text = fs::read_to_string("/proc/self/limits")?;
    let limit = number_after(&text, "Max open files").context("no limit of open files")?;
    Ok(usize::try_from(limit)?)
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line[key.len()..].split_whitespace().next()?.parse().ok()
}
