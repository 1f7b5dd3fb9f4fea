//! Changes of chunks' replica sets.
//!
//! The volume's gateway asks, and vouches that every member that stays holds every acknowledged write; what
//! is decided here is whether the change is still about the present set, and where newcomers go. Epochs and
//! config numbers order it with takeovers: after the next `open` this gateway's changes are refused, so the
//! map that `open` answers is final.
//!
//! A chunk has `copies` members, fewer if it began so (`placement`), or one more while a member is moved: first the newcomer joins, and when it
//! is whole the other leaves. A newcomer goes to a live node without a member that stays. Where there is none,
//! it may go to another disk of a node all of whose members are on disks being drained, so that a disk can
//! be drained in a cluster with no more nodes than copies.
//!
//! A change in which all members leave and none comes frees the chunk: its gateway says that it holds no data, and writes
//! nothing to it any more. A chunk that is gone is not mentioned in the answer; asking again is no error. Chunks of clones
//! stay: what a clone has discarded would show what its parent has there.

use crate::command::{Answer, Outcome};
use crate::placement::holder;
use crate::room::{Room, Scope, Taken};
use crate::state::State;
use crate::tables::Chunk;
use levee_proto::api::{ChangeReplicas, ChangedReplicas, DiskState, Problem, ProblemKind, ReplicaChange, ReplicaPlace};
use levee_proto::{ChunkId, ConfigNo, DiskId, NodeId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// What a change comes to.
struct Plan {
    index: u32,
    config: ConfigNo,
    keep: Vec<ReplicaPlace>,
    leave: Vec<ReplicaPlace>,
    join: Vec<(NodeId, DiskId)>,
}

impl State {
    /// Each change by itself: made, refused, or about a set that is no more.
    pub(crate) fn change_replicas(
        &mut self,
        name: &str,
        request: &ChangeReplicas,
        alive: &BTreeSet<NodeId>,
        full: &BTreeSet<DiskId>,
    ) -> Outcome {
        let id = self.volume_id(name)?;
        let volume = &self.tables.volumes[&id];
        holder(volume, request.epoch)?;
        let is_there = |c: &&ReplicaChange| volume.chunks.contains_key(&c.index);
        if let Some(none) = request.changes.iter().find(|c| !is_there(c) && c.add > 0) {
            return Err(Problem::new(
                ProblemKind::NotFound,
                format!("volume '{name}' has no chunk {}: it cannot be changed", none.index),
            ));
        }
        let mut room = Room::of(self, Scope { alive, full, class: volume.class, reserve: true });
        let mut plans = Vec::with_capacity(request.changes.len());
        let mut refusals = Vec::new();
        let present = request.changes.iter().filter(is_there);
        // A clone's chunk without data may hide what its parent has there.
        let may_be_freed = volume.parent.is_none();
        let (freed, changes): (Vec<_>, Vec<_>) =
            present.partition(|c| may_be_freed && is_free(&volume.chunks[&c.index], c));
        let freed: Vec<u32> = freed.into_iter().map(|c| c.index).collect();
        for change in changes.into_iter().filter(|c| volume.chunks[&c.index].config == c.config) {
            match self.plan(id, change, &mut room) {
                Ok(plan) => plans.push(plan),
                Err(why) => refusals.push(format!("chunk {}: {why}", change.index)),
            }
        }
        self.carry_out(id, plans);
        self.free_chunks(id, &freed);
        let indexes: Vec<u32> = request.changes.iter().map(|c| c.index).collect();
        Ok(Answer::Changed(ChangedReplicas { chunks: self.chunk_infos(id, &indexes), refused: one_line(&refusals) }))
    }

    /// Chunks that hold no data any more, as their gateway says, cease to be.
    fn free_chunks(&mut self, id: VolumeId, indexes: &[u32]) {
        let Some(volume) = self.tables.volumes.get_mut(&id) else { return };
        let freed: Vec<Chunk> = indexes.iter().filter_map(|index| volume.chunks.remove(index)).collect();
        let gone = freed.iter().flat_map(|c| c.replicas.iter().map(|place| (c.id, *place))).collect();
        self.delete_replicas(gone);
    }

    fn plan(&self, id: VolumeId, change: &ReplicaChange, room: &mut Room<'_>) -> Result<Plan, String> {
        let volume = &self.tables.volumes[&id];
        let chunk = &volume.chunks[&change.index];
        let config = chunk.config.next().ok_or("its config numbers are used up: copy the volume to a new one")?;
        let (leave, keep) = split(chunk, change)?;
        let (members, copies) = (keep.len() + usize::from(change.add), usize::from(volume.copies));
        let is_short = members < copies && members <= chunk.replicas.len();
        if is_short || members > copies + 1 {
            return Err(format!("it would have {members} members; the volume has {copies} copies, one more at most"));
        }
        if change.add == 0 && members == copies {
            self.check_spread(&keep, &leave)?;
        }
        let mut taken = self.taken(chunk, &keep);
        let due = self.due_move(chunk, copies, change);
        let mut join = Vec::new();
        for _ in 0..change.add {
            let (node, disk) = match &due {
                Some(one) => self.move_target(one, &taken, room)?,
                None => room.pick(&taken).ok_or_else(no_place)?,
            };
            taken.nodes.insert(node);
            taken.last_resort.remove(&node);
            taken.disks.insert(disk);
            join.push((node, disk));
        }
        join.iter().for_each(|(node, disk)| room.take_place(*node, *disk));
        Ok(Plan { index: change.index, config, keep, leave, join })
    }

    fn disk_state(&self, disk: DiskId) -> DiskState {
        self.tables.disks.get(&disk).map(|d| d.state()).unwrap_or_default()
    }

    /// When a set shrinks for no other reason, it is one of two members on one node that has to leave.
    fn check_spread(&self, keep: &[ReplicaPlace], leave: &[ReplicaPlace]) -> Result<(), String> {
        let nodes: BTreeSet<NodeId> = keep.iter().map(|r| r.node).collect();
        let is_moved = |r: &ReplicaPlace| self.moves_under_way().any(|one| one.replica == r.replica);
        let has_reason = leave.iter().any(|r| self.disk_state(r.disk) != DiskState::InService || is_moved(r));
        if nodes.len() == keep.len() || has_reason {
            return Ok(());
        }
        Err("two of the members that stay are on one node: one of those is to be removed instead".into())
    }

    fn taken(&self, chunk: &Chunk, keep: &[ReplicaPlace]) -> Taken {
        let nodes: BTreeSet<NodeId> = keep.iter().map(|r| r.node).collect();
        let drained = |node: &NodeId| {
            keep.iter().filter(|r| r.node == *node).all(|r| self.disk_state(r.disk) == DiskState::Draining)
        };
        let last_resort = nodes.iter().copied().filter(drained).collect();
        Taken { nodes, last_resort, disks: chunk.replicas.iter().map(|r| r.disk).collect(), chunk: chunk.id }
    }

    fn carry_out(&mut self, id: VolumeId, plans: Vec<Plan>) {
        let mut gone: Vec<(ChunkId, ReplicaPlace)> = Vec::new();
        let tables = &mut self.tables;
        let Some(volume) = tables.volumes.get_mut(&id) else { return };
        for plan in plans {
            let Some(chunk) = volume.chunks.get_mut(&plan.index) else { continue };
            chunk.config = plan.config;
            chunk.replicas = plan.keep;
            gone.extend(plan.leave.into_iter().map(|place| (chunk.id, place)));
            for (node, disk) in plan.join {
                if let Some(record) = tables.disks.get_mut(&disk) {
                    record.placed += 1;
                }
                chunk.replicas.push(ReplicaPlace { replica: tables.last.next_replica(), node, disk });
            }
        }
        self.delete_replicas(gone);
    }
}

/// Whether the whole chunk, as it is, is given back. Replica ids tell it from a later one at the same place.
fn is_free(chunk: &Chunk, change: &ReplicaChange) -> bool {
    let all: BTreeSet<_> = chunk.replicas.iter().map(|r| r.replica).collect();
    change.add == 0
        && change.config == chunk.config
        && all.iter().eq(&change.remove.iter().copied().collect::<BTreeSet<_>>())
}

/// Those that leave and those that stay.
fn split(chunk: &Chunk, change: &ReplicaChange) -> Result<(Vec<ReplicaPlace>, Vec<ReplicaPlace>), String> {
    if change.remove.is_empty() && change.add == 0 {
        return Err("nothing was asked for".into());
    }
    let members: BTreeMap<_, _> = chunk.replicas.iter().map(|r| (r.replica, *r)).collect();
    if let Some(stranger) = change.remove.iter().find(|r| !members.contains_key(r)) {
        return Err(format!("replica {stranger} is not a member, so it cannot be removed"));
    }
    let (leave, keep): (Vec<_>, Vec<_>) = chunk.replicas.iter().partition(|r| change.remove.contains(&r.replica));
    if keep.is_empty() {
        return Err("all members would leave, and what is written with them".into());
    }
    Ok((leave, keep))
}

fn no_place() -> String {
    "no live node without a copy of it has a disk in service with room: \
     add nodes or disks, start the nodes that are down, or delete volumes"
        .into()
}

/// The first refusal, and how many more there are.
fn one_line(refusals: &[String]) -> Option<String> {
    match refusals {
        [] => None,
        [one] => Some(one.clone()),
        [first, rest @ ..] => Some(format!("{first} (and {} more chunks)", rest.len())),
    }
}
