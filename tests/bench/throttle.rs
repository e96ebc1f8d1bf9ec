//! Takes most of the processor away from some processes, as a small hosted machine does.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, ensure};

/// 5 ms of every 80 ms: 6.25 % of a core.
const QUOTA_US: &str = "5000";
const PERIOD_US: &str = "80000";
const BURNERS: usize = 2;

/// While it lives the processes are slow; dropping it lets them go.
pub struct Throttle {
    pub how: &'static str,
    means: Means,
}

enum Means {
    Cgroup { group: PathBuf, home: PathBuf, pids: Vec<u32> },
    Pinned { pids: Vec<u32>, stop: Arc<AtomicBool>, burners: Vec<JoinHandle<()>> },
}

impl Throttle {
    /// By a control group where the system allows one, else by two busy threads on the same core.
    ///
    /// # Errors
    /// Says why neither works here.
    pub fn apply(pids: &[u32]) -> anyhow::Result<Self> {
        let v1 = || Self::cgroup("/sys/fs/cgroup/cpu", "cpu", pids);
        let v2 = || Self::cgroup("/sys/fs/cgroup", "", pids);
        let errors = match v1().or_else(|one| v2().map_err(|two| format!("{one:#}; {two:#}"))) {
            Ok(throttle) => return Ok(throttle),
            Err(errors) => errors,
        };
        Self::pinned(pids).with_context(|| format!("no control group ({errors}), no pinning either"))
    }

    /// `controller` is empty for the unified hierarchy.
    fn cgroup(mount: &str, controller: &str, pids: &[u32]) -> anyhow::Result<Self> {
        let mount = Path::new(mount);
        let unified = controller.is_empty();
        if unified {
            let offered = fs::read_to_string(mount.join("cgroup.controllers")).context("no unified control groups")?;
            ensure!(offered.split_whitespace().any(|name| name == "cpu"), "the cpu controller is not offered");
            write(&mount.join("cgroup.subtree_control"), "+cpu")?;
        } else {
            ensure!(mount.join("cpu.cfs_quota_us").is_file(), "no cpu control groups of the first version");
        }
        let home = mount.join(own_group(controller)?.trim_start_matches('/')).join("cgroup.procs");
        let group = mount.join(format!("openclaw-sidecar-bench-{}", std::process::id()));
        fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // From here on dropping it cleans up.
        let means = Means::Cgroup { group: group.clone(), home, pids: pids.to_vec() };
        let throttle = Self { how: "6.25 % of a core for both, by a control group", means };
        if unified {
            write(&group.join("cpu.max"), &format!("{QUOTA_US} {PERIOD_US}"))?;
        } else {
            write(&group.join("cpu.cfs_period_us"), PERIOD_US)?;
            write(&group.join("cpu.cfs_quota_us"), QUOTA_US)?;
        }
        for pid in pids {
            write(&group.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(throttle)
    }

    fn pinned(pids: &[u32]) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let burners = (0..BURNERS).map(|_| thread::spawn(burner(stop.clone()))).collect();
        let means = Means::Pinned { pids: pids.to_vec(), stop, burners };
        let throttle = Self { how: "both on one core with two busy threads; no control group here", means };
        for pid in pids {
            pin(*pid, "0", true)?;
        }
        Ok(throttle)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        match &mut self.means {
            Means::Cgroup { group, home, pids } => {
                for pid in pids {
                    // A process that ended has left the group by itself.
                    let _ = write(home, &pid.to_string());
                }
                if let Err(error) = fs::remove_dir(&*group) {
                    eprintln!("bench: {} is left over: {error}", group.display());
                }
            }
            Means::Pinned { pids, stop, burners } => {
                stop.store(true, Ordering::Relaxed);
                for burner in burners.drain(..) {
                    // It cannot panic; its end is all that counts.
                    let _ = burner.join();
                }
                let last = thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
                for pid in pids {
                    let _ = pin(*pid, &format!("0-{last}"), true);
                }
            }
        }
    }
}

fn burner(stop: Arc<AtomicBool>) -> impl FnOnce() {
    move || {
        // "<process>/task/<thread>"
        let thread = fs::read_link("/proc/thread-self").ok();
        let id = thread.as_deref().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
        if id.is_some_and(|id| pin(id, "0", false).is_ok()) {
            while !stop.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        }
    }
}

fn pin(id: u32, cores: &str, all_threads: bool) -> anyhow::Result<()> {
    let mut taskset = Command::new("taskset");
    taskset.args(all_threads.then_some("-a")).args(["-c", "-p", cores, &id.to_string()]);
    let status = taskset.stdin(Stdio::null()).stdout(Stdio::null()).status().context("no taskset here")?;
    ensure!(status.success(), "taskset: {status}");
    Ok(())
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
