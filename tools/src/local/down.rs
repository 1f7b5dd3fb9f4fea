//! `levee down`: stops daemons, storage nodes before meta servers, and deletes a cluster if asked to.

use super::layout::{ClusterFile, Layout};
use super::lock::Lock;
use super::plan;
use super::process::{Identity, PidFile};
use crate::cli::Down;
use crate::limits::{KILL_TIMEOUT, POLL_PAUSE};
use crate::output::Output;
use anyhow::Context;
use nix::sys::signal::Signal;
use serde::Serialize;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// By itself, after it was asked to.
    Stopped,
    Killed,
    NotRunning,
}

#[derive(Debug, Serialize)]
pub struct Stopped {
    pub name: String,
    pub ending: Ending,
}

#[derive(Serialize)]
struct Report {
    dir: String,
    daemons: Vec<Stopped>,
    destroyed: bool,
}

pub async fn down(args: &Down, dir: &Path, out: &Output) -> anyhow::Result<()> {
    let layout = Layout::at(dir)?;
    let root = layout.root.display().to_string();
    let no_cluster = || anyhow::anyhow!("there is no cluster in {root}: name its folder with --dir");
    let file = ClusterFile::load(&layout)?.ok_or_else(no_cluster)?;
    plan::check_names(&file, &args.names)?;
    let timeout = if args.kill { Duration::ZERO } else { args.timeout };
    let bar = out.spinner("stopping");
    let daemons = stop(&layout, &file, &args.names, timeout).await?;
    bar.finish_and_clear();
    if args.destroy {
        destroy(&layout, &file, out)?;
    }
    let report = Report { dir: root, daemons, destroyed: args.destroy };
    out.result(&report, || describe(&report))
}

fn describe(report: &Report) -> String {
    let mut lines: Vec<_> = report
        .daemons
        .iter()
        .map(|daemon| match daemon.ending {
            Ending::Stopped => format!("{}: stopped", daemon.name),
            Ending::Killed => format!("{}: killed", daemon.name),
            Ending::NotRunning => format!("{}: was not running", daemon.name),
        })
        .collect();
    let dir = &report.dir;
    lines.push(if report.destroyed {
        format!("The cluster in {dir} is deleted.")
    } else {
        format!("The data is kept; `levee up --dir {dir}` starts it again.")
    });
    lines.join("\n")
}

/// Stops the named daemons, or all: asks them, waits for `timeout`, then kills what is left.
pub async fn stop(
    layout: &Layout,
    file: &ClusterFile,
    names: &[String],
    timeout: Duration,
) -> anyhow::Result<Vec<Stopped>> {
    let _lock = Lock::take(layout).await?;
    let wanted = |name: &&str| names.is_empty() || names.iter().any(|n| n == name);
    let nodes: Vec<_> = file.nodes.iter().map(|node| node.name.as_str()).filter(wanted).collect();
    let metas: Vec<_> = file.metas.iter().map(|meta| meta.name.as_str()).filter(wanted).collect();
    // A node that stops tells the meta servers: those go last.
    let mut stopped = stop_group(layout, &nodes, timeout).await?;
    stopped.extend(stop_group(layout, &metas, timeout).await?);
    Ok(stopped)
}

async fn stop_group(layout: &Layout, names: &[&str], timeout: Duration) -> anyhow::Result<Vec<Stopped>> {
    let mut running = Vec::new();
    for name in names {
        if let Some(identity) = PidFile::of(layout, name).running()? {
            running.push((*name, identity));
        }
    }
    if !timeout.is_zero() {
        signal_all(&running, Signal::SIGTERM)?;
    }
    let stubborn = wait_ended(&running, timeout).await?;
    signal_all(&stubborn, Signal::SIGKILL)?;
    if let Some((name, identity)) = wait_ended(&stubborn, KILL_TIMEOUT).await?.first() {
        anyhow::bail!("{name} (process {}) does not end although it was killed: look at it with ps", identity.pid);
    }
    let has = |list: &[(&str, Identity)], name: &str| list.iter().any(|(other, _)| *other == name);
    let mut stopped = Vec::new();
    for name in names {
        PidFile::of(layout, name).remove()?;
        let ending = match (has(&running, name), has(&stubborn, name)) {
            (_, true) => Ending::Killed,
            (true, false) => Ending::Stopped,
            (false, false) => Ending::NotRunning,
        };
        stopped.push(Stopped { name: name.to_string(), ending });
    }
    Ok(stopped)
}

fn signal_all(daemons: &[(&str, Identity)], signal: Signal) -> anyhow::Result<()> {
    for (name, identity) in daemons {
        identity.signal(signal).with_context(|| format!("cannot stop {name} (process {})", identity.pid))?;
    }
    Ok(())
}

/// Those that still run after `timeout`.
async fn wait_ended<'n>(
    daemons: &[(&'n str, Identity)],
    timeout: Duration,
) -> anyhow::Result<Vec<(&'n str, Identity)>> {
    let begun = Instant::now();
    loop {
        let mut left = Vec::new();
        for (name, identity) in daemons {
            if identity.is_running()? {
                left.push((*name, identity.clone()));
            }
        }
        if left.is_empty() || begun.elapsed() >= timeout {
            return Ok(left);
        }
        tokio::time::sleep(POLL_PAUSE).await;
    }
}

/// Deletes what belongs to the cluster, and the folder if nothing else is in it. The cluster file
/// goes last, so that a deletion that was interrupted can be repeated.
fn destroy(layout: &Layout, file: &ClusterFile, out: &Output) -> anyhow::Result<()> {
    for name in file.names() {
        remove_tree(&layout.state(name))?;
    }
    for folder in [layout.logs(), layout.sockets(), layout.pids()] {
        remove_tree(&folder)?;
    }
    let path = layout.cluster_file();
    std::fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
    match std::fs::remove_dir(&layout.root) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {
            out.note(&format!("{} is left, because it holds other files too", layout.root.display()));
        }
        Err(e) => out.note(&format!("{} is left: {e}", layout.root.display())),
        Ok(()) => {}
    }
    Ok(())
}

fn remove_tree(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot delete {}", path.display()))
        }
        _ => Ok(()),
    }
}
