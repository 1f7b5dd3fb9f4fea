//! Latencies in an HDR histogram.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer ones count as this long.
const LONGEST: Duration = Duration::from_secs(120);
const DIGITS: u8 = 3;

/// Microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Latencies of many requests, in constant space.
#[derive(Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS);
        Latencies(histogram.expect("the bounds are constants that the histogram accepts"))
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn add(&mut self, other: &Latencies) {
        self.0 += &other.0;
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile: f64| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Percentiles {
            mean: self.0.mean() / 1000.0,
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_where_they_should_be() {
        let (mut all, mut more) = (Latencies::default(), Latencies::default());
        for us in 1..=500 {
            all.record(Duration::from_micros(us));
            more.record(Duration::from_micros(500 + us));
        }
        more.record(Duration::from_secs(9999));
        all.add(&more);
        let p = all.percentiles();
        assert_eq!(all.count(), 1001);
        assert!((p.p50 - 501.0).abs() < 2.0 && (p.p99 - 991.0).abs() < 2.0, "{p:?}");
        assert!(p.max >= 119e6);
    }
}
