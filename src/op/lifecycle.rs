//! The gateway's life from outside: starting, stopping, repairing, sleeping, and following what the launcher tells.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::desired::Desired;
use super::findings;
use super::secrets::Secrets;
use super::{Caller, Refused, recorded};
use crate::audit::Audit;
use crate::checkin::wire::Intent;
use crate::checkin::{BYE, CheckIns};
use crate::gateway::{Gateway, Method};
use crate::launcher::handle::{Handle, News};
use crate::launcher::machine::{Health, State as Launched, Then};
use crate::launcher::verbs::{Ran, Status, Tool, Verb};
use crate::pulse::{self, PULSE};
use crate::state::{Phase, Snapshot, State};

/// A tool of the gateway may take so long on a slow machine; the launcher ends it a little earlier.
const TOOL: Duration = Duration::from_secs(185);
/// The launcher replaces a daemon that it does not hear from.
const BEAT: Duration = PULSE.saturating_mul(2);
/// Streams get the news of a stop within this time.
const FLUSH: Duration = Duration::from_millis(50);

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start it if it does not run.
    Start,
    /// Stop it.
    Stop,
    /// Stop and start it, if it is still the one with this boot id.
    Restart(Option<String>),
    /// Stop it and end, so that the platform may stop the machine; `true` even while work is under way.
    Sleep(bool),
}

impl Order {
    fn verb(&self) -> (Verb, &'static str) {
        match self {
            Self::Start => (Verb::Start, "gateway.start"),
            Self::Stop => (Verb::Stop, "gateway.stop"),
            Self::Restart(_) => (Verb::Restart, "gateway.restart"),
            Self::Sleep(_) => (Verb::Sleep, "sleep"),
        }
    }
}

/// The lifecycle operations.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// The launcher.
    pub launcher: Handle,
    /// The gateway.
    pub gateway: Gateway,
    /// The published snapshot.
    pub state: State,
    /// The audit.
    pub audit: Audit,
    /// Lies there once the tenant is gone.
    pub decommissioned: PathBuf,
    /// What no text may show.
    pub secrets: Arc<Secrets>,
    /// Where goodbye is said.
    pub checkins: CheckIns,
}

