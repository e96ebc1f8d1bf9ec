//! The launcher: PID 1 of a container, or the main process of a service. It starts the gateway and the daemon, reaps
//! whatever ends, and owns the restart policy. It listens nowhere and knows neither TLS nor credentials.
//!
//! ```text
//! signals, the daemon's requests, the clock -> machine (pure) -> effects: seed, signals, doctor, status to the daemon
//! ```
//!
//! One thread waits on everything at once. Nothing here waits for the daemon or for a reader of the output.

pub mod backup;
pub mod channel;
pub mod handle;
pub mod layout;
pub mod machine;
pub mod output;
pub mod process;
pub mod seed;
pub mod tools;
pub mod verbs;

mod daemon;
mod gateway;
mod given;
mod tree;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::time::Instant;

use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use sd_notify::NotifyState;

use crate::config::{Config, Env};
use crate::desired::history::DECOMMISSIONED;
use crate::files;
use crate::suspend::Clocks;
use layout::Layout;
use machine::{Effect, Event, Machine, Then};
use output::Output;
use process::Account;
use verbs::{Status, Told, Verb};

/// Between two looks at the gateway's process.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// For a stop that somebody asked for, without a platform that waits.
const PATIENT_STOP: Duration = Duration::from_secs(25);
/// The last lines of the log are waited for so long.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// The configuration of a gateway, at most.
const MAX_CONFIG: u64 = 1024 * 1024;

/// Why the launcher does not begin.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nothing changes by trying again.
    #[error("{0}")]
    Config(String),
    /// The system stands in the way.
    #[error("{0}")]
    System(String),
}

/// What a child is.
#[derive(Debug)]
enum Role {
    Gateway,
    Daemon,
    /// With the thread that reads its report, which may be longer than the socket holds.
    Adopt(std::thread::JoinHandle<String>),
    Tool(tools::Running),
}

/// The launcher.
#[derive(Debug)]
pub struct Launcher {
    config: Config,
    env: Env,
    command: Vec<String>,
    layout: Layout,
    gateway_account: Account,
    sidecar_account: Account,
    /// Root: gateway and sidecar get users of their own.
    separate: bool,
    output: Output,
    /// Held for as long as we live.
    _lock: Flock<File>,
    began: Instant,
    machine: Machine,
    children: HashMap<Pid, Role>,
    gateway: gateway::Gateway,
    daemon: daemon::Daemon,
    given: given::Given,
    clocks: Clocks,
    /// Set when the machine said that we end: nobody is waited for beyond it.
    ending: Option<Instant>,
}

/// The signals that the loop takes.
fn watched() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

/// Keeps the signals for the loop. Before any thread starts: one that does not block them would be killed by them, and
/// all of us with it.
///
/// # Errors
/// The system refuses.
pub fn block_signals() -> Result<(), Failure> {
    watched().thread_block().map_err(|e| Failure::System(format!("signals: {e}")))
}

