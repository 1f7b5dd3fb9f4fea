//! Moves of single copies from disk to disk, so that disks are used alike.
//!
//! Which moves, the leader plans (it knows how large copies are); here they wait, go on their way a few at a time, and are counted, so that
//! they go on under another leader. A move on its way is named in the intent of the node that serves its volume; its gateway asks for one more
//! member, which goes where the move says, and removes the old one when the new one is whole. A move whose chunk, copy or target is not
//! what it was any more is given up: it was only an improvement.
//!
//! Invariants: a copy has one move at most, and a chunk one that is under way; not more than [`MAX_MOVES_PER_DISK`] are under way from
//! or to a disk.

use crate::command::{Answer, Outcome, invalid};
use crate::limits::*;
use crate::room::{Room, Taken};
use crate::snapshots::conflict;
use crate::state::State;
use crate::tables::Chunk;
use levee_proto::api::*;
use levee_proto::{DiskId, NodeId, ReplicaId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The last rebalance, under way or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rebalance {
    pub state: RebalanceState,
    pub goal: RebalanceGoal,
    pub started_ms: u64,
    pub ended_ms: Option<u64>,
    pub all: Tally,
    pub done: Tally,
    pub skipped: u64,
    pub last_skip: Option<String>,
    pub waiting: VecDeque<PlannedMove>,
    pub under_way: BTreeMap<ReplicaId, PlannedMove>,
}

/// Moves and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub moves: u64,
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, one: &PlannedMove) {
        self.moves += 1;
        self.bytes = self.bytes.saturating_add(one.bytes);
    }
}

impl Rebalance {
    fn skip(&mut self, why: &str) {
        self.skipped += 1;
        self.last_skip = Some(why.into());
    }

    fn is_free(&self, next: &PlannedMove) -> bool {
        let busy = |disk: DiskId| self.under_way.values().filter(|m| m.from == disk || m.to == disk).count();
        busy(next.from) < MAX_MOVES_PER_DISK && busy(next.to) < MAX_MOVES_PER_DISK
    }
}

pub(crate) fn validate_moves(moves: &[PlannedMove]) -> Result<(), Problem> {
    let copies: BTreeSet<ReplicaId> = moves.iter().map(|m| m.replica).collect();
    if moves.is_empty() || moves.len() > MAX_MOVES || copies.len() < moves.len() {
        return Err(invalid(format!("{} moves: 1 to {MAX_MOVES} are allowed, each of another copy", moves.len())));
    }
    Ok(())
}

impl State {
    pub(crate) fn start_rebalance(&mut self, goal: RebalanceGoal, moves: &[PlannedMove]) -> Outcome {
        if self.tables.rebalance.as_ref().is_some_and(|r| r.state == RebalanceState::Running) {
            return Err(conflict(
                "a rebalance is running: `levee rebalance status` shows it, `levee rebalance cancel` ends it".into(),
            ));
        }
        let mut all = Tally::default();
        moves.iter().for_each(|m| all.add(m));
        self.tables.rebalance = Some(Rebalance {
            state: RebalanceState::Running,
            goal,
            started_ms: self.clock_ms(),
            ended_ms: None,
            all,
            done: Tally::default(),
            skipped: 0,
            last_skip: None,
            waiting: moves.iter().copied().collect(),
            under_way: BTreeMap::new(),
        });
        self.tell(EventKind::Rebalance, "cluster", format!("begins: {} copies, {} bytes", all.moves, all.bytes));
        self.go_on();
        Ok(Answer::Rebalance(self.rebalance_status()))
    }

    /// Copies that are half made are dropped by their gateways.
    pub(crate) fn cancel_rebalance(&mut self) -> Outcome {
        let volumes = self.moving_volumes();
        let now = self.clock_ms();
        if let Some(rebalance) = self.tables.rebalance.as_mut().filter(|r| r.state == RebalanceState::Running) {
            rebalance.state = RebalanceState::Cancelled;
            rebalance.ended_ms = Some(now);
            rebalance.waiting.clear();
            rebalance.under_way.clear();
            self.tell(EventKind::Rebalance, "cluster", "was cancelled");
            self.touch_servers(volumes);
        }
        Ok(Answer::Rebalance(self.rebalance_status()))
    }

    /// Moves that get nowhere make room for others.
    pub(crate) fn skip_moves(&mut self, replicas: &BTreeSet<ReplicaId>) -> Outcome {
        self.give_up_moves(|m| replicas.contains(&m.replica), "it got nowhere");
        Ok(Answer::Done)
    }

