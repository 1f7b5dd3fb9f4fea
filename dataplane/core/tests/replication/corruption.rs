//! One copy's disk is damaged, again and again, in every way that a disk does it: flipped bits, old content, content of
//! another place. All of it is found, replaced from the other copies, and never seen by a guest.

use crate::cases::{assert_heals, content, get, pass, put, put_later, within};
use crate::world::{Fate, TestGateway, World};
use levee_core::gateway::Scrubbed;
use levee_core::store::{self, Options, Shard};
use levee_core::testing::{CrashStyle, MemDisk, TestRuntime};
use levee_proto::wire::Request;
use levee_proto::{BLOCK_SIZE, NodeId};
use std::collections::BTreeMap;

/// Blocks of the volume in use. Neighbours, so that a damaged place is often part of a longer read.
const BLOCKS: u64 = 96;
/// Where the shards begin, at the latest.
const SUPERBLOCKS: u64 = 16 << 10;
/// Injections per round; `LEVEE_SEEDS` multiplies the rounds.
const INJECTIONS: u32 = 100;

struct Patient {
    world: World,
    gateway: TestGateway,
    /// What each block holds.
    expected: BTreeMap<u64, u64>,
    stamp: u64,
    found: [u64; 3],
}

impl Patient {
    async fn write_some(&mut self) {
        for _ in 0..4 {
            let block = self.world.below(BLOCKS);
            self.stamp += 1;
            put(&self.world, &self.gateway, block, self.stamp).await;
            self.expected.insert(block, self.stamp);
        }
        self.healthy().await;
    }

    async fn healthy(&self) {
        let (world, gateway) = (&self.world, &self.gateway);
        within(world, "healing", async {
            while gateway.health().degraded + gateway.health().waiting > 0 {
                pass(world, 5).await;
            }
        })
        .await;
    }

    fn some_node(&self) -> NodeId {
        NodeId(1 + self.world.below(3) as u32)
    }

    /// Damages what a running replica stores of one block.
    async fn damage_block(&self, node: NodeId) {
        let block = self.world.below(BLOCKS);
        let disk = self.world.disk(node);
        let data = content(self.expected[&block]);
        let (kind, byte, bit) = (self.world.below(3), self.world.below(BLOCK_SIZE as u64), self.world.below(8) as u8);
        let other = content(self.expected[&((block + 1 + self.world.below(BLOCKS - 1)) % BLOCKS)]);
        // What was replaced or moved before is there still: nobody can tell from outside which one counts.
        let places =
            || disk.used_pages().into_iter().filter(|at| disk.peek(*at, BLOCK_SIZE) == data).collect::<Vec<_>>();
        // Two copies suffice for an answer: this one may not have the write yet.
        within(&self.world, "a write", async {
            while places().is_empty() {
                pass(&self.world, 1).await;
            }
        })
        .await;
        for at in places() {
            match kind {
                0 => disk.flip_bit(at + byte, bit),
                // Old: a write that the disk lost. Other: one that landed in the wrong place.
                1 => disk.edit(at, BLOCK_SIZE, |bytes| bytes.copy_from_slice(&content(self.stamp + 1_000_000))),
                _ => disk.edit(at, BLOCK_SIZE, |bytes| bytes.copy_from_slice(&other)),
            }
        }
    }

    /// Damages a page of a disk whose daemon does not run, whatever is in it: data, headers, checkpoints.
    async fn damage_at_rest(&self, node: NodeId) -> bool {
        self.world.kill(node);
        let disk = self.world.disk(node);
        // The superblock is not a copy of anything: a disk without it is a lost disk.
        let used: Vec<u64> = disk.used_pages().into_iter().filter(|at| *at >= SUPERBLOCKS).collect();
        let page = |n: u64| used[n as usize];
        let at = page(self.world.below(used.len() as u64));
        let before = disk.peek(at, BLOCK_SIZE);
        match self.world.below(2) {
            0 => disk.flip_bit(at + self.world.below(BLOCK_SIZE as u64), self.world.below(8) as u8),
            _ => {
                let other = disk.peek(page(self.world.below(used.len() as u64)), BLOCK_SIZE);
                disk.edit(at, BLOCK_SIZE, |bytes| bytes.copy_from_slice(&other));
            }
        }
        if !self.can_be_opened(&disk).await {
            // All of the disk is lost, and its daemon says so: that is for an operator, and no copy's damage.
            disk.edit(at, BLOCK_SIZE, |bytes| bytes.copy_from_slice(&before));
            self.world.start_damaged(node).await;
            return false;
        }
        self.world.start_damaged(node).await
    }

