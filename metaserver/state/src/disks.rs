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
use levee_proto::api::DiskState;

impl State {
    pub(crate) fn set_disk(&mut self, id: DiskId, to: DiskState, reason: Option<&str>, by: Decider) -> Outcome {
        let disk = self.tables.disks.get_mut(&id).ok_or_else(|| no_disk(id))?;
        let decision = Decision { by, reason: reason.map(Into::into) };
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
        self.refresh_evacuation([id]);
        self.disk_answer(id)
    }

    /// Brings the list of disks to evacuate up to date with these disks.
    pub(crate) fn refresh_evacuation(&mut self, disks: impl IntoIterator<Item = DiskId>) {
        let mut changed = false;
        for id in disks {
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
