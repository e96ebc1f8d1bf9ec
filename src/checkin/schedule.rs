//! When to check in: a pure function of what happened, on the caller's clock and the caller's random numbers.
//!
//! Times are durations since any fixed start of a monotonic clock. Nothing here waits, so that a fleet of thousands
//! can be simulated for days within seconds.

use std::time::Duration;

use super::wire::NEXT_S;

/// Unless the registry says otherwise, this long passes between two check-ins when nothing happens.
pub const INTERVAL: Duration = Duration::from_secs(300);
/// The same while the gateway boots or somebody waits for approval.
pub const ATTENTION: Duration = Duration::from_secs(60);
/// For so long at a time: a request that nobody decides, or a gateway that never comes up, keeps no machine awake.
pub const ATTENTION_MOST: Duration = Duration::from_secs(1800);
/// A change waits so long for others that come with it.
const COALESCE: Duration = Duration::from_millis(300);
/// Between two check-ins because of changes.
const APART: Duration = Duration::from_secs(2);
/// Check-ins that may follow each other that closely; after that, one for each [`REFILL`].
const BURST: u32 = 6;
const REFILL: Duration = Duration::from_secs(10);
const BACKOFF_BASE: Duration = Duration::from_secs(2);
/// No pause after a failure is longer, unless the registry asks for it.
pub const BACKOFF_MOST: Duration = Duration::from_secs(600);
const REFUSED_BASE: Duration = Duration::from_secs(60);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(3600);

/// Whether something is sent when nothing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every interval.
    #[default]
    Interval,
    /// Never: for platforms that let a machine sleep only when it is silent.
    Quiet,
}

/// Why a check-in was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No answer, or none that makes sense.
    Network,
    /// Another status than 200.
    Status,
    /// The registry asks to be left alone for so long.
    RetryAfter(Duration),
    /// The registry does not know the credential.
    Unauthorised,
}

/// What is waiting to be said.
#[derive(Clone, Copy, Debug)]
struct News {
    first: Duration,
}

/// The schedule of one sidecar.
#[derive(Clone, Debug)]
pub struct Schedule {
    mode: Mode,
    /// What the registry asked for last.
    interval: Duration,
    /// Since which check-in, while there is reason for it.
    attention: Option<Duration>,
    news: Option<News>,
    /// Nothing is sent before, whatever happens.
    pause: Option<Duration>,
    /// The next one if nothing happens.
    regular: Option<Duration>,
    last: Option<Duration>,
    /// The period that the last one promised.
    promised: Duration,
    /// The share, 0 to 1, of the jitter of the present interval.
    jitter: f64,
    in_flight: bool,
    failures: u32,
    refusals: u32,
    tokens: u32,
    refilled: Duration,
}

impl Schedule {
    /// A schedule that has sent nothing yet. The first message is news.
    pub fn new(mode: Mode, now: Duration) -> Self {
        Self {
            mode,
            interval: INTERVAL,
            attention: None,
            news: None,
            pause: None,
            regular: None,
            last: None,
            promised: INTERVAL,
            jitter: 0.5,
            in_flight: false,
            failures: 0,
            refusals: 0,
            tokens: BURST,
            refilled: now,
        }
    }

    /// Something changed that is worth telling.
    pub fn changed(&mut self, now: Duration) {
        self.news.get_or_insert(News { first: now });
    }

    /// The gateway boots, or somebody waits for approval; or that is over.
    pub fn attention(&mut self, on: bool) {
        let before = self.attention;
        self.attention = on.then(|| before.or(self.last).unwrap_or_default());
        if on && before.is_none() && self.pause.is_none() {
            let sooner = self.after_last();
            self.regular = self.regular.map(|at| at.min(sooner));
        }
    }

