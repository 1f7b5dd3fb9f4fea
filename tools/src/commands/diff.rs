//! `levee snapshot diff`: which parts of a volume were written between two snapshots, or since one.

use super::gateway::{Gateway, at_gateway};
use crate::client::MetaClient;
use crate::errors::{Found, Usage};
use crate::output::Output;
use crate::values::Moment;
use levee_proto::Version;
use levee_proto::api::{ByteRange, DiffEvent, DiffVolume, SnapshotName};
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize)]
struct Differences<'a> {
    volume: &'a str,
    from: &'a str,
    /// None: the volume as it is.
    to: Option<&'a str>,
    ranges: Vec<ByteRange>,
}

pub async fn diff(
    meta: &MetaClient,
    from: &SnapshotName,
    to: &Moment,
    timeout: Duration,
    out: &Output,
) -> anyhow::Result<()> {
    let volume = &from.volume;
    if to.volume != *volume {
        let complaint =
            format!("{from} and {to} are of different volumes: only snapshots of one volume can be compared");
        return Err(Usage(complaint).into());
    }
    let what = DiffVolume { from: meta.snapshot(from).await?.version, to: version(meta, to).await? };
    let bar = out.spinner(format!("comparing {from} and {to}"));
    let found = at_gateway(meta, volume, timeout, &bar, async |gateway| ranges(&gateway, volume, &what).await);
    let (ranges, detached) = found.await?;
    let differences = Differences { volume, from: &from.snapshot, to: to.snapshot.as_deref(), ranges };
    out.result(&differences, || {
        let line = |r: &ByteRange| format!("{} {}", r.offset, r.length);
        differences.ranges.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    detached.map_err(Found::after_document)
}

async fn version(meta: &MetaClient, of: &Moment) -> anyhow::Result<Option<Version>> {
    let Some(snapshot) = of.snapshot.clone() else { return Ok(None) };
    let name = SnapshotName { volume: of.volume.clone(), snapshot };
    Ok(Some(meta.snapshot(&name).await?.version))
}

/// Asks for all that may hold anything.
pub const EVERYTHING: DiffVolume = DiffVolume { from: Version(0), to: None };

/// All that differs, as the gateway tells; ranges that touch as one.
pub async fn ranges(gateway: &Gateway, volume: &str, what: &DiffVolume) -> anyhow::Result<Vec<ByteRange>> {
    let mut events = gateway.client.diff(volume, what).await?;
    let mut all: Vec<ByteRange> = Vec::new();
    while let Some(event) = events.next().await? {
        match event {
            DiffEvent::Changed { ranges } => ranges.into_iter().for_each(|range| {
                match all.last_mut().filter(|last| last.offset + last.length == range.offset) {
                    Some(last) => last.length += range.length,
                    None => all.push(range),
                }
            }),
            DiffEvent::Done => return Ok(all),
            DiffEvent::Failed { detail } => anyhow::bail!("volume {volume} could not be compared: {detail}"),
        }
    }
    anyhow::bail!("{} stopped before the end: repeat it when the node is well", gateway.node)
}
