//! The disk files of an embedded cluster: enough space for them, and formatting those that are new.
//!
//! A disk is formatted under another name and then renamed: under its own name a disk is whole, and
//! is never formatted again.

use super::layout::{Binaries, ClusterFile, Layout};
use crate::limits::MIN_FREE_SPACE;
use anyhow::Context;
use levee_proto::units::show_size;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Disks that do not exist yet.
pub fn new_disks(file: &ClusterFile, layout: &Layout) -> Vec<PathBuf> {
    let all = file.nodes.iter().flat_map(|node| &node.disks).map(|disk| layout.root.join(disk));
    all.filter(|disk| !disk.exists()).collect()
}

/// Refuses when there is next to no space; answers with a warning when the disks may outgrow it.
pub fn check_space(layout: &Layout, count: usize, size: u64) -> anyhow::Result<Option<String>> {
    let root = layout.root.display();
    let stat =
        nix::sys::statvfs::statvfs(&layout.root).with_context(|| format!("cannot see the free space in {root}"))?;
    let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    if count == 0 {
        return Ok(None);
    }
    if free < MIN_FREE_SPACE {
        let needed = show_size(MIN_FREE_SPACE);
        anyhow::bail!(
            "{} are free in {root}, and a cluster needs at least {needed}: make room, or use another --dir",
            show_size(free)
        );
    }
    let total = size.saturating_mul(count as u64);
    Ok((total > free).then(|| {
        format!(
            "warning: the new disks may grow to {}, but only {} are free in {root}",
            show_size(total),
            show_size(free)
        )
    }))
}

/// Formats one new disk.
pub async fn format(disk: &Path, file: &ClusterFile, binaries: &Binaries) -> anyhow::Result<()> {
    let show = disk.display();
    if let Some(folder) = disk.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let unfinished = disk.with_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("cannot delete {}", unfinished.display()));
        }
        _ => {}
    }
    let formatted = run(&unfinished, file, binaries).await;
    if formatted.is_err() {
        // What is left of the attempt only takes space; the next attempt deletes it as well.
        let _ = std::fs::remove_file(&unfinished);
    }
    formatted.with_context(|| format!("cannot format disk {show}"))?;
    std::fs::rename(&unfinished, disk).with_context(|| format!("cannot name disk {show}"))
}

async fn run(path: &Path, file: &ClusterFile, binaries: &Binaries) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(&binaries.stored)
        .arg("format")
        .arg(path)
        .args(["--size", &file.disk_size.to_string(), "--cores", &file.cores.to_string()])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot start {}", binaries.stored.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match said.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) => anyhow::bail!("{}", line.trim()),
        None => anyhow::bail!("{} failed with {}", binaries.stored.display(), output.status),
    }
}
