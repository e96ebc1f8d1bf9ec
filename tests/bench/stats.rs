//! Figures with their units, and percentiles of many.

use std::{fmt, time::Duration};

/// A measured value; how it is printed follows from what it is.
#[derive(Clone, Copy)]
pub enum Figure {
    /// Seconds.
    Time(f64),
    /// Bytes, printed in decimal megabytes.
    Size(f64),
    /// Events per second.
    Rate(f64),
    Percent(f64),
    Count(f64),
}

impl Figure {
    pub fn nanoseconds(value: f64) -> Self {
        Self::Time(value / 1e9)
    }

    pub fn kib(kib: u64) -> Self {
        Self::Size(float(kib) * 1024.0)
    }

    pub fn bytes(bytes: u64) -> Self {
        Self::Size(float(bytes))
    }

    pub fn count(count: usize) -> Self {
        Self::Count(float(u64::try_from(count).unwrap_or(u64::MAX)))
    }

    pub fn value(self) -> f64 {
        let (Self::Time(value) | Self::Size(value) | Self::Rate(value) | Self::Percent(value) | Self::Count(value)) =
            self;
        value
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Time(s) if s < 0.001 => write!(f, "{:.1} us", s * 1e6),
            Self::Time(s) if s < 1.0 => write!(f, "{:.2} ms", s * 1e3),
            Self::Time(s) => write!(f, "{s:.2} s"),
            Self::Size(bytes) => write!(f, "{:.2} MB", bytes / 1e6),
            Self::Rate(rate) => write!(f, "{rate:.2} /s"),
            Self::Percent(percent) => write!(f, "{percent:.4} %"),
            Self::Count(count) => write!(f, "{count:.0}"),
        }
    }
}

/// Many measurements of one thing.
#[derive(Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64());
    }

    pub fn extend(&mut self, times: &[Duration]) {
        self.0.extend(times.iter().map(Duration::as_secs_f64));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that `percent` of all do not exceed.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub fn time(&self, percent: usize) -> Figure {
        Figure::Time(self.percentile(percent))
    }

    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / float(u64::try_from(self.0.len()).unwrap_or(u64::MAX))
    }
}

/// Measured numbers are far below the 2^52 that a float holds exactly.
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub fn float(number: u64) -> f64 {
    number as f64
}
