//! What the daemon takes away from itself before it starts its first thread, and an honest report of it.
//!
//! Landlock and seccomp hold for the calling thread and for what it starts afterwards, never for threads that already
//! run. Every layer is best effort, because kernels differ; which of them really hold is in the [`Report`], and
//! `hardening.mode = "require"` makes a complete report a condition.

pub mod seccomp;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;

/// The newest Landlock this was tried with. Rights of newer ones could forbid what nobody has tried without.
const TRIED: ABI = ABI::V7;
/// The first ABI under which a file cannot be emptied without the right to write it.
const FILES_SINCE: i32 = 3;
/// The first ABI that knows TCP ports.
const TCP_SINCE: i32 = 4;

/// A layer that holds.
const ON: &str = "on";

/// What the daemon may still reach. Paths that do not exist are left out; a directory stands for all below it.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Files and directories to read.
    pub read: Vec<PathBuf>,
    /// Files and directories to read and write.
    pub write: Vec<PathBuf>,
    /// TCP ports to listen on; 0 stands for a port that the system chooses.
    pub bind: Vec<u16>,
    /// TCP ports to connect to.
    pub connect: Vec<u16>,
}

/// Name resolution, trust anchors, what the runtime reads about its machine, and the generation counter that aws-lc
/// insists on reading in machines that have one (refused, it gives no random numbers at all).
#[rustfmt::skip]
const BASE_READ: &[&str] = &[
    "/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/gai.conf", "/etc/nsswitch.conf", "/etc/services",
    "/etc/passwd", "/etc/group", "/etc/localtime", "/etc/ssl", "/etc/pki/tls", "/etc/pki/ca-trust",
    "/usr/share/ca-certificates", "/proc", "/sys/fs/cgroup", "/sys/devices/system/cpu/online",
    "/dev/urandom", "/dev/random", "/dev/sysgenid",
];

impl Limits {
    /// What every daemon needs, wherever it runs.
    pub fn base() -> Self {
        let mut read: Vec<PathBuf> = BASE_READ.iter().map(PathBuf::from).collect();
        // A resolver's own directory: it replaces the file, and a rule on the old one would not hold for the new one.
        let resolver = fs::canonicalize(BASE_READ[0]).ok().and_then(|file| file.parent().map(Path::to_owned));
        read.extend(resolver.filter(|dir| dir.starts_with("/run") && dir.components().count() > 2));
        // Answers too long for UDP come over TCP.
        Self { read, write: vec!["/dev/null".into()], bind: Vec::new(), connect: vec![53] }
    }

    /// Lets a file be read that others replace: its directory, and the one a link leads to.
    #[must_use]
    pub fn with_file(mut self, file: &Path) -> Self {
        let real = fs::canonicalize(file).ok();
        let dirs = [Some(file), real.as_deref()].into_iter().flatten().filter_map(Path::parent);
        self.read.extend(dirs.filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned));
        self
    }
}

/// Which layers hold: `on`, or why not.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// The user the daemon runs as.
    pub uid: u32,
    /// `none`, or the effective capabilities in hex.
    pub capabilities: String,
    /// Nothing it could execute would gain rights.
    pub no_new_privs: String,
    /// Other processes of the same user cannot look into its memory.
    pub not_dumpable: String,
    /// A crash writes no memory to disk.
    pub no_core_dumps: String,
    /// Files and ports.
    pub landlock: Landlock,
    /// No programs, no privileged system calls.
    pub seccomp: String,
}

/// What Landlock holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Landlock {
    /// The kernel's ABI; 0 where there is none.
    pub abi: i32,
    /// Only the files it needs.
    pub files: String,
    /// Only the TCP ports it needs.
    pub tcp: String,
}

impl Report {
    /// Whether every layer holds.
    ///
    /// # Errors
    /// Which layers are missing, and why.
    pub fn complete(&self) -> Result<(), String> {
        let root = if self.uid == 0 { "it runs as root" } else { ON };
        let capabilities = if self.capabilities == "none" { ON } else { &self.capabilities };
        let layers = [
            ("uid", root),
            ("capabilities", capabilities),
            ("no_new_privs", &self.no_new_privs),
            ("not_dumpable", &self.not_dumpable),
            ("no_core_dumps", &self.no_core_dumps),
            ("landlock.files", &self.landlock.files),
            ("landlock.tcp", &self.landlock.tcp),
            ("seccomp", &self.seccomp),
        ];
        let missing: Vec<_> =
            layers.iter().filter(|l| l.1 != ON).map(|(name, why)| format!("{name} ({why})")).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("hardening is not complete: {}", missing.join(", "))) }
    }
}

