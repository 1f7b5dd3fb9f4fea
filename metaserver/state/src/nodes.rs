//! Storage daemons and their disks.

use crate::command::{Answer, Outcome};
use crate::limits::{MAX_NODES, MAX_RETIRED_INCARNATIONS};
use crate::state::State;
use crate::tables::{Disk, Node};
use levee_proto::api::{
    EventKind, FULL_WEIGHT, Problem, ProblemKind, RegisterDisk, RegisterNode, Registered, ReplicaRef,
};
use levee_proto::{DiskId, NodeId};
use std::collections::BTreeSet;
use uuid::Uuid;

impl State {
    pub(crate) fn register_node(&mut self, request: &RegisterNode) -> Outcome {
        let cluster = self.check_cluster(request)?;
        let known = self.index.node_by_name.get(&request.name).copied();
        self.check_incarnation(known, request)?;
        let (removed, present) = self.check_not_removed(known, request)?;
        for disk in &present {
            self.check_disk(known, disk)?;
        }
        if known.is_none() && self.tables.nodes.len() >= MAX_NODES {
            return Err(Problem::new(
                ProblemKind::NoSpace,
                format!("node '{}' cannot join: the cluster has its most, {MAX_NODES} nodes", request.name),
            ));
        }

        self.heed(&request.seen, &request.name);
        let node = known.unwrap_or_else(|| self.add_node(request));
        let disks: Vec<DiskId> =
            present.into_iter().map(|disk| self.upsert_disk(node, disk, request.seen.disks.get(&disk.uuid))).collect();
        self.await_node(node);
        let links_changed = self.update_node(node, request, disks.iter().copied().collect());
        if known.is_none() || links_changed {
            self.touch_all();
        }
        let removed = removed.into_iter().map(|disk| disk.uuid).collect();
        Ok(Answer::Registered(Registered { cluster, node, disks, removed }))
    }

    /// The daemon's disks must not belong to another cluster.
    fn check_cluster(&self, request: &RegisterNode) -> Result<Uuid, Problem> {
        let cluster = self.tables.cluster.ok_or_else(|| {
            Problem::new(ProblemKind::Unavailable, "the cluster is not founded yet: try again in a moment")
        })?;
        match request.cluster {
            Some(other) if other != cluster => Err(Problem::new(
                ProblemKind::Conflict,
                format!(
                    "node '{}' belongs to cluster {other}, this is cluster {cluster}: \
                     point it at its own meta servers, or give it empty disks",
                    request.name
                ),
            )),
            _ => Ok(cluster),
        }
    }

    /// A message of an earlier process that arrives late must not take the node over from its successor.
    fn check_incarnation(&self, known: Option<NodeId>, request: &RegisterNode) -> Result<(), Problem> {
        match known.and_then(|id| self.tables.nodes.get(&id)) {
            Some(node) if node.retired.contains(&request.incarnation) => Err(Problem::new(
                ProblemKind::Fenced,
                format!("another daemon has registered as node '{}' since: this one must stop", request.name),
            )),
            _ => Ok(()),
        }
    }

