//! Which copies to move so that disks are used alike: a plan, made on a copy of the state.
//!
//! Every disk has a target: its share of what all disks hold, by size and weight. Copies go from disks above their target to disks below
//! theirs, the largest first, and never so many that a disk crosses its target by more than the tolerance: so what is moved is
//! hardly more than what lies above the targets. No move brings a chunk's copies closer to each other, also not together with
//! those before it in the plan.
//!
//! With goal `load` the same is done with what guests ask of copies in place of what they hold, as far as it is known, and
//! no disk is filled beyond what the goal `space` would allow.

use crate::snapshot_file::Frozen;
use crate::state::State;
use crate::tables::{Chunk, Disk};
use crate::what_if::Surroundings;
use levee_proto::api::*;
use levee_proto::{DiskId, ReplicaId, VolumeId};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of copies beside the state.
pub struct Weights {
    pub around: Surroundings,
    /// Bytes of copies. Those that are missing count as the mean of their disk.
    pub bytes: BTreeMap<ReplicaId, u64>,
    /// What guests ask of chunks; of those that are missing, nothing.
    pub load: BTreeMap<(VolumeId, u32), Load>,
}

/// How to plan.
#[derive(Clone, Copy)]
pub struct Bounds {
    pub goal: RebalanceGoal,
    pub tolerance_percent: u8,
    pub max_bytes: u64,
    pub max_moves: usize,
}

/// One copy, and what it weighs.
#[derive(Clone, Copy)]
struct Candidate {
    volume: VolumeId,
    index: u32,
    replica: ReplicaId,
    bytes: u64,
    /// What is to be made even: bytes, or load.
    amount: u64,
}

/// One disk as the plan goes on.
#[derive(Clone, Copy)]
struct Side {
    before: u64,
    amount: u64,
    target: u64,
    /// Bytes now, and how many there may be.
    used: u64,
    used_before: u64,
    used_limit: u64,
    load: Load,
    load_before: Load,
}

struct Planner<'a> {
    /// With the moves so far carried out.
    state: State,
    weights: &'a Weights,
    bounds: Bounds,
    sides: BTreeMap<DiskId, Side>,
    moved: BTreeSet<ReplicaId>,
    moves: Vec<PlannedMove>,
    bytes: u64,
    cut: bool,
}

impl Frozen {
    /// The plan with all of its moves. Slow where there are many chunks: it looks at all of them.
    pub fn plan_rebalance(self, weights: &Weights, bounds: Bounds) -> RebalancePlan {
        let state = State::of_tables(self.into_tables());
        let mut candidates = state.candidates(weights, bounds.goal);
        let sides = state.sides(weights, bounds, &candidates);
        let mut planner =
            Planner { state, weights, bounds, sides, moved: BTreeSet::new(), moves: Vec::new(), bytes: 0, cut: false };
        // Exactly to the targets first; then what is still beyond the tolerance may go a little below.
        for slack in [0, u64::from(bounds.tolerance_percent)] {
            planner.pass(&mut candidates, slack);
        }
        planner.finish()
    }
}

impl State {
    fn candidates(&self, weights: &Weights, goal: RebalanceGoal) -> BTreeMap<DiskId, Vec<Candidate>> {
        let mut candidates: BTreeMap<DiskId, Vec<Candidate>> = BTreeMap::new();
        for (id, volume) in self.tables.volumes.iter() {
            for (index, chunk) in &volume.chunks {
                // One that has a member too many or too few is being changed already.
                if chunk.replicas.len() != usize::from(volume.copies) {
                    continue;
                }
                for place in &chunk.replicas {
                    let bytes = weights.bytes.get(&place.replica).copied();
                    let bytes = bytes.unwrap_or_else(|| self.mean_copy(place.disk, &weights.around));
                    let amount = match goal {
                        RebalanceGoal::Space => bytes,
                        RebalanceGoal::Load => weights.load_of(*id, *index, chunk.replicas.len()),
                    };
                    let (volume, index, replica) = (*id, *index, place.replica);
                    let one = Candidate { volume, index, replica, bytes, amount };
                    candidates.entry(place.disk).or_default().push(one);
                }
            }
        }
        for list in candidates.values_mut() {
            list.sort_by_key(|one| (std::cmp::Reverse(one.amount), one.bytes, one.replica));
        }
        candidates
    }

