//! The supervision state machine: pure, every effect is a value.
//!
//! ```text
//!             start             seeded            ready                 silent
//!  stopped ----------> seeding --------> starting ------> ready <-----------------> degraded
//!     ^                 ^  ^ \              |               |      answers             |
//!     |                 |  |  \             '---- exits ----+--------------------------'
//!     |                 |  |   '- fails -.        |         |
//!     |             due |  |             v        v         | mute and idle, or stopped, for 60 s: replaced
//!     |                 |  '-- rolled back, restored, doctored <-- config-class, before ready --> config_invalid
//!     |                 |                         |
//!     |               backoff, crash_loop <-- any other exit
//!     |
//!     '-- stop -- draining (goodbye, TERM, KILL; all inside the budget) -- sleep --> suspended, then the launcher ends
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// First pause after an exit; doubles with every further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MOST: Duration = Duration::from_secs(60);
/// So many exits within [`LOOP_WINDOW`] are a crash loop.
const LOOP_EXITS: usize = 5;
const LOOP_WINDOW: Duration = Duration::from_secs(300);
/// Between tries of a gateway that loops, or whose configuration no repair helped.
const SLOW_RETRY: Duration = Duration::from_secs(300);
/// Ready for so long, earlier exits are forgotten.
const FORGIVEN: Duration = Duration::from_secs(600);
/// Frozen for so long, it is replaced. A throttled gateway is slow but uses its share of the processor.
const FROZEN: Duration = Duration::from_secs(60);

/// A generation not ready for so long never will be: on a machine with a sixteenth of a core it takes 4 minutes.
const NEVER_READY: Duration = Duration::from_secs(900);

/// What the launcher says the gateway is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does not run, and nobody wants it to.
    #[default]
    Stopped,
    /// Its configuration and files are being written.
    Seeding,
    /// It runs, and has not answered yet.
    Starting,
    /// It answered an authenticated call.
    Ready,
    /// It runs and does not answer.
    Degraded,
    /// It is being stopped.
    Draining,
    /// It ended and will be started again soon.
    Backoff,
    /// It ended too often: it is tried seldom.
    CrashLoop,
    /// It refuses its configuration, and no repair helped.
    ConfigInvalid,
    /// It was put to sleep; the machine may be stopped.
    Suspended,
}

impl State {
    /// Whether a gateway process may be alive.
    pub fn runs(self) -> bool {
        matches!(self, Self::Seeding | Self::Starting | Self::Ready | Self::Degraded | Self::Draining)
    }
}

/// What to do once the gateway has stopped. Ordered: a stronger wish replaces a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// Start it again.
    Restart,
    /// Leave it stopped.
    Stay,
    /// End the launcher: the machine sleeps.
    Sleep,
    /// End the launcher.
    Exit,
}

/// What the daemon's authenticated calls say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// A call was answered lately.
    Answers,
    /// It accepts connections, and answers nothing.
    Mute,
    /// Nothing is known: it boots, or refuses us.
    Unknown,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Start it: at boot, or because somebody asked.
    Start,
    /// Stop it within this time, then go on so.
    Stop(Then, Duration),
    /// Its files are written and the gateway's program begins; the desired generation used.
    Seeded(u64),
    /// The process ended.
    Exited {
        /// It refused its configuration.
        config_class: bool,
        /// In plain words.
        why: String,
    },
    /// What the daemon sees.
    Health(Health),
    /// What the process table says: stopped by a signal, and the processor time used so far.
    Looked {
        /// Process state T.
        stopped: bool,
        /// Processor time in clock ticks.
        cpu_ticks: u64,
    },
    /// Everybody who wanted to know of the stop was told.
    GoodbyeSaid,
    /// `doctor --fix` ended.
    Doctored,
    /// Time passed.
    Tick,
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start the seeding process, which becomes the gateway.
    Seed {
        /// This generation of the desired state is not to be used.
        avoid: Option<u64>,
        /// The last configuration that worked replaces the present one.
        restore: bool,
    },
    /// Tell everybody that the gateway stops; there is so much time.
    Goodbye(Duration),
    /// SIGTERM to the gateway.
    Term,
    /// SIGKILL to its whole group.
    Kill,
    /// Run the gateway's own repair.
    Doctor,
    /// Take over what the gateway made of its configuration; it works.
    Adopt,
    /// The launcher ends.
    Exit,
}

/// How far repairing a configuration went since it last worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    Nothing,
    Restored,
    Doctored,
}

/// The machine. Times are since any fixed moment, on a clock that does not jump.
#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    since: Duration,
    reason: String,
    /// When something is due in this state.
    due: Option<Duration>,
    kill_at: Duration,
    then: Then,
    term_sent: bool,
    exits: VecDeque<Duration>,
    failures: u32,
    /// Since when it is ready, in this run.
    ready_since: Option<Duration>,
    health: Health,
    cpu_ticks: u64,
    frozen_since: Option<Duration>,
    generation: u64,
    /// The newest generation that became ready.
    good: Option<u64>,
    avoid: Option<u64>,
    repair: Repair,
    random: u64,
}