    /// What has left the cluster, or is leaving it, does not come back as it is. Tells such disks from the others.
    fn check_not_removed<'a>(
        &self,
        known: Option<NodeId>,
        request: &'a RegisterNode,
    ) -> Result<(Vec<&'a RegisterDisk>, Vec<&'a RegisterDisk>), Problem> {
        if known.and_then(|id| self.tables.nodes.get(&id)).is_some_and(|node| node.removed) {
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!("node '{}' was removed from the cluster and is being emptied: stop its daemon", request.name),
            ));
        }
        let (removed, present): (Vec<_>, Vec<_>) =
            request.disks.iter().partition(|disk| self.tables.removed_disks.contains(&disk.uuid));
        match removed.first() {
            // A node without any other disk has itself been removed, or might as well be.
            Some(disk) if !request.leave_out_removed || present.is_empty() => Err(Problem::new(
                ProblemKind::Conflict,
                format!(
                    "disk {} ({}) was removed from the cluster: format it again to use it, or start the daemon without it",
                    disk.uuid, disk.path
                ),
            )),
            _ => Ok((removed, present)),
        }
    }

    fn check_disk(&self, node: Option<NodeId>, disk: &RegisterDisk) -> Result<(), Problem> {
        let Some(known) = self.index.disk_by_uuid.get(&disk.uuid).and_then(|id| self.tables.disks.get(id)) else {
            return Ok(());
        };
        if Some(known.node) != node {
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!(
                    "disk {} ({}) belongs to node '{}': start it there, or format it again to use it here",
                    disk.uuid,
                    disk.path,
                    self.node_name(known.node)
                ),
            ));
        }
        if known.shards != disk.shards {
            return Err(Problem::new(
                ProblemKind::Conflict,
                format!(
                    "disk {} ({}) was registered with {} shards and now has {}: the number is fixed when it is formatted",
                    disk.uuid, disk.path, known.shards, disk.shards
                ),
            ));
        }
        Ok(())
    }

    fn add_node(&mut self, request: &RegisterNode) -> NodeId {
        // One that a lost state has taken in keeps the id that is on its disks.
        let free = request.seen.node.filter(|id| id.0 > 0 && !self.tables.nodes.contains_key(id));
        let id = free.unwrap_or_else(|| self.tables.last.next_node());
        self.index.node_by_name.insert(request.name.clone(), id);
        let node = Node {
            name: request.name.clone(),
            incarnation: request.incarnation,
            retired: Vec::new(),
            admin_url: request.admin_url.clone(),
            cores: request.cores.clone(),
            disks: BTreeSet::new(),
            revision: 0,
            zone: request.zone.clone(),
            rack: request.rack.clone(),
            group: None,
            drain: None,
            removed: false,
        };
        self.tables.nodes.insert(id, node);
        self.join_group(id);
        self.tell(EventKind::Node, &request.name, "has joined the cluster");
        id
    }

    /// `own`: the id that the disk says it has.
    fn upsert_disk(&mut self, node: NodeId, disk: &RegisterDisk, own: Option<&DiskId>) -> DiskId {
        if let Some(&id) = self.index.disk_by_uuid.get(&disk.uuid) {
            if let Some(known) = self.tables.disks.get_mut(&id) {
                known.path.clone_from(&disk.path);
                known.capacity = disk.capacity;
                known.class = disk.class;
            }
            return id;
        }
        let free = own.copied().filter(|id| id.0 > 0 && self.tables.disks.get(id).is_none());
        let id = free.unwrap_or_else(|| self.tables.last.next_disk());
        self.index.disk_by_uuid.insert(disk.uuid, id);
        let record = Disk {
            uuid: disk.uuid,
            node,
            path: disk.path.clone(),
            capacity: disk.capacity,
            shards: disk.shards,
            placed: 0,
            deletes: BTreeSet::new(),
            drain: self.tables.nodes.get(&node).and_then(|n| n.drain.clone()),
            death: None,
            class: disk.class,
            weight: FULL_WEIGHT,
            removed: false,
        };
        self.tables.disks.insert(id, record);
        self.tell(
            EventKind::Disk,
            id.to_string(),
            format!("{} of node '{}' has joined", disk.path, self.node_name(node)),
        );
        id
    }

    /// Takes over what the daemon says about itself; whether other nodes must hear of it.
    fn update_node(&mut self, id: NodeId, request: &RegisterNode, disks: BTreeSet<DiskId>) -> bool {
        let Some(node) = self.tables.nodes.get_mut(&id) else { return false };
        if node.incarnation != request.incarnation {
            node.retired.push(node.incarnation);
            if node.retired.len() > MAX_RETIRED_INCARNATIONS {
                node.retired.remove(0);
            }
            node.incarnation = request.incarnation;
        }
        node.admin_url.clone_from(&request.admin_url);
        let changed = node.cores != request.cores || node.disks != disks;
        node.zone.clone_from(&request.zone);
        node.rack.clone_from(&request.rack);
        node.cores.clone_from(&request.cores);
        node.disks = disks;
        changed
    }

    /// Forgets replicas whose deletion the node confirms. Repeats and strangers are ignored: a
    /// confirmation may be sent twice.
    pub(crate) fn confirm_deleted(&mut self, node: NodeId, replicas: &[ReplicaRef]) -> Outcome {
        let mut changed = false;
        for replica in replicas {
            let Some(disk) = self.tables.disks.get_mut(&replica.disk).filter(|d| d.node == node) else { continue };
            if disk.deletes.remove(replica) {
                disk.placed -= 1;
                changed = true;
            }
        }
        if changed {
            self.touch(node);
        }
        Ok(Answer::Done)
    }

    /// Whether any of these is still waiting to be deleted on the node: if not, confirming is a no-op.
    pub fn awaits_deletion(&self, node: NodeId, replicas: &[ReplicaRef]) -> bool {
        replicas.iter().any(|r| self.tables.disks.get(&r.disk).is_some_and(|d| d.node == node && d.deletes.contains(r)))
    }
}
