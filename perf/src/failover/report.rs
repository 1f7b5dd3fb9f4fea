//! The figures.

use std::fmt::Write;

use serde::Serialize;

use super::ASKED_MS;
use super::clients::Record;

/// Contradictions that are spelled out.
const MAX_SHOWN: usize = 20;

/// One leader taken away.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub number: u32,
    pub kind: &'static str,
    pub leader: u64,
    /// From the fault until the first answer to a change that was asked for afterwards.
    pub served_ms: f64,
    /// Longest time without any completion of the guest's requests.
    pub stall_ms: f64,
    pub guest_errors: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct FailoverReport {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub longest_stall_ms: f64,
    /// Changes that were answered, and attempts that were not.
    pub answered: u64,
    pub unanswered: u64,
    /// What was answered and is not so.
    pub lost: usize,
    pub lost_examples: Vec<String>,
    /// All that the guest wrote was read back.
    pub guest_ok: bool,
    pub rounds: Vec<Round>,
}

impl FailoverReport {
    pub fn new(rounds: Vec<Round>, record: &Record, lost: Vec<String>, guest_ok: bool) -> FailoverReport {
        let mut served: Vec<f64> = rounds.iter().map(|round| round.served_ms).collect();
        served.sort_by(f64::total_cmp);
        FailoverReport {
            p50_ms: at(&served, 0.50),
            p99_ms: at(&served, 0.99),
            max_ms: at(&served, 1.0),
            longest_stall_ms: rounds.iter().map(|round| round.stall_ms).fold(0.0, f64::max),
            answered: record.answered,
            unanswered: record.unanswered,
            lost: lost.len(),
            lost_examples: lost.into_iter().take(MAX_SHOWN).collect(),
            guest_ok: guest_ok && rounds.iter().all(|round| round.guest_errors == 0),
            rounds,
        }
    }

    pub fn ok(&self) -> bool {
        self.lost == 0 && self.guest_ok
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let kinds = ["kill", "stop", "cut"];
        let mut rows = || -> std::fmt::Result {
            writeln!(out, "Leader taken away {} times; until a change is answered again:", self.rounds.len())?;
            let row = |out: &mut String, name: &str, served: &mut Vec<f64>| {
                served.sort_by(f64::total_cmp);
                let (p50, p99, max) = (at(served, 0.5), at(served, 0.99), at(served, 1.0));
                writeln!(
                    out,
                    "  {name:<5} {:>4} times  p50 {p50:>6.0} ms, p99 {p99:>6.0}, longest {max:>6.0}",
                    served.len()
                )
            };
            for kind in kinds {
                let mut served: Vec<f64> = self.rounds.iter().filter(|r| r.kind == kind).map(|r| r.served_ms).collect();
                row(&mut out, kind, &mut served)?;
            }
            row(&mut out, "all", &mut self.rounds.iter().map(|r| r.served_ms).collect())?;
            writeln!(out, "  asked: p99 below {ASKED_MS:.0} ms")?;
            writeln!(
                out,
                "Changes answered {}, attempts without an answer {}, lost {}",
                self.answered, self.unanswered, self.lost
            )?;
            self.lost_examples.iter().try_for_each(|lost| writeln!(out, "  LOST: {lost}"))?;
            let guest = if self.guest_ok { "all of it verified" } else { "WRONG" };
            writeln!(out, "Guest: longest stall {:.0} ms, {guest}", self.longest_stall_ms)
        };
        // Writing to a string does not fail.
        let _ = rows();
        out
    }
}

/// The value that so large a part of the sorted ones does not exceed.
fn at(sorted: &[f64], part: f64) -> f64 {
    let index = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((at(&values, 0.5), at(&values, 0.99), at(&values, 1.0)), (50.0, 99.0, 100.0));
        assert_eq!(at(&values[..3], 0.99), 3.0);
        assert!(at(&[], 0.5).is_nan());
    }
}
