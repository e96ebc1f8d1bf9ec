//! The gateway's process: started through `seed`, watched, and read for why it ended.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::mpsc::Receiver;
use tokio::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sd_notify::NotifyState;

use super::machine::Event;
use super::output::To;
use super::process::{self, Ended};
use super::seed::APPLIED;
use super::verbs::{LastExit, Seeded};
use super::{LAST_WORDS, LOOK_EVERY, Launcher, Role};
use crate::clock::UnixMs;
use crate::desired::applied::Applied;
use crate::files;

/// A report longer than this is none.
const MAX_REPORT: u64 = 8 * 1024 * 1024;

/// Texts of a gateway that refuses its configuration. Only new versions say it by exit code 78, and not for every
/// fault (observed on 2026.2.9, 2026.4.9, 2026.6.11 and 2026.9.6).
const CONFIG_TEXTS: [&str; 8] = [
    "Config invalid",
    "Invalid config",
    "config is invalid",
    "Gateway start blocked",
    "Missing config.",
    "Refusing to bind gateway",
    "Gateway auth is set to",
    "required secrets are unavailable",
];
/// Exit code 78 that has nothing to do with the configuration (2026.9.6: its state is in use, its home read-only, or the
/// machine too slow for its own first migrations).
const OTHER_TEXTS: [&str; 4] = [
    "owns gateway-lifecycle",
    "Doctor cannot repair this state",
    "Doctor could not enter",
    "startup migrations did not complete",
];

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    pub(super) pid: Option<Pid>,
    pub(super) since: UnixMs,
    pub(super) starts: u64,
    pub(super) seeded: Seeded,
    pub(super) last_exit: Option<LastExit>,
    /// Where `seed` reports; its end is the moment the gateway's own program begins.
    pub(super) report: Option<UnixStream>,
    /// Closes at the end of its output.
    output_end: Option<Receiver<()>>,
    started: Option<Instant>,
    looked: Option<Instant>,
    oom_before: u64,
}

impl Gateway {
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            process::signal(pid, signal);
        }
    }

    pub(super) fn kill(&self) {
        if let Some(pid) = self.pid {
            process::kill_group(pid);
        }
    }

    pub(super) fn look_due(&mut self) -> bool {
        let due = self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if due {
            self.looked = Some(Instant::now());
        }
        due
    }
}

impl Launcher {
    pub(super) fn spawn_gateway(&mut self, avoid: Option<u64>, restore: bool) {
        self.end_repair();
        self.output.forget_last_lines();
        self.gateway.starts += 1;
        self.gateway.oom_before = process::oom_kills();
        let mut arguments = vec!["launch".to_owned()];
        if let Some(generation) = avoid {
            arguments.extend(["--avoid".to_owned(), generation.to_string()]);
        }
        if restore {
            arguments.push("--restore".to_owned());
        }
        match self.spawn_seed(arguments, self.command.clone()) {
            Ok((pid, report, end)) => {
                self.gateway.output_end = Some(end);
                self.gateway.pid = Some(pid);
                self.gateway.started = Some(Instant::now());
                self.gateway.report = Some(report);
                self.children.insert(pid, Role::Gateway);
            }
            Err(e) => {
                let why = format!("the seeding process cannot be started: {e}");
                self.happened(Event::Exited { config_class: false, why });
            }
        }
    }

    /// Starts `seed` with the whole environment: it needs the desired state and what unseals the secrets. What the
    /// gateway gets of it is decided there.
    fn spawn_seed(
        &self,
        arguments: Vec<String>,
        command: Vec<String>,
    ) -> std::io::Result<(Pid, UnixStream, Receiver<()>)> {
        let (report, theirs) = UnixStream::pair()?;
        report.set_nonblocking(true)?;
        let (pipe, out) = std::io::pipe()?;
        let mut seed = process::own_program(&["seed"]);
        seed.args(arguments).arg("--").args(command).env_clear().envs(&self.env);
        seed.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(out.try_clone()?).stderr(out);
        let child = seed.spawn()?;
        drop(seed);
        let end = self.output.follow(pipe, To::Stdout, true)?;
        Ok((pid_of(&child), report, end))
    }

    pub(super) fn spawn_adopt(&mut self) {
        match self.spawn_seed(vec!["adopt".to_owned()], self.command.clone()) {
            Ok((pid, report, _)) => {
                let report = std::thread::spawn(move || read_report(report));
                self.children.insert(pid, Role::Adopt(report));
            }
            Err(e) => tracing::warn!(error = %e, "the configuration is not adopted"),
        }
    }