/// Applies every layer to the calling thread and those it starts later; to be called before there is another one.
/// There is no way back.
pub fn apply(limits: &Limits) -> Report {
    let running = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let mut report = apply_here(limits);
    if running != 1 {
        let Report { no_new_privs, landlock: Landlock { files, tcp, .. }, seccomp, .. } = &mut report;
        for layer in [no_new_privs, files, tcp, seccomp].into_iter().filter(|layer| *layer == ON) {
            *layer = format!("applied to one of {running} threads");
        }
    }
    report
}

fn apply_here(limits: &Limits) -> Report {
    Report {
        uid: nix::unistd::geteuid().as_raw(),
        capabilities: capabilities().unwrap_or_else(|e| format!("unknown: {e}")),
        no_new_privs: said(prctl::set_no_new_privs()),
        not_dumpable: said(prctl::set_dumpable(false)),
        no_core_dumps: said(setrlimit(Resource::RLIMIT_CORE, 0, 0)),
        landlock: restrict(limits),
        // Last: it would stand in the way of the others. Without it ports are open too: a connection that begins with
        // its data, or a multipath one, passes by Landlock.
        seccomp: said(seccomp::apply()),
    }
}

fn said<E: std::fmt::Display>(result: Result<(), E>) -> String {
    result.map_or_else(|e| e.to_string(), |()| ON.to_owned())
}

/// Permitted ones count too: the effective set can be filled from them.
fn capabilities() -> io::Result<String> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let set = |name: &str| {
        let hex = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(hex.trim(), 16).ok()
    };
    let (Some(effective), Some(permitted)) = (set("CapEff:"), set("CapPrm:")) else {
        return Err(io::Error::other("not in /proc/thread-self/status"));
    };
    Ok(match effective | permitted {
        0 => "none".to_owned(),
        held => format!("{held:016x}"),
    })
}

fn restrict(limits: &Limits) -> Landlock {
    let off = |abi, why: String| Landlock { abi, files: why.clone(), tcp: why };
    let status = match landlocked(limits) {
        Ok(status) => status,
        Err(e) => return off(0, e.to_string()),
    };
    let abi = match status.landlock {
        LandlockStatus::NotEnabled => return off(0, "Landlock is not enabled in this kernel".to_owned()),
        LandlockStatus::NotImplemented => return off(0, "this kernel has no Landlock".to_owned()),
        LandlockStatus::Available { effective_abi, kernel_abi } => kernel_abi.unwrap_or(effective_abi as i32),
    };
    if status.ruleset == RulesetStatus::NotEnforced {
        return off(abi, "the kernel did not take the rules".to_owned());
    }
    let since = |needed| match abi {
        abi if abi >= needed => ON.to_owned(),
        abi => format!("the kernel's Landlock ABI is {abi}, it needs {needed}"),
    };
    Landlock { abi, files: since(FILES_SINCE), tcp: since(TCP_SINCE) }
}

fn landlocked(limits: &Limits) -> Result<landlock::RestrictionStatus, RulesetError> {
    let read: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    // What is never given: to execute, to make devices and pipes, to command devices.
    let never = make_bitflags!(AccessFs::{Execute | MakeChar | MakeBlock | MakeFifo | IoctlDev});
    let ports = |ports: &[u16], access: AccessNet| -> Vec<_> {
        ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, access))).collect()
    };
    Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?
        .add_rules(path_beneath_rules(&limits.read, read))?
        .add_rules(path_beneath_rules(&limits.write, AccessFs::from_all(TRIED) & !never))?
        .add_rules(ports(&limits.bind, AccessNet::BindTcp))?
        .add_rules(ports(&limits.connect, AccessNet::ConnectTcp))?
        .restrict_self()
}

/// Closes every descriptor above 2 that was inherited. To be called first of all: it would close our own as well.
///
/// # Errors
/// The open descriptors cannot be listed.
pub fn close_inherited() -> io::Result<()> {
    let listed = fs::read_dir("/proc/self/fd")?;
    // Taken whole before the first is closed: the listing itself has a descriptor, gone when the loop begins.
    let open: Vec<i32> = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

/// Unblocks every signal: a parent that blocks them hands that on, and SIGTERM would never arrive.
///
/// # Errors
/// The system refuses.
pub fn unblock_signals() -> nix::Result<()> {
    SigSet::all().thread_unblock()
}

#[cfg(test)]
mod tests;