    async fn can_be_opened(&self, disk: &MemDisk) -> bool {
        let copy = disk.fork(CrashStyle::KeepAll, 1);
        let superblock = store::read_superblock(&copy).await.unwrap();
        for shard in 0..superblock.shards {
            let rt = self.world.rt().clone();
            match Shard::open(copy.clone(), rt, &superblock, shard, Options::default()).await {
                Ok((shard, _)) => shard.close().await.unwrap(),
                Err(_) => return false,
            }
        }
        true
    }

    async fn check_reads(&self) {
        for (block, stamp) in &self.expected {
            assert_eq!(get(&self.world, &self.gateway, *block).await, *stamp, "block {block}");
        }
    }

    /// Scrubs until every copy could be looked at.
    async fn scrub(&self) -> Scrubbed {
        let mut sum = Scrubbed::default();
        loop {
            let found = within(&self.world, "a scrub", self.gateway.scrub(|_, _| {})).await.unwrap();
            sum.blocks += found.blocks;
            sum.bad += found.bad;
            sum.different += found.different;
            self.healthy().await;
            if found.skipped == 0 {
                return sum;
            }
        }
    }

    async fn check_copies(&self) {
        let scrubbed = self.scrub().await;
        assert_eq!((scrubbed.bad, scrubbed.different), (0, 0), "{scrubbed:?} was still there");
    }

    /// One injection, to the end.
    async fn treat(&mut self) {
        self.write_some().await;
        let node = self.some_node();
        match self.world.below(3) {
            0 => {
                self.damage_block(node).await;
                let scrubbed = self.scrub().await;
                assert_eq!(scrubbed.bad, 1, "{scrubbed:?}");
                self.found[0] += 1;
            }
            1 => {
                self.damage_block(node).await;
                self.check_reads().await;
                let scrubbed = self.scrub().await;
                let by_reading = u64::from(scrubbed.bad == 0);
                assert!(scrubbed.bad <= 1, "{scrubbed:?}");
                self.found[1] += by_reading;
            }
            _ => {
                let clean = self.damage_at_rest(node).await;
                self.check_reads().await;
                // Damaged data is found by whoever reads it; damaged headers by recovery. Free space need not be.
                self.scrub().await;
                self.found[2] += u64::from(!clean);
            }
        }
        self.healthy().await;
        self.check_copies().await;
        self.check_reads().await;
    }
}

#[test]
fn whatever_happens_to_one_copy_is_found_repaired_and_never_read() {
    let mut found = [0; 3];
    for seed in 0..crate::seeds(1) {
        let rt = TestRuntime::new(seed);
        let part = rt.block_on(async {
            let world = World::new(&rt, seed, 3, 2).await;
            let (gateway, _) = world.attach();
            let mut patient = Patient { world, gateway, expected: BTreeMap::new(), stamp: 0, found: [0; 3] };
            for block in 0..BLOCKS {
                patient.stamp += 1;
                put(&patient.world, &patient.gateway, block, patient.stamp).await;
                patient.expected.insert(block, patient.stamp);
            }
            for _ in 0..INJECTIONS {
                patient.treat().await;
            }
            patient.gateway.stop("the test ends");
            patient.found
        });
        rt.abort_all();
        found.iter_mut().zip(part).for_each(|(sum, n)| *sum += n);
    }
    println!("found by scrubbing {}, by reading {}, by recovery {}", found[0], found[1], found[2]);
}

#[test]
fn a_write_that_one_copy_has_and_cannot_read_does_not_keep_a_volume_closed() {
    let rt = TestRuntime::new(5);
    rt.block_on(async {
        let world = World::new(&rt, 5, 3, 2).await;
        let (gateway, number) = world.attach();
        put(&world, &gateway, 1, 7).await;
        put(&world, &gateway, 2, 8).await;
        pass(&world, 5000).await;
        // Only one copy gets the next write, and its writer dies.
        world.rule(|_, node, r| match r {
            Request::Write { .. } if node != NodeId(2) => Fate::Hold,
            _ => Fate::Deliver,
        });
        let done = put_later(&world, &gateway, 1, content(9));
        pass(&world, 100).await;
        world.cut_off(number);
        world.no_rule();
        assert!(!done.get());
        let at = world.find(NodeId(2), &content(9)).expect("stored");
        world.disk(NodeId(2)).flip_bit(at + 100, 3);
        let (next, _) = world.attach();
        assert_eq!((get(&world, &next, 1).await, get(&world, &next, 2).await), (7, 8));
        assert_heals(&world, &next).await;
    });
    rt.abort_all();
}
