//! The disks of this core: whom each of them serves, and how one is taken out and put back.
//!
//! A disk fails alone: what concerns the others goes on. One that is put in, at start or in place of one that
//! failed, serves nobody until it has been fenced: a gateway is to hear first what the disk holds now.

use super::ReplicaService;
use super::scan::Turn;
use crate::ports::{Disk, Runtime};
use crate::store::{Shard, StoreError};
use levee_proto::{ChunkId, DiskId, Epoch, VolumeId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The shards of one disk that this core owns.
pub struct DiskShards<D: Disk, R: Runtime> {
    /// Shards on the whole disk; a chunk lives in shard `chunk % total`.
    pub total: u16,
    /// Those of this core, by number.
    pub mine: BTreeMap<u16, Shard<D, R>>,
}

impl<D: Disk, R: Runtime> Clone for DiskShards<D, R> {
    fn clone(&self) -> Self {
        DiskShards { total: self.total, mine: self.mine.clone() }
    }
}

/// A disk from when it was put in until it is taken out. What was begun on it and ends later changes nothing for the
/// one in its place.
pub(super) struct ServedDisk<D: Disk, R: Runtime> {
    pub shards: DiskShards<D, R>,
    /// The highest epoch that has fenced each volume durably since the disk was put in, and was told so: only it is
    /// served.
    served: RefCell<BTreeMap<VolumeId, Epoch>>,
    pub scans: Turn,
}

impl<D: Disk, R: Runtime> ServedDisk<D, R> {
    pub(super) fn new(shards: DiskShards<D, R>) -> Rc<Self> {
        Rc::new(ServedDisk { shards, served: RefCell::default(), scans: Turn::default() })
    }

    /// The shard that holds `chunk`, with its number on the disk.
    pub(super) fn shard(&self, chunk: ChunkId) -> Option<(u16, &Shard<D, R>)> {
        let number = (chunk.0 % u64::from(self.shards.total)) as u16;
        Some((number, self.shards.mine.get(&number)?))
    }

    /// The epoch that may make requests; 0: none has fenced the volume here.
    pub(super) fn served_epoch(&self, volume: VolumeId) -> Epoch {
        self.served.borrow().get(&volume).copied().unwrap_or_default()
    }

    pub(super) fn serve(&self, volume: VolumeId, epoch: Epoch) {
        self.served.borrow_mut().insert(volume, epoch);
    }
}

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    /// Puts a disk in, in place of one with the same id, which is returned. Nobody is served by it before having fenced
    /// it; its fences hold on all disks.
    ///
    /// To open the shards of a failed disk again, first take it out and wait until [`Shard::close`] has returned for each of
    /// them: until then they may still be writing.
    pub fn replace_disk(&self, id: DiskId, shards: DiskShards<D, R>) -> Option<DiskShards<D, R>> {
        self.raise_fences(&shards);
        let old = self.0.disks.borrow_mut().insert(id, ServedDisk::new(shards));
        old.map(|d| d.shards.clone())
    }

    /// Takes a disk out: requests about it are answered with an error.
    pub fn remove_disk(&self, id: DiskId) -> Option<DiskShards<D, R>> {
        let old = self.0.disks.borrow_mut().remove(&id);
        old.map(|d| d.shards.clone())
    }

    /// Disks of which a shard of this core has failed, and why.
    pub fn failed_disks(&self) -> Vec<(DiskId, StoreError)> {
        let failed = |d: &ServedDisk<D, R>| d.shards.mine.values().find_map(Shard::failed);
        self.0.disks.borrow().iter().filter_map(|(id, d)| Some((*id, failed(d)?))).collect()
    }

    pub(super) fn disk(&self, id: DiskId) -> Option<Rc<ServedDisk<D, R>>> {
        self.0.disks.borrow().get(&id).cloned()
    }

    /// Whether the disk has not been taken out meanwhile.
    pub(super) fn is_in(&self, id: DiskId, disk: &Rc<ServedDisk<D, R>>) -> bool {
        self.0.disks.borrow().get(&id).is_some_and(|d| Rc::ptr_eq(d, disk))
    }

    /// What was fenced on one disk is refused on all.
    pub(super) fn raise_fences(&self, shards: &DiskShards<D, R>) {
        let mut fences = self.0.fences.borrow_mut();
        for (volume, fence) in shards.mine.values().flat_map(Shard::fences) {
            let highest = fences.entry(volume).or_insert(fence);
            *highest = (*highest).max(fence);
        }
    }
}
