//! What concerns snapshots in a shard: which entries can be dropped, and seals.
//!
//! An entry is dropped when no view that is to be kept reads it, and never will. Only entries up to the commit point are
//! looked at: all members hold exactly these, and no takeover voids one. What is written later, or was and is not
//! committed yet, may hide an entry of these from a view, and never brings one into view. So members may prune at different
//! times, and differ then in what nobody reads.

use super::chains::is_data;
use super::error::StoreError;
use super::index::{Place, Replica, Slot};
use super::limits::*;
use super::record::{Dropped, Record, Seal};
use super::shard::{Shard, item};
use super::tickets::Ticket;
use crate::ports::{Disk, Runtime};
use levee_proto::view::Keep;
use levee_proto::wire::PRESENCE_LEN;
use levee_proto::{BLOCKS_PER_CHUNK, ChunkId, Epoch, ReplicaId, Version, View};

/// What a step of pruning does.
pub struct Pruning {
    /// Entries that are dropped.
    pub dropped: u64,
    /// Completes when they are, durably.
    pub done: Ticket,
    /// The block to go on with.
    pub next: Option<u32>,
}

impl<D: Disk, R: Runtime> Shard<D, R> {
    /// Drops entries of some blocks from `from` on. Nothing of a replica that is damaged or has not adopted `epoch`: what
    /// is true of its chunk need not be true of it.
    pub fn prune(&self, chunk: ChunkId, replica: ReplicaId, epoch: Epoch, keep: &Keep, from: u32) -> Pruning {
        let found = {
            let s = self.inner().state.borrow();
            match s.index.get(chunk).filter(|r| r.replica == replica) {
                None => {
                    let done = Ticket::refused(StoreError::UnknownReplica(chunk));
                    return Pruning { dropped: 0, done, next: None };
                }
                Some(r) if !r.is_whole(epoch) => None,
                Some(r) => Some(prunable(r, keep, from)),
            }
        };
        let Some((drops, next)) = found else { return Pruning { dropped: 0, done: self.flush(), next: None } };
        let lists = drops.chunks(MAX_DROPS).map(|list| item(Record::Prune { chunk, drops: list.to_vec() }));
        let done = if drops.is_empty() { self.flush() } else { self.enqueue(lists) };
        Pruning { dropped: drops.len() as u64, done, next }
    }

    /// Records what replicas hold: everything that was ever written at versions up to the seals'. Refused, all of it, for a
    /// replica that is damaged or has not adopted `epoch`.
    pub fn seal(&self, epoch: Epoch, seals: &[Seal]) -> Ticket {
        for seal in seals {
            let s = self.inner().state.borrow();
            match s.index.get(seal.chunk).filter(|r| r.replica == seal.replica) {
                Some(r) if r.is_whole(epoch) => {}
                Some(_) => return Ticket::refused(StoreError::Invalid("seal of a replica that may lack entries")),
                None => return Ticket::refused(StoreError::UnknownReplica(seal.chunk)),
            }
        }
        if seals.is_empty() {
            return self.flush();
        }
        self.enqueue(seals.chunks(MAX_SEALS).map(|list| item(Record::Seal { seals: list.to_vec() })))
    }

    /// A bit per block, the lowest of each byte first: whether the view reads an entry there.
    pub fn presence(&self, chunk: ChunkId, view: &View) -> Result<Vec<u8>, StoreError> {
        self.bits_where(chunk, view, |slot| slot.place != Place::ABSENT)
    }

    /// The same: whether the view reads data there.
    pub fn present_data(&self, chunk: ChunkId, view: &View) -> Result<Vec<u8>, StoreError> {
        self.bits_where(chunk, view, is_data)
    }

    fn bits_where(&self, chunk: ChunkId, view: &View, holds: impl Fn(Slot) -> bool) -> Result<Vec<u8>, StoreError> {
        let s = self.inner().state.borrow();
        let r = s.index.get(chunk).ok_or(StoreError::UnknownReplica(chunk))?;
        let mut bits = vec![0; PRESENCE_LEN];
        for (block, _) in r.chains.heads(0) {
            bits[block as usize / 8] |= u8::from(holds(r.chains.visible(block, view))) << (block % 8);
        }
        Ok(bits)
    }
}

/// The entries of some blocks from `from` on that no view of `keep` reads and that all members have; and the block to go on with.
///
/// As long as nobody was rolled back, all heads are read: then only blocks with other entries are looked at, and those that were
/// not overwritten since a snapshot cost nothing.
pub fn prunable(r: &Replica, keep: &Keep, from: u32) -> (Vec<Dropped>, Option<u32>) {
    let step = PRUNE_BLOCKS as usize + 1;
    let all = from..BLOCKS_PER_CHUNK;
    let mut blocks: Vec<u32> = match keep.reads_all_heads() {
        true => r.chains.blocks_with_older(all).take(step).collect(),
        false => r.chains.heads(from).map(|(block, _)| block).take(step).collect(),
    };
    let next = if blocks.len() == step { blocks.pop() } else { None };
    let mut drops = Vec::new();
    let mut chain: Vec<Dropped> = Vec::new();
    let mut versions: Vec<Version> = Vec::new();
    for block in blocks {
        chain.clear();
        let committed = r.chains.chain(block).filter(|s| s.seq() <= r.commit);
        chain.extend(committed.map(|s| Dropped { block, version: s.version, seq: s.seq() }));
        versions.clear();
        versions.extend(chain.iter().map(|d| d.version));
        let unread = chain.iter().enumerate().filter(|(at, _)| !keep.reads(&versions, *at));
        drops.extend(unread.map(|(_, d)| *d));
    }
    (drops, next)
}
