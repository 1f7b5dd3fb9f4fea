//! Random sequences of everything that can be done to versions of volumes, and crashes, against a plain model: after each
//! sequence, every block of every volume and of every snapshot is what it should be.
//!
//! One thing at a time: what happens when things meet is the simulator's subject. A sequence that fails is made shorter by itself.

use crate::cases::{content, get, pass, put, put_later, told};
use crate::snapshots::{snapshot_of, until};
use crate::world::{TestGateway, VOLUME, World};
use levee_core::ports::Runtime;
use levee_proto::{BLOCK_SIZE, NodeId, View, VolumeId};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks that are written: at the start of the first two chunks.
const BLOCKS: [u64; 10] = [0, 1, 2, 3, 4, 256, 257, 258, 259, 260];
const MAX_VOLUMES: usize = 5;
const MAX_SNAPSHOTS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Write {
        volume: usize,
        block: usize,
    },
    Discard {
        volume: usize,
        first: usize,
        count: usize,
    },
    Snapshot {
        volume: usize,
    },
    Delete {
        volume: usize,
        snapshot: usize,
    },
    Clone {
        volume: usize,
        snapshot: usize,
    },
    DeleteVolume {
        volume: usize,
    },
    Rollback {
        volume: usize,
        snapshot: usize,
    },
    Flatten {
        volume: usize,
    },
    /// A write is under way when the gateway dies.
    KillGateway {
        volume: usize,
        block: usize,
    },
    KillNode {
        node: usize,
    },
    StartNode,
    Check {
        volume: usize,
        snapshot: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let (volume, snapshot, block) = (|| 0..MAX_VOLUMES, || 0..MAX_SNAPSHOTS, || 0..BLOCKS.len());
    prop_oneof![
        12 => (volume(), block()).prop_map(|(volume, block)| Op::Write { volume, block }),
        4 => (volume(), block(), 1..5usize).prop_map(|(volume, first, count)| Op::Discard { volume, first, count }),
        6 => volume().prop_map(|volume| Op::Snapshot { volume }),
        3 => (volume(), snapshot()).prop_map(|(volume, snapshot)| Op::Delete { volume, snapshot }),
        5 => (volume(), snapshot()).prop_map(|(volume, snapshot)| Op::Clone { volume, snapshot }),
        1 => volume().prop_map(|volume| Op::DeleteVolume { volume }),
        3 => (volume(), snapshot()).prop_map(|(volume, snapshot)| Op::Rollback { volume, snapshot }),
        2 => volume().prop_map(|volume| Op::Flatten { volume }),
        3 => (volume(), block()).prop_map(|(volume, block)| Op::KillGateway { volume, block }),
        2 => (0..3usize).prop_map(|node| Op::KillNode { node }),
        2 => Just(Op::StartNode),
        2 => (volume(), snapshot()).prop_map(|(volume, snapshot)| Op::Check { volume, snapshot }),
    ]
}

/// What blocks hold; the others are zeros.
type Blocks = BTreeMap<u64, u64>;

struct Taken {
    view: View,
    holds: Blocks,
}

struct Volume {
    id: VolumeId,
    gateway: (TestGateway, u64),
    holds: Blocks,
    taken: Vec<Taken>,
    /// The snapshot that it needs.
    parent: Option<(VolumeId, View)>,
}

struct Story {
    world: World,
    volumes: Vec<Volume>,
    down: Option<NodeId>,
    stamps: Cell<u64>,
}

impl Story {
    fn begin(world: World) -> Story {
        let first = Volume { id: VOLUME, gateway: world.attach(), holds: Blocks::new(), taken: vec![], parent: None };
        Story { world, volumes: vec![first], down: None, stamps: Cell::new(0) }
    }

    fn stamp(&self) -> u64 {
        self.stamps.set(self.stamps.get() + 1);
        self.stamps.get()
    }

    /// One of those that are there.
    fn pick(&self, volume: usize) -> usize {
        volume % self.volumes.len()
    }

    fn pick_snapshot(&self, volume: usize, snapshot: usize) -> Option<usize> {
        let count = self.volumes[volume].taken.len();
        (count > 0).then(|| snapshot % count.max(1))
    }

