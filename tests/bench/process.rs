//! What a process costs, read from `/proc`.

use std::{
    fs::{self, File},
    io::Write as _,
};

use anyhow::Context;

use crate::stats::float;

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
    /// CPU time of all its threads so far, in nanoseconds.
    pub fn cpu_ns(self) -> anyhow::Result<f64> {
        let first = |text: String| text.split_whitespace().next().and_then(|field| field.parse().ok());
        Ok(float(self.per_thread("schedstat", first)?))
    }

    pub fn voluntary_switches(self) -> anyhow::Result<u64> {
        self.per_thread("status", |text| number_after(&text, "voluntary_ctxt_switches:"))
    }

    pub fn threads(self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.0))?.count())
    }

    pub fn memory(self) -> anyhow::Result<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0))?;
        let read = |key| number_after(&text, key).with_context(|| format!("smaps_rollup has no {key}"));
        let private = read("Private_Clean:")? + read("Private_Dirty:")?;
        Ok(Memory { rss: read("Rss:")?, pss: read("Pss:")?, private })
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

    fn per_thread(self, file: &str, number: impl Fn(String) -> Option<u64>) -> anyhow::Result<u64> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.0)).context("the process is gone")?;
        // A thread may end while it is counted.
        let texts = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok());
        Ok(texts.filter_map(number).sum())
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
