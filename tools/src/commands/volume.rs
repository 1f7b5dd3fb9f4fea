//! `levee volume create`, `list`, `show`, `delete` and `detach`: what is about one volume by itself.

use super::{redundancy, usage};
use crate::cli::Create;
use crate::client::MetaClient;
use crate::errors::Usage;
use crate::limits::DETACH_GLANCE;
use crate::output::Output;
use crate::values::utc;
use levee_proto::api::{CreateVolume, NodeInfo, ParentName, SnapshotInfo, VolumeInfo, VolumeReport, VolumeUsage};
use levee_proto::units::{show_size, show_time};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

const DEFAULT_COPIES: u8 = 3;
const DEFAULT_MIN_COPIES: u8 = 2;

pub async fn create(meta: &MetaClient, args: &Create, out: &Output) -> anyhow::Result<()> {
    super::family::family(&args.name, None, args.first)?;
    let Some(size) = args.size else { return Err(Usage("--size says how large the volume is".into()).into()) };
    let name = &args.name;
    let copies = args.copies.unwrap_or(DEFAULT_COPIES);
    let min_copies = min_copies_for(copies, args.min_copies)?;
    let volume = meta
        .create_volume(&CreateVolume { name: name.into(), size, copies, min_copies, class: args.class.map(Into::into) })
        .await?;
    out.result(&volume, || {
        format!("Volume {name} of {} is created; `levee volume attach {name}` serves it.", show_size(volume.size))
    })
}

/// The default, or what was asked for if that is possible.
pub fn min_copies_for(copies: u8, wanted: Option<u8>) -> Result<u8, Usage> {
    let min_copies = wanted.unwrap_or(DEFAULT_MIN_COPIES.min(copies));
    if min_copies > copies {
        return Err(Usage(format!("--min-copies {min_copies} is more than --copies {copies}")));
    }
    Ok(min_copies)
}

pub async fn list(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let volumes = meta.volumes().await?;
    out.result(&volumes, || match volumes.as_slice() {
        [] => "There is no volume; `levee volume create NAME --size 10G` creates one.".into(),
        volumes => out.table(
            &["VOLUME", "SIZE", "COPIES", "CHUNKS", "NODE", "GUEST", "STATE"],
            volumes.iter().map(|volume| {
                vec![
                    volume.name.clone(),
                    show_size(volume.size),
                    format!("{}/{}", volume.copies, volume.min_copies),
                    volume.chunks.to_string(),
                    redundancy::user(volume).map_or("-".into(), |a| a.node_name.clone()),
                    guest(volume).into(),
                    volume.status.clone(),
                ]
            }),
        ),
    })
}

/// Whether a guest has the volume.
fn guest(volume: &VolumeInfo) -> &'static str {
    let report = redundancy::user(volume).and_then(|attachment| attachment.report.as_ref());
    match report.map(|report| &report.front_end) {
        Some(front_end) if front_end.started => "running",
        Some(front_end) if front_end.connected => "connected",
        _ => "-",
    }
}

/// A volume, and how much it holds if that can be found out.
#[derive(Serialize)]
struct Shown<'v> {
    #[serde(flatten)]
    volume: &'v VolumeInfo,
    usage: Option<&'v VolumeUsage>,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage_unknown: Option<&'v String>,
}

pub async fn show(meta: &MetaClient, name: &str, measure: Option<Duration>, out: &Output) -> anyhow::Result<()> {
    let volume = meta.volume(name).await?;
    let otherwise = usage::if_detached(measure, "levee volume show");
    let used = usage::measure(meta, &volume, otherwise, out).await;
    // It may have been attached, and detached again.
    let volume = if measure.is_some() { meta.volume(name).await? } else { volume };
    // Programs get the ids; only people need the nodes' names.
    let nodes = if out.json { Vec::new() } else { meta.nodes().await? };
    let has_snapshots = volume.snapshots > 0 && !out.json;
    let snapshots = if has_snapshots { meta.snapshots(Some(name)).await? } else { Vec::new() };
    let shown = Shown { volume: &volume, usage: used.as_ref().ok(), usage_unknown: used.as_ref().err() };
    out.result(&shown, || describe(&volume, &used, &snapshots, &nodes))
}

/// Snapshots that are named to a person.
const MAX_SHOWN: usize = 8;

fn origin(parent: &ParentName, flattening: bool) -> String {
    let volume = parent.volume.clone().unwrap_or_else(|| format!("(deleted volume {})", parent.id));
    let end = if flattening { ", being copied from there" } else { "" };
    format!("Parent      {volume}@{}{end}", parent.snapshot)
}

fn snapshot_line(snapshots: &[SnapshotInfo]) -> String {
    let mut names: Vec<&str> = snapshots.iter().rev().take(MAX_SHOWN).map(|s| s.name.as_str()).collect();
    if snapshots.len() > names.len() {
        names.push("...");
    }
    format!("Snapshots   {}, newest first: {}", snapshots.len(), names.join(", "))
}

