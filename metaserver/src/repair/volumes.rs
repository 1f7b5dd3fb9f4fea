//! Volumes that nobody uses, and that only a gateway can put in order: each is attached to a node for repair, a few at
//! a time, until that is done.
//!
//! Some have copies on disks that are dead or being drained; they are searched for. A rebalance names others. Others have *chores*: snapshots to
//! complete, entries to drop that no snapshot needs, ancestors to copy; the state knows them. Somebody may wait for a
//! chore, so it waits neither for the search nor for repairs.
//!
//! All of them have their turn to be scrubbed (`scrubs.rs`).
//!
//! A repair that gets nowhere makes room for others, and is tried again later.

use super::View;
use super::scrubs::Scrubs;
use crate::limits::*;
use levee_meta_state::{Command, VolumeAttachment};
use levee_proto::VolumeId;
use levee_proto::api::{NodeState, ServeState, VolumeReport};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The repairs that this leader watches.
#[derive(Default)]
pub struct Repairs {
    /// How far the search for volumes has come.
    cursor: VolumeId,
    /// The volume whose chores were begun last.
    last_chore: VolumeId,
    watched: BTreeMap<VolumeId, Watched>,
    resting: BTreeMap<VolumeId, Rest>,
    scrubs: Scrubs,
}

/// A volume is left alone for a while.
struct Rest {
    until: Instant,
    /// Also with chores: the last attempt got nowhere.
    stalled: bool,
}

/// One repair.
struct Watched {
    attachment: u64,
    last: Option<Progress>,
    /// When the report last changed.
    moved: Instant,
    /// Since when nothing is left to do.
    done: Option<Instant>,
}

/// What moves while a repair gets somewhere.
#[derive(PartialEq)]
struct Progress {
    state: ServeState,
    degraded: u32,
    leaving: u32,
    copied: u64,
    versions: u64,
    scrubbed: u64,
    /// All of it was.
    is_scrubbed: bool,
}

/// What becomes of a repair.
#[derive(PartialEq)]
enum Verdict {
    GoesOn,
    Done,
    /// It is better tried elsewhere or later.
    Stalled,
}

impl Repairs {
    pub fn tend(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        let running: Vec<(VolumeId, VolumeAttachment)> = view.state.repairs().map(|(id, a)| (id, a.clone())).collect();
        self.watched.retain(|id, w| running.iter().any(|(other, a)| other == id && a.id == w.attachment));
        self.resting.retain(|_, rest| rest.until > view.now);
        self.scrubs.keep_running(|id| running.iter().any(|(other, _)| *other == id));
        for (id, attachment) in &running {
            let verdict = self.judge(view, *id, attachment);
            if verdict != Verdict::GoesOn {
                let rest = Rest { until: view.now + REPAIR_REST, stalled: verdict == Verdict::Stalled };
                self.resting.insert(*id, rest);
                commands.push(Command::DetachRepair { volume: *id, attachment: attachment.id });
            }
        }
        let chores = running.iter().filter(|(id, _)| view.state.has_chores(*id)).count();
        let mut begun = self.next_chores(view, MAX_CHORES.saturating_sub(chores));
        let scrubs =
            running.iter().filter(|(id, _)| self.scrubs.is_running(*id) && !view.state.has_chores(*id)).count();
        let slots = MAX_REPAIRS.saturating_sub(running.len() - chores - scrubs);
        if !view.state.is_maintained(view.now_ms) {
            let moving = self.to_move(view, slots);
            begun.extend(self.search(view, slots.saturating_sub(moving.len())));
            begun.extend(moving);
            let is_free = |id| !view.state.is_attached(id) && !self.resting.contains_key(&id) && !begun.contains(&id);
            let scrubs = self.scrubs.begin(view, is_free);
            begun.extend(scrubs);
        }
        begin(view, &begun, commands);
    }

    fn judge(&mut self, view: &View<'_>, id: VolumeId, attachment: &VolumeAttachment) -> Verdict {
        if view.observed.node_state(attachment.node, view.now) == NodeState::Down {
            return Verdict::Stalled;
        }
        let new = Watched { attachment: attachment.id, last: None, moved: view.now, done: None };
        let watched = self.watched.entry(id).or_insert(new);
        let has_work = |p: &Progress| view.state.has_chores(id) || (self.scrubs.is_running(id) && !p.is_scrubbed);
        watched.look(view.observed.report(view.state, id), has_work, view.now);
        let passed = |since: Instant| view.now.saturating_duration_since(since);
        if watched.done.is_some_and(|since| passed(since) >= REPAIR_SETTLED) {
            Verdict::Done
        } else if passed(watched.moved) >= REPAIR_STALL {
            Verdict::Stalled
        } else {
            Verdict::GoesOn
        }
    }