    /// Whether a clone needs the snapshot.
    fn has_clones(&self, of: VolumeId, view: Option<&View>) -> bool {
        self.volumes.iter().any(|v| v.parent.as_ref().is_some_and(|(id, at)| *id == of && view.is_none_or(|v| v == at)))
    }

    async fn step(&mut self, op: &Op) {
        match *op {
            Op::Write { volume, block } => self.write(self.pick(volume), BLOCKS[block]).await,
            Op::Discard { volume, first, count } => self.discard(self.pick(volume), first, count).await,
            Op::Snapshot { volume } => self.snapshot(self.pick(volume)).await,
            Op::DeleteVolume { volume } => self.delete_volume(self.pick(volume)),
            Op::Flatten { volume } => self.flatten(self.pick(volume)).await,
            Op::KillGateway { volume, block } => self.kill_gateway(self.pick(volume), BLOCKS[block]).await,
            Op::KillNode { node } if self.down.is_none() => {
                let node = NodeId(node as u32 + 1);
                self.world.kill(node);
                self.down = Some(node);
            }
            Op::KillNode { .. } | Op::StartNode => self.start_node().await,
            Op::Delete { volume, snapshot }
            | Op::Clone { volume, snapshot }
            | Op::Rollback { volume, snapshot }
            | Op::Check { volume, snapshot } => {
                let volume = self.pick(volume);
                let Some(snapshot) = self.pick_snapshot(volume, snapshot) else { return };
                match op {
                    Op::Delete { .. } => self.delete(volume, snapshot),
                    Op::Clone { .. } => self.clone_it(volume, snapshot),
                    Op::Rollback { .. } => self.roll_back(volume, snapshot),
                    _ => self.check_snapshot(volume, snapshot).await,
                }
            }
        }
    }

    async fn write(&mut self, volume: usize, block: u64) {
        let stamp = self.stamp();
        put(&self.world, &self.volumes[volume].gateway.0, block, stamp).await;
        self.volumes[volume].holds.insert(block, stamp);
    }

    async fn discard(&mut self, volume: usize, first: usize, count: usize) {
        for block in BLOCKS.iter().skip(first).take(count) {
            let gateway = self.volumes[volume].gateway.0.clone();
            gateway.discard(block * BLOCK_SIZE as u64, BLOCK_SIZE as u64).await.unwrap();
            self.volumes[volume].holds.remove(block);
        }
    }

    async fn snapshot(&mut self, volume: usize) {
        let Volume { id, ref gateway, ref holds, ref taken, .. } = self.volumes[volume];
        if taken.len() == MAX_SNAPSHOTS {
            return;
        }
        let holds = holds.clone();
        let view = snapshot_of(&self.world, id, &gateway.0).await;
        self.volumes[volume].taken.push(Taken { view, holds });
    }

    fn delete(&mut self, volume: usize, snapshot: usize) {
        let Volume { id, ref taken, .. } = self.volumes[volume];
        if self.has_clones(id, Some(&taken[snapshot].view)) {
            return;
        }
        let gone = self.volumes[volume].taken.remove(snapshot);
        let versions = self.world.delete_snapshot(id, &gone.view);
        self.volumes[volume].gateway.0.set_versions(versions).unwrap();
    }

    fn clone_it(&mut self, volume: usize, snapshot: usize) {
        if self.volumes.len() == MAX_VOLUMES {
            return;
        }
        let Volume { id: of, ref taken, .. } = self.volumes[volume];
        let (view, holds) = (taken[snapshot].view.clone(), taken[snapshot].holds.clone());
        let id = self.world.clone_volume(of, &view);
        let gateway = self.world.attach_volume(id);
        self.volumes.push(Volume { id, gateway, holds, taken: vec![], parent: Some((of, view)) });
    }

    fn delete_volume(&mut self, volume: usize) {
        let id = self.volumes[volume].id;
        if id != VOLUME && !self.has_clones(id, None) {
            self.volumes.remove(volume).gateway.0.stop("deleted");
        }
    }

    fn roll_back(&mut self, volume: usize, snapshot: usize) {
        let v = &mut self.volumes[volume];
        v.gateway.0.stop("detached");
        v.holds = v.taken[snapshot].holds.clone();
        self.world.roll_back(v.id, &v.taken[snapshot].view);
        v.gateway = self.world.attach_volume(v.id);
    }

