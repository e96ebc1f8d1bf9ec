//! Takes most of the processor away from a whole machine, as small hosted ones have it: by a control group.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::{Machine, POLL, proc};

/// 5 ms of every 80 ms: 6.25 % of a core for all processes together.
const QUOTA_US: &str = "5000";
const PERIOD_US: &str = "80000";

/// Who is in it is slow. Made before the machine, so that it outlives it and is empty when it goes.
#[derive(Debug)]
pub struct Throttle {
    group: PathBuf,
    /// Where processes go that are still in it at the end.
    home: PathBuf,
    unified: bool,
}

impl Throttle {
    /// A group with nobody in it; without control groups it says loudly which test goes without.
    pub fn prepare(test: &str) -> Option<Self> {
        let first = Self::make("/sys/fs/cgroup/cpu", test, false);
        match first.or_else(|one| Self::make("/sys/fs/cgroup", test, true).map_err(|two| format!("{one:#}; {two:#}"))) {
            Ok(throttle) => Some(throttle),
            Err(errors) => {
                println!("SKIPPED: {test} needs control groups for the processor: {errors}");
                None
            }
        }
    }

    fn make(mount: &str, test: &str, unified: bool) -> anyhow::Result<Self> {
        let mount = Path::new(mount);
        if unified {
            let offered = fs::read_to_string(mount.join("cgroup.controllers")).context("no unified control groups")?;
            ensure!(offered.split_whitespace().any(|name| name == "cpu"), "the cpu controller is not offered");
            write(&mount.join("cgroup.subtree_control"), "+cpu")?;
        } else {
            ensure!(mount.join("cpu.cfs_quota_us").is_file(), "no cpu control groups of the first version");
        }
        let home = mount.join(own_group(if unified { "" } else { "cpu" })?.trim_start_matches('/'));
        let group = mount.join(format!("{}-{}", test.replace("::", "-"), std::process::id()));
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // From here on dropping it cleans up.
        let throttle = Self { group, home: home.join("cgroup.procs"), unified };
        throttle.quota(QUOTA_US)?;
        Ok(throttle)
    }

    fn quota(&self, quota: &str) -> anyhow::Result<()> {
        if self.unified {
            return write(&self.group.join("cpu.max"), &format!("{quota} {PERIOD_US}"));
        }
        write(&self.group.join("cpu.cfs_period_us"), PERIOD_US)?;
        write(&self.group.join("cpu.cfs_quota_us"), if quota == "max" { "-1" } else { quota })
    }

    /// Puts the launcher and everything below it in; what they start from now on is in it by itself.
    pub fn slow_down(&self, machine: &Machine) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let mut outside = proc::descendants(machine.launcher_pid());
            outside.push(machine.launcher_pid());
            outside.retain(|pid| !self.holds(*pid));
            if outside.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "{outside:?} cannot be put into {}", self.group.display());
            for pid in outside {
                // One that ended meanwhile is no longer below the launcher.
                let _ = write(&self.group.join("cgroup.procs"), &pid.to_string());
            }
        }
    }

    /// Everybody in it is quick again.
    pub fn lift(&self) -> anyhow::Result<()> {
        self.quota("max")
    }

    pub fn holds(&self, pid: u32) -> bool {
        self.members().contains(&pid)
    }

    /// In how many periods somebody had to wait.
    pub fn waits(&self) -> u64 {
        let text = fs::read_to_string(self.group.join("cpu.stat")).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse().ok()).unwrap_or_default()
    }

    fn members(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        while let Err(error) = fs::remove_dir(&self.group) {
            if Instant::now() > end {
                eprintln!("{} is left over: {error}", self.group.display());
                return;
            }
            for pid in self.members() {
                let _ = write(&self.home, &pid.to_string());
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Where this process, and so what it started, belongs.
fn own_group(controller: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let found = text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
    });
    found.context("this process is in no control group of that kind")
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = File::options().write(true).open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
