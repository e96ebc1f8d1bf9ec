//! Hundreds of machines through our own outage: everything they said is there once, nothing else is, nobody is blamed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::support::service::{Place, Service};
use crate::support::swarm::{Machine, Swarm};

const FLEET: usize = 300;
/// Long enough for several tries of each; a longer one, and the rule about blind times, is in the simulation.
const OUTAGE: Duration = Duration::from_secs(3);
/// Machines that say much have to pause; on a busy machine everything takes longer.
const SETTLES: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_outlasts_an_outage_of_ours() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let mut swarm = Swarm::enrolled(FLEET, &service).await?;
    for (n, machine) in swarm.machines.iter_mut().enumerate() {
        machine.wake().await?;
        machine.ready()?;
        if n % 3 == 0 {
            machine.asked(&format!("request-{n}"))?;
        }
        if n % 4 == 1 {
            // More than one message carries.
            machine.on_record(11).await?;
        }
    }
    settled(&service, &swarm, "all are awake").await?;
    for machine in swarm.machines.iter_mut().skip(2).step_by(4) {
        machine.sleep().await?;
    }
    settled(&service, &swarm, "some sleep").await?;

    let tls = service.tls();
    let place = service.kill().await?;
    while_nobody_listens(&mut swarm).await?;
    sleep(OUTAGE).await;
    spread(&swarm)?;
    let service = Service::start(place, Some(tls)).await?;
    settled(&service, &swarm, "the registry is back").await?;
    for machine in &swarm.machines {
        nothing_lost_or_made_up(&service, machine).await?;
    }
    Ok(())
}

/// Those that slept wake all at once; the others go on.
async fn while_nobody_listens(swarm: &mut Swarm) -> anyhow::Result<()> {
    for (n, machine) in swarm.machines.iter_mut().enumerate() {
        if !machine.is_awake() {
            machine.wake().await?;
            machine.ready()?;
            machine.on_record(2).await?;
        } else if n % 3 == 0 {
            machine.decided().await?;
        } else if n % 5 == 0 {
            machine.troubled(Some("97 % of the volume is used"))?;
        }
    }
    Ok(())
}

/// Tries of those that were not heard lie apart: not more than half of them in any one second.
fn spread(swarm: &Swarm) -> anyhow::Result<()> {
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    let waiting: Vec<_> = swarm.statuses().into_iter().filter(|status| status.last_error.is_some()).collect();
    for status in &waiting {
        *seconds.entry(status.next_s.context("interval mode always plans")?).or_default() += 1;
    }
    println!("{} of {FLEET} wait to try again, by seconds: {seconds:?}", waiting.len());
    ensure!(waiting.len() >= FLEET / 4, "hardly anybody noticed: {}", waiting.len());
    ensure!(seconds.values().all(|count| count * 2 <= waiting.len()), "not spread: {seconds:?}");
    Ok(())
}

/// Waits until everybody has told all, and what support sees of each is what is so.
async fn settled(service: &Service, swarm: &Swarm, what: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let wrong = if swarm.all_told() { differing(service, swarm).await? } else { Some("not all was told".into()) };
        match wrong {
            None => break,
            Some(_) if began.elapsed() < SETTLES => sleep(POLL).await,
            Some(wrong) => bail!("{what}: {wrong}"),
        }
    }
    println!("{what}: settled after {:?}", began.elapsed());
    Ok(())
}

/// The first machine that support sees otherwise than it is.
async fn differing(service: &Service, swarm: &Swarm) -> anyhow::Result<Option<String>> {
    let support = service.support();
    for machine in &swarm.machines {
        let view = support.get(&format!("/v1/support/tenants/{}", machine.id)).await?.json();
        if !machine.is_seen_by(&view) {
            return Ok(Some(format!("{:?} {view}", machine.status())));
        }
    }
    Ok(None)
}

/// Every audit record is in the history once and in order, and the machine was never called unreachable.
async fn nothing_lost_or_made_up(service: &Service, machine: &Machine) -> anyhow::Result<()> {
    let path = format!("/v1/support/tenants/{}/timeline?limit=200", machine.id);
    let reply = service.support().get(&path).await?.json();
    let lines = reply["entries"].as_array().context("entries")?;
    ensure!(lines.len() < 200, "more history than one page");
    let of = |kind: &str| lines.iter().rev().filter(|line| line["kind"] == kind).collect::<Vec<&Value>>();
    let audit: Vec<u64> = of("audit").iter().filter_map(|line| line["data"]["seq"].as_u64()).collect();
    ensure!(audit == (1..=machine.audited).collect::<Vec<_>>(), "{}: audit {audit:?}", machine.id);
    ensure!(!of("status").iter().any(|line| line["data"]["to"] == "unreachable"), "{}: {reply}", machine.id);
    ensure!(of("conflict").is_empty() && of("restored").is_empty() && of("audit_truncated").is_empty(), "{reply}");
    Ok(())
}
