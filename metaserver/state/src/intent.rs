//! What each node should do.

use crate::limits::MAX_DELETES;
use crate::state::State;
use crate::tables::Disk;
use levee_proto::NodeId;
use levee_proto::api::{AttachIntent, EvacuateDisk, Intent, PeerDisk, PeerInfo, ReplicaRef, StateMark};

impl State {
    /// The number of the node's intent; none if there is no such node.
    pub fn intent_revision(&self, node: NodeId) -> Option<u64> {
        self.tables.nodes.get(&node).map(|n| n.revision)
    }

    /// What the node should do; none if there is no such node.
    pub fn intent(&self, node: NodeId) -> Option<Intent> {
        let revision = self.intent_revision(node)?;
        Some(Intent {
            revision,
            attach: self.attach_intents(node),
            peers: self.peers(),
            deletes: self.deletes(node),
            evacuate: self
                .index
                .evacuate
                .iter()
                .map(|(disk, state)| EvacuateDisk { disk: *disk, state: *state })
                .collect(),
            background_rate: self.tables.background_rate,
            moves: self.move_intents(node),
            eras: self.eras(),
            // How much of the log it comes of, whoever applies the log knows.
            state: StateMark { generation: self.generation(), applied: 0 },
        })
    }

    fn attach_intents(&self, node: NodeId) -> Vec<AttachIntent> {
        let volumes = self.index.attached.get(&node).into_iter().flatten();
        volumes
            .filter_map(|id| {
                let volume = self.tables.volumes.get(id)?;
                let attachment = volume.attachment.as_ref()?;
                let versions = volume.history().number;
                let (attachment, repair) = (attachment.id, attachment.repair);
                Some(AttachIntent { volume: *id, name: volume.name.clone(), attachment, repair, versions })
            })
            .collect()
    }

    fn peers(&self) -> Vec<PeerInfo> {
        let disks = |ids: &std::collections::BTreeSet<_>| {
            let known = ids.iter().filter_map(|id| Some((id, self.tables.disks.get(id)?)));
            known.map(|(id, disk)| PeerDisk { disk: *id, shards: disk.shards }).collect()
        };
        let nodes = self.tables.nodes.iter();
        nodes.map(|(id, n)| PeerInfo { node: *id, cores: n.cores.clone(), disks: disks(&n.disks) }).collect()
    }

    /// The first page: confirming it brings the next one. Dead disks may never confirm theirs: they come
    /// last, and share what room is left, so that they keep up nobody, nor each other.
    fn deletes(&self, node: NodeId) -> Vec<ReplicaRef> {
        let Some(node) = self.tables.nodes.get(&node) else { return Vec::new() };
        let disks = node.disks.iter().filter_map(|id| self.tables.disks.get(id)).filter(|d| !d.deletes.is_empty());
        let (dead, working): (Vec<&Disk>, Vec<&Disk>) = disks.partition(|d| d.death.is_some());
        let mut page: Vec<ReplicaRef> =
            working.iter().flat_map(|d| d.deletes.iter().copied()).take(MAX_DELETES).collect();
        let share = (MAX_DELETES - page.len()) / dead.len().max(1);
        page.extend(dead.iter().flat_map(|d| d.deletes.iter().copied().take(share)));
        page
    }
}
