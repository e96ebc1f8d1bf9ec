//! One pulse for what is done from time to time. Looks and signs of life that keep time by themselves wake an idle
//! machine for each of them; those that keep a common time share the wake-ups, which are most of what they cost.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// The pulse. Whatever follows it, does so every so many of these.
pub const PULSE: Duration = Duration::from_secs(8);

/// The last beat of those every `every`; the next one is `every` later. Its size in pulses decides what it shares.
pub fn last(every: Duration) -> Instant {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    since(*BEGAN.get_or_init(Instant::now), Instant::now(), every)
}

fn since(began: Instant, now: Instant, every: Duration) -> Instant {
    let past = now.saturating_duration_since(began).as_nanos() % every.as_nanos().max(1);
    now.checked_sub(Duration::from_nanos(u64::try_from(past).unwrap_or(0))).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_beats_fall_on_faster_ones_and_none_is_in_the_future() {
        let began = Instant::now();
        for ms in [0, 1, 7_999, 8_000, 8_001, 31_999, 32_000, 100_000_000] {
            let now = began + Duration::from_millis(ms);
            for every in [PULSE, PULSE * 2, PULSE * 4] {
                let last = since(began, now, every);
                assert!(last <= now && now < last + every, "{ms} {every:?}");
                assert_eq!(since(began, last, PULSE), last, "{ms} {every:?}");
            }
        }
        assert_eq!(since(began + PULSE, began, PULSE), began);
    }
}
