//! `levee volume import` and `export`: a whole disk from a file into a volume, and back.

use super::borrow::Borrow;
use crate::cli::{FileFormat, Place, SourceFile, TargetFile};
use crate::client::MetaClient;
use crate::errors::Usage;
use crate::output::{Output, measure_bytes};
use crate::signals::Signals;
use crate::transfer::{self, Job, Moved, PartFile};
use anyhow::Context;
use levee_image::{Format, Image, OpenOptions};
use levee_proto::api::{JobKind, VolumeInfo};
use levee_proto::units::show_size;
use serde::Serialize;
use std::path::Path;

/// What is told about a transfer.
#[derive(Debug, Serialize)]
pub struct Transferred<'a> {
    pub volume: &'a str,
    pub file: String,
    pub format: &'static str,
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that were not zero.
    pub data: u64,
    /// CRC-32C of the whole disk, in hexadecimal digits.
    pub crc32c: String,
}

impl<'a> Transferred<'a> {
    pub fn new(volume: &'a str, file: &Path, format: Format, moved: &Moved) -> Transferred<'a> {
        Transferred {
            volume,
            file: file.display().to_string(),
            format: format.name(),
            size: moved.size,
            data: moved.data,
            crc32c: format!("{:08x}", moved.checksum),
        }
    }

    /// Of what a person is told, the part that is the same whatever was done.
    pub fn amounts(&self) -> String {
        let (size, data) = (show_size(self.size), show_size(self.data));
        format!("{size}, of which {data} hold data ({}, crc32c {})", self.format, self.crc32c)
    }
}

/// Opens the file of an import.
pub fn open(source: &SourceFile) -> anyhow::Result<Image> {
    let options = OpenOptions {
        format: source.format.map(FileFormat::format),
        allow_backing: source.allow_backing,
        allow_expansion: source.allow_expansion,
    };
    let image = Image::open(&source.file, options)?;
    anyhow::ensure!(image.size() > 0, "{}: the image is empty", source.file.display());
    Ok(image)
}

/// Whether a volume has never held anything.
fn is_fresh(volume: &VolumeInfo) -> bool {
    volume.chunks == 0 && volume.parent.is_none()
}

pub async fn import(
    meta: &MetaClient,
    source: &SourceFile,
    name: &str,
    overwrite: bool,
    place: &Place,
    out: &Output,
) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let image = open(source)?;
    let format = image.format();
    let volume = meta.volume(name).await?;
    if image.size() > volume.size {
        let (has, needs) = (show_size(volume.size), show_size(image.size()));
        anyhow::bail!("volume {name} of {has} is too small: the disk in {} has {needs}", source.file.display());
    }
    let unfinished = volume.job.as_ref().is_some_and(|job| job.kind == JobKind::Import);
    if !is_fresh(&volume) && !overwrite && !unfinished {
        anyhow::bail!("volume {name} holds data already; --overwrite replaces all of it");
    }
    let moved = fill(meta, &mut signals, image, &volume, false, place, out).await.with_context(|| {
        format!("volume {name} is not filled, and cannot be used before it is: the import can be repeated")
    })?;
    let told = Transferred::new(name, &source.file, format, &moved);
    out.result(&told, || format!("Volume {name} holds the disk of {}: {}.", told.file, told.amounts()))
}

/// Fills a volume that is not in use. `goes_on`: it counts as unfinished until something else is done.
pub async fn fill(
    meta: &MetaClient,
    signals: &mut Signals,
    image: Image,
    volume: &VolumeInfo,
    goes_on: bool,
    place: &Place,
    out: &Output,
) -> anyhow::Result<Moved> {
    let title = format!("importing {}", volume.name);
    let job = Job::new(out.spinner(&title), title);
    let borrow = Borrow {
        meta,
        volume: &volume.name,
        kind: JobKind::Import,
        goes_on,
        node: place.node.as_deref(),
        timeout: place.timeout,
    };
    let (size, inner) = (volume.size, job.clone());
    let outcome = borrow.run(signals, &job, move |borrowed| {
        inner.bar.set_message(inner.title.clone());
        measure_bytes(&inner.bar, size);
        transfer::fill(image, &borrowed.socket, borrowed.fresh, &inner)
    });
    let outcome = outcome.await;
    job.bar.finish_and_clear();
    outcome
}

pub async fn export(
    meta: &MetaClient,
    name: &str,
    target: &TargetFile,
    place: &Place,
    out: &Output,
) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let moved = export_volume(meta, &mut signals, (name, JobKind::Export), target, place, out).await?;
    let told = Transferred::new(name, &target.file, format_of(target)?, &moved);
    out.result(&told, || format!("{} holds the disk of volume {name}: {}.", told.file, told.amounts()))
}

/// The format of a file that is to be written; a name that contradicts it is refused.
pub fn format_of(target: &TargetFile) -> anyhow::Result<Format> {
    let asked = target.format.map(FileFormat::format);
    let foreign = ["vmdk", "vdi", "vhd", "vhdx", "vpc", "qed", "gz", "xz", "zst"];
    let extension = target.file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let file = target.file.display();
    if foreign.contains(&extension.as_str()) && asked.is_none() {
        return Err(Usage(format!(
            "{file}: .{extension} is not written here: name it .qcow2 or .raw, or use --format"
        ))
        .into());
    }
    match (asked, Format::of_name(&target.file)) {
        (Some(asked), Some(named)) if asked != named => {
            let (asked, named) = (asked.name(), named.name());
            Err(Usage(format!("{file}: its name says {named} and --format says {asked}: let them say the same")).into())
        }
        (asked, named) => Ok(asked.or(named).unwrap_or(Format::Qcow2)),
    }
}

/// Writes the disk of a volume that is not in use to a file.
pub async fn export_volume(
    meta: &MetaClient,
    signals: &mut Signals,
    (name, kind): (&str, JobKind),
    target: &TargetFile,
    place: &Place,
    out: &Output,
) -> anyhow::Result<Moved> {
    let format = format_of(target)?;
    let volume = meta.volume(name).await?;
    let (part, file) = PartFile::create(&target.file, target.overwrite)?;
    let title = format!("exporting {name}");
    let job = Job::new(out.spinner(&title), title);
    let borrow =
        Borrow { meta, volume: name, kind, goes_on: false, node: place.node.as_deref(), timeout: place.timeout };
    let (size, inner, path) = (volume.size, job.clone(), target.file.clone());
    let outcome = borrow.run(signals, &job, move |borrowed| {
        inner.bar.set_message(inner.title.clone());
        measure_bytes(&inner.bar, size);
        transfer::drain(&borrowed.socket, borrowed.mapped, (file, &path), format, &inner)
    });
    let outcome = outcome.await;
    job.bar.finish_and_clear();
    let moved = outcome.with_context(|| format!("{} is not written", target.file.display()))?;
    part.keep()?;
    Ok(moved)
}
