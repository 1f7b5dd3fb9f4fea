//! Faults of disks.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Done, Injector, last, node_name};
use crate::faults::disk::FaultDisk;
use crate::faults::disk::rules::{Access, Trouble};
use crate::faults::fill::Filler;
use crate::faults::rot::{flip_bits, some_blocks};
use crate::faults::schedule::{DiskError, Who};
use crate::rng::Rng;

/// How long an access that is to fail is waited for.
const STRIKE_LIMIT: Duration = Duration::from_secs(2);
/// What a write to a slow disk takes: longer than a gateway waits for a copy that it can do without.
const SLOW: Duration = Duration::from_millis(1500);
/// What volumes that fill disks are called.
const FILLER: &str = "filler";
/// How long a volume may take to be detached and deleted.
const DELETE_LIMIT: Duration = Duration::from_secs(30);

impl Injector<'_> {
    pub(super) fn fail_disk(&self, node: usize, error: DiskError) -> Result<Done> {
        let disk = self.disk(node)?;
        let (label, trouble, time) = match error {
            DiskError::OneRead => ("disk: one read fails", one(Access::Read), STRIKE_LIMIT),
            DiskError::OneWrite => ("disk: one write fails", one(Access::Write), STRIKE_LIMIT),
            DiskError::Reads(time) => ("disk: reads fail", Trouble::FailReads, time),
            DiskError::All(time) => ("disk: all fails", Trouble::FailAll, time),
            DiskError::Good(time) => ("disk: fails for good", Trouble::FailAll, time),
        };
        disk.rules.set(trouble);
        last(time);
        let replaced = matches!(error, DiskError::Good(_));
        let struck = match replaced {
            false => disk.rules.clear(),
            true => self.kill_and(&self.find(Who::Node(node), None)?, || Ok(disk.rules.clear()))?,
        };
        let done = self.disk_done(label, node, time, struck);
        Ok(Done { down: replaced.then_some(Duration::ZERO), ..done })
    }

    pub(super) fn stall_disk(&self, node: usize, time: Duration) -> Result<Done> {
        let disk = self.disk(node)?;
        disk.rules.set(Trouble::Stall { until: Instant::now() + time });
        last(time);
        let struck = disk.rules.clear();
        let label = match time.as_millis() {
            0..1000 => "disk: stalls 100 ms",
            1000..5000 => "disk: stalls 2 s",
            _ => "disk: stalls 10 s",
        };
        Ok(self.disk_done(label, node, time, struck))
    }

    /// So many disks, from that of `node` on.
    pub(super) fn slow_disks(&self, node: usize, count: usize, time: Duration) -> Result<Done> {
        let nodes: Vec<usize> = (0..count).map(|i| (node + i) % self.nodes).collect();
        let disks = nodes.iter().map(|n| self.disk(*n)).collect::<Result<Vec<_>>>()?;
        disks.iter().for_each(|disk| disk.rules.set(Trouble::Slow { each: SLOW }));
        last(time);
        let struck: u64 = disks.iter().map(|disk| disk.rules.clear()).sum();
        let label = match self.nodes - count {
            0 => "disks: all slow",
            1 => "disks: all but one slow",
            _ => "disk: slow",
        };
        let detail = format!("{} ms a write for {} ms, {struck} writes", SLOW.as_millis(), time.as_millis());
        // No disk may be given up for it.
        Ok(Done::new(label, nodes.into_iter().map(node_name).collect(), detail))
    }

    fn disk_done(&self, label: &'static str, node: usize, time: Duration, struck: u64) -> Done {
        let name = node_name(node);
        let detail = format!("for {} ms, {struck} accesses struck", time.as_millis());
        Done { disk: true, ..Done::new(label, vec![name], detail) }
    }

    pub(super) fn corrupt(&self, node: usize, blocks: u32, down: bool, choice: u64) -> Result<Done> {
        let backing = self.disk(node)?.backing();
        let flip = || flip_bits(backing, blocks, &mut Rng::new(choice));
        let (label, flipped) = match down {
            false => ("rot under a daemon", flip()?),
            true => ("rot while down", self.kill_and(&self.find(Who::Node(node), None)?, flip)?),
        };
        let done = Done::new(label, vec![node_name(node)], format!("{flipped} blocks"));
        Ok(Done { down: down.then_some(Duration::ZERO), rot: true, ..done })
    }

    pub(super) fn spoil_sectors(&self, node: usize, blocks: u32, down: bool, choice: u64) -> Result<Done> {
        let disk = self.disk(node)?;
        let spoil = || {
            let places = some_blocks(disk.backing(), blocks, &mut Rng::new(choice))?;
            let spoiled = places.len();
            disk.rules.make_unreadable(places);
            Ok(spoiled)
        };
        let (label, spoiled) = match down {
            false => ("bad sectors under a daemon", spoil()?),
            true => ("bad sectors while down", self.kill_and(&self.find(Who::Node(node), None)?, spoil)?),
        };
        let done = Done::new(label, vec![node_name(node)], format!("{spoiled} blocks"));
        Ok(Done { down: down.then_some(Duration::ZERO), disk: true, rot: true, ..done })
    }

    pub(super) fn fill_disks(&self, time: Duration) -> Result<Done> {
        // Two at a time would get into each other's way; the second finds the disks free again.
        let mut number = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        *number += 1;
        let volume = format!("{FILLER}-{number}");
        // More than fits in two copies.
        self.cluster.create_volume(&volume, self.disk_size * self.nodes as u64 / 2)?;
        let attached = self.cluster.attach(&volume)?;
        let mut filler = Filler::connect(&attached.socket)?;
        let filled = filler.fill()?;
        filler.hold(time)?;
        filler.free()?;
        self.cluster.delete_volume(&volume, DELETE_LIMIT)?;
        let detail = format!("{} MiB written, full for {} ms", filled >> 20, time.as_millis());
        Ok(Done::new("disks full", (0..self.nodes).map(node_name).collect(), detail))
    }

    fn disk(&self, node: usize) -> Result<&FaultDisk> {
        self.disks.get(node).with_context(|| format!("the disk of {} cannot be made to fail", node_name(node)))
    }
}

fn one(access: Access) -> Trouble {
    Trouble::FailSome { access, left: 1 }
}
