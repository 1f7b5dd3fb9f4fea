//! `levee init`: configuration for a cluster of several hosts, and a look at whether a host is ready for it.
//!
//! Writing touches nothing but a folder that is new or empty, and checking changes nothing at all: what deletes data
//! is left to whoever follows the steps.

pub mod check;
mod files;
mod plan;
mod steps;

pub use plan::{NodeSpec, PlaceSpec};

use crate::cli::InitPlan;
use crate::output::Output;
use anyhow::{Context, bail};
use plan::Plan;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What was written.
#[derive(Serialize)]
struct Written {
    out: PathBuf,
    files: Vec<PathBuf>,
    /// What may be meant, and may be a mistake.
    notes: Vec<String>,
}

pub fn write(args: &InitPlan, out: &Output) -> anyhow::Result<()> {
    let plan = Plan::new(args)?;
    let dir = args.out.as_deref().context("--out is missing")?;
    let mut files = plan.hosts().flat_map(|host| files::of(&plan, &host)).collect::<Vec<_>>();
    files.push(("STEPS.md".into(), steps::page(&plan)));
    save(dir, &files)?;
    let paths: Vec<_> = files.into_iter().map(|(path, _)| path).collect();
    let written = Written { out: dir.to_path_buf(), files: paths, notes: plan.notes() };
    out.result(&written, || describe(&written))
}

/// A folder that has something in it is left alone: it may be the configuration of a cluster that runs.
fn save(dir: &Path, files: &[(PathBuf, String)]) -> anyhow::Result<()> {
    let name = dir.display();
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {name}"))?;
    let mut there = std::fs::read_dir(dir).with_context(|| format!("cannot look into {name}"))?;
    if there.next().is_some() {
        bail!("{name} is not empty, and nothing in it is replaced: name a new folder with --out, or remove it");
    }
    for (path, text) in files {
        let path = dir.join(path);
        let folder = path.parent().unwrap_or(dir);
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn describe(written: &Written) -> String {
    let mut text: String =
        written.files.iter().map(|f| format!("Wrote  {}\n", written.out.join(f).display())).collect();
    text.extend(written.notes.iter().map(|note| format!("Note   {note}\n")));
    text + &format!("Next   follow {}\n", written.out.join("STEPS.md").display())
}
