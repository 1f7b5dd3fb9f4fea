//! What would become of copies if disks were emptied or lost, found out on a copy of the state.

use crate::command::Decider;
use crate::room::{Room, Scope, Taken};
use crate::snapshot_file::Frozen;
use crate::state::State;
use crate::tables::{Chunk, Decision, Volume};
use levee_proto::api::*;
use levee_proto::{DiskId, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// What is known beside the state.
pub struct Surroundings {
    /// Nodes that are up.
    pub alive: BTreeSet<NodeId>,
    /// Disks that take nothing more.
    pub full: BTreeSet<DiskId>,
    /// Bytes in use, by disk.
    pub used: BTreeMap<DiskId, u64>,
}

#[derive(Default)]
struct Count {
    copies: u64,
    homeless: u64,
    unwritable: u64,
    crowded: u64,
    /// Bytes that come to each disk.
    gains: BTreeMap<DiskId, u64>,
}

impl Frozen {
    /// Slow where there are many chunks: it looks at all of them.
    pub fn what_if(self, what: &WhatIf, around: &Surroundings) -> Result<Forecast, Problem> {
        let mut state = State::of_tables(self.into_tables());
        let leaving = state.named_disks(what)?;
        // What daemons say need not fit to each other.
        let used = leaving.iter().filter_map(|id| around.used.get(id));
        let bytes = used.fold(0, |sum: u64, used| sum.saturating_add(*used));
        for id in &leaving {
            if let Some(disk) = state.tables.disks.get_mut(id) {
                disk.drain.get_or_insert(Decision { by: Decider::Operator, reason: None });
            }
        }
        let count = state.place_elsewhere(&leaving, around);
        Ok(state.forecast(&leaving, bytes, count, around))
    }
}

impl State {
    fn named_disks(&self, what: &WhatIf) -> Result<BTreeSet<DiskId>, Problem> {
        let mut disks = BTreeSet::new();
        for name in &what.nodes {
            let node = self.tables.nodes.iter().find(|(_, node)| node.name == *name).map(|(id, _)| *id);
            disks.extend(self.disks_of(node.map_or_else(|| self.node_id(name), Ok)?));
        }
        for id in &what.disks {
            self.tables.disks.get(id).ok_or_else(|| crate::view::no_disk(*id))?;
            disks.insert(*id);
        }
        Ok(disks)
    }

    fn place_elsewhere(&self, leaving: &BTreeSet<DiskId>, around: &Surroundings) -> Count {
        let mut count = Count::default();
        let mut rooms: BTreeMap<Option<DiskClass>, Room<'_>> = BTreeMap::new();
        let (zones, racks) = self.domains_in_service();
        for volume in self.tables.volumes.values() {
            let class = volume.class;
            let scope = Scope { alive: &around.alive, full: &around.full, class, reserve: true };
            for chunk in volume.chunks.values().filter(|c| c.replicas.iter().any(|r| leaving.contains(&r.disk))) {
                let room = rooms.entry(class).or_insert_with(|| Room::of(self, scope));
                self.place_chunk(volume, chunk, leaving, around, room, (zones, racks), &mut count);
            }
        }
        count
    }

    #[allow(clippy::too_many_arguments, reason = "one loop's body")]
    fn place_chunk(
        &self,
        volume: &Volume,
        chunk: &Chunk,
        leaving: &BTreeSet<DiskId>,
        around: &Surroundings,
        room: &mut Room<'_>,
        domains: (usize, usize),
        count: &mut Count,
    ) {
        let (gone, stay): (Vec<&ReplicaPlace>, Vec<&ReplicaPlace>) =
            chunk.replicas.iter().partition(|r| leaving.contains(&r.disk));
        let mut taken = Taken {
            nodes: stay.iter().map(|r| r.node).collect(),
            last_resort: BTreeSet::new(),
            disks: chunk.replicas.iter().map(|r| r.disk).collect(),
            chunk: chunk.id,
        };
        let (mut whole, mut crowded) = (stay.len(), false);
        for replica in gone {
            count.copies += 1;
            let Some((node, disk)) = room.pick(&taken) else {
                count.homeless += 1;
                continue;
            };
            let (zone, rack) = self.crowd(node, taken.nodes.iter());
            let copies = usize::from(volume.copies);
            crowded |= (zone > 0 && domains.0 >= copies) || (rack > 0 && domains.1 >= copies);
            room.take_place(node, disk);
            taken.nodes.insert(node);
            taken.disks.insert(disk);
            whole += 1;
            let gain = count.gains.entry(disk).or_default();
            *gain = gain.saturating_add(self.mean_copy(replica.disk, around));
        }
        count.unwritable += u64::from(whole < usize::from(volume.min_copies));
        count.crowded += u64::from(crowded);
    }

    /// Bytes of a copy on the disk, as if all of them were of one size.
    pub(crate) fn mean_copy(&self, disk: DiskId, around: &Surroundings) -> u64 {
        let copies = self.tables.disks.get(&disk).map_or(1, |d| d.live().max(1));
        around.used.get(&disk).copied().unwrap_or(0) / copies
    }

    /// How many zones and racks there are with disks in service.
    fn domains_in_service(&self) -> (usize, usize) {
        let serves = |id: &DiskId| self.tables.disks.get(id).is_some_and(|d| d.state() == DiskState::InService);
        let nodes = || self.tables.nodes.values().filter(|n| n.disks.iter().any(serves));
        let zones: BTreeSet<&String> = nodes().filter_map(|n| n.zone.as_ref()).collect();
        let racks: BTreeSet<_> = nodes().filter_map(|n| Some((&n.zone, n.rack.as_ref()?))).collect();
        (zones.len(), racks.len())
    }

    fn forecast(&self, leaving: &BTreeSet<DiskId>, bytes: u64, count: Count, around: &Surroundings) -> Forecast {
        let touched = self.tables.disks.iter().filter(|(id, _)| leaving.contains(id) || count.gains.contains_key(id));
        let disk = |(id, disk): (&DiskId, &crate::tables::Disk)| {
            let before = around.used.get(id).copied().unwrap_or(0);
            let gain = count.gains.get(id).copied().unwrap_or(0);
            let after = if leaving.contains(id) { 0 } else { before.saturating_add(gain) };
            let (node, capacity, state) = (disk.node, disk.capacity, disk.state());
            let (load_before, load_after) = (Load::default(), Load::default());
            DiskForecast { disk: *id, node, state, capacity, before, after, load_before, load_after }
        };
        let Count { copies, homeless, unwritable, crowded, .. } = count;
        let verdict = match (homeless, unwritable, crowded) {
            (0, 0, 0) => format!("all {copies} copies find another place"),
            (0, 0, _) => {
                format!("all {copies} copies find another place, {crowded} chunks closer together than they could be")
            }
            (_, 0, _) => format!("{homeless} of {copies} copies find no other place: add disks or nodes first"),
            _ => format!("{unwritable} chunks could not be written any more: add disks or nodes first"),
        };
        let disks = touched.map(disk).collect();
        Forecast { copies, bytes, homeless, unwritable, crowded, seconds: None, disks, verdict }
    }
}