    /// A disk takes nothing more.
    pub(crate) fn skip_moves_to(&mut self, disk: DiskId) {
        self.give_up_moves(|m| m.to == disk, "its target has left service");
    }

    pub(crate) fn give_up_moves(&mut self, which: impl Fn(&PlannedMove) -> bool, why: &str) {
        let Some(rebalance) = &mut self.tables.rebalance else { return };
        let gone: Vec<PlannedMove> = rebalance.under_way.values().filter(|m| which(m)).copied().collect();
        for one in &gone {
            rebalance.under_way.remove(&one.replica);
            rebalance.skip(why);
        }
        if !gone.is_empty() {
            self.touch_servers(gone.iter().map(|m| m.volume).collect());
            self.go_on();
        }
    }

    /// These copies have left their chunks.
    pub(crate) fn finish_moves(&mut self, gone: &[ReplicaId]) {
        let Some(rebalance) = &mut self.tables.rebalance else { return };
        let mut volumes = BTreeSet::new();
        for replica in gone {
            let Some(one) = rebalance.under_way.remove(replica) else { continue };
            let chunk = self.tables.volumes.get(&one.volume).and_then(|volume| volume.chunks.get(&one.index));
            if chunk.is_some_and(|chunk| chunk.replicas.iter().any(|r| r.disk == one.to)) {
                rebalance.done.add(&one);
            } else {
                rebalance.skip("the copy is gone");
            }
            volumes.insert(one.volume);
        }
        if !volumes.is_empty() {
            self.touch_servers(volumes);
            self.go_on();
        }
    }

    /// Sends waiting moves on their way, as far as their disks are free.
    fn go_on(&mut self) {
        let Some(mut rebalance) = self.tables.rebalance.take_if(|r| r.state == RebalanceState::Running) else { return };
        let mut begun = BTreeSet::new();
        let mut kept: VecDeque<PlannedMove> = VecDeque::new();
        for _ in 0..MOVES_LOOKED_AT {
            if rebalance.under_way.len() >= MAX_MOVES_UNDER_WAY {
                break;
            }
            let Some(next) = rebalance.waiting.pop_front() else { break };
            // A later move of a chunk may be fine only after the ones before it.
            let same_chunk = |m: &PlannedMove| (m.volume, m.index) == (next.volume, next.index);
            if kept.iter().chain(rebalance.under_way.values()).any(same_chunk) {
                kept.push_back(next);
                continue;
            }
            match self.check_move(&next) {
                Err(why) => rebalance.skip(&why),
                Ok(()) if rebalance.is_free(&next) => {
                    begun.insert(next.volume);
                    rebalance.under_way.insert(next.replica, next);
                }
                Ok(()) => kept.push_back(next),
            }
        }
        while let Some(next) = kept.pop_back() {
            rebalance.waiting.push_front(next);
        }
        let ends = rebalance.waiting.is_empty() && rebalance.under_way.is_empty();
        let Rebalance { done, skipped, .. } = rebalance;
        if ends {
            (rebalance.state, rebalance.ended_ms) = (RebalanceState::Done, Some(self.clock_ms()));
        }
        self.tables.rebalance = Some(rebalance);
        if ends {
            let text =
                format!("is done: {} copies, {} bytes moved, {skipped} left where they were", done.moves, done.bytes);
            self.tell(EventKind::Rebalance, "cluster", text);
        }
        self.touch_servers(begun);
    }

    /// Whether the copy is where the move says, and may go where it says.
    pub(crate) fn check_move(&self, one: &PlannedMove) -> Result<(), String> {
        let volume = self.tables.volumes.get(&one.volume).ok_or("its volume is gone")?;
        let chunk = volume.chunks.get(&one.index).ok_or("its chunk is gone")?;
        let place = chunk.replicas.iter().find(|r| r.replica == one.replica).ok_or("the copy is not there any more")?;
        let to = self.tables.disks.get(&one.to).ok_or("its target is gone")?;
        if place.disk != one.from {
            return Err("the copy is elsewhere".into());
        }
        if chunk.replicas.iter().any(|r| r.disk == one.to) {
            return Err(format!("disk {} has a copy of the chunk already", one.to));
        }
        if to.state() != DiskState::InService || to.placed >= to.slots() {
            return Err(format!("disk {} takes nothing", one.to));
        }
        if volume.class.is_some_and(|class| class != to.class) {
            return Err(format!("disk {} is of another class", one.to));
        }
        if self.is_worse(chunk, place, to.node) {
            return Err(format!("the copies would be closer to each other with one on disk {}", one.to));
        }
        Ok(())
    }