    /// Disks that may give and take.
    fn sides(
        &self,
        weights: &Weights,
        bounds: Bounds,
        all: &BTreeMap<DiskId, Vec<Candidate>>,
    ) -> BTreeMap<DiskId, Side> {
        let around = &weights.around;
        let usable = |disk: &Disk| disk.state() == DiskState::InService && around.alive.contains(&disk.node);
        let disks: Vec<(DiskId, &Disk)> =
            self.tables.disks.iter().filter(|(_, disk)| usable(disk)).map(|(id, disk)| (*id, disk)).collect();
        // What daemons say need not fit to each other.
        let amounts = |id: DiskId| all.get(&id).into_iter().flatten().map(|one| one.amount);
        let held = |id: DiskId| amounts(id).fold(0, u64::saturating_add);
        let used = |id: DiskId| around.used.get(&id).copied().unwrap_or(0);
        let amount = |id: DiskId| match bounds.goal {
            RebalanceGoal::Space => used(id),
            RebalanceGoal::Load => held(id),
        };
        let size = |disk: &Disk| u128::from(disk.capacity) * u128::from(disk.weight);
        let share = |disk: &Disk| match bounds.goal {
            RebalanceGoal::Space => size(disk),
            // A large disk is not a faster one.
            RebalanceGoal::Load => u128::from(disk.weight),
        };
        let sum: u128 = disks.iter().map(|(id, _)| u128::from(amount(*id))).sum();
        let shares: u128 = disks.iter().map(|(_, disk)| share(disk)).sum::<u128>().max(1);
        let (sum_used, sizes): (u128, u128) =
            disks.iter().fold((0, 0), |(used_, sizes), (id, disk)| (used_ + u128::from(used(*id)), sizes + size(disk)));
        let percent = 100 + 2 * u128::from(bounds.tolerance_percent);
        let side = |(id, disk): (DiskId, &Disk)| {
            let target = saturated(scaled(sum, share(disk), shares));
            let fair = scaled(sum_used, size(disk), sizes.max(1)) * percent / 100;
            let load = self.disk_load(id, weights, all);
            let side = Side {
                before: amount(id),
                amount: amount(id),
                target,
                used: used(id),
                used_before: used(id),
                used_limit: saturated(fair).min(disk.capacity),
                load,
                load_before: load,
            };
            (id, side)
        };
        disks.into_iter().map(side).collect()
    }

    fn disk_load(&self, id: DiskId, weights: &Weights, all: &BTreeMap<DiskId, Vec<Candidate>>) -> Load {
        let loads = all.get(&id).into_iter().flatten().filter_map(|one| weights.load.get(&(one.volume, one.index)));
        loads.fold(Load::default(), |sum, load| sum.plus(load))
    }
}

/// `amount * part / whole`, where the product may not fit.
fn scaled(amount: u128, part: u128, whole: u128) -> u128 {
    match amount.checked_mul(part) {
        Some(product) => product / whole,
        None => amount / whole * part,
    }
}

