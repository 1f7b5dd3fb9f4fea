//! `levee image import`, `export`, `list` and `delete`.
//!
//! An image is a volume with a snapshot named [`IMAGE_SNAPSHOT`] that says what it was made of. Until that snapshot is
//! taken there is just a volume, which is removed if anything goes wrong.

use super::job::Marked;
use super::snapshot;
use super::transfer::{self, Transferred};
use super::volume::min_copies_for;
use crate::cli::{ImageImport, Place, TargetFile};
use crate::client::{ClientError, MetaClient};
use crate::limits::DETACH_PATIENCE;
use crate::output::Output;
use crate::signals::Signals;
use crate::transfer::Moved;
use crate::values::utc;
use anyhow::Context;
use levee_proto::BLOCK_SIZE;
use levee_proto::api::*;
use levee_proto::units::show_size;
use serde_json::json;
use std::time::Duration;

fn snapshot_of(image: &str) -> SnapshotName {
    SnapshotName { volume: image.into(), snapshot: IMAGE_SNAPSHOT.into() }
}

pub async fn import(meta: &MetaClient, args: &ImageImport, out: &Output) -> anyhow::Result<()> {
    let min_copies = min_copies_for(args.copies, args.min_copies)?;
    let mut signals = Signals::install()?;
    let image = transfer::open(&args.source)?;
    let (format, disk_size) = (image.format(), image.size());
    let size = args.size.unwrap_or(disk_size.next_multiple_of(BLOCK_SIZE as u64));
    if disk_size > size {
        let (file, has) = (args.source.file.display(), show_size(disk_size));
        anyhow::bail!("the disk in {file} has {has}, more than --size {}", show_size(size));
    }
    let request = CreateVolume { name: args.name.clone(), size, copies: args.copies, min_copies, class: None };
    let volume = create(meta, &request).await?;
    let filled = async {
        let moved = transfer::fill(meta, &mut signals, image, &volume, true, &args.place, out).await?;
        let made_of = ImageInfo { format: format.name().into(), disk_size, data: moved.data, crc32c: moved.checksum };
        let taken = seal(meta, &args.name, made_of, args.place.timeout).await?;
        anyhow::Ok((moved, taken))
    };
    let (moved, taken): (Moved, SnapshotInfo) = match filled.await {
        Ok(filled) => filled,
        Err(error) => return Err(remove_half_made(meta, &volume, error).await),
    };
    let told = Transferred::new(&args.name, &args.source.file, format, &moved);
    out.result(&json!({ "image": args.name, "snapshot": taken, "import": told }), || {
        let (name, file) = (&args.name, &told.file);
        format!(
            "Image {name} holds the disk of {file}: {}; `levee volume create NAME --from {name}` makes \
             a volume of it.",
            told.amounts()
        )
    })
}

/// Creates the volume of an image. One that an import of the same name has left half filled makes room.
async fn create(meta: &MetaClient, request: &CreateVolume) -> anyhow::Result<VolumeInfo> {
    let taken = match meta.create_volume(request).await {
        Err(ClientError::Problem(problem)) if problem.kind == ProblemKind::Exists => problem,
        created => return Ok(created?),
    };
    let name = &request.name;
    let there = meta.volume(name).await?;
    if there.job.as_ref().is_none_or(|job| job.kind != JobKind::Import) {
        return Err(ClientError::Problem(taken).into());
    }
    // Refused while that import goes on.
    let _ours = Marked::begin(meta, &there, JobKind::Import).await?;
    meta.detach_unused(name, DETACH_PATIENCE).await?;
    meta.delete_volume(name).await?;
    Ok(meta.create_volume(request).await?)
}

/// Makes an image of a volume that is filled.
async fn seal(meta: &MetaClient, name: &str, made_of: ImageInfo, timeout: Duration) -> anyhow::Result<SnapshotInfo> {
    let request = CreateSnapshots { snapshots: vec![snapshot_of(name)], image: Some(made_of) };
    let taken = snapshot::take(meta, &request, timeout).await?;
    taken.into_iter().next().with_context(|| format!("no snapshot of volume {name} was taken"))
}

/// An image that is not complete is no use to anybody. A snapshot that is taken already is completed by the cluster.
async fn remove_half_made(meta: &MetaClient, made: &VolumeInfo, error: anyhow::Error) -> anyhow::Error {
    let name = &made.name;
    let is_ours = meta.volume(name).await.is_ok_and(|there| there.id == made.id);
    if meta.snapshot(&snapshot_of(name)).await.is_ok() || !is_ours {
        return error;
    }
    match meta.delete_volume(name).await {
        Ok(()) => error.context(format!("image {name} is not made")),
        Err(_) => error.context(format!("image {name} is not made, and its volume {name} is left: delete it")),
    }
}

pub async fn export(
    meta: &MetaClient,
    name: &str,
    target: &TargetFile,
    place: &Place,
    out: &Output,
) -> anyhow::Result<()> {
    let from = snapshot_of(name);
    let info = meta.snapshot(&from).await?;
    anyhow::ensure!(info.image.is_some(), "volume {name} has a snapshot {from}, but it is not an image");
    // Whatever became of the volume since: what is exported is the snapshot.
    let clone = format!("{name}-export-{}", std::process::id());
    let request =
        CreateClones { from, names: Family::single(&clone), size: None, copies: Some(1), min_copies: Some(1) };
    let mut signals = Signals::install()?;
    meta.create_clones(&request).await?;
    let exported = transfer::export_volume(meta, &mut signals, (&clone, JobKind::Copy), target, place, out).await;
    let deleted = meta.delete_volume(&clone).await;
    let moved = exported?;
    deleted.with_context(|| format!("the image is exported, but its clone {clone} cannot be deleted"))?;
    let told = Transferred::new(name, &target.file, transfer::format_of(target)?, &moved);
    out.result(&json!({ "image": name, "export": told }), || {
        format!("{} holds the disk of image {name}: {}.", told.file, told.amounts())
    })
}

pub async fn list(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let mut images = meta.snapshots(None).await?;
    images.retain(|snapshot| snapshot.image.is_some());
    images.sort_by(|a, b| a.volume.cmp(&b.volume));
    out.result(&images, || match images.as_slice() {
        [] => "There is no image; `levee image import FILE NAME` makes one.".into(),
        images => out.table(&["IMAGE", "SIZE", "DATA", "FORMAT", "CLONES", "CRC32C", "MADE"], images.iter().map(row)),
    })
}

fn row(snapshot: &SnapshotInfo) -> Vec<String> {
    let made_of = |tell: fn(&ImageInfo) -> String| snapshot.image.as_ref().map(tell).unwrap_or_default();
    vec![
        snapshot.volume.clone(),
        show_size(snapshot.size),
        made_of(|image| show_size(image.data)),
        made_of(|image| image.format.clone()),
        snapshot.clones.to_string(),
        made_of(|image| format!("{:08x}", image.crc32c)),
        utc(snapshot.created_ms),
    ]
}

pub async fn delete(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let image = snapshot_of(name);
    let info = meta.snapshot(&image).await?;
    anyhow::ensure!(info.image.is_some(), "volume {name} has a snapshot {image}, but it is not an image");
    let kept = meta.delete_snapshot(&image).await?.map_or(0, |left| left.clones);
    meta.delete_volume(name)
        .await
        .with_context(|| format!("image {name} is deleted, but its volume {name} is still there"))?;
    out.result(&json!({ "image": name, "deleted": true, "clones": kept }), || match kept {
        0 => format!("Image {name} is deleted."),
        kept => format!("Image {name} is deleted; what its {kept} clones need of it is kept for them."),
    })
}
