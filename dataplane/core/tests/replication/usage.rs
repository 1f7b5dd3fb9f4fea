//! What volumes and snapshots take up, compared with a plain model: maps of who wrote which block last.

use crate::cases::{assert_heals, pass, within};
use crate::snapshots::{scenario, snapshot_of};
use crate::world::{Fate, TestGateway, VOLUME, VOLUME_SIZE, World};
use bytes::Bytes;
use levee_proto::api::VolumeUsage;
use levee_proto::wire::{Request, Status};
use levee_proto::{BLOCK_SIZE, NodeId, Version, View, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Blocks in two chunks of one group, and in one of the next.
const PLACES: [u64; 3] = [0, 256, 65_536];
const BLOCKS_PER_PLACE: u64 = 24;
/// What the head overwrites is looked for every minute, up to the commit point, which moves every other second.
const PRUNED_AFTER_MS: u64 = 130_000;

/// Who wrote a volume's block last, and whether that was data.
type Entries = BTreeMap<u64, (u64, bool)>;
/// The blocks that read as data.
type Shown = BTreeSet<u64>;

#[derive(Clone)]
struct Snap {
    view: View,
    entries: Entries,
    clones: u32,
}

/// A volume as the model knows it.
struct Plain {
    id: VolumeId,
    head: Entries,
    snapshots: Vec<Snap>,
    /// What it inherits.
    parent: Shown,
}

impl Plain {
    fn shown(&self, entries: &Entries) -> Shown {
        let own = entries.iter().filter(|(_, (_, data))| *data).map(|(b, _)| *b);
        own.chain(self.parent.iter().copied().filter(|b| !entries.contains_key(b))).collect()
    }

    fn data(entries: &Entries) -> BTreeSet<u64> {
        entries.values().filter(|(_, data)| *data).map(|(id, _)| *id).collect()
    }

    /// Blocks of these entries that no other view reads.
    fn alone(&self, of: &Entries) -> u64 {
        let views = self.snapshots.iter().map(|s| &s.entries).chain([&self.head]);
        let others: BTreeSet<u64> = views.filter(|e| !std::ptr::eq(*e, of)).flat_map(Plain::data).collect();
        Plain::data(of).difference(&others).count() as u64
    }

    fn stored(&self) -> u64 {
        let views = self.snapshots.iter().map(|s| &s.entries).chain([&self.head]);
        views.flat_map(Plain::data).collect::<BTreeSet<u64>>().len() as u64
    }
}

/// A volume that is open, its model, and a count of what was written.
struct Pair {
    world: World,
    gateway: TestGateway,
    plain: Plain,
    last: u64,
}

impl Pair {
    fn new(world: &World, id: VolumeId, parent: Shown) -> Pair {
        let (gateway, _) = world.attach_volume(id);
        let plain = Plain { id, head: Entries::new(), snapshots: vec![], parent };
        Pair { world: world.clone(), gateway, plain, last: 0 }
    }

    fn below(&self, n: u64) -> u64 {
        self.world.below(n)
    }

    fn some_blocks(&self) -> Range<u64> {
        let first = self.below(BLOCKS_PER_PLACE);
        let place = PLACES[self.below(PLACES.len() as u64) as usize];
        place + first..place + first + 1 + self.below(BLOCKS_PER_PLACE - first)
    }

    async fn write(&mut self, blocks: Range<u64>, data: bool) {
        let (at, len) = (blocks.start * BLOCK, (blocks.end - blocks.start) * BLOCK);
        if data {
            let write = self.gateway.write(at, Bytes::from(vec![7; len as usize]));
            within(&self.world, "a write", write).await.unwrap();
        } else {
            within(&self.world, "a discard", self.gateway.discard(at, len)).await.unwrap();
        }
        for block in blocks {
            self.last += 1;
            self.plain.head.insert(block, (self.last, data));
        }
    }

    async fn snapshot(&mut self) {
        let id = self.plain.id;
        let view = snapshot_of(&self.world, id, &self.gateway).await;
        self.plain.snapshots.push(Snap { view, entries: self.plain.head.clone(), clones: 0 });
    }

    /// A snapshot without clones is deleted, if there is one.
    async fn delete(&mut self) {
        let free: Vec<usize> =
            (0..self.plain.snapshots.len()).filter(|i| self.plain.snapshots[*i].clones == 0).collect();
        if free.is_empty() {
            return;
        }
        let gone = self.plain.snapshots.remove(free[self.below(free.len() as u64) as usize]);
        self.gateway.set_versions(self.world.delete_snapshot(self.plain.id, &gone.view)).unwrap();
    }

    fn roll_back(&mut self) {
        let n = self.plain.snapshots.len() as u64;
        if n == 0 {
            return;
        }
        let to = &self.plain.snapshots[self.below(n) as usize];
        self.gateway.stop("detached");
        self.world.roll_back(self.plain.id, &to.view);
        self.plain.head = to.entries.clone();
        self.gateway = self.world.attach_volume(self.plain.id).0;
    }

    async fn step(&mut self) {
        match self.below(20) {
            0 | 1 => self.snapshot().await,
            2 => self.delete().await,
            3 => self.roll_back(),
            4..9 => self.write(self.some_blocks(), false).await,
            _ => self.write(self.some_blocks(), true).await,
        }
    }

    async fn usage(&self) -> VolumeUsage {
        within(&self.world, "counting", self.gateway.usage(|_, _| {})).await.unwrap()
    }

    /// All figures but `stored`, for which pruning has to be waited.
    async fn check(&self) -> VolumeUsage {
        let (usage, plain) = (self.usage().await, &self.plain);
        let written = plain.shown(&plain.head).len() as u64;
        let exclusive = plain.alone(&plain.head);
        let expected = [VOLUME_SIZE, written * BLOCK, exclusive * BLOCK, (written - exclusive) * BLOCK];
        assert_eq!([usage.provisioned, usage.written, usage.exclusive, usage.shared], expected);
        let found: Vec<(Version, u64)> = usage.snapshots.iter().map(|s| (s.version, s.exclusive / BLOCK)).collect();
        let alone: Vec<_> = plain.snapshots.iter().map(|s| (s.view.version, plain.alone(&s.entries))).collect();
        assert_eq!(found, alone);
        assert!(usage.stored >= plain.stored() * BLOCK && usage.on_disks == 3 * usage.stored);
        usage
    }

    async fn check_pruned(&self) {
        pass(&self.world, PRUNED_AFTER_MS).await;
        assert_eq!(self.check().await.stored, self.plain.stored() * BLOCK);
    }

    async fn run(&mut self, steps: u32) {
        for step in 0..steps {
            self.step().await;
            if step % 4 == 0 {
                self.check().await;
            }
        }
        self.check_pruned().await;
    }

    /// A clone of a new snapshot.
    async fn clone(&mut self) -> Pair {
        self.snapshot().await;
        let snapshot = self.plain.snapshots.last_mut().unwrap();
        snapshot.clones += 1;
        let (view, entries) = (snapshot.view.clone(), snapshot.entries.clone());
        Pair::new(&self.world, self.world.clone_volume(self.plain.id, &view), self.plain.shown(&entries))
    }
}

#[test]
fn figures_match_a_plain_model_through_snapshots_clones_rollbacks_and_deletes() {
    for seed in (crate::first_seed(0)..).take(crate::seeds(4) as usize) {
        println!("seed {seed}");
        crate::cases::told(seed, 3, 2, |world| async move {
            let mut volume = Pair::new(&world, VOLUME, Shown::new());
            volume.run(40).await;
            let mut clone = volume.clone().await;
            clone.check().await;
            clone.run(30).await;
            let mut grandchild = clone.clone().await;
            grandchild.run(30).await;
            // Each of them goes its own way.
            volume.run(10).await;
            for pair in [&clone, &grandchild] {
                pair.check().await;
            }
            for pair in [&volume, &clone, &grandchild] {
                assert_heals(&world, &pair.gateway).await;
            }
        });
    }
}

#[test]
fn a_member_that_lacks_an_answered_write_is_not_asked() {
    scenario(|world| async move {
        let mut volume = Pair::new(&world, VOLUME, Shown::new());
        volume.write(0..1, true).await;
        for slow in [1, 2, 3] {
            world.rule(move |_, node, r| match r {
                Request::Write { .. } if node == NodeId(slow) => Fate::Slow(400),
                _ => Fate::Deliver,
            });
            volume.write(u64::from(slow)..u64::from(slow) + 1, true).await;
            volume.check().await;
        }
        world.no_rule();
        volume.write(0..2, false).await;
        volume.check().await;
        assert_heals(&world, &volume.gateway).await;
    });
}

#[test]
fn what_cannot_be_counted_is_said_and_counted_later() {
    scenario(|world| async move {
        let mut volume = Pair::new(&world, VOLUME, Shown::new());
        volume.write(0..5, true).await;
        volume.write(256..259, true).await;
        // One that refuses is left for another.
        world.rule(|_, node, r| match r {
            Request::Tally { .. } if node == NodeId(2) => Fate::Refuse(Status::NotAdopted),
            _ => Fate::Deliver,
        });
        volume.check().await;
        world.rule(|_, _, r| if matches!(r, Request::Tally { .. }) { Fate::Hold } else { Fate::Deliver });
        let failed = within(&world, "counting", volume.gateway.usage(|_, _| {})).await;
        assert!(failed.unwrap_err().contains("chunk"));
        world.no_rule();
        pass(&world, 20_000).await;
        volume.check().await;
        let told = std::cell::RefCell::new(vec![]);
        let tell = |done, total| told.borrow_mut().push((done, total));
        within(&world, "counting", volume.gateway.usage(tell)).await.unwrap();
        let told = told.into_inner();
        assert!(told.iter().all(|(done, total)| *done == 0 && *total >= 2) && told.len() == 1, "{told:?}");
        assert_heals(&world, &volume.gateway).await;
    });
}

#[test]
fn ancestors_that_cannot_be_asked_are_said() {
    scenario(|world| async move {
        let mut volume = Pair::new(&world, VOLUME, Shown::new());
        volume.write(0..5, true).await;
        let clone = volume.clone().await;
        world.rule(|_, _, r| if matches!(r, Request::PresentData { .. }) { Fate::Hold } else { Fate::Deliver });
        assert!(within(&world, "counting", clone.gateway.usage(|_, _| {})).await.is_err());
        world.no_rule();
        assert_eq!(clone.check().await.written, 5 * BLOCK);
        volume.gateway.stop("the test ends");
        clone.gateway.stop("the test ends");
    });
}

#[test]
fn zeros_in_a_clone_hide_data_of_every_ancestor() {
    scenario(|world| async move {
        let mut volume = Pair::new(&world, VOLUME, Shown::new());
        volume.write(0..10, true).await;
        let mut clone = volume.clone().await;
        clone.write(2..4, false).await;
        clone.write(4..6, true).await;
        let mut grandchild = clone.clone().await;
        grandchild.write(8..9, false).await;
        grandchild.write(9..12, true).await;
        let usage = grandchild.check().await;
        // Blocks 0 and 1, 4 to 7, and its own three.
        assert_eq!((usage.written, usage.exclusive, usage.stored), (9 * BLOCK, 3 * BLOCK, 3 * BLOCK));
        for pair in [&volume, &clone, &grandchild] {
            assert_heals(&world, &pair.gateway).await;
        }
    });
}
