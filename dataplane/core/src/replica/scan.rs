//! Reading a replica back, to prove that every block still matches its checksum.
//!
//! Scans of a disk take turns, slice by slice: however many there are, a guest's read waits for one slice at most (of
//! each core that has a part of the disk).

use super::versions::{listed, read_listed};
use super::{ReplicaService, ReplyFn, refuse};
use crate::ports::{Disk, Runtime};
use crate::store::{Shard, StoreError};
use crate::sync::Event;
use bytes::Bytes;
use levee_proto::wire::{MAX_VERSION_ENTRIES, Reply, Status, Target};
use levee_proto::{ChunkId, Version};
use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

/// Blocks read at a time: large enough to stream, small enough to let the foreground in between.
const SCAN_BLOCKS: usize = 32;
/// Between slices, so that a scan never starves guests.
const PAUSE: Duration = Duration::from_micros(1);

/// Whose slice is being read.
#[derive(Default)]
pub(super) struct Turn {
    taken: Cell<bool>,
    free: Event,
}

struct Taken<'a>(&'a Turn);

impl Turn {
    async fn take(&self) -> Taken<'_> {
        loop {
            let free = self.free.listen();
            if !self.taken.replace(true) {
                return Taken(self);
            }
            free.await;
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.free.notify();
    }
}

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    pub(super) fn scan(&self, target: Target, range: Range<u32>, reply: ReplyFn) {
        let shard = match self.admit(&target) {
            Ok((shard, _)) => shard,
            Err(refusal) => return reply(refusal, Bytes::new()),
        };
        let Some(disk) = self.disk(target.disk) else { return refuse(reply, Status::Io, "the disk was taken out") };
        let rt = self.0.rt.clone();
        self.0.rt.spawn(async move {
            let answer = match scan(&shard, &disk.scans, &rt, target.chunk, range).await {
                Ok(found) => found,
                Err(e) => super::store_refusal(&e),
            };
            reply(answer, Bytes::new());
        });
    }
}

async fn scan<D: Disk, R: Runtime>(
    shard: &Shard<D, R>,
    turn: &Turn,
    rt: &R,
    chunk: ChunkId,
    range: Range<u32>,
) -> Result<Reply, StoreError> {
    let (mut blocks, mut bad) = (0, Vec::<u32>::new());
    let mut at = (range.start, Version::MAX);
    loop {
        let (entries, more) = listed(shard, chunk, &(at.0..range.end), at.1, (MAX_VERSION_ENTRIES, SCAN_BLOCKS));
        let Some(last) = entries.last() else { break };
        at = match last.version.0.checked_sub(1) {
            Some(below) => (last.block, Version(below)),
            None => (last.block + 1, Version::MAX),
        };
        let taken = turn.take().await;
        let read = read_listed(shard, chunk, &entries).await;
        drop(taken);
        match read {
            Ok((_, data)) => blocks += (data.len() / levee_proto::BLOCK_SIZE) as u32,
            Err(StoreError::Corrupt { blocks: found, .. }) => bad.extend(found),
            Err(e) => return Err(e),
        }
        if !more {
            break;
        }
        rt.sleep(PAUSE).await;
    }
    // In order of the blocks; more than one version of a block may be bad.
    bad.dedup();
    let r = shard.replica(chunk).ok_or(StoreError::UnknownReplica(chunk))?;
    Ok(Reply::Scan { digest: r.digest, data: r.data_entries, blocks, bad })
}
