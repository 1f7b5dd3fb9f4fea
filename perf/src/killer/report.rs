//! What a kill run did and found, as one JSON document.

use serde::Serialize;
use serde_json::Value;

use crate::torture::Report;

/// One kill.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub victims: Vec<String>,
    /// Whether the daemon that serves the volume was among them.
    pub gateway: bool,
    /// How long they were left down.
    pub down_ms: u64,
    /// From the kill until all ran again and, where the round waited for it, a request completed.
    pub recovered_ms: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct KillReport {
    pub ok: bool,
    pub seed: u64,
    pub seconds: f64,
    /// Moments at which daemons were killed.
    pub kills: u32,
    /// Kills that struck the gateway.
    pub gateway_kills: u32,
    pub daemons_killed: u32,
    pub load: Report,
    /// Outcome of comparing all copies.
    pub verify: Option<Value>,
    /// The read-back after the whole cluster was stopped and started again.
    pub after_restart: Option<Report>,
    /// What went wrong around the load.
    pub failures: Vec<String>,
    pub rounds: Vec<Round>,
}

impl KillReport {
    pub fn new(seed: u64) -> KillReport {
        KillReport {
            ok: false,
            seed,
            seconds: 0.0,
            kills: 0,
            gateway_kills: 0,
            daemons_killed: 0,
            load: Report::default(),
            verify: None,
            after_restart: None,
            failures: Vec::new(),
            rounds: Vec::new(),
        }
    }

    pub fn count(&mut self, round: Round) {
        self.kills += 1;
        self.gateway_kills += u32::from(round.gateway);
        self.daemons_killed += round.victims.len() as u32;
        self.rounds.push(round);
    }

    pub fn fail(&mut self, failure: String) {
        self.failures.push(failure);
        self.ok = false;
    }

    /// Judges the run: every check was made and none found anything.
    pub fn ok(&mut self) -> bool {
        let restarted = self.after_restart.as_ref().is_some_and(Report::ok);
        self.ok = self.failures.is_empty() && self.load.ok() && self.verify.is_some() && restarted;
        self.ok
    }
}
