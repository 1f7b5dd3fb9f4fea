//! What a run did and found: one JSON document, and a table for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::inject::Done;
use super::kind::Kind;
use super::schedule::Plan;
use crate::torture::{Report, Window, millis};

/// What was asked of a volume whose own gateway lives on when another node dies, milliseconds.
const ASKED_REPLICA_MS: f64 = 1000.0;
/// What was asked of a volume whose gateway dies: so long beyond its restart, milliseconds.
const ASKED_BEYOND_RESTART_MS: f64 = 500.0;

/// One round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub number: u32,
    pub kind: Kind,
    /// What the round is counted as in the table.
    pub label: String,
    pub faults: Vec<String>,
    pub volumes: Vec<VolumeRound>,
    /// From the end of the last fault until all copies were whole again, where the round waited for it.
    pub whole_ms: Option<f64>,
    /// Daemons that had to be started again before that.
    pub restarted: Vec<String>,
}

/// What the guest of one volume saw in a round.
#[derive(Clone, Debug, Serialize)]
pub struct VolumeRound {
    /// Whether a fault struck the node that serves the volume.
    pub gateway: bool,
    pub stall_ms: f64,
    /// Of the stall: how long the gateway was left down on purpose.
    pub down_ms: f64,
    pub slowest_request_ms: f64,
    pub mistakes: u64,
    pub errors: u64,
}

impl Round {
    pub fn new(number: u32, plan: &Plan, done: &[Done], gateways: &[String], windows: &[Window]) -> Round {
        let label = match done {
            [one] => one.label.to_string(),
            _ => "two at once".into(),
        };
        let volumes = gateways.iter().zip(windows).map(|(gateway, window)| {
            let struck = done.iter().filter(|done| done.struck.contains(gateway));
            VolumeRound {
                gateway: struck.clone().next().is_some(),
                stall_ms: millis(window.stall),
                down_ms: struck.filter_map(|done| done.down).map(millis).fold(0.0, f64::max),
                slowest_request_ms: millis(window.slowest),
                mistakes: window.mistakes,
                errors: window.errors,
            }
        });
        let volumes = volumes.collect();
        let faults = done.iter().map(|done| done.what.clone()).collect();
        Round { number, kind: plan.kind, label, faults, volumes, whole_ms: None, restarted: Vec::new() }
    }

    /// Longest stall of the volumes whose gateway was struck, or was not.
    pub fn longest_stall(&self, gateway: bool) -> Option<f64> {
        largest(self.volumes.iter().filter(|volume| volume.gateway == gateway).map(|volume| volume.stall_ms))
    }
}

/// A line of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub rounds: u32,
    /// Longest stall of volumes whose gateway was struck, milliseconds.
    pub gateway_stall_ms: Option<f64>,
    /// Longest stall of all other volumes, milliseconds.
    pub other_stall_ms: Option<f64>,
    pub slowest_request_ms: f64,
    pub whole_ms: Option<f64>,
    /// Daemons that were started again because the cluster did not mend itself.
    pub restarted: usize,
    pub mistakes: u64,
    pub errors: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct FaultReport {
    pub ok: bool,
    pub seed: u64,
    pub seconds: f64,
    /// Faults carried out; a round of two counts twice.
    pub faults: u32,
    /// Kinds that this machine cannot carry out, and rounds that were left out for it.
    pub skipped: BTreeMap<Kind, u32>,
    /// A gateway's restart without load: from its start to its volume's socket, milliseconds.
    pub restart_ms: Vec<f64>,
    pub table: BTreeMap<String, Row>,
    /// Figures that were asked for, each with what was measured.
    pub asked: Vec<String>,
    pub loads: Vec<Report>,
    /// The read-back after the whole cluster was stopped and started again.
    pub after_restart: Vec<Report>,
    /// What went wrong around the loads.
    pub failures: Vec<String>,
    pub rounds: Vec<Round>,
}

impl FaultReport {
    pub fn new(seed: u64) -> FaultReport {
        FaultReport {
            ok: false,
            seed,
            seconds: 0.0,
            faults: 0,
            skipped: BTreeMap::new(),
            restart_ms: Vec::new(),
            table: BTreeMap::new(),
            asked: Vec::new(),
            loads: Vec::new(),
            after_restart: Vec::new(),
            failures: Vec::new(),
            rounds: Vec::new(),
        }
    }

    pub fn fail(&mut self, failure: String) {
        self.failures.push(failure);
    }

