//! `levee volume create`, `list`, `show`, `delete` and `detach`.

use super::redundancy;
use crate::client::MetaClient;
use crate::errors::Usage;
use crate::output::Output;
use levee_proto::api::{CreateVolume, NodeInfo, VolumeInfo};
use levee_proto::units::show_size;
use serde_json::json;

const DEFAULT_MIN_COPIES: u8 = 2;

pub async fn create(
    meta: &MetaClient,
    name: &str,
    size: u64,
    copies: u8,
    min_copies: Option<u8>,
    out: &Output,
) -> anyhow::Result<()> {
    let min_copies = min_copies.unwrap_or(DEFAULT_MIN_COPIES.min(copies));
    if min_copies > copies {
        return Err(Usage(format!("--min-copies {min_copies} is more than --copies {copies}")).into());
    }
    let volume = meta.create_volume(&CreateVolume { name: name.into(), size, copies, min_copies }).await?;
    out.result(&volume, || {
        format!("Volume {name} of {} is created; `levee volume attach {name}` serves it.", show_size(volume.size))
    })
}

pub async fn list(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let volumes = meta.volumes().await?;
    out.result(&volumes, || match volumes.as_slice() {
        [] => "There is no volume; `levee volume create NAME --size 10G` creates one.".into(),
        volumes => out.table(
            &["VOLUME", "SIZE", "COPIES", "CHUNKS", "NODE", "STATE"],
            volumes.iter().map(|volume| {
                vec![
                    volume.name.clone(),
                    show_size(volume.size),
                    format!("{}/{}", volume.copies, volume.min_copies),
                    volume.chunks.to_string(),
                    redundancy::user(volume).map_or("-".into(), |a| a.node_name.clone()),
                    redundancy::state(volume),
                ]
            }),
        ),
    })
}

pub async fn show(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let volume = meta.volume(name).await?;
    // Programs get the ids; only people need the nodes' names.
    let nodes = if out.json { Vec::new() } else { meta.nodes().await? };
    out.result(&volume, || describe(&volume, &nodes))
}

fn describe(volume: &VolumeInfo, nodes: &[NodeInfo]) -> String {
    let mut lines = vec![
        format!("Volume      {} (id {})", volume.name, volume.id),
        format!("Size        {}, {} chunks allocated", show_size(volume.size), volume.chunks),
        format!("Redundancy  {} copies, {} of them before a write is answered", volume.copies, volume.min_copies),
        format!("Epoch       {}, version {}", volume.epoch, volume.version),
        format!("State       {}", redundancy::state(volume)),
    ];
    let Some(attachment) = &volume.attachment else { return lines.join("\n") };
    if !attachment.repair {
        lines.push(format!("Node        {}", attachment.node_name));
    }
    if let Some(report) = &attachment.report {
        lines.push(format!("Chunks      {}", redundancy::summary(volume, report)));
        if report.copied_bytes > 0 {
            lines.push(format!(
                "Copied      {} to make copies whole, since it was opened",
                show_size(report.copied_bytes)
            ));
        }
        lines.extend(report.socket.iter().map(|socket| format!("Socket      {socket}")));
        lines.extend(report.detail.iter().map(|detail| format!("Detail      {detail}")));
        let copies = redundancy::lines(volume, report, nodes);
        lines.extend(copies.into_iter().enumerate().map(|(i, line)| {
            let head = if i == 0 { "Repair" } else { "" };
            format!("{head:<12}{line}")
        }));
    }
    lines.join("\n")
}

pub async fn delete(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    meta.delete_volume(name).await?;
    out.result(&json!({ "volume": name, "deleted": true }), || format!("Volume {name} is deleted."))
}

pub async fn detach(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let volume = meta.detach(name).await?;
    let user = redundancy::user(&volume);
    out.result(&json!({ "volume": name, "detached": user.is_none() }), || match user {
        None => format!("Volume {name} is detached."),
        Some(attachment) => format!("Volume {name} is being detached from {}.", attachment.node_name),
    })
}