    /// Keeps what was applied, for the next start.
    pub(super) fn keep_applied(&self, applied: Option<&Applied>) {
        let Some(applied) = applied else { return };
        let path = self.config.state_dir.join(APPLIED);
        let text = serde_json::to_vec(applied).unwrap_or_default();
        if files::read_bounded(&path, MAX_REPORT).is_ok_and(|known| known == text) {
            return;
        }
        if let Err(e) = files::replace(&path, &text, 0o600) {
            tracing::error!(error = %e, "what was applied could not be kept; what is no longer wanted may stay");
        }
    }

    /// Reads what `seed` reports. The socket closes when the gateway's program begins, or when `seed` gives up.
    pub(super) fn take_report(&mut self) {
        let Some(report) = self.gateway.report.take() else { return };
        let text = read_report(report);
        let mut seeded: Seeded = serde_json::from_str(&text).unwrap_or_default();
        self.output.hide(std::mem::take(&mut seeded.hide));
        self.keep_applied(seeded.applied.take().as_ref());
        if !seeded.dropped.is_empty() {
            tracing::info!(names = seeded.dropped.join(" "), "variables not passed to the gateway (launch.env_pass)");
        }
        for note in &seeded.notes {
            tracing::warn!(note, "seed");
        }
        let goes_on = seeded.failed.is_none() && !text.is_empty();
        self.gateway.seeded = seeded;
        if goes_on {
            let _ = sd_notify::notify(&[NotifyState::Ready]);
            self.happened(Event::Seeded(self.gateway.seeded.generation));
        }
    }

    pub(super) fn gateway_ended(&mut self, ended: Ended) {
        if self.gateway.report.is_some() {
            self.take_report();
        }
        // What it said last may still be on its way; somebody else may hold the pipe open.
        if let Some(end) = self.gateway.output_end.take() {
            let _ = end.recv_timeout(LAST_WORDS);
        }
        let lines = self.output.last_lines();
        let said = |text: &str| lines.iter().any(|line| line.contains(text));
        let failed = self.gateway.seeded.failed.clone();
        let oom = process::oom_kills() > self.gateway.oom_before;
        let other = OTHER_TEXTS.iter().any(|text| said(text));
        let refuses = ended.code == Some(78) || CONFIG_TEXTS.iter().any(|text| said(text));
        let config_class = if failed.is_some() {
            self.gateway.seeded.config_class
        } else {
            ended.code.is_some_and(|code| code != 0) && refuses && !other
        };
        let reason = match failed {
            Some(why) => why,
            None if oom => format!("the kernel ended it for lack of memory ({ended})"),
            None => describe(ended, &lines),
        };
        self.gateway.last_exit = Some(LastExit {
            at: UnixMs::now(),
            reason: reason.clone(),
            code: ended.code,
            signal: ended.signal.map(|signal| signal.as_str().to_owned()),
            oom,
            uptime_s: self.gateway.started.map_or(0, |at| at.elapsed().as_secs()),
            last_lines: lines,
        });
        self.gateway.pid = None;
        self.happened(Event::Exited { config_class, why: reason });
    }
}

/// One line, written at once before the end.
pub(super) fn read_report(report: UnixStream) -> String {
    let mut text = String::new();
    let _ = report.set_nonblocking(false);
    let _ = report.set_read_timeout(Some(std::time::Duration::from_secs(30)));
    let _ = report.take(MAX_REPORT).read_to_string(&mut text);
    text
}

/// The exit in one line: the code, and the line that most likely says why.
fn describe(ended: Ended, lines: &[String]) -> String {
    const TELLING: [&str; 7] =
        ["already in use", "already running", "nrecognized key", "nvalid", "blocked", "rror", "annot"];
    // Some versions end with 0 when their port is taken (2026.4.9, 2026.6.11); other lines mean nothing then.
    let looked_for = match ended.code {
        Some(0) => &TELLING[..2],
        Some(_) => &TELLING[..],
        None => &[],
    };
    let telling = looked_for.iter().find_map(|text| lines.iter().rev().find(|line| line.contains(text)));
    match telling {
        Some(line) => format!("the gateway ended with {ended}: {line}"),
        None => format!("the gateway ended with {ended}"),
    }
}

pub(super) fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}
