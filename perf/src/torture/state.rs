//! Expected content on disk, so that a later run can check what this one left behind.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::model::Value;
use crate::limits::MAX_UNITS;

const FORMAT: u32 = 1;

/// What a finished run leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: u32,
    /// Part of every stamp.
    pub key: u64,
    /// Bytes.
    pub unit: usize,
    pub next_generation: u32,
    /// Value of each unit from the start of the volume, as in [`Value`].
    pub values: Vec<u32>,
}

impl State {
    pub fn new(key: u64, unit: usize, next_generation: u32, values: &[Value]) -> State {
        State { format: FORMAT, key, unit, next_generation, values: values.iter().map(|v| v.0).collect() }
    }

    pub fn load(path: &Path) -> Result<State> {
        let text = std::fs::read(path).with_context(|| format!("cannot read the state file {}", path.display()))?;
        let state: State =
            serde_json::from_slice(&text).with_context(|| format!("{} is not a torture state file", path.display()))?;
        ensure!(state.format == FORMAT, "{} has format {}, not {FORMAT}", path.display(), state.format);
        ensure!(
            (state.unit == 512 || state.unit == 4096) && (1..=MAX_UNITS).contains(&(state.values.len() as u64)),
            "{} is damaged: {} units of {} bytes",
            path.display(),
            state.values.len(),
            state.unit
        );
        Ok(state)
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        // Whole or not at all: a run that is cut off leaves the old file.
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?).with_context(|| format!("cannot write {}", new.display()))?;
        std::fs::rename(&new, path).with_context(|| format!("cannot replace {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_saved_and_loaded_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let state = State::new(9, 4096, 77, &[Value::ZERO, Value(5)]);
        state.save(&path).unwrap();
        assert_eq!(State::load(&path).unwrap(), state);
        std::fs::write(&path, b"{}").unwrap();
        assert!(State::load(&path).is_err());
    }
}
