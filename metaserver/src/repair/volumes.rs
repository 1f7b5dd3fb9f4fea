//! Volumes that nobody uses, with copies on disks that are dead or being drained: each is attached to a node for
//! repair, a few at a time, until its gateway has put them elsewhere.
//!
//! A repair that gets nowhere makes room for others, and is tried again later.

use super::View;
use crate::limits::*;
use levee_meta_state::{Command, VolumeAttachment};
use levee_proto::VolumeId;
use levee_proto::api::{NodeState, ServeState, VolumeReport};
use std::collections::BTreeMap;
use std::time::Instant;

/// The repairs that this leader watches.
#[derive(Default)]
pub struct Repairs {
    /// How far the search for volumes has come.
    cursor: VolumeId,
    watched: BTreeMap<VolumeId, Watched>,
    /// Volumes that are left alone until then.
    resting: BTreeMap<VolumeId, Instant>,
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
}

impl Repairs {
    pub fn tend(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        let running: Vec<(VolumeId, VolumeAttachment)> = view.state.repairs().map(|(id, a)| (id, a.clone())).collect();
        self.watched.retain(|id, w| running.iter().any(|(other, a)| other == id && a.id == w.attachment));
        self.resting.retain(|_, until| *until > view.now);
        for (id, attachment) in &running {
            if self.is_over(view, *id, attachment) {
                self.resting.insert(*id, view.now + REPAIR_REST);
                commands.push(Command::DetachRepair { volume: *id, attachment: attachment.id });
            }
        }
        self.begin(view, MAX_REPAIRS.saturating_sub(running.len()), commands);
    }

    /// Whether the repair is done, or better tried elsewhere or later.
    fn is_over(&mut self, view: &View<'_>, id: VolumeId, attachment: &VolumeAttachment) -> bool {
        if view.observed.node_state(attachment.node, view.now) == NodeState::Down {
            return true;
        }
        let new = Watched { attachment: attachment.id, last: None, moved: view.now, done: None };
        let watched = self.watched.entry(id).or_insert(new);
        let report = view.observed.report(view.state, id);
        watched.look(report, view.now);
        let passed = |since: Instant| view.now.saturating_duration_since(since);
        watched.done.is_some_and(|since| passed(since) >= REPAIR_SETTLED) || passed(watched.moved) >= REPAIR_STALL
    }

    fn begin(&mut self, view: &View<'_>, slots: usize, commands: &mut Vec<Command>) {
        if slots == 0 {
            return;
        }
        let scan = view.state.scan_for_repair(self.cursor, REPAIR_SCAN);
        let mut todo = scan.volumes.into_iter().filter(|id| !self.resting.contains_key(id));
        let begun: Vec<VolumeId> = todo.by_ref().take(slots).collect();
        let more = todo.next().is_some();
        if !more {
            self.cursor = scan.next.unwrap_or_default();
        }
        let mut nodes = view.observed.best(view.state, view.now);
        for volume in begun {
            let Some(node) = view.state.repairer(&nodes) else { return };
            // The next one goes elsewhere if it can.
            if nodes.len() > 1 {
                nodes.remove(&node);
            }
            commands.push(Command::AttachRepair { volume, node });
        }
    }
}

impl Watched {
    fn look(&mut self, report: Option<&VolumeReport>, now: Instant) {
        let progress = report.map(|r| Progress {
            state: r.state,
            degraded: r.degraded_chunks,
            leaving: r.leaving_replicas,
            copied: r.copied_bytes,
        });
        let whole = progress.as_ref().is_some_and(Progress::is_done);
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
