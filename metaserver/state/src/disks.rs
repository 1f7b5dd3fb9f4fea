//! Disks in and out of service.
//!
//! Each of three parties can say that a disk is lost: the leader when its node was not heard of for long,
//! its daemon when the disk fails, an operator. The strongest word stands: silence is over when the node
//! is back, a failure and an operator's decision last until an operator says otherwise. Draining is the
//! operator's alone.
//!
//! [`Index::evacuate`](crate::state::Index) lists the disks that gateways should move replicas away from; it is part
//! of every node's intent.

use crate::command::{Answer, Decider, Outcome, invalid};
use crate::state::{State, leaving};
use crate::tables::{Decision, Disk};
use crate::view::no_disk;
use levee_proto::DiskId;
use levee_proto::api::{DiskState, EventKind, Severity};

impl State {
    pub(crate) fn set_disk(&mut self, id: DiskId, to: DiskState, reason: Option<&str>, by: Decider) -> Outcome {
        let disk = self.tables.disks.get_mut(&id).ok_or_else(|| no_disk(id))?;
        let decision = Decision { by, reason: reason.map(Into::into) };
        let before = disk.state();
        match to {
            DiskState::InService => revive(disk, by),
            DiskState::Draining if by == Decider::Operator => {
                disk.death = None;
                disk.drain = Some(decision);
            }
            DiskState::Draining => return Err(invalid(format!("disk {id} is drained by operators only"))),
            DiskState::Dead if by == Decider::Operator || disk.death.as_ref().is_none_or(|d| d.by < by) => {
                disk.death = Some(decision);
            }
            DiskState::Dead => {}
        }
        let now = disk.state();
        self.refresh_evacuation([id]);
        if now != before {
            self.disk_moved(id, now, reason);
        }
        self.disk_answer(id)
    }

    fn disk_moved(&mut self, id: DiskId, now: DiskState, reason: Option<&str>) {
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let (severity, text) = match now {
            DiskState::InService => (Severity::Info, "is in service again"),
            DiskState::Draining => (Severity::Info, "is being emptied"),
            DiskState::Dead => (Severity::Error, "counts as lost, its copies are made anew elsewhere"),
        };
        self.note(EventKind::Disk, severity, id.to_string(), format!("{text}{why}"));
    }

    /// Brings the list of disks to evacuate up to date with these disks.
    pub(crate) fn refresh_evacuation(&mut self, disks: impl IntoIterator<Item = DiskId>) {
        let mut changed = false;
        for id in disks {
            if self.tables.disks.get(&id).is_some_and(|disk| disk.state() != DiskState::InService) {
                self.skip_moves_to(id);
            }
            let now = self.tables.disks.get(&id).and_then(leaving);
            let before = match now {
                Some(state) => self.index.evacuate.insert(id, state),
                None => self.index.evacuate.remove(&id),
            };
            changed |= before != now;
        }
        if changed {
            self.touch_all();
        }
    }

    pub(crate) fn set_background_rate(&mut self, rate: Option<u64>) -> Answer {
        if self.tables.background_rate != rate {
            self.tables.background_rate = rate;
            self.touch_all();
        }
        Answer::Done
    }
}

fn revive(disk: &mut Disk, by: Decider) {
    if by == Decider::Operator {
        disk.drain = None;
    }
    if disk.death.as_ref().is_some_and(|d| d.by <= by) {
        disk.death = None;
    }
}
