//! `strace` as the disk that fails: what a process asks of the kernel, and one of these calls answered with an error, or
//! with SIGKILL.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::support::machine::proc;

/// Nothing that is traced here takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// The calls that make a file durable, as `strace` groups them: not every machine has both names of a pair.
pub const CALLS: [&str; 8] = [
    "openat",
    "write",
    "fsync,fdatasync",
    "?rename,?renameat,?renameat2",
    "?chown,fchown,fchownat",
    "?unlink,unlinkat",
    "close",
    "ftruncate",
];

pub const ERRORS: [&str; 7] = ["ENOSPC", "EIO", "EROFS", "EDQUOT", "EACCES", "EMFILE", "EINTR"];

/// Whether there is one that works here; says loudly which test goes without.
pub fn is_here(test: &str) -> bool {
    let run = |program: &str, args: &[&str]| {
        let output = std::process::Command::new(program).args(args).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let works = || run("strace", &["-qq", "-e", "trace=none", "true"]);
    if !works() && std::env::var("CI").is_ok_and(|ci| ci == "true") && crate::support::machine::is_root() {
        run("apt-get", &["update", "-qq"]);
        run("apt-get", &["install", "-y", "-qq", "--no-install-recommends", "strace"]);
    }
    let works = works();
    if !works {
        println!("SKIPPED {test}: needs strace: apt-get install -y strace");
    }
    works
}

/// What happens instead of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Error(&'static str),
    /// From then on, every time.
    ErrorFrom(&'static str),
    Kill,
}

/// One case: the `at`-th time that one of the calls of a group is made, by each thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub calls: &'static str,
    pub how: How,
    pub at: usize,
}

impl Fault {
    fn expression(&self) -> String {
        let how = match self.how {
            How::Error(name) | How::ErrorFrom(name) => format!("error={name}"),
            How::Kill => "signal=KILL".to_owned(),
        };
        let on = if matches!(self.how, How::ErrorFrom(_)) { "+" } else { "" };
        format!("inject={}:{how}:when={}{on}", self.calls, self.at)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.calls.split(',').next().unwrap_or_default().trim_start_matches('?');
        match self.how {
            How::Error(error) => write!(f, "{error} at {name} {}", self.at),
            How::ErrorFrom(error) => write!(f, "{error} from {name} {} on", self.at),
            How::Kill => write!(f, "SIGKILL at {name} {}", self.at),
        }
    }
}

/// Every case for what a trace without faults shows, at most three times the same call.
pub fn faults(trace: &Trace, errors: &[&'static str]) -> Vec<Fault> {
    let mut all = Vec::new();
    for calls in CALLS {
        for at in 1..=trace.count(calls).min(3) {
            all.extend(errors.iter().map(|error| Fault { calls, how: How::Error(error), at }));
            all.push(Fault { calls, how: How::Kill, at });
        }
    }
    all
}

/// As [`faults`], with one error for each call, so that each error has its turn.
pub fn a_handful(trace: &Trace) -> Vec<Fault> {
    let mut turn = ERRORS.iter().cycle();
    let mut all = faults(trace, &["in turn"]);
    for fault in &mut all {
        if let How::Error(error) = &mut fault.how {
            *error = turn.next().expect("a cycle");
        }
    }
    all
}

/// What was asked of the kernel, in order.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub calls: Vec<Call>,
    /// The fault hit.
    pub hit: bool,
}

/// One call that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub thread: String,
    pub name: String,
    /// As printed, without the result.
    pub arguments: String,
    pub failed: bool,
}

impl Trace {
    pub fn read(log: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(log).with_context(|| log.display().to_string())?;
        Ok(Self::parse(&String::from_utf8_lossy(&text)))
    }

    /// Lines such as `4711  fsync(3</a/b>) = 0`; a call that another thread interrupts comes in two of them.
    pub fn parse(text: &str) -> Self {
        let mut trace = Self { calls: Vec::new(), hit: text.contains("(INJECTED)") };
        let mut begun = std::collections::HashMap::new();
        for line in text.lines() {
            let (thread, rest) = line.trim_start().split_once(char::is_whitespace).unwrap_or(("", line));
            let rest = rest.trim_start();
            // One that strace left alone before it ended counts as done.
            let detached =
                rest.strip_suffix(" <detached ...>").map(|start| format!("{}) = ?", start.trim_end_matches(')')));
            let whole = if let Some(whole) = detached {
                whole
            } else if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
                begun.insert(thread.to_owned(), start.to_owned());
                continue;
            } else if let Some((_, end)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
                begun.remove(thread).unwrap_or_default() + end
            } else {
                rest.to_owned()
            };
            let Some((name, rest)) = whole.split_once('(') else { continue };
            let Some((arguments, result)) = rest.rsplit_once(" = ") else { continue };
            let arguments = arguments.trim_end().trim_end_matches(')').to_owned();
            let (thread, name) = (thread.to_owned(), name.to_owned());
            trace.calls.push(Call { thread, name, arguments, failed: result.starts_with('-') });
        }
        trace
    }

    /// How often a call of this group was made.
    pub fn count(&self, group: &str) -> usize {
        let of_group = |call: &&Call| group.split(',').any(|name| name.trim_start_matches('?') == call.name);
        // A fault counts for each thread and each name by itself.
        let mut counts = std::collections::HashMap::<(&str, &str), usize>::new();
        for call in self.calls.iter().filter(of_group) {
            *counts.entry((&call.thread, &call.name)).or_default() += 1;
        }
        counts.into_values().max().unwrap_or_default()
    }
}