    /// The machine was suspended: what was waited for is long over, and the state is told at once.
    pub fn resumed(&mut self, now: Duration) {
        (self.pause, self.failures, self.refusals) = (None, 0, 0);
        (self.tokens, self.refilled) = (self.tokens.max(1), now);
        self.news = Some(News { first: now.saturating_sub(COALESCE) });
        self.last = self.last.filter(|last| *last + APART <= now);
    }

    /// When the next check-in is to be sent; `None` while one is under way, or when nothing is to be said.
    pub fn due(&self) -> Option<Duration> {
        if self.in_flight {
            return None;
        }
        let spaced = self.last.map_or(Duration::ZERO, |last| last + APART);
        let news = self.news.map(|news| (news.first + COALESCE).max(spaced));
        let wanted = [news, self.regular].into_iter().flatten().min()?;
        let token = if self.tokens > 0 { Duration::ZERO } else { self.refilled + REFILL };
        Some(wanted.max(token).max(self.pause.unwrap_or_default()))
    }

    /// A check-in leaves. Returns what it is to promise: so many seconds pass at most before the next one, whatever
    /// happens; `None` where silence means nothing.
    pub fn begin(&mut self, now: Duration) -> Option<u64> {
        let earned = u32::try_from(now.saturating_sub(self.refilled).as_secs() / REFILL.as_secs()).unwrap_or(BURST);
        self.tokens = self.tokens.saturating_add(earned).min(BURST);
        self.refilled = if self.tokens == BURST { now } else { self.refilled + REFILL * earned };
        self.tokens = self.tokens.saturating_sub(1);
        (self.in_flight, self.news, self.pause) = (true, None, None);
        (self.last, self.regular) = (Some(now), None);
        self.promised = self.period();
        let most = self.promised * 5 / 4;
        (self.mode == Mode::Interval).then(|| most.as_secs() + u64::from(most.subsec_nanos() > 0))
    }

    /// It was taken; the registry asks for the next one in `next_s` seconds. A longer pause than this message promised
    /// begins with the next one: what was promised is what silence is measured by.
    pub fn sent(&mut self, next_s: u64, random: u64) {
        (self.in_flight, self.failures, self.refusals) = (false, 0, 0);
        self.jitter = unit(random);
        self.interval = Duration::from_secs(next_s.clamp(*NEXT_S.start(), *NEXT_S.end()));
        self.regular = (self.mode == Mode::Interval).then(|| self.after_last().min(self.after(self.promised)));
    }

    /// It was not taken; the newest state follows after a pause.
    pub fn failed(&mut self, now: Duration, why: Failed, random: u64) {
        self.in_flight = false;
        let pause = match why {
            Failed::Unauthorised => {
                let most = doubled(REFUSED_BASE, self.refusals);
                self.refusals = self.refusals.saturating_add(1);
                REFUSED_BASE.max(most / 2 + (most / 2).mul_f64(unit(random)))
            }
            Failed::RetryAfter(asked) if asked >= BACKOFF_BASE => {
                let asked = asked.min(RETRY_AFTER_MOST);
                asked + (asked / 4).mul_f64(unit(random))
            }
            _ => {
                let most = doubled(BACKOFF_BASE, self.failures);
                self.failures = self.failures.saturating_add(1);
                most.mul_f64(unit(random))
            }
        };
        self.pause = Some(now + pause);
        self.regular = self.pause;
    }

    fn period(&self) -> Duration {
        let last = self.last.unwrap_or_default();
        let attention = self.attention.is_some_and(|since| last < since + ATTENTION_MOST);
        if attention { self.interval.min(ATTENTION) } else { self.interval }
    }

    fn after_last(&self) -> Duration {
        self.after(self.period())
    }

    fn after(&self, period: Duration) -> Duration {
        self.last.unwrap_or_default() + (period * 3 / 4) + (period / 2).mul_f64(self.jitter)
    }
}

fn doubled(base: Duration, times: u32) -> Duration {
    base.saturating_mul(2u32.saturating_pow(times.min(16))).min(BACKOFF_MOST)
}

/// From 0 to below 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