    /// Volumes with chores, in turn.
    fn next_chores(&mut self, view: &View<'_>, slots: usize) -> BTreeSet<VolumeId> {
        let tried = |id: &VolumeId| self.resting.get(id).is_none_or(|rest| !rest.stalled);
        let (before, after): (Vec<VolumeId>, Vec<VolumeId>) =
            view.state.chores().filter(tried).partition(|id| *id <= self.last_chore);
        let begun: Vec<VolumeId> = after.into_iter().chain(before).take(slots).collect();
        self.last_chore = begun.last().copied().unwrap_or(self.last_chore);
        begun.into_iter().collect()
    }

    /// Volumes with copies that a rebalance moves.
    fn to_move(&self, view: &View<'_>, slots: usize) -> Vec<VolumeId> {
        let is_free = |id: &VolumeId| !view.state.is_attached(*id) && !self.resting.contains_key(id);
        view.state.moving_volumes().into_iter().filter(is_free).take(slots).collect()
    }

    /// Volumes with copies to put elsewhere.
    fn search(&mut self, view: &View<'_>, slots: usize) -> Vec<VolumeId> {
        if slots == 0 {
            return Vec::new();
        }
        let scan = view.state.scan_for_repair(self.cursor, REPAIR_SCAN);
        let mut todo = scan.volumes.into_iter().filter(|id| !self.resting.contains_key(id));
        let begun: Vec<VolumeId> = todo.by_ref().take(slots).collect();
        // The search goes on where it stopped, so that each has its turn, however many get nowhere.
        self.cursor = match (todo.next(), begun.last()) {
            (Some(_), Some(last)) => *last,
            _ => scan.next.unwrap_or_default(),
        };
        begun
    }
}

fn begin(view: &View<'_>, volumes: &BTreeSet<VolumeId>, commands: &mut Vec<Command>) {
    let all = view.observed.best(view.state, view.now);
    let mut nodes = all.clone();
    for volume in volumes {
        let Some(node) = view.state.repairer(&nodes) else { return };
        // The next one goes elsewhere if it can.
        nodes.remove(&node);
        if nodes.is_empty() {
            nodes.clone_from(&all);
        }
        commands.push(Command::AttachRepair { volume: *volume, node });
    }
}

impl Watched {
    fn look(&mut self, report: Option<&VolumeReport>, has_work: impl Fn(&Progress) -> bool, now: Instant) {
        let progress = report.map(|r| Progress {
            state: r.state,
            degraded: r.degraded_chunks,
            leaving: r.leaving_replicas,
            copied: r.copied_bytes,
            versions: r.versions_progress,
            scrubbed: r.scrubbed_blocks,
            is_scrubbed: r.scrub_passes > 0,
        });
        let whole = progress.as_ref().is_some_and(|p| p.is_done() && !has_work(p));
        self.done = if whole { self.done.or(Some(now)) } else { None };
        if self.last != progress {
            self.last = progress;
            self.moved = now;
        }
    }
}

