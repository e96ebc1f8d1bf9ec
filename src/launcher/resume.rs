//! Noticing that the machine was suspended, from clocks that go on differently.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Less is scheduling, or a clock being corrected.
const NOTICED: Duration = Duration::from_secs(5);

/// The three clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    monotonic: Duration,
    /// Goes on while the machine is suspended by its own kernel.
    boot: Duration,
    /// Jumps ahead when a paused virtual machine learns the time again: nothing inside it notices the pause.
    wall: Duration,
}

impl Clocks {
    pub(super) fn now() -> Self {
        let read = |clock| clock_gettime(clock).map(Duration::from).unwrap_or_default();
        Self {
            monotonic: read(ClockId::CLOCK_MONOTONIC),
            boot: read(ClockId::CLOCK_BOOTTIME),
            wall: read(ClockId::CLOCK_REALTIME),
        }
    }

    /// Whether this process itself stood still between `self` and `later`: whoever was not heard may have, too.
    pub(super) fn stalled(&self, later: &Self) -> bool {
        later.monotonic.saturating_sub(self.monotonic) >= NOTICED
    }

    /// How long the machine slept between `self` and `later`, if it did.
    pub(super) fn slept(&self, later: &Self) -> Option<Duration> {
        let awake = later.monotonic.saturating_sub(self.monotonic);
        let slept =
            later.boot.saturating_sub(self.boot).max(later.wall.saturating_sub(self.wall)).saturating_sub(awake);
        (slept >= NOTICED).then_some(slept)
    }
}

#[cfg(test)]
mod tests {
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
}
