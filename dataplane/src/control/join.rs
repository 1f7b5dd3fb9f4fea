//! Joining the cluster: who this node is, and which disks it brings along.

use super::{Complaint, Control, Joined, JoinedDisk, MetaError, RETRY};
use crate::core::{Command, CoreReport};
use crate::disks::{Disk, DiskState, KnownDisk, KnownDisks};
use anyhow::{Result, bail};
use levee_proto::api::*;
use tracing::{error, info, warn};
use uuid::Uuid;

/// The disks of the command line, and those that were here before.
pub struct Disks {
    pub all: Vec<Disk>,
    pub known: KnownDisks,
}

impl Control {
    /// Registers with the cluster, claims the disks for it, and opens the cores to other daemons. What is
    /// returned holds the disks' locks.
    pub(super) async fn join(&self, mut disks: Disks) -> Result<Disks> {
        let described = disks.describe(&self.cores.report().await)?;
        let registered = self.register(&disks, described.clone()).await?;
        if registered.disks.len() != disks.all.len() {
            bail!("the meta server named {} disks for {}", registered.disks.len(), disks.all.len());
        }
        for (disk, id) in disks.all.iter_mut().zip(&registered.disks) {
            if let DiskState::Owned(owned) = &mut disk.state {
                owned.claim(&disk.path, registered.cluster, registered.node, *id)?;
            }
        }
        let (cluster, node) = (*registered.cluster.as_bytes(), registered.node);
        let join = |done| Command::Join { cluster, node, disks: registered.disks.clone(), done };
        for outcome in self.cores.ask_all(join).await {
            outcome.map_err(|why| anyhow::anyhow!("cannot serve other daemons: {why}"))?;
        }
        info!("node {} ({}) of cluster {}", registered.node, self.args.name, registered.cluster);
        disks.remember(&registered, described);
        *self.node.borrow_mut() = Some(Joined { node, disks: disks.joined(&registered) });
        Ok(disks)
    }

    async fn register(&self, disks: &Disks, described: Vec<RegisterDisk>) -> Result<Registered> {
        let request = RegisterNode {
            name: self.args.name.clone(),
            incarnation: self.incarnation,
            admin_url: format!("http://{}", self.args.admin),
            cores: self.args.data.iter().map(ToString::to_string).collect(),
            cluster: disks.cluster()?,
            disks: described,
            zone: None,
            rack: None,
        };
        let mut complaint = Complaint::new();
        loop {
            match self.meta.register(&request).await {
                Ok(registered) => return Ok(registered),
                Err(MetaError::Refused(p)) => bail!("the cluster does not take this node: {}", p.detail),
                Err(MetaError::Unreachable(why)) => complaint.say(&format!("waiting to join: {why}")),
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Disks {
    fn cluster(&self) -> Result<Option<Uuid>> {
        let claimed: Vec<Uuid> = self.all.iter().filter_map(Disk::cluster).collect();
        if claimed.windows(2).any(|w| w[0] != w[1]) {
            bail!("the disks belong to different clusters: start one daemon for each");
        }
        Ok(claimed.first().copied())
    }

    /// Every disk, also those that cannot be used: the cluster is to know that they are not.
    fn describe(&self, cores: &[CoreReport]) -> Result<Vec<RegisterDisk>> {
        let one = |(i, disk): (usize, &Disk)| {
            let shares = || cores.iter().filter_map(move |c| c.disks.get(i));
            let failed = shares().find_map(|s| s.failed.as_deref());
            disk.describe(self.known.at(&disk.path), shares().map(|s| s.capacity).sum(), failed)
        };
        self.all.iter().enumerate().map(one).collect()
    }

    /// So that a disk that cannot be read at a later start can be named.
    fn remember(&mut self, registered: &Registered, described: Vec<RegisterDisk>) {
        let one = |((disk, id), described): ((&Disk, _), RegisterDisk)| KnownDisk {
            path: disk.path.clone(),
            cluster: registered.cluster,
            uuid: described.uuid,
            disk: id,
            capacity: described.capacity,
            shards: described.shards,
        };
        let disks = self.all.iter().zip(registered.disks.iter().copied()).zip(described).map(one).collect();
        if let Err(e) = self.known.replace(disks) {
            warn!("{e:#}; a disk that fails before the next start will stop the daemon then");
        }
    }

    fn joined(&self, registered: &Registered) -> Vec<JoinedDisk> {
        let missing = |disk: &Disk| match &disk.state {
            DiskState::Missing { why, .. } => Some(why.clone()),
            DiskState::Owned(_) => None,
        };
        registered
            .disks
            .iter()
            .zip(&self.all)
            .map(|(id, disk)| JoinedDisk { id: *id, missing: missing(disk) })
            .collect()
    }
}

impl Disk {
    fn describe(&self, known: Option<&KnownDisk>, capacity: u64, failed: Option<&str>) -> Result<RegisterDisk> {
        let path = self.path.display().to_string();
        match &self.state {
            DiskState::Missing { known, .. } => {
                error!("disk {path} (disk {}) is not served", known.disk);
                Ok(RegisterDisk {
                    uuid: known.uuid,
                    path,
                    capacity: known.capacity,
                    shards: known.shards,
                    class: DiskClass::default(),
                })
            }
            DiskState::Owned(owned) => {
                let uuid = Uuid::from_bytes(owned.superblock.disk_uuid);
                let known = known.filter(|k| k.uuid == uuid);
                let capacity = match (failed, known) {
                    (None, _) => capacity,
                    (Some(_), Some(known)) => known.capacity,
                    (Some(why), None) => bail!("disk {path}: {why}"),
                };
                Ok(RegisterDisk { uuid, path, capacity, shards: owned.superblock.shards, class: DiskClass::default() })
            }
        }
    }
}
