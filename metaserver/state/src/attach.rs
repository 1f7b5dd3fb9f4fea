//! Attachments and epochs.
//!
//! An attachment says which node should serve a volume; opening it gives the node's process an epoch.
//! The epoch is what fences: a detached gateway may still be running, but the next one that opens the
//! volume has a higher epoch, and replicas refuse the lower.

use crate::command::{Answer, Outcome};
use crate::limits::REFUSED_EPOCHS;
use crate::map::Room;
use crate::snapshots::conflict;
use crate::state::State;
use crate::tables::{Volume, VolumeAttachment};
use levee_proto::api::{
    ChunkPage, EventKind, OpenVolume, OpenedVolume, Problem, ProblemKind, Severity, SnapshotName, VolumeVersions,
};
use levee_proto::{Epoch, Era, NodeId, VolumeId};
use std::collections::BTreeSet;

impl State {
    /// A volume that is being repaired is free. Attaching to the node that has the volume already is no change, and so is attaching to any node
    /// while it is attached somewhere.
    pub(crate) fn attach(&mut self, name: &str, node: Option<&str>, alive: &BTreeSet<NodeId>) -> Outcome {
        if let Some(snapshot) = SnapshotName::parse(name) {
            return self.attach_snapshot(&snapshot, node, alive);
        }
        let id = self.user_volume_id(name)?;
        if let Some(node) = self.free_node(name, Some(id), node, alive)? {
            self.set_attachment(id, node, false);
            self.tell(EventKind::Volume, name, format!("was attached to node '{}'", self.node_name(node)));
        }
        self.volume_answer(id)
    }

    /// The node to attach the volume to; `None`: it is attached as it should be.
    pub(crate) fn free_node(
        &self,
        name: &str,
        id: Option<VolumeId>,
        wanted: Option<&str>,
        alive: &BTreeSet<NodeId>,
    ) -> Result<Option<NodeId>, Problem> {
        let wanted = wanted.map(|n| self.node_id(n)).transpose()?;
        let current = id.and_then(|id| self.tables.volumes.get(&id)?.user()).map(|a| a.node);
        match (current, wanted) {
            (Some(current), Some(other)) if other != current => Err(conflict(format!(
                "volume '{name}' is attached to node '{}': detach it first",
                self.node_name(current)
            ))),
            (Some(_), _) => Ok(None),
            (None, Some(node)) if !alive.contains(&node) => Err(conflict(format!(
                "volume '{name}' cannot be attached to node '{}', which is down: start its daemon, or choose another node",
                self.node_name(node)
            ))),
            (None, Some(node)) if !self.takes_volumes(node) => Err(conflict(format!(
                "volume '{name}' cannot be attached to node '{0}', which is being emptied: choose another node, or `levee node undrain {0}`",
                self.node_name(node)
            ))),
            (None, Some(node)) => Ok(Some(node)),
            (None, None) => self.least_attached(alive).map(Some).ok_or_else(|| {
                conflict(format!("volume '{name}' cannot be attached: no node is up; start a storage daemon"))
            }),
        }
    }

    /// A repair that is under way ends with it.
    pub(crate) fn set_attachment(&mut self, id: VolumeId, node: NodeId, repair: bool) {
        self.drop_attachment(id);
        let attachment = VolumeAttachment { id: self.tables.last.next_attachment(), node, opened_by: None, repair };
        if let Some(volume) = self.tables.volumes.get_mut(&id) {
            volume.attachment = Some(attachment);
            self.index.attach(node, id, repair);
            self.touch(node);
        }
    }

    pub(crate) fn drop_attachment(&mut self, id: VolumeId) {
        if let Some(gone) = self.tables.volumes.get_mut(&id).and_then(|v| v.attachment.take()) {
            self.index.detach(gone.node, id);
            self.touch(gone.node);
        }
    }

    pub(crate) fn node_id(&self, name: &str) -> Result<NodeId, Problem> {
        self.index.node_by_name.get(name).copied().ok_or_else(|| {
            let shown = levee_proto::api::shown_name(name);
            Problem::new(ProblemKind::NotFound, format!("there is no node named '{shown}'"))
        })
    }

