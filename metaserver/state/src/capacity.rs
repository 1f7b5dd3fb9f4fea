//! What volumes may come to hold, and the limits that operators set to it.
//!
//! A volume counts with its size times its copies from the moment it is created, a clone like any other: all of it may be written.
//! Those that cannot be written do not count: deleted ones whose clones need what they hold, snapshots that are attached, mirrors.
//! [`Index::provisioned`](crate::state::Index) is the sum.

use crate::command::{Outcome, invalid};
use crate::limits::MAX_PERCENT;
use crate::state::State;
use crate::tables::Volume;
use levee_proto::api::*;
use levee_proto::units::{show_ratio, show_size};

/// What a volume of this size may come to take of the disks.
pub(crate) fn promised(size: u64, copies: u8) -> u128 {
    u128::from(size) * u128::from(copies)
}

/// The same of a volume that exists.
pub(crate) fn promised_to(volume: &Volume) -> u128 {
    if volume.is_hidden() || volume.read_only { 0 } else { promised(volume.size, volume.copies) }
}

/// What cannot be wrong about limits by themselves.
pub(crate) fn validate_limits(change: &ChangeLimits) -> Result<(), Problem> {
    let check = |what: &str, limit: Option<Limit>, most: u32| match limit.and_then(Limit::percent) {
        Some(percent) if !(1..=most).contains(&percent) => {
            Err(invalid(format!("{percent} % is no limit for {what}: 1 to {most} % are allowed, or none")))
        }
        _ => Ok(()),
    };
    check("over-provisioning", change.over_provision, MAX_OVER_PROVISION_PERCENT)?;
    check("warnings", change.warn, MAX_PERCENT)?;
    check("full", change.full, MAX_PERCENT)
}

impl State {
    /// All at once, or none.
    pub(crate) fn set_limits(&mut self, change: &ChangeLimits) -> Outcome {
        let mut limits = self.tables.limits;
        let small = |limit: Limit| limit.percent().and_then(|percent| u8::try_from(percent).ok());
        limits.over_provision_percent = change.over_provision.map_or(limits.over_provision_percent, Limit::percent);
        limits.warn_percent = change.warn.map_or(limits.warn_percent, small);
        limits.full_percent = change.full.map_or(limits.full_percent, small);
        if let (Some(warn), Some(full)) = (limits.warn_percent, limits.full_percent)
            && warn > full
        {
            return Err(invalid(format!("a warning at {warn} % comes too late where {full} % count as full")));
        }
        if self.tables.limits != limits {
            self.tell(EventKind::Cluster, "cluster", "has other limits to its capacity");
        }
        self.tables.limits = limits;
        Ok(crate::command::Answer::Done)
    }

    pub fn limits(&self) -> CapacityLimits {
        self.tables.limits
    }

    /// Bytes of the disks in service.
    pub fn capacity(&self) -> u64 {
        let in_service = self.tables.disks.values().filter(|d| d.state() == DiskState::InService);
        in_service.fold(0, |sum, disk| sum.saturating_add(disk.capacity))
    }

    /// What all volumes together may come to take, bytes.
    pub fn provisioned(&self) -> u128 {
        self.index.provisioned
    }

    /// The most that this may be.
    pub fn provisionable(&self) -> Option<u128> {
        let percent = self.tables.limits.over_provision_percent?;
        Some(u128::from(self.capacity()) * u128::from(percent) / 100)
    }

    /// Refuses to promise so many bytes more. `what` begins the sentence that says so.
    pub(crate) fn check_provision(&self, what: impl FnOnce() -> String, more: u128) -> Result<(), Problem> {
        let (Some(most), Some(percent)) = (self.provisionable(), self.tables.limits.over_provision_percent) else {
            return Ok(());
        };
        let sum = self.index.provisioned.saturating_add(more);
        if sum <= most || more == 0 {
            return Ok(());
        }
        Err(Problem::new(
            ProblemKind::NoSpace,
            format!(
                "{}: volumes would have {} in all copies, more than the {} that are allowed on {} of disks in service ({} times): \
                 add disks or nodes, delete volumes, or allow more with `levee cluster limits --over-provision`",
                what(),
                show(sum),
                show(most),
                show_size(self.capacity()),
                show_ratio(percent.into())
            ),
        ))
    }
}

fn show(bytes: u128) -> String {
    show_size(u64::try_from(bytes).unwrap_or(u64::MAX))
}