impl Progress {
    fn is_done(&self) -> bool {
        self.state == ServeState::Serving && self.degraded == 0 && self.leaving == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Observed;
    use crate::repair::Policy;
    use levee_meta_state::{Answer, Decider, State};
    use levee_proto::api::*;
    use levee_proto::{CHUNK_SIZE, DiskId, NodeId};
    use std::time::Duration;
    use uuid::Uuid;

    fn apply(state: &mut State, command: Command) -> Answer {
        state.apply(&command).expect("a command that is fine")
    }

    /// A node whose only disk is drained, and `volumes` detached volumes with a chunk on it.
    fn drained(volumes: usize) -> State {
        let mut state = State::default();
        apply(&mut state, Command::Found { cluster: Uuid::from_u128(1) });
        let disk = RegisterDisk {
            uuid: Uuid::from_u128(2),
            path: "/d".into(),
            capacity: 100 * CHUNK_SIZE,
            shards: 1,
            class: DiskClass::default(),
        };
        let incarnation = Uuid::from_u128(3);
        let node = RegisterNode {
            name: "n1".into(),
            incarnation,
            admin_url: "http://h:1".into(),
            cores: vec!["h:2".into()],
            cluster: None,
            disks: vec![disk],
            zone: None,
            rack: None,
            leave_out_removed: false,
            locks: Vec::new(),
            missing: Vec::new(),
            seen: Default::default(),
        };
        apply(&mut state, Command::RegisterNode(node));
        let alive = BTreeSet::from([NodeId(1)]);
        for i in 0..volumes {
            let name = format!("v{i}");
            let create = CreateVolume { name: name.clone(), size: CHUNK_SIZE, copies: 1, min_copies: 1, class: None };
            apply(&mut state, Command::CreateVolume(create));
            let attached = Command::Attach { name: name.clone(), node: None, alive: alive.clone() };
            let Answer::Volume(info) = apply(&mut state, attached) else { panic!("not a volume") };
            let attachment = info.attachment.expect("attached").attachment;
            let request = OpenVolume { node: NodeId(1), incarnation, attachment, fenced: None };
            let Answer::Opened(opened) = apply(&mut state, Command::Open { name: name.clone(), request }) else {
                panic!("not opened")
            };
            let request = AllocateChunks { epoch: opened.epoch, indexes: vec![0] };
            apply(
                &mut state,
                Command::Allocate { name: name.clone(), request, alive: alive.clone(), full: Default::default() },
            );
            apply(&mut state, Command::Detach { name });
        }
        let (disk, to, by) = (DiskId(1), DiskState::Draining, Decider::Operator);
        apply(&mut state, Command::SetDisk { disk, state: to, reason: None, by });
        state
    }

    #[test]
    fn a_volume_that_nobody_uses_has_its_turn_to_be_scrubbed() {
        let mut state = drained(1);
        let (disk, to, by) = (DiskId(1), DiskState::InService, Decider::Operator);
        apply(&mut state, Command::SetDisk { disk, state: to, reason: None, by });
        let policy = Policy { down_after: Duration::from_secs(3600), after: Duration::from_secs(3600), rate: None };
        let now = Instant::now();
        let mut observed = Observed::new(1, now, policy.down_after);
        observed.registered(NodeId(1), Vec::new(), BTreeSet::new(), now);
        let mut repairs = Repairs::default();
        let mut begun = vec![];
        for minute in 0..2 * SCRUB_PERIOD_MINUTES {
            let mut commands = Vec::new();
            let now_ms = minute * 60_000;
            repairs.tend(&View { state: &state, observed: &observed, policy, now, now_ms }, &mut commands);
            begun.extend(commands.iter().map(|_| minute));
            assert!(commands.iter().all(|c| matches!(c, Command::AttachRepair { volume: VolumeId(1), .. })));
            // Not carried out: it is as if somebody used it meanwhile.
        }
        assert!(matches!(&begun[..], [first, second] if second - first == SCRUB_PERIOD_MINUTES), "{begun:?}");
    }

    #[test]
    fn repairs_that_get_nowhere_keep_up_nobody() {
        let mut state = drained(MAX_REPAIRS + 2);
        let policy = Policy { down_after: Duration::from_secs(3600), after: Duration::from_secs(3600), rate: None };
        let start = Instant::now();
        let mut observed = Observed::new(1, start, policy.down_after);
        observed.registered(NodeId(1), vec![], BTreeSet::new(), start);
        let mut repairs = Repairs::default();
        let mut tend = |state: &mut State, now: Instant| {
            let mut commands = Vec::new();
            repairs.tend(&View { state, observed: &observed, policy, now, now_ms: 0 }, &mut commands);
            commands.iter().for_each(|c| drop(apply(state, c.clone())));
            let attached = |c: &Command| match c {
                Command::AttachRepair { volume, .. } => Some(volume.0),
                _ => None,
            };
            (commands.len(), commands.iter().filter_map(attached).collect::<Vec<_>>())
        };
        assert_eq!(tend(&mut state, start), (4, vec![1, 2, 3, 4]));
        assert_eq!(tend(&mut state, start), (0, vec![]));
        let later = start + REPAIR_STALL;
        assert_eq!(tend(&mut state, later), (4, vec![]), "they make room");
        assert_eq!(tend(&mut state, later), (2, vec![5, 6]));
        assert_eq!(tend(&mut state, later), (0, vec![]), "the first ones rest");
        assert_eq!(tend(&mut state, later + REPAIR_REST).1, [1, 2]);
    }
}