fn saturated(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl Weights {
    /// All copies take the writes and share the reads. Bytes count as requests of 64 KiB: a stream is work, too.
    fn load_of(&self, volume: VolumeId, index: u32, copies: usize) -> u64 {
        let Some(load) = self.load.get(&(volume, index)) else { return 0 };
        let work = |requests: u64, bytes: u64| requests.saturating_add(bytes >> 16);
        work(load.writes, load.write_bytes).saturating_add(work(load.reads, load.read_bytes) / copies.max(1) as u64)
    }
}

impl Side {
    fn limit(&self, percent: u64) -> u64 {
        saturated(u128::from(self.target) * u128::from(100 + percent) / 100)
    }

    fn floor(&self, percent: u64) -> u64 {
        saturated(u128::from(self.target) * u128::from(100_u64.saturating_sub(percent)) / 100)
    }

    /// In thousandths of the target.
    fn ratio(&self, amount: u64) -> u64 {
        saturated(u128::from(amount) * 1000 / u128::from(self.target.max(1)))
    }
}

impl Planner<'_> {
    /// Goes through the disks above their targets, the fullest first. `slack`: how far below its target a disk may come.
    fn pass(&mut self, candidates: &mut BTreeMap<DiskId, Vec<Candidate>>, slack: u64) {
        let mut sources: Vec<(DiskId, u64)> =
            self.sides.iter().map(|(id, side)| (*id, side.ratio(side.amount))).collect();
        sources.sort_by_key(|(id, ratio)| (std::cmp::Reverse(*ratio), *id));
        for (from, _) in sources {
            let list = candidates.remove(&from).unwrap_or_default();
            for one in &list {
                if self.moves.len() >= self.bounds.max_moves || self.bytes >= self.bounds.max_bytes {
                    self.cut = true;
                    return;
                }
                self.consider(from, one, slack);
            }
            candidates.insert(from, list);
        }
    }

    fn consider(&mut self, from: DiskId, one: &Candidate, slack: u64) {
        let source = self.sides[&from];
        let tolerance = u64::from(self.bounds.tolerance_percent);
        let is_over = source.amount > source.limit(tolerance);
        if one.amount == 0
            || self.moved.contains(&one.replica)
            || source.amount <= source.target
            || (slack > 0 && !is_over)
        {
            return;
        }
        if source.amount.saturating_sub(one.amount) < source.floor(slack)
            || self.bytes + one.bytes > self.bounds.max_bytes
        {
            return;
        }
        if let Some(to) = self.target(from, one, is_over) {
            self.take(from, to, one);
        }
    }

    /// The disk that has least of what it should have, and can take the copy.
    fn target(&self, from: DiskId, one: &Candidate, is_over: bool) -> Option<DiskId> {
        let tolerance = u64::from(self.bounds.tolerance_percent);
        let fits = |id: &DiskId, side: &Side| {
            let after = side.amount.saturating_add(one.amount);
            let lacks = side.amount < side.floor(tolerance);
            *id != from
                && (is_over || lacks)
                && after <= side.limit(tolerance / 2)
                && side.used.saturating_add(one.bytes) <= side.used_limit
                && !self.weights.around.full.contains(id)
        };
        let mut fitting: Vec<(u64, DiskId)> = self
            .sides
            .iter()
            .filter(|(id, side)| fits(id, side))
            .map(|(id, side)| (side.ratio(side.amount), *id))
            .collect();
        fitting.sort_unstable();
        let to = |id: DiskId| PlannedMove {
            volume: one.volume,
            index: one.index,
            replica: one.replica,
            from,
            to: id,
            bytes: one.bytes,
        };
        fitting.into_iter().map(|(_, id)| id).find(|id| self.state.check_move(&to(*id)).is_ok())
    }

    fn take(&mut self, from: DiskId, to: DiskId, one: &Candidate) {
        let load = self.weights.load.get(&(one.volume, one.index)).copied().unwrap_or_default();
        if let Some(side) = self.sides.get_mut(&from) {
            side.amount = side.amount.saturating_sub(one.amount);
            side.used = side.used.saturating_sub(one.bytes);
            side.load = side.load.minus(&load);
        }
        if let Some(side) = self.sides.get_mut(&to) {
            side.amount = side.amount.saturating_add(one.amount);
            side.used = side.used.saturating_add(one.bytes);
            side.load = side.load.plus(&load);
        }
        self.moved.insert(one.replica);
        self.relocate(one, to);
        self.bytes = self.bytes.saturating_add(one.bytes);
        let (volume, index, replica, bytes) = (one.volume, one.index, one.replica, one.bytes);
        self.moves.push(PlannedMove { volume, index, replica, from, to, bytes });
    }

    fn relocate(&mut self, one: &Candidate, to: DiskId) {
        let node = self.state.tables.disks.get(&to).map(|disk| disk.node);
        let volume = self.state.tables.volumes.get_mut(&one.volume);
        let chunk: Option<&mut Chunk> = volume.and_then(|volume| volume.chunks.get_mut(&one.index));
        let place = chunk.and_then(|chunk| chunk.replicas.iter_mut().find(|r| r.replica == one.replica));
        if let (Some(place), Some(node)) = (place, node) {
            (place.disk, place.node) = (to, node);
        }
    }

    fn finish(self) -> RebalancePlan {
        let worst =
            |amount: fn(&Side) -> u64| self.sides.values().map(|side| side.ratio(amount(side))).max().unwrap_or(1000);
        let (imbalance_before, imbalance_after) = (worst(|side| side.before), worst(|side| side.amount));
        let disk = |(id, side): (&DiskId, &Side)| {
            let disk = self.state.disk(*id)?;
            Some(DiskForecast {
                disk: *id,
                node: disk.node,
                state: disk.state(),
                capacity: disk.capacity,
                before: side.used_before,
                after: side.used,
                load_before: side.load_before,
                load_after: side.load,
            })
        };
        let limit = 1000 + 10 * u64::from(self.bounds.tolerance_percent);
        let remark = match () {
            () if self.cut => Some("the plan was cut off: more is to be moved when it is done".to_string()),
            () if imbalance_after > limit => Some(
                "nothing else can be moved: copies are too large for the difference, or would come too close to each other".into(),
            ),
            () => None,
        };
        RebalancePlan {
            goal: self.bounds.goal,
            count: self.moves.len() as u64,
            bytes: self.bytes,
            seconds: None,
            imbalance_before,
            imbalance_after,
            disks: self.sides.iter().filter_map(disk).collect(),
            moves: self.moves,
            remark,
        }
    }
}
