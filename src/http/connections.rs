//! The cap on connections. At the cap the oldest connection that has not earned its place gives way, so that a flood
//! of half-open ones cannot keep the next caller out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What a connection is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It never showed a valid credential.
    Unproven,
    /// It did, and waits for its next request.
    Idle,
    /// A request of a known caller is being answered: never evicted.
    Busy,
}

/// All open connections; cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections {
    max: usize,
    slots: Arc<Mutex<Slots>>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    open: BTreeMap<u64, Slot>,
}

#[derive(Debug)]
struct Slot {
    used: Use,
    evict: CancellationToken,
}

/// A place in the table, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    connections: Connections,
    id: u64,
    evicted: CancellationToken,
}

impl Connections {
    /// A table for at most `max` connections.
    pub fn new(max: usize) -> Self {
        Self { max, slots: Arc::default() }
    }

    /// Makes a place for a new connection, evicting another at the cap; `None` when every place is busy.
    pub fn admit(&self, metrics: &Metrics) -> Option<Permit> {
        let mut slots = self.lock();
        if slots.open.len() >= self.max {
            let victim = slots.oldest(Use::Unproven).or_else(|| slots.oldest(Use::Idle))?;
            if let Some(slot) = slots.open.remove(&victim) {
                slot.evict.cancel();
                metrics.evicted.inc();
            }
        }
        let id = slots.next;
        slots.next += 1;
        let evicted = CancellationToken::new();
        slots.open.insert(id, Slot { used: Use::Unproven, evict: evicted.clone() });
        metrics.connections.set(i64::try_from(slots.open.len()).unwrap_or(i64::MAX));
        Some(Permit { connections: self.clone(), id, evicted })
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Ids grow with age, so the first one found is the oldest.
    fn oldest(&self, used: Use) -> Option<u64> {
        self.open.iter().find(|(_, slot)| slot.used == used).map(|(id, _)| *id)
    }
}

impl Permit {
    /// Says what the connection is worth now.
    pub fn set(&self, used: Use) {
        if let Some(slot) = self.connections.lock().open.get_mut(&self.id) {
            slot.used = used;
        }
    }

    /// Resolves when the connection has to give way.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_oldest_unproven_gives_way_before_any_idle_one() {
        let (table, metrics) = (Connections::new(3), Metrics::default());
        let idle = table.admit(&metrics).unwrap();
        idle.set(Use::Idle);
        let old = table.admit(&metrics).unwrap();
        let young = table.admit(&metrics).unwrap();
        let _new = table.admit(&metrics).unwrap();
        assert!(old.evicted.is_cancelled() && !young.evicted.is_cancelled() && !idle.evicted.is_cancelled());
    }

    #[test]
    fn busy_connections_are_never_evicted() {
        let (table, metrics) = (Connections::new(2), Metrics::default());
        let permits = [table.admit(&metrics).unwrap(), table.admit(&metrics).unwrap()];
        permits.iter().for_each(|p| p.set(Use::Busy));
        assert!(table.admit(&metrics).is_none());
        permits[1].set(Use::Idle);
        assert!(table.admit(&metrics).is_some());
        assert!(permits[1].evicted.is_cancelled() && !permits[0].evicted.is_cancelled());
    }

    proptest! {
        #[test]
        fn the_cap_holds_and_places_come_back(steps in proptest::collection::vec((0..3u8, 0..8usize), 1..200)) {
            let (table, metrics) = (Connections::new(4), Metrics::default());
            let mut permits: Vec<Permit> = Vec::new();
            for (action, at) in steps {
                match (action, at < permits.len()) {
                    (0, _) => permits.extend(table.admit(&metrics)),
                    (1, true) => drop(permits.remove(at)),
                    (2, true) => permits[at].set([Use::Unproven, Use::Idle, Use::Busy][at % 3]),
                    _ => {}
                }
                prop_assert!(table.lock().open.len() <= 4);
            }
            permits.clear();
            prop_assert!(table.lock().open.is_empty());
        }
    }
}
