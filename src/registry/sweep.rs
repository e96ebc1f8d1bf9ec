//! What only the passing of time changes: silence becomes `unreachable`, long waiting is told, old history goes.
//!
//! Every instance notes that it lives; one of them leads and does the rest.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::api::Context;
use super::rules;
use super::store::{Unavailable, Work};
use crate::clock::UnixMs;

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(5);
/// Keys made or taken back on another instance are known within this.
const KEYS_EVERY: Duration = Duration::from_secs(1);
/// Without a sign of life for so long, the registry was blind.
const BLIND_MS: u64 = 30_000;
/// Blind times that ended longer ago no longer matter to any deadline.
const BLIND_KEPT_MS: u64 = 3 * 3_600_000;
/// Most tenants looked at in one transaction.
const BATCH: usize = 500;
/// Old history is removed so often.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Runs until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut ticks = interval(KEYS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut swept, mut pruned): (Option<Instant>, Option<Instant>) = (None, None);
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let due = |last: Option<Instant>, every| last.is_none_or(|at| at.elapsed() >= every);
        let done = async {
            context.callers.refresh().await?;
            if failing
                || context.unwritable.read().unwrap_or_else(PoisonError::into_inner).is_some()
                || due(swept, EVERY)
            {
                sweep(&context, UnixMs::now()).await?;
                swept = Some(Instant::now());
            }
            if due(pruned, PRUNE_EVERY) && context.store.leads().await? {
                context.store.prune(UnixMs::now()).await?;
                pruned = Some(Instant::now());
            }
            Ok::<(), Unavailable>(())
        };
        let failed = done.await.err();
        match &failed {
            Some(why) if !failing => tracing::warn!(error = %why, "the sweep waits for the store"),
            None if failing => tracing::info!("the store is back"),
            _ => {}
        }
        failing = failed.is_some();
        *context.unwritable.write().unwrap_or_else(PoisonError::into_inner) = failed;
    }
}

/// One sweep at `now`: a sign of life, what we know of blind times, and whatever is overdue.
///
/// # Errors
/// The store cannot do it now; the next sweep makes up for it.
pub async fn sweep(context: &Context, now: UnixMs) -> Result<(), Unavailable> {
    context.store.alive(now, BLIND_MS).await?;
    let blind = context.store.blind(UnixMs(now.0.saturating_sub(BLIND_KEPT_MS))).await?;
    let blind = Arc::new(blind);
    *context.blind.write().unwrap_or_else(PoisonError::into_inner) = blind.clone();
    if !context.store.leads().await? {
        return Ok(());
    }
    let waiting_since = UnixMs(now.0.saturating_sub(rules::PAIRING_WAITS_MS));
    let mut after = None;
    loop {
        let ids = context.store.overdue(now, waiting_since, after.clone(), BATCH).await?;
        let Some(last) = ids.last() else { return Ok(()) };
        after = Some(last.clone());
        let full = ids.len() == BATCH;
        let work = ids.into_iter().map(|tenant| {
            let blind = blind.clone();
            Work { tenant, act: Box::new(move |row| rules::pass_time(row, now, &blind)) }
        });
        context.store.amend(work.collect()).await?;
        if !full {
            return Ok(());
        }
    }
}
