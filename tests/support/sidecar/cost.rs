//! What the daemon costs, read from `/proc`.

use super::Sidecar;

impl Sidecar {
    /// CPU time of all threads so far.
    pub fn cpu_ns(&self) -> u64 {
        let first = |text: String| text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        self.per_task("schedstat", first)
    }

    pub fn voluntary_switches(&self) -> u64 {
        self.per_task("status", |text| number_after(&text, "voluntary_ctxt_switches:"))
    }

    /// Resident memory; from `status` where the daemon made its maps unreadable.
    pub fn rss_kib(&self) -> u64 {
        let read = |file: &str, key: &str| {
            let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).ok()?;
            number_after(&text, key)
        };
        read("smaps_rollup", "Rss:").or_else(|| read("status", "VmRSS:")).expect("a running process has memory")
    }

    fn per_task(&self, file: &str, number: impl Fn(String) -> Option<u64>) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("the daemon runs");
        // A thread may end while it is counted.
        tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join(file)).ok()).filter_map(number).sum()
    }
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line[key.len()..].split_whitespace().next()?.parse().ok()
}