    pub(crate) fn least_attached(&self, alive: &BTreeSet<NodeId>) -> Option<NodeId> {
        alive.iter().copied().filter(|id| self.takes_volumes(*id)).min_by_key(|id| (self.attached_to(*id), *id))
    }

    /// The volumes that are attached to the node, also those that are attached for repair.
    pub fn attached_volumes(&self, node: NodeId) -> impl Iterator<Item = VolumeId> + '_ {
        self.index.attached.get(&node).into_iter().flatten().copied()
    }

    /// How many volumes the node serves.
    pub fn attached_to(&self, node: NodeId) -> usize {
        self.index.attached.get(&node).map_or(0, BTreeSet::len)
    }

    /// Detaching a detached volume is no change, and one that is being repaired counts as detached.
    pub(crate) fn detach(&mut self, name: &str) -> Outcome {
        if let Some(snapshot) = SnapshotName::parse(name) {
            return self.detach_snapshot(&snapshot);
        }
        let id = self.user_volume_id(name)?;
        if self.tables.volumes.get(&id).is_some_and(|v| v.user().is_some()) {
            self.drop_attachment(id);
            self.tell(EventKind::Volume, name, "was detached");
        }
        self.volume_answer(id)
    }

    /// Gives the process its epoch: a new one, unless it asks again.
    pub(crate) fn open(&mut self, name: &str, request: &OpenVolume) -> Outcome {
        let id = self.volume_id(name)?;
        self.check_opener(request)?;
        self.check_recovered(id)?;
        let volume = self.tables.volumes.get_mut(&id).ok_or_else(|| over(name))?;
        let attachment = volume
            .attachment
            .as_mut()
            .filter(|a| a.id == request.attachment && a.node == request.node)
            .ok_or_else(|| over(name))?;
        // What copies refuse although it is the newest: they have seen an epoch that this state has not given.
        let refused = request.fenced.filter(|epoch| *epoch == volume.epoch);
        if attachment.opened_by != Some(request.incarnation) || refused.is_some() {
            let from = refused.map_or(volume.epoch, |epoch| Epoch(epoch.0.saturating_add(REFUSED_EPOCHS)));
            volume.epoch = from.next().ok_or_else(|| {
                Problem::new(
                    ProblemKind::Conflict,
                    format!("volume '{name}' has used up its epochs: copy it to a new volume"),
                )
            })?;
            attachment.opened_by = Some(request.incarnation);
            self.group_reopened(id);
        }
        if let Some(epoch) = refused {
            let text =
                format!("copies have seen a larger epoch than {epoch}, the newest: the meta servers' state is too old");
            self.note(EventKind::Volume, Severity::Error, name, text);
        }
        let volume = &self.tables.volumes[&id];
        let mut room = Room::new();
        let opened = opened(id, volume, self.versions(id), room.take(volume));
        let (parent, era) = (self.parent_info_within(volume, &mut room), self.era(id));
        Ok(Answer::Opened(OpenedVolume { parent, era, ..opened }))
    }

    /// Only the node's newest process may open: a late request of its predecessor would fence it.
    fn check_opener(&self, request: &OpenVolume) -> Result<(), Problem> {
        let node = self.tables.nodes.get(&request.node).ok_or_else(|| {
            Problem::new(ProblemKind::NotFound, format!("there is no node {}: register it first", request.node))
        })?;
        if node.incarnation == request.incarnation {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::Fenced,
            format!(
                "this process is not the one that node '{}' last registered: it must stop, or register again",
                node.name
            ),
        ))
    }
}

pub(crate) fn over(name: &str) -> Problem {
    Problem::new(
        ProblemKind::Fenced,
        format!("this attachment of volume '{name}' is over: close the volume and follow the intent"),
    )
}

fn opened(id: VolumeId, volume: &Volume, versions: VolumeVersions, page: ChunkPage) -> OpenedVolume {
    OpenedVolume {
        id,
        name: volume.name.clone(),
        epoch: volume.epoch,
        era: Era::default(),
        version: volume.version,
        size: volume.size,
        copies: volume.copies,
        min_copies: volume.min_copies,
        geometry: volume.geometry,
        chunks: page.chunks,
        more: page.more,
        view: versions.view.clone(),
        snapshots: versions.snapshots.clone(),
        sealed: versions.sealed,
        parent: None,
        versions,
        read_only: volume.read_only,
    }
}
