//! Before anything relies on what recovery found last, it is made durable once more.
//!
//! That it can be read does not say that it is on the medium. A process may have died between the write and the sync, or
//! because the sync failed: then no later sync need cover the write, and the next power failure takes away what was
//! recovered, acknowledged again to who asked, and built upon. Only the last batch can be in that state, as one is in flight at
//! a time, and the newest root. Writing both once more, as they are, ends the doubt.

use super::error::StoreError;
use super::layout::ShardGeometry;
use super::limits::BLOCK;
use super::recovery::{Recovered, Tail};
use super::shard::Options;
use crate::ports::Disk;
use std::io;

/// Writes and syncs the end of the log and the root once more.
pub async fn make_durable<D: Disk>(
    disk: &D,
    g: &ShardGeometry,
    options: &Options,
    found: &Recovered,
) -> Result<(), StoreError> {
    if options.power_safe_cache || crate::mutant!("what was recovered is not made durable") {
        return Ok(());
    }
    let failed = |e: io::Error| StoreError::Failed(format!("making what was recovered durable: {e}").into());
    found.root.write(disk, g).await.map_err(failed)?;
    if let Some(tail) = &found.tail {
        rewrite(disk, g, tail).await.map_err(failed)?;
    }
    disk.sync().await.map_err(failed)
}

async fn rewrite<D: Disk>(disk: &D, g: &ShardGeometry, tail: &Tail) -> io::Result<()> {
    let at = |offset: u32| g.segment_pos(tail.segment) + u64::from(offset);
    let (mut pos, mut read) = (at(tail.bytes.start), disk.read(at(tail.bytes.start), tail.bytes.len()).await);
    if read.is_err() && tail.bytes.start == 0 {
        // The batch could be read a moment ago. The segment's header, of which nothing depends, need not be readable.
        pos = at(BLOCK as u32);
        read = disk.read(pos, tail.bytes.len() - BLOCK).await;
    }
    let bytes = read?;
    let mut buf = disk.alloc(bytes.len());
    buf.copy_from_slice(&bytes);
    disk.write(pos, buf).await
}
