//! `levee up`: creates a cluster in a folder, or starts what is missing of it.

use super::keeper;
use super::layout::{ClusterFile, Layout};
use super::lock::Lock;
use super::plan::{self, Daemon};
use super::process::PidFile;
use super::start::Start;
use super::{disks, layout::Binaries};
use crate::cli::Up;
use crate::errors::Found;
use crate::limits::{MAX_SOCKET_PATH, SOCKET_NAME_ROOM};
use crate::output::Output;
use crate::signals::Signals;
use anyhow::Context;
use indicatif::ProgressBar;
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Report {
    dir: String,
    /// For `--cluster`.
    url: String,
    metas: Vec<MetaReport>,
    nodes: Vec<NodeReport>,
    /// Daemons that this command started.
    started: Vec<String>,
}

#[derive(Serialize)]
struct MetaReport {
    name: String,
    url: String,
    /// Absent if it does not run.
    pid: Option<i32>,
}

#[derive(Serialize)]
struct NodeReport {
    name: String,
    admin_url: String,
    pid: Option<i32>,
    disks: Vec<String>,
}

pub async fn up(args: &Up, dir: &Path, out: &Output) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let layout = Layout::at(dir)?;
    let mut start = Start::new(&layout);
    let bar = out.spinner("starting");
    let outcome = tokio::select! {
        outcome = bring_up(args, &layout, &mut start, &bar, out) => outcome,
        () = signals.next() => Err(anyhow::anyhow!("interrupted")),
    };
    let file = match outcome {
        Ok(file) => file,
        Err(e) => {
            bar.set_message("stopping");
            start.abandon().await;
            bar.finish_and_clear();
            return Err(e);
        }
    };
    bar.finish_and_clear();
    let kept = keeper::running(&layout)?;
    let stay = !args.detach && kept.is_none();
    if stay {
        keeper::enter(&layout)?;
    }
    let report = report(&layout, &file, &start)?;
    let told = out.result(&report, || describe(&report, args));
    if !stay {
        if let (false, Some(keeper)) = (args.detach, kept) {
            out.note(&format!("The `levee up` that runs as process {} stops them at its end.", keeper.pid));
        }
        return told;
    }
    // Whoever reads the output may be gone: the cluster is kept all the same.
    keeper::keep(&layout, &file, start.started, &mut signals, out).await.map_err(Found::after_document)
}

/// What this command is going to do.
struct Plan {
    file: ClusterFile,
    binaries: Binaries,
    missing: Vec<Daemon>,
}

async fn make_plan(args: &Up, layout: &Layout) -> anyhow::Result<Plan> {
    let mut file = plan::cluster(args, ClusterFile::load(layout)?)?;
    file.repair_after = args.repair_after.or(file.repair_after);
    plan::check_names(&file, &args.names)?;
    let binaries = plan::find_binaries()?;
    file.binaries = Some(binaries.clone());
    let missing = plan::missing(plan::daemons(&file, &binaries, layout), &args.names, layout).await?;
    plan::check_ports(&missing).await?;
    Ok(Plan { file, binaries, missing })
}

async fn bring_up(
    args: &Up,
    layout: &Layout,
    start: &mut Start,
    bar: &ProgressBar,
    out: &Output,
) -> anyhow::Result<ClusterFile> {
    check_socket_paths(layout)?;
    if ClusterFile::load(layout)?.is_none() {
        // Nothing is written before a new cluster is known to be possible.
        check_folder(layout)?;
        make_plan(args, layout).await?;
    }
    create_folders(layout)?;
    let _lock = Lock::take(layout).await?;
    let Plan { file, binaries, missing } = make_plan(args, layout).await?;
    let new_disks = disks::new_disks(&file, layout);
    if let Some(warning) = disks::check_space(layout, new_disks.len(), file.disk_size)? {
        out.note(&warning);
    }
    file.store(layout)?;
    for disk in &new_disks {
        bar.set_message(format!("formatting {}", disk.display()));
        disks::format(disk, &file, &binaries).await?;
    }
    for daemon in missing {
        bar.set_message(format!("starting {}", daemon.name));
        let state = layout.state(&daemon.name);
        std::fs::create_dir_all(&state).with_context(|| format!("cannot create {}", state.display()))?;
        start.launch(daemon)?;
    }
    start.wait(&file, args.timeout, bar).await?;
    Ok(file)
}