fn head(volume: &VolumeInfo, used: &usage::Found) -> Vec<String> {
    let mut lines = vec![
        format!("Volume      {} (id {})", volume.name, volume.id),
        format!("Size        {}, {} chunks allocated", show_size(volume.size), volume.chunks),
        format!("Redundancy  {} copies, {} of them before a write is answered", volume.copies, volume.min_copies),
        format!("Epoch       {}, version {}", volume.epoch, volume.version),
    ];
    lines.extend(usage::lines(used));
    lines.extend(volume.parent.iter().map(|parent| origin(parent, volume.flattening)));
    lines
}

fn head_of_snapshot(volume: &VolumeInfo) -> Vec<String> {
    vec![format!("Snapshot    {}", volume.name), format!("Size        {}", show_size(volume.size))]
}

fn describe(volume: &VolumeInfo, used: &usage::Found, snapshots: &[SnapshotInfo], nodes: &[NodeInfo]) -> String {
    let mut lines = if volume.read_only { head_of_snapshot(volume) } else { head(volume, used) };
    lines.extend(volume.job.iter().map(|job| format!("Job         {}, since {}", job.by, utc(job.since_ms))));
    lines.push(format!("State       {}", volume.status));
    if !snapshots.is_empty() {
        lines.push(snapshot_line(snapshots));
    }
    let Some(attachment) = &volume.attachment else { return lines.join("\n") };
    if !attachment.repair {
        lines.push(format!("Node        {}", attachment.node_name));
    }
    if let Some(report) = &attachment.report {
        if !volume.read_only {
            lines.push(format!("Chunks      {}", redundancy::summary(volume, report)));
        }
        if report.copied_bytes > 0 {
            lines.push(format!(
                "Copied      {} to make copies whole, since it was opened",
                show_size(report.copied_bytes)
            ));
        }
        lines.extend(report.socket.iter().map(|socket| format!("Socket      {socket}")));
        lines.extend(front_end_lines(report));
        lines.extend(report.stall.iter().map(|stall| {
            format!(
                "Stalled     {} requests, the oldest for {}: {}",
                stall.requests,
                show_time(stall.oldest_ms / 1000),
                stall.why
            )
        }));
        lines.extend(report.detail.iter().map(|detail| format!("Detail      {detail}")));
        let copies = redundancy::lines(volume, report, nodes);
        lines.extend(copies.into_iter().enumerate().map(|(i, line)| {
            let head = if i == 0 { "Repair" } else { "" };
            format!("{head:<12}{line}")
        }));
    }
    lines.join("\n")
}

/// Who uses it, and who was turned away.
fn front_end_lines(report: &VolumeReport) -> Vec<String> {
    let front_end = &report.front_end;
    let used = match (report.socket.is_some(), front_end.connected) {
        (false, _) => None,
        (true, false) => Some("not connected".to_string()),
        (true, true) => {
            let process = front_end.process.map_or_else(|| "a process".into(), |pid| format!("process {pid}"));
            let state =
                if front_end.started { "its guest uses the disk" } else { "its guest has not started the disk" };
            let since = show_time(front_end.seconds);
            Some(format!("{process}, connected for {since}; {state}"))
        }
    };
    let mut lines: Vec<String> = used.into_iter().map(|used| format!("Guest       {used}")).collect();
    if let Some(why) = &front_end.last_refusal {
        lines.push(format!("Turned away {} connections; the last one: {why}", front_end.refused));
    }
    lines
}

pub async fn delete(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    meta.delete_volume(name).await?;
    out.result(&json!({ "volume": name, "deleted": true }), || format!("Volume {name} is deleted."))
}

pub async fn recover_epochs(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let volume = meta.recover_epochs(name).await?;
    out.result(&json!({ "volume": name, "epoch": volume.epoch }), || {
        format!("Volume {name} can be opened again: `levee volume attach {name}`.")
    })
}

pub async fn accept_loss(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let volume = meta.accept_loss(name).await?;
    out.result(&volume, || format!("Volume {name} is used again without what was lost of it."))
}

pub async fn detach(meta: &MetaClient, name: &str, force: bool, out: &Output) -> anyhow::Result<()> {
    let volume = match force {
        true => meta.detach(name, true).await?,
        false => meta.detach_unused(name, DETACH_GLANCE).await?,
    };
    let user = redundancy::user(&volume);
    let what = if volume.read_only { "Snapshot" } else { "Volume" };
    out.result(&json!({ "volume": name, "detached": user.is_none() }), || match user {
        None => format!("{what} {name} is detached."),
        Some(attachment) => format!("{what} {name} is being detached from {}.", attachment.node_name),
    })
}
