//! The file that a benchmark leaves.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes figures as JSON; the folder is made if it is not there.
pub fn write(path: &Path, figures: &impl Serialize) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    std::fs::write(path, serde_json::to_vec_pretty(figures)?)
        .with_context(|| format!("cannot write {}", path.display()))
}
