//! A machine with a sixteenth of a core: slow is not dead. Nothing is replaced, and every call is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{NEWEST, SOON, starts};
use crate::support::client::{Client, EventStream, Reply};
use crate::support::machine::proc::{self, Stat};
use crate::support::machine::throttle::Throttle;
use crate::support::machine::{Machine, READY};

/// How long a ready machine is slow. A gateway that seems frozen is replaced after 60 s.
const SLOW: Duration = Duration::from_secs(150);
/// A caller asks so often, and changes something in every fifth round.
const PACE: Duration = Duration::from_secs(1);
const READ: Duration = Duration::from_secs(2);

/// What came back in all that time.
#[derive(Debug, Default)]
struct Answers {
    reads: Vec<Duration>,
    approvals: Vec<Duration>,
    /// Outcomes and problem codes.
    outcomes: BTreeMap<String, usize>,
    phases: BTreeSet<String>,
}

#[tokio::test]
async fn a_ready_gateway_is_not_replaced() -> anyhow::Result<()> {
    let Some(throttle) = Throttle::prepare("launch::throttled::ready") else { return Ok(()) };
    let machine = Machine::real(NEWEST)?.start().await?;
    machine.wait_phase("ready", READY).await?;
    let client = machine.client();
    // It has to ask while the gateway is still quick.
    let mut browser = machine.browser()?;
    let request = browser.attempt().await?.request_id()?.to_owned();
    let waits =
        |body: &Value| body["pending"].as_array().is_some_and(|p| p.iter().any(|p| p["request_id"] == *request));
    client.wait_until("/v1/pairing", waits, SOON).await?;
    let gateway = running(&machine)?;

    let events = client.events("/v1/events", None).await?;
    throttle.slow_down(&machine)?;
    let end = Instant::now() + SLOW;
    let told = tokio::spawn(phases_told(events, end));
    let mut answers = Answers::default();
    answers.collect(&machine, gateway, Some(&request), end).await.with_context(|| machine.last_words())?;
    answers.phases.extend(told.await??);
    println!("slow for {SLOW:?}: {}", answers.summary());
    check_slow(&throttle, gateway)?;
    throttle.lift()?;

    answers.check(&["ready", "degraded"])?;
    ensure!(answers.let_in(), "{:?}", answers.outcomes);
    browser.connect_when_approved(SOON).await?;
    let state = machine.wait_phase("ready", SOON).await?;
    check_same(&machine, &state, gateway)?;
    machine.stop().await?;
    Ok(())
}

fn running(machine: &Machine) -> anyhow::Result<Stat> {
    machine.gateway_pid().and_then(proc::stat).context("no gateway runs")
}

/// The test is about something: they had to wait, and the gateway among them.
fn check_slow(throttle: &Throttle, gateway: Stat) -> anyhow::Result<()> {
    println!("throttled in {} periods", throttle.waits());
    ensure!(throttle.waits() > 100, "throttled in {} periods only", throttle.waits());
    ensure!(throttle.holds(gateway.pid), "the gateway was not slow");
    Ok(())
}

fn check_same(machine: &Machine, state: &Value, gateway: Stat) -> anyhow::Result<()> {
    let supervisor = &state["supervisor"];
    ensure!(starts(state) == 1 && supervisor["last_exit"].is_null(), "{supervisor}\n{}", machine.last_words());
    let now = running(machine)?;
    ensure!((now.pid, now.started) == (gateway.pid, gateway.started), "another gateway: {now:?}");
    ensure!(machine.pids().gateways() == [gateway.pid], "{:?}", machine.pids().gateways());
    Ok(())
}

/// The phases that whoever listens is told of until `end`.
async fn phases_told(mut events: EventStream, end: Instant) -> anyhow::Result<Vec<String>> {
    let mut told = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let Ok(event) = timeout(left, events.next(SLOW)).await else { return Ok(told) };
        let event = event.context("listening")?;
        if event.event == "gateway.phase" {
            told.extend(event.json()["phase"].as_str().map(str::to_owned));
        }
    }
}

impl Answers {
    /// It was approved. An answer that came too late may have been the approval; the next one then says so.
    fn let_in(&self) -> bool {
        let told = |outcome| self.outcomes.contains_key(outcome);
        told("approved") || (told("gateway_unreachable") && told("already_paired"))
    }

    async fn collect(
        &mut self,
        machine: &Machine,
        gateway: Stat,
        request: Option<&str>,
        end: Instant,
    ) -> anyhow::Result<()> {
        let (client, mut pace) = (machine.client(), interval(PACE));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = 0;
        while Instant::now() < end {
            pace.tick().await;
            let state = self.read(&client, "/v1/state").await?;
            ensure!(starts(&state) == 1, "replaced: {state}");
            ensure!(state["supervisor"]["pid"].as_u64() == Some(gateway.pid.into()), "another gateway: {state}");
            self.phases.insert(state["phase"].as_str().context("no phase")?.to_owned());
            let pairing = self.read(&client, "/v1/pairing").await?;
            ensure!(pairing["pending"].is_array(), "no list: {pairing}");
            if round % 5 == 0 {
                self.approve(&client, request).await?;
            }
            round += 1;
        }
        Ok(())
    }

    async fn read(&mut self, client: &Client, path: &str) -> anyhow::Result<Value> {
        let asked = Instant::now();
        let reply = client.get(path).await.with_context(|| format!("GET {path}"))?;
        self.reads.push(asked.elapsed());
        ensure!(reply.status == 200, "GET {path}: {} {}", reply.status, reply.text());
        Ok(reply.json())
    }

    /// The request that waits until it is approved, afterwards one that nobody made.
    async fn approve(&mut self, client: &Client, request: Option<&str>) -> anyhow::Result<()> {
        let waiting = request.filter(|_| !self.let_in());
        let id = waiting.unwrap_or("6f1c1c1e-0000-4000-8000-000000000000");
        let asked = Instant::now();
        let body = json!({"kind": "device", "request_id": id});
        let reply = client.post("/v1/pairing/approve?wait_s=1", &body).await.context("approve")?;
        self.approvals.push(asked.elapsed());
        *self.outcomes.entry(type_of(&reply)?).or_default() += 1;
        Ok(())
    }

    fn check(&self, allowed: &[&str]) -> anyhow::Result<()> {
        let other: Vec<_> = self.phases.iter().filter(|phase| !allowed.contains(&phase.as_str())).collect();
        ensure!(other.is_empty(), "phases {other:?}");
        let late: Vec<_> = self.reads.iter().filter(|took| **took > READ).collect();
        ensure!(late.is_empty(), "{} of {} reads took longer than {READ:?}: {late:?}", late.len(), self.reads.len());
        Ok(())
    }

    fn summary(&self) -> String {
        let slowest = |all: &[Duration]| all.iter().max().copied().unwrap_or_default();
        format!(
            "{} reads, the slowest {:?}; {} approvals, the slowest {:?}: {:?}; phases {:?}",
            self.reads.len(),
            slowest(&self.reads),
            self.approvals.len(),
            slowest(&self.approvals),
            self.outcomes,
            self.phases
        )
    }
}

/// An outcome, or the code of a problem document.
fn type_of(reply: &Reply) -> anyhow::Result<String> {
    let body: Value = serde_json::from_slice(&reply.body).with_context(|| reply.text())?;
    match body["outcome"].as_str().or_else(|| body["code"].as_str()) {
        Some(name) => Ok(name.to_owned()),
        None => bail!("neither outcome nor code: {} {body}", reply.status),
    }
}
