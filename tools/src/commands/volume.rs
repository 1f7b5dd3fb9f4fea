//! `levee volume create`, `list`, `show`, `delete` and `detach`.

use crate::client::MetaClient;
use crate::errors::Usage;
use crate::output::Output;
use levee_proto::api::{CreateVolume, ServeState, VolumeInfo};
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
                    volume.attachment.as_ref().map_or("-".into(), |a| a.node_name.clone()),
                    state(volume),
                ]
            }),
        ),
    })
}

/// How a volume does, in a word or two.
fn state(volume: &VolumeInfo) -> String {
    let Some(attachment) = &volume.attachment else { return "detached".into() };
    let Some(report) = &attachment.report else { return "attaching".into() };
    match report.state {
        ServeState::Opening => "opening".into(),
        ServeState::Serving if report.degraded_chunks > 0 => format!("serving, {} degraded", report.degraded_chunks),
        ServeState::Serving => "serving".into(),
        ServeState::Closing => "closing".into(),
        ServeState::Failed => "failed".into(),
    }
}

pub async fn show(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let volume = meta.volume(name).await?;
    out.result(&volume, || describe(&volume))
}

fn describe(volume: &VolumeInfo) -> String {
    let mut lines = vec![
        format!("Volume    {} (id {})", volume.name, volume.id),
        format!("Size      {}, {} chunks allocated", show_size(volume.size), volume.chunks),
        format!("Copies    {}, {} of them before a write is answered", volume.copies, volume.min_copies),
        format!("Epoch     {}, version {}", volume.epoch, volume.version),
        format!("State     {}", state(volume)),
    ];
    if let Some(attachment) = &volume.attachment {
        lines.push(format!("Node      {}", attachment.node_name));
        if let Some(report) = &attachment.report {
            lines.push(format!("Chunks    {} healthy, {} degraded", report.healthy_chunks, report.degraded_chunks));
            lines.extend(report.socket.iter().map(|socket| format!("Socket    {socket}")));
            lines.extend(report.detail.iter().map(|detail| format!("Detail    {detail}")));
        }
    }
    lines.join("\n")
}

pub async fn delete(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    meta.delete_volume(name).await?;
    out.result(&json!({ "volume": name, "deleted": true }), || format!("Volume {name} is deleted."))
}

pub async fn detach(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let volume = meta.detach(name).await?;
    let detached = volume.attachment.is_none();
    out.result(&json!({ "volume": name, "detached": detached }), || match &volume.attachment {
        None => format!("Volume {name} is detached."),
        Some(attachment) => format!("Volume {name} is being detached from {}.", attachment.node_name),
    })
}
