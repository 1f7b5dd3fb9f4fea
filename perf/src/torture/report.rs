//! What a torture run found, as one JSON document.

use serde::{Deserialize, Serialize};

use super::model::{Value, Verdict};
use super::pattern::{Foreign, Found};
use crate::limits::MAX_FINDINGS;
use levee_frontend::Reconnect;

/// Completed operations by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operations {
    pub total: u64,
    pub read: u64,
    pub write: u64,
    pub discard: u64,
    pub write_zeroes: u64,
    pub flush: u64,
    /// Reads of the read-back at the end, not part of the others.
    pub read_back: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub seed: u64,
    pub seconds: f64,
    pub ops: Operations,
    /// Units that held an older value than the acknowledged one.
    pub lost: u64,
    /// Units that held something never written there.
    pub wrong: u64,
    /// Requests that the device failed.
    pub io_errors: u64,
    /// Units compared, at each read and at the end.
    pub units_checked: u64,
    /// Whether the read-back at the end reached every unit.
    pub read_back_complete: bool,
    /// Whether the daemon hands over what is in flight.
    pub tracks_inflight: bool,
    pub reconnects: u64,
    /// Longest time without any completion while requests were in flight.
    pub longest_stall_ms: f64,
    /// Longest time that one request took.
    pub slowest_request_ms: f64,
    /// Longest time from losing the daemon to the next connection.
    pub longest_away_ms: f64,
    /// From each new connection to the first completion over it.
    pub first_completion_ms: Vec<f64>,
    /// How the device broke the protocol, if it did.
    pub protocol_error: Option<String>,
    /// Why the run was given up, if it was.
    pub stuck: Option<String>,
    /// The first mistakes, one line each.
    pub findings: Vec<String>,
}

impl Report {
    /// Nothing lost, nothing wrong, no error, and all of it looked at.
    pub fn ok(&self) -> bool {
        self.lost + self.wrong + self.io_errors == 0
            && self.protocol_error.is_none()
            && self.stuck.is_none()
            && self.read_back_complete
    }

    pub fn find(&mut self, finding: impl FnOnce() -> String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding());
        }
    }

    pub fn judge(&mut self, offset: u64, verdict: &Verdict) {
        self.units_checked += 1;
        let (what, found, expected) = match verdict {
            Verdict::Right => return,
            Verdict::Lost { found, expected } => ("lost write", found, expected),
            Verdict::Wrong { found, expected } => ("wrong data", found, expected),
        };
        match verdict {
            Verdict::Lost { .. } => self.lost += 1,
            _ => self.wrong += 1,
        }
        self.find(|| {
            let expected: Vec<_> = expected.iter().map(|v| show_value(*v)).collect();
            format!("{what} at byte {offset}: found {}, expected {}", show_found(*found), expected.join(" or "))
        });
    }

    pub fn take_reconnects(&mut self, reconnects: &[Reconnect]) {
        self.reconnects = reconnects.len() as u64;
        self.longest_away_ms = reconnects.iter().map(|r| millis(r.away)).fold(0.0, f64::max);
        self.first_completion_ms = reconnects.iter().filter_map(|r| r.first_completion.map(millis)).collect();
    }
}

/// Milliseconds with microseconds after the point.
pub fn millis(time: std::time::Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn show_value(value: Value) -> String {
    match value {
        Value::UNKNOWN => "anything".into(),
        Value::ZERO => "zeroes".into(),
        Value(n) => format!("write {n}"),
    }
}

fn show_found(found: Found) -> String {
    match found {
        Found::Zero => "zeroes".into(),
        Found::Generation(n) => format!("write {n}"),
        Found::Foreign(Foreign::Torn { generation }) => format!("a torn unit stamped by write {generation}"),
        Found::Foreign(Foreign::Misplaced { unit, generation }) => {
            format!("unit {unit} of write {generation}, which belongs elsewhere")
        }
        Found::Foreign(Foreign::OtherRun) => "data of another run".into(),
        Found::Foreign(Foreign::Unstamped) => "bytes that were never written".into(),
    }
}
