//! Keeps what a guest can cause from filling the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines in one period.
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

/// The lines about one device.
#[derive(Default)]
pub(crate) struct LogLimit(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    since: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether one more line may be written: with how many were not, since the last one that was.
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            (lines.since, lines.written) = (Some(now), 0);
        }
        if lines.written == LINES {
            lines.suppressed += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.suppressed))
    }
}

/// A line at `level` about a device, with its [`LogLimit`]: the fields and message that follow are `tracing`'s.
macro_rules! limited {
    ($limit:expr, $level:ident, $($line:tt)+) => {
        if let Some(suppressed) = $limit.allow() {
            match suppressed {
                0 => tracing::$level!($($line)+),
                suppressed => tracing::$level!(suppressed, $($line)+),
            }
        }
    };
}
pub(crate) use limited;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let (limit, begin) = (LogLimit::default(), Instant::now());
        let written = (0..1000).filter_map(|_| limit.allow_at(begin)).count();
        assert_eq!(written, LINES as usize);
        assert_eq!(limit.allow_at(begin + PERIOD), Some(1000 - u64::from(LINES)));
        assert_eq!(limit.allow_at(begin + PERIOD), Some(0));
    }
}
