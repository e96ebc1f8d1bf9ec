//! Wall-clock time as the API shows it: RFC 3339 in UTC, milliseconds since the epoch inside.
//!
//! Nothing waits on these values: every deadline uses the monotonic clock, because a machine that was suspended
//! wakes with a wrong wall clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// This release was made after that: no right clock shows an earlier time. 2026-11-01T00:00:00Z.
pub const RELEASED: UnixMs = UnixMs(1_793_491_200_000);

/// A point in wall-clock time, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The wall clock now; zero for a clock set before 1970.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// This moment as RFC 3339 text with milliseconds, e.g. `2026-11-20T16:07:58.538Z`.
    /// Values that no calendar shows (they come from a hostile peer) are cut to the year 9999.
    pub fn rfc3339(self) -> String {
        let shown = Duration::from_millis(self.0.min(LAST_SHOWN_MS));
        humantime::format_rfc3339_millis(UNIX_EPOCH + shown).to_string()
    }

    /// Whole seconds from this moment to `later`; zero when `later` is earlier.
    pub fn seconds_until(self, later: Self) -> u64 {
        later.0.saturating_sub(self.0) / 1000
    }

    /// This moment moved on by `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Parses RFC 3339 text such as `2026-11-20T16:07:58Z`.
    pub fn parse(text: &str) -> Option<Self> {
        let time = humantime::parse_rfc3339_weak(text).ok()?;
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok().map(Self)
    }
}

/// The registry's clock, as far as its answers showed it; cheap to clone.
#[derive(Clone, Debug)]
pub struct RegistryClock(Arc<AtomicI64>);

impl Default for RegistryClock {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(i64::MIN)))
    }
}

impl RegistryClock {
    /// Notes the time at which an answer, just received, was sent: its `Date`, e.g. `Sat, 21 Nov 2026 15:56:48 GMT`.
    /// Anything else is passed over.
    pub fn note(&self, date: &str) {
        let Some(theirs) = http_date(date) else { return };
        let off = i64::try_from(i128::from(theirs.0) - i128::from(UnixMs::now().0)).unwrap_or(0);
        self.0.store(off, Ordering::Relaxed);
    }

    /// The registry's clock minus ours, in milliseconds; `None` before the first answer.
    pub fn skew_ms(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|skew| *skew != i64::MIN)
    }
}

fn http_date(text: &str) -> Option<UnixMs> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, day, month, year, time, "GMT"] = words[..] else { return None };
    let month = MONTHS.find(month).filter(|at| month.len() == 3 && at % 3 == 0)? / 3 + 1;
    UnixMs::parse(&format!("{year}-{month:02}-{day}T{time}Z"))
}

/// In JSON a moment is its RFC 3339 text.
impl serde::Serialize for UnixMs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

impl<'de> serde::Deserialize<'de> for UnixMs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("is no RFC 3339 time"))
    }
}

#[cfg(test)]
impl schemars::JsonSchema for UnixMs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// 9999-12-31T23:59:59.999Z.
const LAST_SHOWN_MS: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let moment = UnixMs(1_795_191_123_484);
        assert_eq!(moment.rfc3339(), "2026-11-20T16:12:03.484Z");
        assert_eq!(UnixMs::parse(&moment.rfc3339()), Some(moment));
        assert_eq!(UnixMs::parse("yesterday"), None);
        assert_eq!(RELEASED.rfc3339(), "2026-11-01T00:00:00.000Z");
    }

    #[test]
    fn the_registrys_date_is_compared_with_ours() {
        assert_eq!(http_date("Sat, 21 Nov 2026 15:56:48 GMT"), UnixMs::parse("2026-11-21T15:56:48Z"));
        for other in ["", "Sat, 21 Nov 2026 15:56:48 CET", "Sat, 21 anF 2026 15:56:48 GMT", "Sat, 99 Nov 2026 x GMT"] {
            assert_eq!(http_date(other), None, "{other}");
        }
        let clock = RegistryClock::default();
        clock.note("nonsense");
        assert_eq!(clock.skew_ms(), None);
        clock.note("Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(clock.skew_ms().is_some_and(|skew| skew < -31 * 365 * 24 * 3_600_000));
    }

    #[test]
    fn hostile_values_do_not_panic() {
        assert_eq!(UnixMs(u64::MAX).rfc3339(), "9999-12-31T23:59:59.999Z");
        assert_eq!(UnixMs(5).seconds_until(UnixMs(1)), 0);
        assert_eq!(UnixMs(u64::MAX).plus_ms(10), UnixMs(u64::MAX));
    }
}
