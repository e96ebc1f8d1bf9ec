//! The cap on connections. At the cap the oldest connection that has not earned its place gives way, so that a flood
//! of half-open ones cannot keep the next caller out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A new connection is left alone for so long, to finish its handshake. At the cap this paces a flood: who comes next
/// waits in the kernel's queue instead of evicting one that was about to speak.
const GRACE: Duration = Duration::from_millis(50);

/// One that completed its handshake is about to send its request: it gets longer.
const GRACE_SHAKEN: Duration = Duration::from_millis(200);

/// What a connection is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Its TLS handshake is not complete.
    Fresh,
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
    open: Gauge,
    evicted: Counter,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    open: BTreeMap<u64, Slot>,
}

#[derive(Debug)]
struct Slot {
    used: Use,
    since: Instant,
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
    /// A table for at most `max` connections, counted in `open` and `evicted`.
    pub fn new(max: usize, open: &Gauge, evicted: &Counter) -> Self {
        Self { max, slots: Arc::default(), open: open.clone(), evicted: evicted.clone() }
    }

    /// Makes a place for a new connection, evicting another at the cap.
    ///
    /// # Errors
    /// When to ask again, or `None` when every place is busy.
    pub fn admit(&self) -> Result<Permit, Option<Instant>> {
        let mut slots = self.lock();
        if slots.open.len() >= self.max {
            let victim = slots.victim()?;
            if let Some(slot) = slots.open.remove(&victim) {
                slot.evict.cancel();
                self.evicted.inc();
                self.open.dec();
            }
        }
        let id = slots.next;
        slots.next += 1;
        let evicted = CancellationToken::new();
        slots.open.insert(id, Slot { used: Use::Fresh, since: Instant::now(), evict: evicted.clone() });
        self.open.inc();
        Ok(Permit { connections: self.clone(), id, evicted })
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// The oldest connection of the least worth that had its grace, or when the next one has had it. One that proved
    /// itself gives way only when there are no others.
    fn victim(&self) -> Result<u64, Option<Instant>> {
        // Ids grow with age, so the first one found is the oldest.
        let oldest = |used| self.open.iter().find(|(_, slot)| slot.used == used);
        let unproven = [oldest(Use::Fresh), oldest(Use::Unproven)].into_iter().flatten();
        let ripe = |slot: &Slot| slot.since + if slot.used == Use::Fresh { GRACE } else { GRACE_SHAKEN };
        if let Some((id, _)) = unproven.clone().find(|(_, slot)| ripe(slot) <= Instant::now()) {
            return Ok(*id);
        }
        match unproven.map(|(_, slot)| ripe(slot)).min() {
            Some(ripe) => Err(Some(ripe)),
            None => oldest(Use::Idle).map(|(id, _)| *id).ok_or(None),
        }
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
        if self.connections.lock().open.remove(&self.id).is_some() {
            self.connections.open.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use proptest::prelude::*;

    async fn admitted(table: &Connections) -> Option<Permit> {
        loop {
            match table.admit() {
                Ok(permit) => return Some(permit),
                Err(Some(at)) => tokio::time::sleep_until(at).await,
                Err(None) => return None,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_the_least_worth_gives_way() {
        let table = Connections::new(3, &Gauge::default(), &Counter::default());
        let idle = admitted(&table).await.unwrap();
        idle.set(Use::Idle);
        let shaken = admitted(&table).await.unwrap();
        shaken.set(Use::Unproven);
        let fresh = admitted(&table).await.unwrap();
        tokio::time::advance(GRACE).await;
        let new = admitted(&table).await.unwrap();
        assert!(fresh.evicted.is_cancelled() && !shaken.evicted.is_cancelled() && !idle.evicted.is_cancelled());
        // With the newest shaken too, the oldest shaken one is next, and never the one that proved itself.
        new.set(Use::Unproven);
        tokio::time::advance(GRACE_SHAKEN).await;
        assert!(table.admit().is_ok());
        assert!(shaken.evicted.is_cancelled() && !new.evicted.is_cancelled() && !idle.evicted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_is_left_alone_for_a_moment() {
        let table = Connections::new(1, &Gauge::default(), &Counter::default());
        let first = admitted(&table).await.unwrap();
        assert!(matches!(table.admit(), Err(Some(_))) && !first.evicted.is_cancelled());
        tokio::time::advance(GRACE).await;
        assert!(table.admit().is_ok() && first.evicted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn busy_connections_are_never_evicted() {
        let table = Connections::new(2, &Gauge::default(), &Counter::default());
        let permits = [admitted(&table).await.unwrap(), admitted(&table).await.unwrap()];
        for permit in &permits {
            permit.set(Use::Busy);
        }
        assert!(admitted(&table).await.is_none());
        permits[1].set(Use::Idle);
        assert!(admitted(&table).await.is_some());
        assert!(permits[1].evicted.is_cancelled() && !permits[0].evicted.is_cancelled());
    }

    proptest! {
        #[test]
        fn the_cap_holds_and_places_come_back(steps in proptest::collection::vec((0..3u8, 0..8usize), 1..200)) {
            let metrics = Metrics::default();
            let table = Connections::new(4, &metrics.connections, &metrics.evicted);
            let mut permits: Vec<Permit> = Vec::new();
            for (action, at) in steps {
                match (action, at < permits.len()) {
                    (0, _) => permits.extend(table.admit().ok()),
                    (1, true) => drop(permits.remove(at)),
                    (2, true) => permits[at].set([Use::Unproven, Use::Idle, Use::Busy][at % 3]),
                    _ => {}
                }
                prop_assert!(table.lock().open.len() <= 4);
                prop_assert_eq!(metrics.connections.get(), i64::try_from(table.lock().open.len()).unwrap());
            }
            permits.clear();
            prop_assert!(table.lock().open.is_empty());
        }
    }
}