impl Lifecycle {
    /// Carries an order out and waits until `deadline` for what it leads to; returns whether that was reached.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn order(&self, order: Order, caller: &Caller, deadline: Instant) -> Result<bool, Refused> {
        if matches!(order, Order::Start | Order::Restart(_)) && crate::files::exists(&self.decommissioned) {
            return Err(Refused::Decommissioned);
        }
        if let Order::Restart(Some(expected)) = &order {
            self.check_boot_id(expected)?;
        }
        if order == Order::Sleep(false) {
            self.check_idle().await?;
        }
        let starts = self.launcher.status().starts;
        let (verb, name) = order.verb();
        recorded(&self.audit, caller, name, "gateway", async {
            self.launcher.ask(verb).await.map_err(Refused::LauncherFailed)
        })
        .await?;
        let reached = |snapshot: &Snapshot| {
            let Some(status) = &snapshot.supervisor else { return false };
            match &order {
                Order::Start => snapshot.phase == Phase::Ready,
                Order::Restart(_) => snapshot.phase == Phase::Ready && status.starts > starts,
                Order::Stop => status.state == Launched::Stopped,
                // The answer must leave before everything ends.
                Order::Sleep(_) => matches!(status.state, Launched::Draining | Launched::Suspended),
            }
        };
        Ok(self.wait_for(reached, deadline).await)
    }

    async fn wait_for(&self, reached: impl Fn(&Snapshot) -> bool, deadline: Instant) -> bool {
        let mut watch = self.state.watch();
        loop {
            if reached(&watch.borrow_and_update()) {
                return true;
            }
            if !matches!(timeout_at(deadline, watch.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
    }

    fn check_boot_id(&self, expected: &str) -> Result<(), Refused> {
        let known = self.state.now().gateway.as_ref().and_then(|g| g.boot_id.clone());
        match known {
            Some(boot_id) if boot_id == expected => Ok(()),
            Some(boot_id) => Err(Refused::OtherBoot(boot_id)),
            None => Err(Refused::UnsupportedByGateway("this gateway tells no boot id, so leave if_boot_id out")),
        }
    }

    /// A gateway that can say so is asked whether work is under way. Others are believed idle.
    async fn check_idle(&self) -> Result<(), Refused> {
        let prepared = self.prepare(Instant::now() + Duration::from_secs(5)).await;
        match prepared.as_ref().and_then(|answer| answer["status"].as_str()) {
            Some("busy") => Err(Refused::GatewayBusy),
            _ => Ok(()),
        }
    }

    async fn prepare(&self, deadline: Instant) -> Option<serde_json::Value> {
        let offered = matches!(self.gateway.link(), crate::gateway::Link::Up(s) if s.offers(Method::SuspendPrepare));
        if !offered {
            return None;
        }
        let params = json!({ "requestId": "openclaw-sidecar" });
        self.gateway.call(Method::SuspendPrepare, params, deadline).await.ok()
    }

    /// Runs the gateway's doctor; with `fix` it repairs what it finds.
    ///
    /// # Errors
    /// It could not be run.
    pub async fn doctor(&self, fix: bool, caller: &Caller) -> Result<Ran, Refused> {
        recorded(&self.audit, caller, "gateway.doctor", if fix { "fix" } else { "look" }, async {
            self.tool(Tool::Doctor { fix }).await
        })
        .await
    }

    /// Runs one of the gateway's tools.
    ///
    /// # Errors
    /// It could not be run.
    pub async fn tool(&self, tool: Tool) -> Result<Ran, Refused> {
        let ran = self.launcher.ask_until(Verb::Run(tool), Instant::now() + TOOL).await;
        let ran = ran.map_err(Refused::LauncherFailed)?;
        let ran: Ran = serde_json::from_value(ran).map_err(|e| Refused::LauncherFailed(e.to_string()))?;
        Ok(Ran { output: self.secrets.redact(&ran.output), ..ran })
    }

    /// Follows the launcher until `stop`: publishes its status, tells it what the connection proves, says goodbye.
    pub async fn follow(self, desired: Arc<Desired>, mut news: mpsc::Receiver<News>, stop: CancellationToken) {
        let mut status = self.launcher.watch();
        let mut seen = self.state.watch();
        let mut told = Health::Unknown;
        let mut due = Instant::now();
        loop {
            let now = status.borrow_and_update().clone();
            desired.settle(&now);
            self.publish(now);
            let health = health_of(&seen.borrow_and_update());
            if health != told && self.launcher.ask(Verb::Health(health)).await.is_ok() {
                told = health;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(due) => {
                    due = pulse::last(BEAT) + BEAT;
                    if let Err(why) = self.launcher.ask(Verb::Serving).await {
                        tracing::error!(error = why, "the launcher does not answer");
                    }
                },
                changed = status.changed() => if changed.is_err() { return },
                changed = seen.changed() => if changed.is_err() { return },
                item = news.recv() => match item {
                    Some(News::Goodbye(within, then)) => self.say_goodbye(within, then).await,
                    Some(News::Resumed(asleep)) => resume(&self.gateway, &self.checkins, &self.state)(asleep),
                    None => return,
                },
            }
        }
    }

    fn publish(&self, mut status: Status) {
        if let Some(exit) = &mut status.last_exit {
            exit.reason = self.secrets.redact(&exit.reason);
            exit.last_lines.iter_mut().for_each(|line| *line = self.secrets.redact(line));
            status.reason = self.secrets.redact(&status.reason);
        }
        let found = findings::supervision(&status, crate::files::exists(&self.decommissioned));
        self.state.publish(|draft| {
            for (code, found) in found {
                draft.snapshot.set_finding(code, found);
            }
            if draft.snapshot.supervisor.as_deref() != Some(&status) {
                draft.snapshot.supervised(status);
            }
        });
    }

    /// Whoever follows the state learns of the stop; a gateway that can is asked to hold new work back.
    async fn say_goodbye(&self, within: Duration, then: Then) {
        let status = self.launcher.status();
        let reason = status.reason.clone();
        self.publish(status);
        let deadline = Instant::now() + within / 2;
        let bye = async {
            // The machine stays, unless the launcher ends.
            let intent = match then {
                Then::Restart | Then::Stay => return,
                Then::Sleep => Intent::Sleep,
                Then::Exit => Intent::Stop,
            };
            self.checkins.bye(intent, &reason, within.saturating_sub(FLUSH)).await;
        };
        tokio::join!(self.prepare(deadline), tokio::time::sleep(FLUSH), bye);
        if let Err(why) = self.launcher.ask(Verb::GoodbyeSaid).await {
            tracing::warn!(error = why, "the goodbye was not heard");
        }
    }

    /// Says goodbye when the daemon itself ends, unless that was done before the gateway's stop.
    pub async fn say_last_goodbye(&self) {
        let status = self.launcher.status();
        let intent = if status.state == Launched::Suspended { Intent::Sleep } else { Intent::Stop };
        self.checkins.bye(intent, &status.reason, BYE).await;
    }
}

/// What is done when the machine was suspended: connections of before are worth nothing, and the state is told at once.
pub fn resume(gateway: &Gateway, checkins: &CheckIns, state: &State) -> impl Fn(Duration) + use<> {
    let (gateway, checkins, state) = (gateway.clone(), checkins.clone(), state.clone());
    move |asleep| {
        gateway.redial();
        checkins.resumed();
        state.publish(|draft| draft.tell("machine.resumed", json!({ "asleep_s": asleep.as_secs() })));
    }
}

fn health_of(snapshot: &Snapshot) -> Health {
    match snapshot.seen.0 {
        Phase::Ready => Health::Answers,
        Phase::Degraded => Health::Mute,
        _ => Health::Unknown,
    }
}
