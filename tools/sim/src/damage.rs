//! Disks that do not hold what was written to them: flipped bits, writes that were lost, torn, or went to another place; and
//! sectors that cannot be read until they are written.
//!
//! What a disk lied about in the past is the same as what it holds otherwise now, so all of it is done to data at rest.
//! Bounds, each a known limit of the protocol (`docs/protocol.md`):
//! - one node of a run is struck, as often as one likes, and only where every volume has two copies of every write;
//! - not the last batches of a log: without them it looks as after a crash, and nobody can tell;
//! - not the batch that a replica was made with, as a whole: that it was ever there would be forgotten.

use crate::process::SimDisk;
use crate::world::World;
use levee_core::reached;
use levee_core::store::survey::{Kind, Part, survey};
use levee_core::testing::MemDisk;
use levee_proto::BLOCK_SIZE;
use std::rc::Rc;

/// Damages what a disk of the node that is struck in this run holds.
pub fn strike(world: &World) {
    strike_with(world, false);
}

/// Sectors of such a disk go bad.
pub fn spoil(world: &World) {
    strike_with(world, true);
}

fn strike_with(world: &World, unreadable: bool) {
    let nodes = world.nodes();
    let tainted = nodes.iter().find(|n| n.disks.iter().any(|d| d.tainted.get())).cloned();
    let node = tainted.unwrap_or_else(|| world.some_node());
    let disk = node.disks[world.below(node.disks.len() as u64) as usize].clone();
    for _ in 0..1 + world.below(4) {
        once(world, &disk, unreadable);
    }
}

fn once(world: &World, disk: &Rc<SimDisk>, unreadable: bool) {
    let used = disk.disk.used_pages();
    let parts = survey(&disk.layout, &used, |pos, len| disk.disk.peek(pos, len));
    let fair: Vec<Part> = parts.into_iter().filter(is_fair).collect();
    if fair.is_empty() {
        return;
    }
    // Each kind as often as any other, though most blocks are data.
    let kinds: Vec<Kind> = fair.iter().map(|p| p.kind).collect();
    let kind = kinds[world.below(kinds.len() as u64) as usize];
    let often = if unreadable { Kind::BatchData } else { Kind::BatchHeader };
    let kind = if world.one_in(2) { often } else { kind };
    let of_kind: Vec<&Part> = fair.iter().filter(|p| p.kind == kind).collect();
    if of_kind.is_empty() {
        return;
    }
    let part = of_kind[world.below(of_kind.len() as u64) as usize];
    disk.tainted.set(true);
    match unreadable {
        false => damage(world, &disk.disk, part, &fair),
        true => make_unreadable(world, &disk.disk, part),
    }
}

fn is_fair(part: &Part) -> bool {
    match part.kind {
        // Copies of each other, of which one may go.
        Kind::Superblock => part.pos == 0,
        Kind::Root | Kind::Other => false,
        Kind::SegmentHeader => true,
        Kind::BatchHeader => !part.tail && !part.creates,
        Kind::BatchData => !part.tail,
    }
}

fn make_unreadable(world: &World, disk: &MemDisk, part: &Part) {
    reached!("disk: bad sector");
    let at = world.below(part.len as u64) / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
    disk.make_unreadable(part.pos + at);
    world.log(|| format!("unreadable at {}: {part:?}", part.pos + at));
}

fn damage(world: &World, disk: &MemDisk, part: &Part, all: &[Part]) {
    let at = world.below(part.len as u64);
    match world.below(4) {
        0 => {
            reached!("disk: write lost");
            disk.edit(part.pos, part.len, |bytes| bytes.fill(0));
        }
        1 => {
            reached!("disk: write torn");
            let sector = at / 512 * 512;
            disk.edit(part.pos + sector, 512, |bytes| bytes.fill(0));
        }
        2 => {
            reached!("disk: write misdirected");
            let other = &all[world.below(all.len() as u64) as usize];
            let len = part.len.min(other.len);
            let stray = disk.peek(other.pos, len);
            disk.edit(part.pos, len, |bytes| bytes.copy_from_slice(&stray));
        }
        _ => {
            reached!("disk: bit flipped");
            disk.flip_bit(part.pos + at, world.below(8) as u8);
        }
    }
    world.log(|| format!("damaged at {}: {part:?}", part.pos));
}
