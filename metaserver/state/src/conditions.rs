//! Which conditions were told: part of the state, so that a new leader goes on where the old one stopped, and tells what began or
//! ended while nobody led.

use crate::command::{Outcome, invalid};
use crate::events::{Note, validate_notes};
use crate::limits::MAX_TOLD;
use crate::state::State;
use levee_proto::api::{ConditionKey, Problem};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Since when each has been told, milliseconds since 1970. In order, as pairs: JSON's keys are text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(ConditionKey, u64)>", into = "Vec<(ConditionKey, u64)>")]
pub(crate) struct Told(BTreeMap<ConditionKey, u64>);

impl From<Vec<(ConditionKey, u64)>> for Told {
    fn from(pairs: Vec<(ConditionKey, u64)>) -> Told {
        Told(pairs.into_iter().collect())
    }
}

impl From<Told> for Vec<(ConditionKey, u64)> {
    fn from(told: Told) -> Vec<(ConditionKey, u64)> {
        told.0.into_iter().collect()
    }
}

impl Told {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Conditions that have begun and ended, with the events to be told of that; those that need none are told in silence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionChange {
    pub began: Vec<ConditionKey>,
    pub ended: Vec<ConditionKey>,
    pub notes: Vec<Note>,
}

pub(crate) fn validate_change(change: &ConditionChange) -> Result<(), Problem> {
    let count = change.began.len() + change.ended.len();
    if count > MAX_TOLD {
        return Err(invalid(format!("{count} changes of conditions in one message: at most {MAX_TOLD} are allowed")));
    }
    validate_notes(&change.notes)
}

impl State {
    pub(crate) fn tell_conditions(&mut self, change: &ConditionChange) -> Outcome {
        let at_ms = self.clock_ms();
        let told = &mut self.tables.conditions.0;
        for key in &change.ended {
            told.remove(key);
        }
        for key in &change.began {
            if told.len() < MAX_TOLD {
                told.entry(key.clone()).or_insert(at_ms);
            }
        }
        self.add_notes(&change.notes)
    }

    /// Conditions that were told and have not ended, and since when, milliseconds since 1970.
    pub fn told_conditions(&self) -> impl Iterator<Item = (&ConditionKey, u64)> {
        self.tables.conditions.0.iter().map(|(key, since)| (key, *since))
    }

    /// Since when the condition has been told, milliseconds since 1970.
    pub fn told_since(&self, key: &ConditionKey) -> Option<u64> {
        self.tables.conditions.0.get(key).copied()
    }
}
