//! Noticing that the machine was suspended, from clocks that go on differently.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::pulse::{self, PULSE};

/// Less is scheduling, or a clock being corrected.
const NOTICED: Duration = Duration::from_secs(5);

/// The three clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    monotonic: Duration,
    /// Goes on while the machine is suspended by its own kernel.
    boot: Duration,
    /// Jumps ahead when a paused virtual machine learns the time again: nothing inside it notices the pause.
    wall: Duration,
}

impl Clocks {
    pub(crate) fn now() -> Self {
        let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        Self {
            monotonic: read(ClockId::CLOCK_MONOTONIC),
            boot: read(ClockId::CLOCK_BOOTTIME),
            wall: read(ClockId::CLOCK_REALTIME),
        }
    }

    /// Whether this process itself stood still between `self` and `later`: whoever was not heard may have, too.
    pub(crate) fn stalled(&self, later: &Self) -> bool {
        later.monotonic.saturating_sub(self.monotonic) >= NOTICED
    }

    /// How long the machine slept between `self` and `later`, if it did.
    pub(crate) fn slept(&self, later: &Self) -> Option<Duration> {
        let awake = later.monotonic.saturating_sub(self.monotonic);
        let slept =
            later.boot.saturating_sub(self.boot).max(later.wall.saturating_sub(self.wall)).saturating_sub(awake);
        (slept >= NOTICED).then_some(slept)
    }
}

/// Looks at the clocks with every pulse, until `stop`, and says how long the machine slept when it did. For a daemon without
/// a launcher, which looks more often.
pub(crate) async fn watch(mut read: impl FnMut() -> Clocks, on: impl Fn(Duration), stop: CancellationToken) {
    let mut before = read();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(pulse::last(PULSE) + PULSE) => {}
        }
        let now = read();
        if let Some(asleep) = before.slept(&now) {
            tracing::info!(asleep_s = asleep.as_secs(), "the machine was suspended");
            on(asleep);
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::{Instant, timeout};

    use super::*;

    fn clocks(monotonic: u64, boot: u64, wall: u64) -> Clocks {
        let s = Duration::from_secs;
        Clocks { monotonic: s(monotonic), boot: s(boot), wall: s(wall) }
    }

    #[test]
    fn sleeping_is_seen_by_either_clock_and_nothing_else_is_sleep() {
        let before = clocks(100, 100, 1_000_000);
        assert_eq!(before.slept(&clocks(101, 101, 1_000_001)), None);
        assert_eq!(before.slept(&clocks(101, 3701, 1_000_001)), Some(Duration::from_secs(3600)));
        assert_eq!(before.slept(&clocks(101, 101, 1_000_301)), Some(Duration::from_secs(300)));
        assert_eq!(before.slept(&clocks(161, 161, 1_000_060)), None, "a busy minute");
        assert_eq!(before.slept(&clocks(101, 101, 900_000)), None, "the wall clock was set back");
        assert_eq!(Clocks::now().slept(&Clocks::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspend_is_told_once_and_with_the_next_pulse() {
        let began = Instant::now();
        let asleep_from = Duration::from_secs(60);
        let read = || {
            let awake = began.elapsed();
            let slept = if awake >= asleep_from { Duration::from_secs(3600) } else { Duration::ZERO };
            Clocks { monotonic: awake, boot: awake + slept, wall: awake }
        };
        let told = RefCell::new(Vec::new());
        let on = |asleep| told.borrow_mut().push((began.elapsed(), asleep));
        timeout(Duration::from_secs(600), watch(read, on, CancellationToken::new())).await.unwrap_err();
        let told = told.into_inner();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].0 < asleep_from + PULSE + Duration::from_millis(10), "{told:?}");
        assert_eq!(told[0].1, Duration::from_secs(3600));
    }
}
