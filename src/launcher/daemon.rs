//! The daemon's process: its own user, a socketpair as standard input, and restarts that never touch the gateway.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use tokio::time::Instant;

use std::os::unix::process::CommandExt as _;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::channel::Channel;
use super::gateway::pid_of;
use super::output::To;
use super::process::{self, Ended};
use super::verbs::{Status, Told};
use super::{Launcher, Role};
use crate::config::ENV_PREFIX;

/// After exit code 78: nothing changes until somebody corrects the configuration.
const MISCONFIGURED: Duration = Duration::from_secs(60);
const RESTART_MOST: Duration = Duration::from_secs(30);

/// It says every ten seconds that it serves. A throttled machine may keep it waiting for some of them.
const FROZEN: Duration = Duration::from_secs(45);

/// Variables the daemon gets besides our own: where it runs, and the gateway's token where the platform gives it.
const PASSED: [&str; 5] = ["TZ", "FLY_", "RAILWAY_", "OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD"];

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Daemon {
    pub(super) pid: Option<Pid>,
    pub(super) channel: Option<Channel>,
    /// When it is to be started again.
    pub(super) due: Option<Instant>,
    /// It said that it serves.
    pub(super) served: bool,
    /// When it last said anything.
    pub(super) heard: Option<Instant>,
    failures: u32,
    told: Status,
}

impl Daemon {
    pub(super) fn serves(&self) -> bool {
        self.served && self.channel.is_some()
    }

    pub(super) fn tell(&mut self, told: &Told) {
        if let Some(channel) = &mut self.channel {
            channel.send(told);
        }
    }

    /// A daemon that served and says nothing any more is stopped or hangs: another one takes its place.
    pub(super) fn end_if_frozen(&mut self) {
        if self.served && self.heard.is_some_and(|at| at.elapsed() > FROZEN) {
            tracing::error!("the daemon says nothing any more; it is replaced");
            self.heard = None;
            self.signal(Signal::SIGKILL);
        }
    }

    /// Tells the status if it is news.
    pub(super) fn tell_status(&mut self, status: Status) {
        if status != self.told && self.channel.is_some() {
            self.told = status.clone();
            self.tell(&Told::Status(Box::new(status)));
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            process::signal(pid, signal);
        }
    }
}

impl Launcher {
    pub(super) fn spawn_daemon(&mut self) {
        self.daemon.due = None;
        if self.daemon.pid.is_some() || self.ending.is_some() {
            return;
        }
        match self.try_spawn_daemon() {
            Ok((pid, channel)) => {
                self.children.insert(pid, Role::Daemon);
                self.daemon.pid = Some(pid);
                self.daemon.channel = Some(channel);
                self.daemon.served = false;
                self.daemon.heard = None;
                self.daemon.told = Status::default();
                self.tell_status();
            }
            Err(e) => {
                tracing::error!(error = %e, "the daemon cannot be started");
                self.daemon.due = Some(Instant::now() + RESTART_MOST);
            }
        }
    }

    fn try_spawn_daemon(&self) -> std::io::Result<(Pid, Channel)> {
        let (ours, theirs) = UnixStream::pair()?;
        let (pipe, out) = std::io::pipe()?;
        let mut daemon = process::own_program(&["daemon"]);
        let ours_or_passed =
            |name: &&String| name.starts_with(ENV_PREFIX) || PASSED.iter().any(|p| name.starts_with(p));
        daemon.env_clear().envs(self.env.iter().filter(|(name, _)| ours_or_passed(name)));
        daemon.envs(self.given.variables());
        daemon.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(out.try_clone()?).stderr(out);
        if self.separate {
            daemon.uid(self.sidecar_account.uid).gid(self.sidecar_account.gid);
        }
        let child = daemon.current_dir("/").process_group(0).spawn()?;
        drop(daemon);
        self.output.follow(pipe, To::Stderr, false)?;
        Ok((pid_of(&child), Channel::new(ours)?))
    }

    pub(super) fn daemon_ended(&mut self, ended: Ended) {
        self.daemon.pid = None;
        self.daemon.channel = None;
        if self.ending.is_some() {
            return;
        }
        let pause = if ended.code == Some(78) {
            MISCONFIGURED
        } else if std::mem::take(&mut self.daemon.served) {
            self.daemon.failures = 0;
            Duration::ZERO
        } else {
            self.daemon.failures = (self.daemon.failures + 1).min(10);
            (Duration::from_millis(100) * 2u32.pow(self.daemon.failures)).min(RESTART_MOST)
        };
        tracing::error!(%ended, again_in_ms = u64::try_from(pause.as_millis()).unwrap_or(0), "the daemon ended");
        self.daemon.due = Some(Instant::now() + pause);
        // Nobody is left to say goodbye.
        self.happened(super::machine::Event::GoodbyeSaid);
        self.happened(super::machine::Event::Health(super::machine::Health::Unknown));
    }
}