    pub fn count(&mut self, round: Round) {
        self.faults += round.faults.len() as u32;
        let row = self.table.entry(round.label.clone()).or_default();
        row.rounds += 1;
        row.gateway_stall_ms = largest(row.gateway_stall_ms.into_iter().chain(round.longest_stall(true)));
        row.other_stall_ms = largest(row.other_stall_ms.into_iter().chain(round.longest_stall(false)));
        row.whole_ms = largest(row.whole_ms.into_iter().chain(round.whole_ms));
        row.restarted += round.restarted.len();
        for volume in &round.volumes {
            row.slowest_request_ms = row.slowest_request_ms.max(volume.slowest_request_ms);
            row.mistakes += volume.mistakes;
            row.errors += volume.errors;
        }
        self.rounds.push(round);
    }

    /// Judges the run: every check was made and none found anything.
    pub fn conclude(&mut self, seconds: f64) {
        self.seconds = seconds;
        self.asked = self.asked_figures();
        let all = |reports: &[Report]| !reports.is_empty() && reports.iter().all(Report::ok);
        self.ok = self.failures.is_empty() && all(&self.loads) && all(&self.after_restart);
    }

    fn asked_figures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let killed = || self.rounds.iter().filter(|round| round.label == "kill node");
        let others = killed().flat_map(|round| &round.volumes).filter(|volume| !volume.gateway);
        if let Some(stall) = largest(others.map(|volume| volume.stall_ms)) {
            lines.push(judge("longest stall, a node dead that is not the gateway", stall, ASKED_REPLICA_MS));
        }
        let gateways = killed().flat_map(|round| &round.volumes).filter(|volume| volume.gateway);
        let beyond = largest(gateways.map(|volume| volume.stall_ms - volume.down_ms));
        if let (Some(stall), Some(restart)) = (beyond, largest(self.restart_ms.iter().copied())) {
            let name = "longest stall, the gateway dead, beyond the time it was left down";
            lines.push(judge(name, stall, restart + ASKED_BEYOND_RESTART_MS));
        }
        lines
    }

    /// Sums for people.
    pub fn show(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{:<24} {:>6} {:>13} {:>13} {:>13} {:>9} {:>9} {:>10} {:>6}",
            "fault",
            "rounds",
            "stall gateway",
            "stall others",
            "slowest req",
            "whole",
            "restarted",
            "lost/wrong",
            "errors"
        );
        for (label, row) in &self.table {
            let _ = writeln!(
                out,
                "{label:<24} {:>6} {:>13} {:>13} {:>13} {:>9} {:>9} {:>10} {:>6}",
                row.rounds,
                show_ms(row.gateway_stall_ms),
                show_ms(row.other_stall_ms),
                show_ms(Some(row.slowest_request_ms)),
                show_ms(row.whole_ms),
                row.restarted,
                row.mistakes,
                row.errors
            );
        }
        for (kind, rounds) in &self.skipped {
            let _ = writeln!(out, "{kind:<24} {rounds:>6} skipped");
        }
        let restarts: Vec<_> = self.restart_ms.iter().map(|ms| show_ms(Some(*ms))).collect();
        let _ = writeln!(out, "restart of a gateway, measured by itself: {}", restarts.join(", "));
        let told =
            self.loads.iter().flat_map(|load| load.stuck.iter().chain(&load.protocol_error).chain(&load.findings));
        for line in self.asked.iter().chain(&self.failures).chain(told) {
            let _ = writeln!(out, "{line}");
        }
        let sum = |of: fn(&Report) -> u64| self.loads.iter().chain(&self.after_restart).map(of).sum::<u64>();
        let _ = write!(
            out,
            "seed {}: {} faults in {} rounds, {} operations, {} lost, {} wrong, {} errors, {:.0} s: {}",
            self.seed,
            self.faults,
            self.rounds.len(),
            sum(|report| report.ops.total),
            sum(|report| report.lost),
            sum(|report| report.wrong),
            sum(|report| report.io_errors),
            self.seconds,
            if self.ok { "all right" } else { "FAILED" }
        );
        out
    }
}

fn judge(what: &str, found: f64, asked: f64) -> String {
    let verdict = if found < asked { "met" } else { "missed" };
    format!("{what}: {found:.0} ms, asked below {asked:.0} ms: {verdict}")
}

fn largest(values: impl Iterator<Item = f64>) -> Option<f64> {
    values.fold(None, |most: Option<f64>, value| Some(most.map_or(value, |most| most.max(value))))
}

fn show_ms(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) => format!("{:.2} s", Duration::from_secs_f64(ms / 1000.0).as_secs_f64()),
    }
}