    async fn flatten(&mut self, volume: usize) {
        let Volume { id, ref gateway, ref taken, ref parent, .. } = self.volumes[volume];
        if parent.is_none() || !taken.is_empty() {
            return;
        }
        gateway.0.set_versions(self.world.flatten(id)).unwrap();
        until(&self.world, "flattening", || !self.world.versions(id).flatten).await;
        self.volumes[volume].parent = None;
    }

    /// The write happened or did not, and it stays so.
    async fn kill_gateway(&mut self, volume: usize, block: u64) {
        let stamp = self.stamp();
        let (gateway, number) = self.volumes[volume].gateway.clone();
        let answered = put_later(&self.world, &gateway, block, content(stamp));
        self.world.rt().sleep(std::time::Duration::from_micros(self.world.below(3000))).await;
        self.world.cut_off(number);
        gateway.stop("killed");
        let is_answered = answered.get();
        self.volumes[volume].gateway = self.world.attach_volume(self.volumes[volume].id);
        let found = get(&self.world, &self.volumes[volume].gateway.0, block).await;
        let before = self.volumes[volume].holds.get(&block).copied().unwrap_or(0);
        assert!(found == stamp || (found == before && !is_answered), "{found}: neither {stamp} nor {before}");
        if found != 0 {
            self.volumes[volume].holds.insert(block, found);
        }
    }

    async fn start_node(&mut self) {
        if let Some(node) = self.down.take() {
            self.world.start(node).await;
            // Mostly it has something to catch up with when the next thing happens.
            pass(&self.world, 20).await;
        }
    }

    async fn check(&self, what: &str, gateway: &TestGateway, holds: &Blocks) {
        for block in BLOCKS {
            let found = get(&self.world, gateway, block).await;
            assert_eq!(found, holds.get(&block).copied().unwrap_or(0), "block {block} of {what}");
        }
    }

    async fn check_snapshot(&self, volume: usize, snapshot: usize) {
        let v = &self.volumes[volume];
        let taken = &v.taken[snapshot];
        let (clone, _) = self.world.attach_volume(self.world.clone_volume(v.id, &taken.view));
        self.check(&format!("snapshot {:?} of volume {}", taken.view, v.id), &clone, &taken.holds).await;
        clone.stop("the test has read it");
    }

    async fn check_everything(&mut self) {
        self.start_node().await;
        let ids: BTreeSet<VolumeId> = self.volumes.iter().map(|v| v.id).collect();
        assert_eq!(ids.len(), self.volumes.len());
        for (at, volume) in self.volumes.iter().enumerate() {
            self.check(&format!("volume {}", volume.id), &volume.gateway.0, &volume.holds).await;
            for snapshot in 0..volume.taken.len() {
                self.check_snapshot(at, snapshot).await;
            }
        }
        for volume in &self.volumes {
            crate::cases::assert_heals(&self.world, &volume.gateway.0).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_version_is_what_a_plain_model_says(seed in 1..u64::MAX, ops in proptest::collection::vec(op(), 1..70)) {
        told(seed, 3, 2, |world| async move {
            let mut story = Story::begin(world);
            for op in &ops {
                story.step(op).await;
            }
            story.check_everything().await;
        });
    }
}

/// A copy was away while a snapshot came and went, and again when its block was written next; then the gateway was replaced.
#[test]
fn a_copy_that_missed_a_snapshot_and_its_end_is_made_equal() {
    use Op::*;
    let ops = [
        KillNode { node: 0 },
        KillGateway { volume: 0, block: 0 },
        Write { volume: 0, block: 3 },
        Snapshot { volume: 0 },
        Delete { volume: 0, snapshot: 0 },
        KillNode { node: 0 },
        Write { volume: 0, block: 3 },
        KillGateway { volume: 0, block: 0 },
        Write { volume: 0, block: 3 },
    ];
    for seed in 1..40 {
        let ops = ops.clone();
        told(seed, 3, 2, |world| async move {
            let mut story = Story::begin(world);
            for op in &ops {
                story.step(op).await;
            }
            story.check_everything().await;
        });
    }
}
