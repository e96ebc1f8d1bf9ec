//! Machines that check in without a pause, each time with one more audit record, wherever they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{CHECK_IN, POLL, message, records, until};
use crate::support::client::Client;
use crate::support::service::Service;

#[derive(Debug)]
pub struct Speakers {
    machines: Vec<(String, JoinHandle<u64>)>,
    acknowledged: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl Speakers {
    /// So many machines, which turn to the next of the instances when one does not acknowledge.
    pub async fn start(count: usize, instances: &[&Service]) -> anyhow::Result<Self> {
        let (acknowledged, stop) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let mut machines = Vec::new();
        for n in 0..count {
            let tenant = format!("speaker-{n}");
            let credential = instances[0].enrol(&tenant).await?.credential;
            let ways = instances.iter().cycle().skip(n).take(instances.len()).map(|to| to.with(&credential)).collect();
            let speaking = speak(tenant.clone(), ways, acknowledged.clone(), stop.clone());
            machines.push((tenant, tokio::spawn(speaking)));
        }
        Ok(Self { machines, acknowledged, stop })
    }

    /// Waits for so many more acknowledgements.
    pub async fn heard(&self, more: u64) -> anyhow::Result<()> {
        let before = self.acknowledged.load(Ordering::SeqCst);
        let heard = async || Ok(self.acknowledged.load(Ordering::SeqCst) >= before + more);
        until(&format!("{more} more check-ins"), heard).await.map(drop)
    }

    /// The last acknowledged record of each.
    pub async fn stop(self) -> anyhow::Result<Vec<(String, u64)>> {
        self.stop.cancel();
        let mut all = Vec::new();
        for (tenant, machine) in self.machines {
            all.push((tenant, machine.await?));
        }
        Ok(all)
    }
}

/// Repeats what was not acknowledged, as a sidecar does, until told to stop.
async fn speak(tenant: String, ways: Vec<Client>, acknowledged: Arc<AtomicU64>, stop: CancellationToken) -> u64 {
    let (mut way, mut seq) = (0, 1);
    while !stop.is_cancelled() {
        let mut message = message(&tenant, seq);
        message["events"] = json!([{"seq": seq, "at": "2026-01-01T00:00:00Z", "verb": "speak", "outcome": "done"}]);
        if ways[way].post(CHECK_IN, &message).await.is_ok_and(|reply| reply.status == 200) {
            acknowledged.fetch_add(1, Ordering::SeqCst);
            seq += 1;
        } else {
            way = (way + 1) % ways.len();
            tokio::time::sleep(POLL).await;
        }
    }
    seq - 1
}

/// Every acknowledged record is there, once and in order; and at most the one that was under way besides.
pub async fn nothing_is_lost(service: &Service, heard: &[(String, u64)]) -> anyhow::Result<()> {
    for (tenant, last) in heard {
        let kept = records(service, tenant).await?;
        let expected: Vec<u64> = (1..=kept.len() as u64).collect();
        ensure!(kept == expected, "{tenant}: {kept:?}");
        let count = kept.len() as u64;
        ensure!((*last..=last + 1).contains(&count), "{tenant}: {last} acknowledged, {count} kept");
    }
    Ok(())
}
