//! Nodes and disks that are emptied, and that leave the cluster.
//!
//! What holds copies cannot leave at once: it is emptied first (drain), or it is given up, its copies are made anew elsewhere, and it
//! leaves as soon as nothing refers to it. The daemon of a node that has left is refused, and its disks are let in again only when
//! they have been formatted anew: what is on them is old.

use crate::command::{Decider, Outcome};
use crate::limits::MAX_REMOVED_DISKS;
use crate::snapshots::conflict;
use crate::state::State;
use crate::tables::{Decision, Node};
use crate::view::no_disk;
use levee_proto::api::*;
use levee_proto::{DiskId, NodeId};

impl State {
    fn node_mut(&mut self, id: NodeId) -> Result<&mut Node, Problem> {
        self.tables.nodes.get_mut(&id).ok_or_else(|| no_node(id))
    }

    /// All disks that the node ever brought along and that are still in the cluster.
    pub(crate) fn disks_of(&self, node: NodeId) -> Vec<DiskId> {
        self.tables.disks.iter().filter(|(_, disk)| disk.node == node).map(|(id, _)| *id).collect()
    }

    /// Empties a node's disks, and keeps new volumes away from it; or takes that back.
    pub(crate) fn set_node(&mut self, id: NodeId, request: &SetNodeState) -> Outcome {
        let decision = Decision { by: Decider::Operator, reason: request.reason.clone() };
        let node = self.node_mut(id)?;
        let changed = node.drain.is_some() != request.drain;
        node.drain = request.drain.then(|| decision.clone());
        let name = node.name.clone();
        let disks = self.disks_of(id);
        for disk in &disks {
            if let Some(disk) = self.tables.disks.get_mut(disk) {
                disk.drain = request.drain.then(|| decision.clone());
            }
        }
        self.refresh_evacuation(disks);
        if changed {
            let text = if request.drain { "is being emptied" } else { "is in service again" };
            self.tell(EventKind::Node, name, text);
        }
        self.node_answer(id)
    }

    pub(crate) fn set_disk_weight(&mut self, id: DiskId, weight: u32) -> Outcome {
        let disk = self.tables.disks.get_mut(&id).ok_or_else(|| no_disk(id))?;
        let changed = std::mem::replace(&mut disk.weight, weight) != weight;
        if changed {
            self.tell(EventKind::Disk, id.to_string(), format!("has weight {weight} now"));
        }
        self.disk_answer(id)
    }

    /// The disk leaves the cluster: at once if it is empty; if it is given up (`force`), as soon as its copies are elsewhere.
    pub(crate) fn remove_disk(&mut self, id: DiskId, force: bool) -> Outcome {
        let disk = self.tables.disks.get_mut(&id).ok_or_else(|| no_disk(id))?;
        let copies = disk.live();
        if copies > 0 && !force {
            return Err(conflict(format!(
                "disk {id} holds {copies} copies: empty it first with `levee disk drain {id}`; if it is lost, `--force` has them made \
                 anew elsewhere"
            )));
        }
        if copies > 0 {
            disk.removed = true;
            disk.death =
                Some(Decision { by: Decider::Operator, reason: Some("it was removed from the cluster".into()) });
            self.refresh_evacuation([id]);
            let text = format!("was given up: {copies} copies are made anew elsewhere, then it leaves the cluster");
            self.note(EventKind::Disk, Severity::Warning, id.to_string(), text);
            return self.disk_answer(id);
        }
        let answer = self.disk_answer(id);
        self.forget_disk(id);
        answer
    }

    /// The node leaves the cluster, with all its disks.
    pub(crate) fn remove_node(&mut self, id: NodeId, force: bool) -> Outcome {
        let name = self.node_mut(id)?.name.clone();
        let attached = self.index.attached.get(&id).map_or(0, |volumes| volumes.len());
        if attached > 0 {
            return Err(conflict(format!("node '{name}' serves {attached} volumes: detach them first")));
        }
        let disks = self.disks_of(id);
        let copies: u64 = disks.iter().filter_map(|disk| self.tables.disks.get(disk)).map(|disk| disk.live()).sum();
        if copies > 0 && !force {
            return Err(conflict(format!(
                "node '{name}' holds {copies} copies: empty it first with `levee node drain {name}`; if it is lost, `--force` has them \
                 made anew elsewhere"
            )));
        }
        self.node_mut(id)?.removed = true;
        let mut answer = self.node_answer(id);
        for disk in disks {
            self.remove_disk(disk, force)?;
        }
        if !self.forget_node_if_empty(id) {
            answer = self.node_answer(id);
        }
        answer
    }

    /// After copies have left these disks: those that were only waiting for that are gone.
    pub(crate) fn forget_empty_disks(&mut self, disks: impl IntoIterator<Item = DiskId>) {
        for id in disks {
            let gone = self.tables.disks.get(&id).filter(|disk| disk.removed && disk.live() == 0);
            if let Some(node) = gone.map(|disk| disk.node) {
                self.forget_disk(id);
                self.forget_node_if_empty(node);
            }
        }
    }

    fn forget_disk(&mut self, id: DiskId) {
        let Some(disk) = self.tables.disks.remove(&id) else { return };
        self.index.disk_by_uuid.remove(&disk.uuid);
        if let Some(node) = self.tables.nodes.get_mut(&disk.node) {
            node.disks.remove(&id);
        }
        let removed = &mut self.tables.removed_disks;
        removed.push_back(disk.uuid);
        if removed.len() > MAX_REMOVED_DISKS {
            removed.pop_front();
        }
        self.index.evacuate.remove(&id);
        self.skip_moves_to(id);
        self.touch_all();
        self.tell(EventKind::Disk, id.to_string(), format!("has left the cluster ({})", disk.path));
    }

    fn forget_node_if_empty(&mut self, id: NodeId) -> bool {
        let leaves = self.tables.nodes.get(&id).is_some_and(|node| node.removed) && self.disks_of(id).is_empty();
        if !leaves || self.index.attached.contains_key(&id) {
            return false;
        }
        if let Some(node) = self.tables.nodes.remove(&id) {
            self.index.node_by_name.remove(&node.name);
            self.tables.maintenance.remove(&id);
            self.touch_all();
            self.tell(EventKind::Node, node.name, "has left the cluster");
        }
        true
    }

    /// Whether the node may serve volumes that are not on it yet.
    pub(crate) fn takes_volumes(&self, id: NodeId) -> bool {
        self.tables.nodes.get(&id).is_some_and(|node| node.drain.is_none() && !node.removed)
    }
}

pub(crate) fn no_node(id: NodeId) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("there is no node {id}: `levee node list` shows them"))
}