/// Refuses a folder that is used for something else.
fn check_folder(layout: &Layout) -> anyhow::Result<()> {
    let root = layout.root.display();
    let entries = match std::fs::read_dir(&layout.root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("cannot use folder {root}")),
    };
    let ours = [layout.pids(), layout.logs(), layout.sockets()];
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read folder {root}"))?.path();
        if !ours.contains(&path) {
            anyhow::bail!("{root} holds other files and no cluster: name an empty or a new folder with --dir");
        }
    }
    Ok(())
}

/// A socket's path must fit into the kernel's structure: better said now than at the first attach.
fn check_socket_paths(layout: &Layout) -> anyhow::Result<()> {
    let length = layout.sockets().as_os_str().len() + 1 + SOCKET_NAME_ROOM;
    if length > MAX_SOCKET_PATH {
        let most = MAX_SOCKET_PATH - SOCKET_NAME_ROOM - "/run/".len();
        let root = layout.root.display();
        anyhow::bail!("the path {root} is too long for sockets in it: use a --dir of at most {most} bytes");
    }
    Ok(())
}

fn create_folders(layout: &Layout) -> anyhow::Result<()> {
    for folder in [layout.pids(), layout.logs(), layout.sockets()] {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(())
}

fn report(layout: &Layout, file: &ClusterFile, start: &Start) -> anyhow::Result<Report> {
    let pid = |name: &str| PidFile::of(layout, name).running().map(|found| found.map(|identity| identity.pid));
    let mut metas = Vec::new();
    for meta in &file.metas {
        metas.push(MetaReport { name: meta.name.clone(), url: meta.url(), pid: pid(&meta.name)? });
    }
    let mut nodes = Vec::new();
    for node in &file.nodes {
        nodes.push(NodeReport {
            name: node.name.clone(),
            admin_url: node.admin_url(),
            pid: pid(&node.name)?,
            disks: node.disks.iter().map(|disk| layout.root.join(disk).display().to_string()).collect(),
        });
    }
    Ok(Report {
        dir: layout.root.display().to_string(),
        url: file.meta_urls().join(","),
        metas,
        nodes,
        started: start.started.iter().map(|started| started.daemon.name.clone()).collect(),
    })
}

fn describe(report: &Report, args: &Up) -> String {
    let running = |pids: Vec<Option<i32>>| format!("{} of {}", pids.iter().flatten().count(), pids.len());
    let started = match report.started.as_slice() {
        [] => "nothing: all of it was running".to_string(),
        names => names.join(", "),
    };
    let stop = if args.detach { format!("levee down --dir {}", report.dir) } else { "Ctrl-C".into() };
    // The default folder is found without being named.
    let named = if args_need_dir(&report.dir) { format!(" --dir {}", report.dir) } else { String::new() };
    format!(
        "Started       {started}\n\
         Meta servers  {} running: {}\n\
         Nodes         {} running\n\
         Folder        {}\n\
         Next          levee{named} volume create vm1 --size 10G\n\
         \x20             levee{named} volume attach vm1\n\
         \x20             levee{named} qemu vm1\n\
         Stop          {stop}",
        running(report.metas.iter().map(|meta| meta.pid).collect()),
        report.url,
        running(report.nodes.iter().map(|node| node.pid).collect()),
        report.dir,
    )
}

fn args_need_dir(dir: &str) -> bool {
    std::path::absolute(super::layout::DEFAULT_DIR).map_or(true, |default| default != Path::new(dir))
}
