//! Idempotency keys: what was answered to a request is answered again when the request comes again.
//!
//! A client that lost an answer sends its request once more with the same key. It may reach another member by then, so what was
//! answered is part of the state. A request that takes several commands has its key once for each of them, told apart by `part`.
//!
//! Time is the state's clock. What is older than [`KEY_LIFE_MS`] is forgotten, and the oldest first where there are too many.

use crate::command::{Answer, Command, Outcome, invalid};
use crate::limits::{KEY_LIFE_MS, MAX_KEY, MAX_KEYS, MAX_KEYS_WEIGHT};
use crate::state::State;
use levee_proto::api::{Problem, ProblemKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A key as it is proposed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// As the client chose it.
    pub key: String,
    /// Which of the request's commands, from 0.
    pub part: u32,
    /// Of method, path and body: another request by the same key is a mistake.
    pub fingerprint: String,
}

/// What the state remembers, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Keys {
    pub by_age: BTreeMap<u64, Remembered>,
    /// The number that was given out last.
    pub last: u64,
    /// Sum of [`weight`] over all.
    pub weight: u64,
}

impl Keys {
    pub fn is_empty(&self) -> bool {
        *self == Keys::default()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub key: String,
    pub part: u32,
    pub fingerprint: String,
    pub at_ms: u64,
    pub outcome: Outcome,
}

/// What the memory is looked up by.
pub(crate) type Name = (String, u32);

/// Whether `key` can be an idempotency key: printable ASCII.
pub fn is_valid_key(key: &str) -> bool {
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
}

pub(crate) fn validate_keyed(key: &Key, command: &Command) -> Result<(), Problem> {
    if !is_valid_key(&key.key) {
        return Err(invalid(format!("an idempotency key must be 1 to {MAX_KEY} printable ASCII characters")));
    }
    if key.fingerprint.len() > MAX_KEY || matches!(command, Command::Keyed { .. }) {
        return Err(invalid("a key is for one command"));
    }
    command.validate()
}

impl State {
    pub(crate) fn apply_keyed(&mut self, key: &Key, command: &Command) -> Outcome {
        self.forget_old_keys();
        if let Some(known) = self.remembered(&key.key, key.part) {
            return if known.fingerprint == key.fingerprint { known.outcome.clone() } else { Err(reused(&key.key)) };
        }
        let outcome = self.apply(command);
        self.remember(key, outcome.clone());
        outcome
    }

    /// Whether the request with this key was answered before; refuses if it was another request.
    pub fn knows_key(&self, key: &str, fingerprint: &str) -> Result<bool, Problem> {
        match self.remembered(key, 0) {
            None => Ok(false),
            Some(known) if known.fingerprint == fingerprint => Ok(true),
            Some(_) => Err(reused(key)),
        }
    }

    fn remembered(&self, key: &str, part: u32) -> Option<&Remembered> {
        let number = self.index.keys.get(&(key.to_string(), part))?;
        self.tables.keys.by_age.get(number)
    }

    fn remember(&mut self, key: &Key, outcome: Outcome) {
        let keys = &mut self.tables.keys;
        keys.last += 1;
        let (number, at_ms) = (keys.last, self.tables.clock_ms);
        let Key { key, part, fingerprint, .. } = key.clone();
        self.index.keys.insert((key.clone(), part), number);
        let remembered = Remembered { key, part, fingerprint, at_ms, outcome };
        keys.weight += weight(&remembered);
        keys.by_age.insert(number, remembered);
        self.forget_old_keys();
    }

    fn forget_old_keys(&mut self) {
        let now_ms = self.tables.clock_ms;
        let keys = &mut self.tables.keys;
        while let Some(oldest) = keys.by_age.first_entry() {
            let old = oldest.get().at_ms.saturating_add(KEY_LIFE_MS) <= now_ms;
            if !old && keys.last - oldest.key() < MAX_KEYS && keys.weight <= MAX_KEYS_WEIGHT {
                return;
            }
            let gone = oldest.remove();
            keys.weight = keys.weight.saturating_sub(weight(&gone));
            self.index.keys.remove(&(gone.key, gone.part));
        }
    }
}

fn reused(key: &str) -> Problem {
    let detail = format!(
        "the idempotency key '{key}' was used for another request: give each request a key of its own, and a repeated one \
         the same body"
    );
    Problem { status: 422, ..Problem::new(ProblemKind::Conflict, detail) }
}

/// About how many bytes it takes.
pub(crate) fn weight(remembered: &Remembered) -> u64 {
    const BASE: usize = 256;
    const ITEM: usize = 512;
    let items = match &remembered.outcome {
        Ok(Answer::Volume(_) | Answer::Disk(_)) => 1,
        Ok(Answer::Snapshots(snapshots)) => snapshots.len(),
        Ok(Answer::Deleted(deleted)) => deleted.refused.len(),
        Ok(Answer::Created(created)) => created.len(),
        Ok(_) => 0,
        Err(_) => 1,
    };
    (BASE + 2 * remembered.key.len() + items * ITEM) as u64
}
