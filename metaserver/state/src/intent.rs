//! What each node should do.

use crate::limits::MAX_DELETES;
use crate::state::State;
use levee_proto::NodeId;
use levee_proto::api::{AttachIntent, Intent, PeerDisk, PeerInfo, ReplicaRef};

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
            evacuate: Vec::new(),
            background_rate: None,
        })
    }

    fn attach_intents(&self, node: NodeId) -> Vec<AttachIntent> {
        let volumes = self.index.attached.get(&node).into_iter().flatten();
        volumes
            .filter_map(|id| {
                let volume = self.tables.volumes.get(id)?;
                let attachment = volume.attachment.as_ref()?.id;
                Some(AttachIntent { volume: *id, name: volume.name.clone(), attachment, repair: false })
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

    /// The first page: confirming it brings the next one.
    fn deletes(&self, node: NodeId) -> Vec<ReplicaRef> {
        let Some(node) = self.tables.nodes.get(&node) else { return Vec::new() };
        let disks = node.disks.iter().filter_map(|id| self.tables.disks.get(id));
        disks.flat_map(|disk| disk.deletes.iter().copied()).take(MAX_DELETES).collect()
    }
}
