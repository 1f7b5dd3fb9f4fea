//! Which replicas are to be put elsewhere: all of disks that are dead or drained, and single ones that the meta server names
//! though their disks stay in service.

use levee_proto::api::{DiskState, ReplicaPlace};
use levee_proto::{DiskId, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// What the meta server wants to have moved. Invariant: a disk in it is not in service.
#[derive(Default)]
pub(super) struct Leaving {
    disks: BTreeMap<DiskId, DiskState>,
    replicas: BTreeSet<ReplicaId>,
}

impl Leaving {
    pub fn set_disks(&mut self, disks: BTreeMap<DiskId, DiskState>) {
        self.disks = disks.into_iter().filter(|(_, state)| *state != DiskState::InService).collect();
    }

    pub fn set_replicas(&mut self, replicas: BTreeSet<ReplicaId>) {
        self.replicas = replicas;
    }

    pub fn is_empty(&self) -> bool {
        self.disks.is_empty() && self.replicas.is_empty()
    }

    /// What it holds is lost: it is not waited for.
    pub fn is_dead(&self, place: &ReplicaPlace) -> bool {
        self.disks.get(&place.disk) == Some(&DiskState::Dead)
    }

    pub fn contains(&self, place: &ReplicaPlace) -> bool {
        self.disks.contains_key(&place.disk) || self.replicas.contains(&place.replica)
    }
}