/// Runs until told to stop, and returns when everything has ended. [`block_signals`] was called before.
///
/// # Errors
/// It cannot begin.
pub fn run(config: Config, env: Env, command: Vec<String>, output: Output) -> Result<(), Failure> {
    let system = |what: &'static str| move |e: nix::Error| Failure::System(format!("{what}: {e}"));
    let signals = SignalFd::with_flags(&watched(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
    let signals = signals.map_err(system("signals"))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(system("subreaper"))?;
    let mut launcher = Launcher::prepare(config, env, command, output)?;
    launcher.begin();
    while !launcher.done() {
        launcher.turn(&signals);
    }
    launcher.daemon.signal(Signal::SIGKILL);
    tracing::info!("everything has stopped");
    launcher.output.finish(LAST_WORDS);
    Ok(())
}

impl Launcher {
    fn prepare(config: Config, env: Env, command: Vec<String>, output: Output) -> Result<Self, Failure> {
        let separate = nix::unistd::geteuid().is_root();
        let account = |key: &str, text: &str| {
            if separate {
                Account::find(text).map_err(|e| Failure::Config(format!("{key}: {e}")))
            } else {
                Ok(Account::own())
            }
        };
        let gateway_account = account("launch.gateway_user", &config.launch.gateway_user)?;
        let sidecar_account = account("launch.sidecar_user", &config.launch.sidecar_user)?;
        if separate && gateway_account.uid == sidecar_account.uid {
            return Err(Failure::Config("launch.sidecar_user: must differ from launch.gateway_user".to_owned()));
        }
        if separate && gateway_account.gid == sidecar_account.gid {
            let what =
                "launch.sidecar_user: must have another group than launch.gateway_user, which could read its files";
            return Err(Failure::Config(what.to_owned()));
        }
        let port = config.gateway.address.port();
        if let Some(other) = port_of(&command).filter(|other| *other != port) {
            let what = format!("gateway.address: has port {port}, but the gateway's command says --port {other}");
            return Err(Failure::Config(format!("{what}; leave one of them out, or make them equal")));
        }
        let layout = Layout::new(&config.launch.volume).with_sidecar(&config.state_dir);
        let owner = |account: &Account| layout::Owner { uid: account.uid, gid: account.gid };
        let lock = lock(&config.launch.volume)?;
        let done = layout.prepare(owner(&gateway_account), owner(&sidecar_account), config.launch.migrate);
        for line in done.map_err(|refused| Failure::Config(format!("launch.volume: {refused}")))? {
            tracing::info!("{line}");
        }
        let given = given::Given::new(&config, &sidecar_account, separate);
        let random = std::process::id().into();
        Ok(Self {
            _lock: lock,
            layout,
            gateway_account,
            sidecar_account,
            separate,
            output,
            began: Instant::now(),
            machine: Machine::new(random),
            children: HashMap::new(),
            gateway: gateway::Gateway::default(),
            daemon: daemon::Daemon::default(),
            given,
            clocks: Clocks::now(),
            ending: None,
            config,
            env,
            command,
        })
    }

    fn begin(&mut self) {
        if let Err(e) = self.socket_dir() {
            tracing::warn!(error = %e, "the directory of the local socket cannot be made");
        }
        self.given.renew();
        self.spawn_daemon();
        if files::exists(&self.config.state_dir.join(DECOMMISSIONED)) {
            tracing::warn!("this tenant was decommissioned: the gateway is not started");
            self.happened(Event::Stop(Then::Stay, PATIENT_STOP));
        } else {
            self.happened(Event::Start);
        }
    }

    /// The daemon makes its local socket in a directory of its own, which the gateway's user cannot enter.
    fn socket_dir(&self) -> std::io::Result<()> {
        let Some(dir) = self.config.listen.unix.as_deref().and_then(std::path::Path::parent) else { return Ok(()) };
        if !self.separate || dir.starts_with(&self.layout.sidecar) {
            return Ok(());
        }
        files::private_dir_for(dir, self.sidecar_account.uid, self.sidecar_account.gid)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Takes an event to the machine and does what follows from it.
    fn happened(&mut self, event: Event) {
        let before = (self.machine.state(), self.machine.reason().to_owned());
        let effects = self.machine.on(event, self.now());
        let after = (self.machine.state(), self.machine.reason().to_owned());
        if before != after {
            self.gateway.since = crate::clock::UnixMs::now();
            tracing::info!(state = ?after.0, reason = after.1, "gateway");
            let _ = sd_notify::notify(&[NotifyState::Status(&format!("gateway {:?}: {}", after.0, after.1))]);
        }
        for effect in effects {
            self.carry_out(effect);
        }
        self.tell_status();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Seed { avoid, restore } => self.spawn_gateway(avoid, restore),
            Effect::Goodbye(within) => {
                let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                // Why it stops, before it is asked to say so.
                self.tell_status();
                self.daemon.tell(&Told::Goodbye { within_ms, then: self.machine.then() });
                if !self.daemon.serves() {
                    self.happened(Event::GoodbyeSaid);
                }
            }
            Effect::Term => self.gateway.signal(Signal::SIGTERM),
            Effect::Kill => self.gateway.kill(),
            Effect::Doctor => self.run_tool(&verbs::Tool::Doctor { fix: true }, tools::For::Repair),
            Effect::Adopt => self.spawn_adopt(),
            Effect::Exit => {
                let _ = sd_notify::notify(&[NotifyState::Stopping]);
                // Whether it sleeps or stops, for what it says to others.
                self.tell_status();
                self.ending = Some(Instant::now() + self.config.launch.stop_budget / 5);
                self.daemon.signal(Signal::SIGTERM);
                for (pid, _) in self.children.iter().filter(|(_, role)| matches!(role, Role::Tool(_) | Role::Adopt(_)))
                {
                    process::kill_group(*pid);
                }
            }
        }
    }

    /// Whether nothing is left to wait for.
    fn done(&self) -> bool {
        let empty = self.children.values().all(|role| matches!(role, Role::Gateway));
        self.ending.is_some_and(|end| empty || Instant::now() >= end)
    }

    /// Waits for whatever comes next, and handles it.
    fn turn(&mut self, signals: &SignalFd) {
        let timeout = PollTimeout::try_from(self.until_due()).unwrap_or(PollTimeout::from(1000u16));
        let (readable, daemon_ready, seed_ready, given_ready);
        {
            let mut sources = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            let mut at = [None; 3];
            if let Some(channel) = &self.daemon.channel {
                let out = if channel.has_unsent() { PollFlags::POLLOUT } else { PollFlags::empty() };
                at[0] = Some(sources.len());
                sources.push(PollFd::new(channel.socket().as_fd(), PollFlags::POLLIN | out));
            }
            if let Some(report) = &self.gateway.report {
                at[1] = Some(sources.len());
                sources.push(PollFd::new(report.as_fd(), PollFlags::POLLIN));
            }
            if let Some(hints) = self.given.hints() {
                at[2] = Some(sources.len());
                sources.push(PollFd::new(hints, PollFlags::POLLIN));
            }
            // An interruption or a timeout is a turn like any other.
            let _ = poll(&mut sources, timeout);
            let ready = |n: Option<usize>| n.is_some_and(|n| sources[n].any().unwrap_or(false));
            (readable, daemon_ready) = (ready(Some(0)), ready(at[0]));
            (seed_ready, given_ready) = (ready(at[1]), ready(at[2]));
        }
        if readable {
            self.take_signals(signals);
        }
        // A report comes before the end of the process that wrote it.
        if seed_ready {
            self.take_report();
        }
        self.reap();
        if daemon_ready {
            self.serve_daemon();
        }
        if given_ready {
            self.given.changed();
        }
        self.look();
    }

    fn until_due(&self) -> Duration {
        let now = self.now();
        let due = self.machine.due().map(|due| due.saturating_sub(now));
        let daemon = self.daemon.due.map(|due| due.saturating_duration_since(Instant::now()));
        let end = self.ending.map(|due| due.saturating_duration_since(Instant::now()));
        [due, daemon, end].into_iter().flatten().min().unwrap_or(LOOK_EVERY).min(LOOK_EVERY)
    }

    fn take_signals(&mut self, signals: &SignalFd) {
        while let Ok(Some(info)) = signals.read_signal() {
            match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or(0)) {
                Ok(signal @ (Signal::SIGTERM | Signal::SIGINT)) => {
                    tracing::info!(%signal, "stopping");
                    self.happened(Event::Stop(Then::Exit, self.config.launch.stop_budget));
                }
                Ok(Signal::SIGHUP) => self.given.renew(),
                _ => {}
            }
        }
    }

    /// Reaps everything that ended: children of ours, and as PID 1 or subreaper the orphans of others.
    fn reap(&mut self) {
        while let Some(pid) = process::next_ended() {
            let role = self.children.remove(&pid);
            if matches!(role, Some(Role::Gateway | Role::Tool(_))) {
                // While the dead leader keeps the number, nobody else's group can have it.
                process::kill_group(pid);
            }
            let Some(ended) = process::reap(pid) else { return };
            match role {
                Some(Role::Gateway) => self.gateway_ended(ended),
                Some(Role::Daemon) => self.daemon_ended(ended),
                Some(Role::Tool(tool)) => self.tool_ended(&tool, ended),
                Some(Role::Adopt(report)) => self.adopted(report, ended),
                None => {}
            }
        }
    }

    fn adopted(&mut self, report: std::thread::JoinHandle<String>, ended: process::Ended) {
        if ended.code != Some(0) {
            return tracing::warn!(%ended, "the configuration was not adopted");
        }
        let seeded: verbs::Seeded = serde_json::from_str(&report.join().unwrap_or_default()).unwrap_or_default();
        self.keep_applied(seeded.applied.as_ref());
    }

    fn look(&mut self) {
        let clocks = Clocks::now();
        if let Some(asleep) = self.clocks.slept(&clocks) {
            tracing::info!(asleep_s = asleep.as_secs(), "the machine was suspended");
            let asleep_ms = u64::try_from(asleep.as_millis()).unwrap_or(u64::MAX);
            self.daemon.tell(&Told::Resumed { asleep_ms });
        }
        if self.clocks.stalled(&clocks) {
            self.daemon.heard = Some(Instant::now());
        }
        self.clocks = clocks;
        if self.gateway.look_due() {
            if let Some((stopped, cpu_ticks)) = self.gateway.pid.and_then(process::look) {
                self.happened(Event::Looked { stopped, cpu_ticks });
            }
            // Also proves to a service manager that this loop turns.
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        if self.machine.due().is_some_and(|due| due <= self.now()) {
            self.happened(Event::Tick);
        } else if self.machine.due().is_none() {
            self.machine.on(Event::Tick, self.now());
        }
        if self.daemon.due.is_some_and(|due| due <= Instant::now()) {
            self.spawn_daemon();
        }
        self.daemon.end_if_frozen();
        self.end_late_tools();
        if self.given.look_due() {
            self.given.renew();
        }
    }

    fn serve_daemon(&mut self) {
        let Some(channel) = &mut self.daemon.channel else { return };
        channel.flush();
        let requests = channel.receive();
        let broken = channel.broken;
        if !requests.is_empty() {
            self.daemon.heard = Some(Instant::now());
        }
        for request in requests {
            self.serve(request.id, &request.verb);
        }
        if broken {
            // Its end follows by itself; one that only broke the rules is ended. One that was told to end has calls to
            // answer and its goodbye to say.
            self.daemon.channel = None;
            if self.ending.is_none() {
                self.daemon.signal(Signal::SIGKILL);
            }
        }
    }

    fn serve(&mut self, id: u64, verb: &Verb) {
        let result = match verb {
            Verb::Serving => {
                self.daemon.served = true;
                // Also while the gateway cannot start: through the API one repairs what keeps it down.
                let _ = sd_notify::notify(&[NotifyState::Ready]);
                self.tell_status();
                Ok(())
            }
            Verb::Health(health) => {
                self.happened(Event::Health(*health));
                Ok(())
            }
            Verb::GoodbyeSaid => {
                self.happened(Event::GoodbyeSaid);
                Ok(())
            }
            Verb::Start => self.asked(Event::Start),
            Verb::Stop => self.asked(Event::Stop(Then::Stay, PATIENT_STOP)),
            Verb::Restart => self.asked(Event::Stop(Then::Restart, PATIENT_STOP)),
            Verb::Sleep => self.asked(Event::Stop(Then::Sleep, self.config.launch.stop_budget)),
            Verb::ReadConfig => {
                let result = self.read_config();
                return self.daemon.tell(&Told::Reply { id, result });
            }
            Verb::Listener { inode } => return self.run_listener_check(*inode, id),
            Verb::Run(tool) => return self.run_tool(tool, tools::For::Daemon(id)),
            Verb::Wipe => self.wipe(),
        };
        self.daemon.tell(&Told::Reply { id, result: result.map(|()| serde_json::Value::Null) });
    }

    fn asked(&mut self, event: Event) -> Result<(), String> {
        if self.ending.is_some() {
            return Err("the machine stops".to_owned());
        }
        if files::exists(&self.config.state_dir.join(DECOMMISSIONED)) && event == Event::Start {
            return Err("this tenant was decommissioned".to_owned());
        }
        self.happened(event);
        Ok(())
    }

    /// The gateway may put anything at these paths: only a regular file of its own is read, and no link followed.
    fn read_config(&self) -> Result<serde_json::Value, String> {
        let read = |path: std::path::PathBuf, owner: Option<u32>| match files::read_owned_text(&path, MAX_CONFIG, owner)
        {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.to_string()),
        };
        let config = read(self.layout.gateway.join("openclaw.json"), Some(self.gateway_account.uid))?;
        let applied = read(self.config.state_dir.join(seed::APPLIED), None)?;
        Ok(serde_json::json!({ "config": config, "applied": applied }))
    }

    fn wipe(&mut self) -> Result<(), String> {
        if self.machine.state().runs() {
            return Err("the gateway runs".to_owned());
        }
        for dir in [self.layout.gateway.clone(), self.layout.volume.join(layout::COPY)] {
            // Nobody else may rename anything in the volume, and below it no link is followed.
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(format!("{}: {e}", dir.display())),
                _ => {}
            }
        }
        files::remove_if_present(&self.config.state_dir.join(seed::APPLIED)).map_err(|e| e.to_string())?;
        tracing::warn!("the tenant's state was wiped");
        Ok(())
    }

    fn tell_status(&mut self) {
        let machine = &self.machine;
        let status = Status {
            state: machine.state(),
            since: self.gateway.since,
            reason: machine.reason().to_owned(),
            pid: self.gateway.pid.map(Pid::as_raw),
            starts: self.gateway.starts,
            last_exit: self.gateway.last_exit.clone(),
            output_dropped: self.output.dropped(),
            generation: machine.generation(),
            failed_generation: machine.failed_generation(),
            version: self.gateway.seeded.version.clone(),
            previous_version: self.gateway.seeded.previous_version.clone(),
            notes: self.gateway.seeded.notes.clone(),
            isolation: if self.separate { "separate-uids" } else { "shared-uid" }.to_owned(),
        };
        self.daemon.tell_status(status);
    }
}

/// Two gateways on one state would ruin it.
fn lock(volume: &std::path::Path) -> Result<Flock<File>, Failure> {
    let failed = |why: String| Failure::Config(format!("launch.volume: {}: {why}", volume.display()));
    let dir = File::open(volume).map_err(|e| failed(e.to_string()))?;
    Flock::lock(dir, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Failure::System(format!("{}: another launcher runs on this volume", volume.display())))
}

/// The port that the gateway's command names, if it names one.
fn port_of(command: &[String]) -> Option<u16> {
    let after = command.iter().skip_while(|word| *word != "--port").nth(1);
    let joined = command.iter().find_map(|word| word.strip_prefix("--port="));
    after.map(String::as_str).or(joined)?.parse().ok()
}
