//! Joining the cluster: who this node is, and which disks it brings along.

use super::{Complaint, Control, Joined, JoinedDisk, MetaError, RETRY};
use crate::core::{Command, CoreReport};
use crate::disks::{Disk, DiskState, KnownDisk, KnownDisks};
use anyhow::{Result, bail};
use levee_proto::api::*;
use levee_proto::{DiskId, NodeId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tracing::{error, info, warn};
use uuid::Uuid;

/// The daemon's disks, by position, and those that were here before. Holds their locks.
pub struct Disks {
    all: BTreeMap<usize, Disk>,
    known: KnownDisks,
    /// What others know the lock of the daemon's folder by.
    dir_lock: String,
    /// Positions are not used again.
    next: usize,
}

impl Control {
    /// Registers with the cluster, claims the disks for it, and opens the cores to other daemons.
    pub(super) async fn join(&self) -> Result<()> {
        let cores = self.cores.report().await;
        let described = self.disks.borrow().describe(&cores)?;
        let registered = self.register(&described).await?;
        let described = self.leave_out(&registered.removed, described).await;
        let joined = self.disks.borrow_mut().settle(&registered, &described)?;
        let (cluster, node) = (*registered.cluster.as_bytes(), registered.node);
        let incarnation = self.incarnation.into_bytes();
        let join = |done| Command::Join { cluster, node, incarnation, disks: joined.ids(), done };
        for outcome in self.cores.ask_all(join).await {
            outcome.map_err(|why| anyhow::anyhow!("cannot serve other daemons: {why}"))?;
        }
        info!("node {} ({}) of cluster {}", registered.node, self.args.name, registered.cluster);
        *self.node.borrow_mut() = Some(joined);
        Ok(())
    }

    async fn register(&self, described: &Described) -> Result<Registered> {
        let request = RegisterNode { leave_out_removed: true, ..self.introduction(described).await? };
        let mut complaint = Complaint::new();
        loop {
            let refused = match self.meta.register(&request).await {
                Ok(registered) => return Ok(registered),
                Err(e) => e,
            };
            if let Some(other) = refused.replaced() {
                bail!(other);
            }
            match refused {
                MetaError::Refused(p) => bail!("the cluster does not take this node: {}", p.detail),
                MetaError::Unreachable(why) => complaint.say(&format!("waiting to join: {why}")),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// What the cluster is told of this node.
    pub(super) async fn introduction(&self, described: &Described) -> Result<RegisterNode> {
        let seen = self.seen().await;
        Ok(RegisterNode {
            name: self.args.name.clone(),
            incarnation: self.incarnation,
            admin_url: format!("http://{}", self.args.admin),
            cores: self.args.data.iter().map(ToString::to_string).collect(),
            cluster: self.disks.borrow().cluster()?,
            disks: described.values().cloned().collect(),
            zone: self.args.zone.clone(),
            rack: self.args.rack.clone(),
            leave_out_removed: false,
            locks: self.disks.borrow().locks(),
            missing: self.disks.borrow().missing(),
            seen,
        })
    }

    /// Goes on without the disks that the cluster does not want any more: the others are needed.
    async fn leave_out(&self, removed: &[Uuid], described: Described) -> Described {
        let (gone, stay): (Described, Described) =
            described.into_iter().partition(|(_, disk)| removed.contains(&disk.uuid));
        for (position, disk) in gone {
            let (path, uuid) = (disk.path, disk.uuid);
            warn!(
                "disk {path} ({uuid}) was removed from the cluster and is not used: start the daemon without it, or format it \
                 again to use it"
            );
            self.let_go(position).await;
        }
        stay
    }
}

/// Disks as the cluster is told of them, by position.
pub(super) type Described = BTreeMap<usize, RegisterDisk>;

impl Disks {
    pub fn new(all: Vec<Disk>, known: KnownDisks, dir_lock: String) -> Disks {
        let next = all.len();
        Disks { all: all.into_iter().enumerate().collect(), known, dir_lock, next }
    }

    /// The locks that the daemon holds, as others know them.
    pub(super) fn locks(&self) -> Vec<String> {
        let of = |disk: &Disk| match &disk.state {
            DiskState::Owned(owned) => Some(owned.lock_name.clone()),
            DiskState::Missing { .. } => None,
        };
        [self.dir_lock.clone()].into_iter().chain(self.all.values().filter_map(of)).collect()
    }

    fn missing(&self) -> Vec<Uuid> {
        let is_missing = |disk: &&Disk| matches!(disk.state, DiskState::Missing { .. });
        self.all.values().filter(is_missing).map(Disk::uuid).collect()
    }

    /// The position of a disk, by its uuid.
    pub(super) fn position_of(&self, uuid: Uuid) -> Option<usize> {
        self.all.iter().find(|(_, disk)| disk.uuid() == uuid).map(|(position, _)| *position)
    }

    /// The position of the next disk that is added.
    pub(super) fn next_position(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn insert(&mut self, position: usize, disk: Disk) {
        self.all.insert(position, disk);
    }

    /// Lets go of a disk, and of its lock.
    pub(super) fn remove(&mut self, position: usize) -> Option<Disk> {
        self.all.remove(&position)
    }

    pub(super) fn get(&self, position: usize) -> Option<&Disk> {
        self.all.get(&position)
    }

    /// Where each disk is, or was last, by position.
    pub(super) fn paths(&self) -> BTreeMap<usize, PathBuf> {
        self.all.iter().map(|(position, disk)| (*position, disk.path.clone())).collect()
    }

    /// Where disks are that are at hand.
    pub(super) fn used_paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.all.values().filter(|disk| matches!(disk.state, DiskState::Owned(_))).map(|disk| &disk.path)
    }

    fn cluster(&self) -> Result<Option<Uuid>> {
        let claimed: Vec<Uuid> = self.all.values().filter_map(Disk::cluster).collect();
        if claimed.windows(2).any(|w| w[0] != w[1]) {
            bail!("the disks belong to different clusters: start one daemon for each");
        }
        Ok(claimed.first().copied())
    }

    /// Who the disks say that this node is, and which ids they have.
    pub(super) fn claims(&self) -> (Option<NodeId>, BTreeMap<Uuid, DiskId>) {
        let claimed: Vec<_> = self.all.values().filter_map(Disk::superblock).filter(|s| s.is_claimed()).collect();
        let ids = claimed.iter().map(|s| (Uuid::from_bytes(s.disk_uuid), s.disk_id));
        (claimed.first().map(|s| s.node_id), ids.collect())
    }

    /// Every disk, also those that cannot be used: the cluster is to know that they are not.
    pub(super) fn describe(&self, cores: &[CoreReport]) -> Result<Described> {
        let one = |(i, disk): (&usize, &Disk)| {
            let shares = || cores.iter().filter_map(move |c| c.disks.get(i));
            let failed = shares().find_map(|s| s.failed.as_deref());
            let described = disk.describe(self.known.of(disk.uuid()), shares().map(|s| s.capacity).sum(), failed)?;
            Ok((*i, described))
        };
        self.all.iter().map(one).collect()
    }

    /// The cluster has taken the node with these disks: claims them for it, and remembers them.
    pub(super) fn settle(&mut self, registered: &Registered, described: &Described) -> Result<Joined> {
        if registered.disks.len() != described.len() {
            bail!("the meta server named {} disks for {}", registered.disks.len(), described.len());
        }
        let ids: BTreeMap<usize, DiskId> = described.keys().copied().zip(registered.disks.iter().copied()).collect();
        for (position, disk) in &mut self.all {
            if let (DiskState::Owned(owned), Some(id)) = (&mut disk.state, ids.get(position)) {
                owned.claim(&disk.path, registered.cluster, registered.node, *id)?;
            }
        }
        self.remember(registered.cluster, &ids, described);
        let joined = |(position, id): (&usize, &DiskId)| {
            let missing = match &self.all.get(position)?.state {
                DiskState::Missing { why, .. } => Some(why.clone()),
                DiskState::Owned(_) => None,
            };
            Some((*position, JoinedDisk { id: *id, missing }))
        };
        let disks = ids.iter().filter_map(joined).collect();
        Ok(Joined { cluster: registered.cluster, node: registered.node, disks })
    }

    /// So that a disk that cannot be read at a later start can be named, and one that was added is taken again.
    fn remember(&mut self, cluster: Uuid, ids: &BTreeMap<usize, DiskId>, described: &Described) {
        let one = |(position, disk): (&usize, &Disk)| {
            let described = described.get(position)?;
            Some(KnownDisk {
                path: disk.path.clone(),
                cluster,
                uuid: described.uuid,
                disk: *ids.get(position)?,
                capacity: described.capacity,
                shards: described.shards,
                added: disk.added,
                class: disk.class,
            })
        };
        let disks = self.all.iter().filter_map(one).collect();
        if let Err(e) = self.known.replace(disks) {
            warn!("{e:#}; a disk that fails before the next start will stop the daemon then");
        }
    }

    /// Does not take a disk again at the next start.
    pub(super) fn forget(&mut self, disk: &Disk) -> Result<()> {
        self.known.forget(disk.uuid())
    }
}

impl Joined {
    /// The disks' ids, by position.
    pub(super) fn ids(&self) -> BTreeMap<usize, DiskId> {
        self.disks.iter().map(|(position, disk)| (*position, disk.id)).collect()
    }
}

impl Disk {
    fn describe(&self, known: Option<&KnownDisk>, capacity: u64, failed: Option<&str>) -> Result<RegisterDisk> {
        let (path, class) = (self.path.display().to_string(), self.class);
        match &self.state {
            DiskState::Missing { known, .. } => {
                error!("disk {path} (disk {}) is not served", known.disk);
                Ok(RegisterDisk { uuid: known.uuid, path, capacity: known.capacity, shards: known.shards, class })
            }
            DiskState::Owned(owned) => {
                let uuid = owned.uuid();
                let capacity = match (failed, known) {
                    (None, _) => capacity,
                    (Some(_), Some(known)) => known.capacity,
                    (Some(why), None) => bail!("disk {path}: {why}"),
                };
                Ok(RegisterDisk { uuid, path, capacity, shards: owned.superblock.shards, class })
            }
        }
    }
}
