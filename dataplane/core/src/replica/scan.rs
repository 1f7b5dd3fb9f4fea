//! Reading a replica back, to prove that every block still matches its checksum.
//!
//! Scans of a disk take turns, slice by slice: however many there are, a guest's read waits for one slice at most (of
//! each core that has a part of the disk).

use super::{ReplicaService, ReplyFn, refuse};
use crate::ports::{Disk, Runtime};
use crate::store::{Shard, StoreError};
use crate::sync::Event;
use bytes::Bytes;
use levee_proto::wire::{Reply, Status, Target};
use levee_proto::{ChunkId, Seq};
use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

/// Blocks read at a time: large enough to stream, small enough to let the foreground in between.
const SCAN_BLOCKS: u32 = 32;
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
    let (mut blocks, mut bad) = (0, vec![]);
    for from in range.clone().step_by(SCAN_BLOCKS as usize) {
        let count = SCAN_BLOCKS.min(range.end - from);
        let (entries, _) = shard.entries(chunk, from, 1, Seq::ZERO);
        if entries.first().is_none_or(|e| e.block >= from + count) {
            continue;
        }
        let taken = turn.take().await;
        let read = shard.read(chunk, from, count).await;
        drop(taken);
        match read {
            Ok((_, data)) => blocks += (data.len() / levee_proto::BLOCK_SIZE) as u32,
            Err(StoreError::Corrupt { blocks: mut found, .. }) => bad.append(&mut found),
            Err(e) => return Err(e),
        }
        rt.sleep(PAUSE).await;
    }
    let replica = shard.replica(chunk).ok_or(StoreError::UnknownReplica(chunk))?;
    Ok(Reply::Scan { digest: replica.digest, data: replica.data_entries, blocks, bad })
}