/// What is traced, and what goes wrong.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Only calls on these; all where it is empty.
    pub paths: Vec<PathBuf>,
    pub fault: Option<Fault>,
    pub log: PathBuf,
}

impl Plan {
    fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> = ["-f", "-yy", "-s", "64", "-o"].map(str::to_owned).into();
        words.push(self.log.display().to_string());
        let mut calls: Vec<&str> = CALLS.to_vec();
        if self.paths.is_empty() {
            calls.extend(["writev", "sendto", "?sendmsg"]);
        }
        words.extend(["-e".to_owned(), format!("trace={}", calls.join(","))]);
        words.extend(self.paths.iter().flat_map(|path| ["-P".to_owned(), path.display().to_string()]));
        words.extend(self.fault.iter().flat_map(|fault| ["-e".to_owned(), fault.expression()]));
        words
    }

    /// The beginning of a command that is traced from its first call on.
    pub fn command(&self) -> Command {
        let mut strace = Command::new("strace");
        strace.arg("-qq").args(self.arguments()).arg("--").kill_on_drop(true).stdin(Stdio::null());
        strace
    }

    pub fn trace(&self) -> anyhow::Result<Trace> {
        Trace::read(&self.log)
    }

    /// Attaches to every thread of a process, and returns when all of them are traced.
    pub async fn attach(self, pid: u32) -> anyhow::Result<Attached> {
        let mut strace = Command::new("strace");
        strace.args(self.arguments()).args(["-p", &pid.to_string()]).stdin(Stdio::null()).kill_on_drop(true);
        let mut child = strace.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let tracer = child.id().context("strace has gone")?;
        let end = Instant::now() + LIMIT;
        while !is_traced(pid, tracer) {
            if let Some(status) = child.try_wait()? {
                bail!("strace ended with {status}: {:?}", child.wait_with_output().await);
            }
            ensure!(Instant::now() < end, "strace does not attach to {pid}");
            sleep(Duration::from_millis(2)).await;
        }
        Ok(Attached { child, plan: self })
    }
}

/// Every thread belongs to the tracer, and none of them stands still for it any more.
fn is_traced(pid: u32, tracer: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let tracer = tracer.to_string();
    threads.flatten().all(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().split(' ').next());
        field("TracerPid:") == Some(tracer.as_str()) && !field("State:").is_some_and(|state| state.starts_with('t'))
    })
}

#[derive(Debug)]
pub struct Attached {
    child: Child,
    plan: Plan,
}

impl Attached {
    /// Lets the process go, and tells what it did.
    pub async fn detach(mut self) -> anyhow::Result<Trace> {
        // One whose process was killed ends by itself, and gets stuck when it is told to while that happens.
        let by_itself = match self.plan.fault {
            Some(Fault { how: How::Kill, .. }) => timeout(LIMIT / 6, self.child.wait()).await.is_ok(),
            _ => false,
        };
        if let Some(pid) = self.child.id().filter(|_| !by_itself) {
            proc::signal(pid, Signal::SIGINT)?;
        }
        timeout(LIMIT, self.child.wait()).await.context("strace does not let go")??;
        self.plan.trace()
    }
}

/// What a traced command printed, and how it ended.
pub async fn finish(mut command: Command) -> anyhow::Result<(ExitStatus, String)> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = timeout(LIMIT, child.wait_with_output()).await.context("what is traced hangs")??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status, text))
}

#[test]
fn a_trace_is_read_as_printed() {
    let text = "10 openat(AT_FDCWD, \"/a\", O_RDONLY) = 3</a>\n\
                10 write(3</a>, \"x = y\", 5 <unfinished ...>\n\
                11 fsync(4</b>) = -1 EIO (Input/output error) (INJECTED)\n\
                10 <... write resumed>) = 5\n\
                10 +++ exited with 0 +++\n";
    let trace = Trace::parse(text);
    let names: Vec<_> = trace.calls.iter().map(|call| (call.name.as_str(), call.failed)).collect();
    assert_eq!(names, [("openat", false), ("fsync", true), ("write", false)]);
    assert!(trace.hit && trace.calls[2].arguments == "3</a>, \"x = y\", 5");
    assert_eq!((trace.count("fsync,fdatasync"), trace.count("close")), (1, 0));
    let all = faults(&trace, &ERRORS);
    assert_eq!(all.len(), 3 * (ERRORS.len() + 1));
    assert_eq!(all[0].expression(), "inject=openat:error=ENOSPC:when=1");
}