    /// Whether a chunk's copies would be spread less if one went to this node.
    fn is_worse(&self, chunk: &Chunk, place: &ReplicaPlace, to: NodeId) -> bool {
        let others = || chunk.replicas.iter().filter(|r| r.replica != place.replica).map(|r| &r.node);
        let group = self.group_of(others());
        let leaves_group = group.is_some() && self.group_of([to].iter()) != group;
        let stays_in_group = self.group_of([place.node].iter()) == group;
        others().any(|node| *node == to)
            || self.crowd(to, others()) > self.crowd(place.node, others())
            || (leaves_group && stays_in_group)
    }

    /// Where the one more member of this chunk goes that its gateway asks for because of a move; `None`: it does so for another reason.
    pub(crate) fn due_move(&self, chunk: &Chunk, copies: usize, change: &ReplicaChange) -> Option<PlannedMove> {
        if !change.remove.is_empty() || change.add != 1 || chunk.replicas.len() != copies {
            return None;
        }
        let evacuated = |r: &ReplicaPlace| self.index.evacuate.contains_key(&r.disk);
        if chunk.replicas.iter().any(evacuated) {
            return None;
        }
        let under_way = &self.tables.rebalance.as_ref()?.under_way;
        chunk.replicas.iter().find_map(|r| under_way.get(&r.replica)).copied()
    }

    /// The target, if it can take the copy now. The node that the old copy is on does not count as taken.
    pub(crate) fn move_target(
        &self,
        one: &PlannedMove,
        taken: &Taken,
        room: &Room<'_>,
    ) -> Result<(NodeId, DiskId), String> {
        self.check_move(one)?;
        let node = self.tables.disks.get(&one.to).map(|d| d.node).ok_or("its target is gone")?;
        let from = self.tables.disks.get(&one.from).map(|d| d.node);
        let mut nodes = taken.nodes.clone();
        if let Some(from) = from {
            nodes.remove(&from);
        }
        let taken = Taken { nodes, last_resort: BTreeSet::new(), disks: taken.disks.clone(), chunk: taken.chunk };
        if room.takes(node, one.to, &taken) {
            Ok((node, one.to))
        } else {
            Err(format!("disk {} cannot take a copy now", one.to))
        }
    }

    /// Copies to be moved of the volumes that a node serves.
    pub(crate) fn move_intents(&self, node: NodeId) -> Vec<MoveReplica> {
        let Some(rebalance) = &self.tables.rebalance else { return Vec::new() };
        let served = |volume: &VolumeId| self.index.attached.get(&node).is_some_and(|volumes| volumes.contains(volume));
        let moves = rebalance.under_way.values().filter(|m| served(&m.volume));
        moves.map(|m| MoveReplica { volume: m.volume, replica: m.replica }).collect()
    }

    /// Volumes with moves under way.
    pub fn moving_volumes(&self) -> BTreeSet<VolumeId> {
        self.tables.rebalance.iter().flat_map(|r| r.under_way.values()).map(|m| m.volume).collect()
    }

    /// Moves under way.
    pub fn moves_under_way(&self) -> impl Iterator<Item = &PlannedMove> + '_ {
        self.tables.rebalance.iter().flat_map(|r| r.under_way.values())
    }

    fn touch_servers(&mut self, volumes: BTreeSet<VolumeId>) {
        let nodes: BTreeSet<NodeId> =
            volumes.iter().filter_map(|id| Some(self.tables.volumes.get(id)?.attachment.as_ref()?.node)).collect();
        nodes.into_iter().for_each(|node| self.touch(node));
    }

    pub fn rebalance_status(&self) -> RebalanceStatus {
        let Some(rebalance) = &self.tables.rebalance else { return RebalanceStatus::default() };
        RebalanceStatus {
            state: rebalance.state,
            goal: rebalance.goal,
            moves: rebalance.all.moves,
            done: rebalance.done.moves,
            under_way: rebalance.under_way.len() as u64,
            skipped: rebalance.skipped,
            bytes: rebalance.all.bytes,
            done_bytes: rebalance.done.bytes,
            started_ms: Some(rebalance.started_ms),
            ended_ms: rebalance.ended_ms,
            last_skip: rebalance.last_skip.clone(),
        }
    }
}