impl Machine {
    /// A stopped machine; `seed` spreads the pauses of a fleet.
    pub fn new(seed: u64) -> Self {
        Self {
            state: State::Stopped,
            since: Duration::ZERO,
            reason: "not started yet".to_owned(),
            due: None,
            kill_at: Duration::ZERO,
            then: Then::Stay,
            term_sent: false,
            exits: VecDeque::new(),
            failures: 0,
            ready_since: None,
            health: Health::Unknown,
            cpu_ticks: 0,
            frozen_since: None,
            generation: 0,
            good: None,
            avoid: None,
            repair: Repair::Nothing,
            random: seed | 1,
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// What follows the stop that is under way.
    pub fn then(&self) -> Then {
        self.then
    }

    /// Why, in plain words.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// A generation of the desired state that kept the gateway from becoming ready.
    pub fn failed_generation(&self) -> Option<u64> {
        self.avoid
    }

    /// The generation in use.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When a [`Event::Tick`] is due at the latest.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Takes one event in at `now`; what follows is to be done in order.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Effect> {
        match event {
            Event::Start => self.start(now),
            Event::Stop(then, budget) => self.stop(then, budget, now),
            Event::Seeded(generation) => {
                self.generation = generation;
                if self.state == State::Seeding {
                    self.enter(State::Starting, "the gateway boots", now);
                }
                Vec::new()
            }
            Event::Exited { config_class, why } => self.exited(config_class, &why, now),
            Event::Health(health) => self.heard(health, now),
            Event::Looked { stopped, cpu_ticks } => self.looked(stopped, cpu_ticks, now),
            Event::GoodbyeSaid => self.terminate(),
            Event::Doctored if self.state == State::ConfigInvalid => self.seed(false, now),
            Event::Doctored => Vec::new(),
            Event::Tick => self.tick(now),
        }
    }

    fn enter(&mut self, state: State, reason: &str, now: Duration) {
        if self.state != state {
            self.since = now;
        }
        self.state = state;
        reason.clone_into(&mut self.reason);
        self.due = None;
    }

    fn start(&mut self, now: Duration) -> Vec<Effect> {
        if self.state.runs() {
            return Vec::new();
        }
        // Who asks by hand wants everything tried anew.
        self.repair = Repair::Nothing;
        self.failures = 0;
        self.exits.clear();
        self.seed(false, now)
    }

    fn seed(&mut self, restore: bool, now: Duration) -> Vec<Effect> {
        self.enter(State::Seeding, "its configuration is written", now);
        self.ready_since = None;
        self.health = Health::Unknown;
        self.frozen_since = None;
        self.cpu_ticks = 0;
        vec![Effect::Seed { avoid: self.avoid, restore }]
    }

    fn stop(&mut self, then: Then, budget: Duration, now: Duration) -> Vec<Effect> {
        // A quarter for the goodbye, a fifth for what comes after the kill: reaping, the daemon, our own end.
        let kill_at = now + budget * 4 / 5;
        if self.state == State::Draining {
            self.then = self.then.max(then);
            self.kill_at = self.kill_at.min(kill_at);
            self.due = self.due.map(|due| due.min(self.kill_at));
            return Vec::new();
        }
        if !self.state.runs() {
            return self.finish(then, now);
        }
        self.enter(State::Draining, stop_reason(then), now);
        (self.then, self.kill_at, self.term_sent) = (then, kill_at, false);
        let goodbye = (budget / 4).min(Duration::from_secs(2));
        self.due = Some(now + goodbye);
        vec![Effect::Goodbye(goodbye)]
    }

    fn terminate(&mut self) -> Vec<Effect> {
        if self.state != State::Draining || self.term_sent {
            return Vec::new();
        }
        self.term_sent = true;
        self.due = Some(self.kill_at);
        vec![Effect::Term]
    }

    fn finish(&mut self, then: Then, now: Duration) -> Vec<Effect> {
        match then {
            Then::Restart => return self.seed(false, now),
            Then::Stay => self.enter(State::Stopped, "it was stopped on request", now),
            Then::Sleep => self.enter(State::Suspended, "it was put to sleep", now),
            Then::Exit => self.enter(State::Stopped, "the machine stops", now),
        }
        if then >= Then::Sleep { vec![Effect::Exit] } else { Vec::new() }
    }

    fn exited(&mut self, config_class: bool, why: &str, now: Duration) -> Vec<Effect> {
        match self.state {
            State::Draining => return self.finish(self.then, now),
            state if !state.runs() => return Vec::new(),
            _ => {}
        }
        let never_ready = self.ready_since.is_none();
        self.exits.push_back(now);
        while self.exits.front().is_some_and(|first| now.saturating_sub(*first) > LOOP_WINDOW) {
            self.exits.pop_front();
        }
        let looping = self.exits.len() >= LOOP_EXITS;
        if never_ready && self.untried() && (config_class || looping) {
            self.avoid = Some(self.generation);
            self.exits.clear();
            return self.seed(false, now);
        }
        if never_ready && config_class {
            return self.repair(why, now);
        }
        if looping {
            let reason = format!("it ended {LOOP_EXITS} times within 5 minutes, last: {why}");
            self.enter(State::CrashLoop, &reason, now);
            self.due = Some(now + SLOW_RETRY);
            self.exits.clear();
        } else {
            self.enter(State::Backoff, why, now);
            let pause = (BACKOFF_FIRST * 2u32.saturating_pow(self.failures.min(10))).min(BACKOFF_MOST);
            self.due = Some(now + self.jittered(pause));
        }
        self.failures += 1;
        Vec::new()
    }

    /// Whether the generation in use was never ready, and is not one that failed already.
    fn untried(&self) -> bool {
        self.generation > 0 && self.good != Some(self.generation) && self.avoid != Some(self.generation)
    }

    /// The last configuration that worked comes first: the gateway's own repair rewrites much, and on some versions
    /// replaces what it cannot read by an empty file (observed on 2026.2.9 and 2026.6.11).
    fn repair(&mut self, why: &str, now: Duration) -> Vec<Effect> {
        match self.repair {
            Repair::Nothing => {
                self.repair = Repair::Restored;
                self.seed(true, now)
            }
            Repair::Restored => {
                self.repair = Repair::Doctored;
                self.enter(State::ConfigInvalid, &format!("its own repair runs, because {why}"), now);
                vec![Effect::Doctor]
            }
            Repair::Doctored => {
                self.enter(State::ConfigInvalid, why, now);
                self.due = Some(now + SLOW_RETRY);
                Vec::new()
            }
        }
    }

    fn heard(&mut self, health: Health, now: Duration) -> Vec<Effect> {
        self.health = health;
        match (self.state, health) {
            (State::Starting | State::Degraded, Health::Answers) => {
                self.enter(State::Ready, "", now);
                if self.ready_since.is_some() {
                    return Vec::new();
                }
                self.ready_since = Some(now);
                self.good = Some(self.generation);
                self.repair = Repair::Nothing;
                vec![Effect::Adopt]
            }
            (State::Ready | State::Starting, Health::Mute) => {
                self.enter(State::Degraded, "it accepts connections and answers nothing", now);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn looked(&mut self, stopped: bool, cpu_ticks: u64, now: Duration) -> Vec<Effect> {
        if !matches!(self.state, State::Starting | State::Ready | State::Degraded) {
            return Vec::new();
        }
        let late = self.state == State::Starting && now.saturating_sub(self.since) >= NEVER_READY;
        if late && self.untried() {
            self.avoid = Some(self.generation);
            return self.replace("this generation of the desired state never became ready", now);
        }
        let idle = cpu_ticks == self.cpu_ticks;
        self.cpu_ticks = cpu_ticks;
        if !(stopped || (self.health == Health::Mute && idle)) {
            self.frozen_since = None;
            return Vec::new();
        }
        let since = *self.frozen_since.get_or_insert(now);
        if now.saturating_sub(since) < FROZEN {
            return Vec::new();
        }
        let how = if stopped { "stopped by a signal" } else { "mute and without any use of the processor" };
        self.replace(&format!("{how} for {} s", FROZEN.as_secs()), now)
    }

    fn replace(&mut self, why: &str, now: Duration) -> Vec<Effect> {
        self.enter(State::Draining, &format!("it is replaced: {why}"), now);
        (self.then, self.term_sent, self.kill_at) = (Then::Restart, true, now);
        self.due = Some(now);
        vec![Effect::Kill]
    }

    fn tick(&mut self, now: Duration) -> Vec<Effect> {
        if self.ready_since.is_some_and(|since| now.saturating_sub(since) >= FORGIVEN) {
            self.failures = 0;
            self.exits.clear();
        }
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.due = None;
        match self.state {
            State::Draining if !self.term_sent => self.terminate(),
            State::Draining => {
                // A process that cannot die yet (in the kernel, say) is asked again.
                self.due = Some(now + Duration::from_secs(1));
                vec![Effect::Kill]
            }
            State::Backoff | State::CrashLoop => self.seed(false, now),
            State::ConfigInvalid => {
                self.repair = Repair::Nothing;
                self.seed(false, now)
            }
            _ => Vec::new(),
        }
    }

    /// Up to a quarter less or more.
    fn jittered(&mut self, pause: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        pause * (768 + u32::try_from(self.random % 512).unwrap_or(0)) / 1024
    }
}

fn stop_reason(then: Then) -> &'static str {
    match then {
        Then::Restart => "it restarts on request",
        Then::Stay => "it is stopped on request",
        Then::Sleep => "the machine goes to sleep",
        Then::Exit => "the machine stops",
    }
}

#[cfg(test)]
mod tests;
