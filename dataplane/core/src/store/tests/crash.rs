//! Power failures at any moment: what was acknowledged is there, what was not is there in part, in
//! the order in which it was asked for, or not at all.

use super::world::*;
use crate::store::{CommitPoint, Seal, StoreError};
use crate::testing::{CrashStyle, TestRng};
use levee_proto::wire::{BlockEntry, BlockKind, Scope};
use levee_proto::{ChunkId, Seq, Version, View};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Makes requests that are mostly sensible.
pub struct Generator {
    pub rng: TestRng,
    pub counter: u64,
    pub epoch: u32,
    pub next_replica: u64,
    /// Blocks of each of four chunks.
    pub blocks: u64,
    /// The head's.
    pub version: u32,
    /// Snapshots are taken: else all is written at the first version.
    pub snapshots: bool,
}

impl Generator {
    pub fn new(seed: u64, blocks: u64) -> Generator {
        Generator {
            rng: TestRng::new(seed),
            counter: 0,
            epoch: 1,
            next_replica: 1,
            blocks,
            version: 1,
            snapshots: false,
        }
    }

    pub fn op(&mut self) -> Op {
        let chunk = ChunkId(11 + self.rng.below(4));
        self.counter += 1;
        // Sometimes a late arrival.
        let late = if self.rng.one_in(6) { self.rng.below(20) } else { 0 };
        let seq = seq(self.epoch, self.counter.saturating_sub(late));
        let block = self.rng.below(self.blocks) as u32;
        let most = if self.rng.one_in(3) { 256 } else { 8 };
        let count = (1 + self.rng.below(most) as u32).min(self.blocks as u32 - block);
        let n = (self.counter * 1000) << 8;
        self.version += u32::from(self.snapshots && self.rng.one_in(25));
        let before = if self.version > 1 && self.rng.one_in(5) { self.rng.below(3) as u32 } else { 0 };
        let version = self.version.saturating_sub(before).max(1);
        match self.rng.below(40) {
            0 => Op::Delete(chunk, self.next_replica - self.rng.below(self.next_replica.min(3))),
            1..=3 => {
                self.next_replica += 1;
                Op::Create(chunk, self.next_replica)
            }
            4 => {
                self.epoch += 1;
                Op::Fence(self.epoch)
            }
            5 => Op::Adopt(self.epoch, chunk),
            6..=8 => Op::Zero { chunk, version, seq, block, count },
            9..=13 => Op::Repair { chunk, epoch: self.epoch, version, block, seq, to: Some(Some(n)) },
            14 => Op::Repair { chunk, epoch: self.epoch, version, block, seq, to: None },
            15 => Op::Repair { chunk, epoch: self.epoch, version, block, seq, to: Some(None) },
            _ => Op::Write { chunk, version, seq, block, count, n },
        }
    }
}

/// What was asked for, and how much of it was acknowledged.
#[derive(Clone, Default)]
struct Progress {
    issued: Rc<RefCell<Vec<Op>>>,
    acknowledged: Rc<Cell<usize>>,
}

/// Whether the shard may refuse it for want of space: nothing that takes none is.
fn adds_data(shard: &TestShard, op: &Op) -> bool {
    let has_data = |chunk, block, version| {
        let found = shard.entries(chunk, block, Version(version), 1, Seq::ZERO).0;
        let is_it = |e: &BlockEntry| (e.block, e.version.0, e.kind) == (block, version, BlockKind::Data);
        found.first().is_some_and(is_it)
    };
    match *op {
        Op::Write { chunk, version, block, count, .. } => (block..block + count).any(|b| !has_data(chunk, b, version)),
        Op::Repair { chunk, version, block, to, .. } => to.flatten().is_some() && !has_data(chunk, block, version),
        _ => false,
    }
}

/// A commit point that the shard takes, of the chunk that `op` writes.
fn commit(shard: &TestShard, op: &Op) -> Option<Op> {
    let Op::Write { chunk, .. } = op else { return None };
    let r = shard.replica(*chunk).filter(|r| r.entries > 0)?;
    let point = CommitPoint { chunk: *chunk, replica: r.replica, seq: r.max_seq };
    Some(Op::Commit { epoch: r.adopted.0, point })
}

/// What concerns snapshots, of the chunk that `op` writes.
fn about_versions(shard: &TestShard, op: &Op, g: &mut Generator) -> Option<Op> {
    let Op::Write { chunk, .. } = *op else { return None };
    let r = shard.replica(chunk)?;
    let here = shard.entries(chunk, 0, Version::MAX, usize::MAX, Seq::ZERO).0;
    let epoch = r.adopted.0;
    match g.rng.below(5) {
        0 => Some(Op::Seal { epoch, seal: Seal { chunk, replica: r.replica, version: Version(g.version) } }),
        1 => {
            let (block, first) = (g.rng.below(g.blocks) as u32, Version(g.rng.below(u64::from(g.version)) as u32));
            let (count, last) = (g.rng.below(50) as u32, Version(first.0 + g.rng.below(3) as u32));
            let inside =
                |e: &&BlockEntry| (block..block + count).contains(&e.block) && (first..=last).contains(&e.version);
            let older = here.iter().filter(inside).filter(|e| e.seq.epoch().0 < g.epoch);
            let void = older.map(|e| (e.block, e.version.0)).collect();
            Some(Op::Void { chunk, epoch: g.epoch, scope: Scope::Versions { block, count, first, last }, void })
        }
        _ => {
            let keep = views(g);
            let committed: Vec<_> = here.iter().filter(|e| e.seq <= r.commit).collect();
            // A view reads the first that it sees of a block.
            let reads = |view: &View, e: &BlockEntry| {
                committed
                    .iter()
                    .find(|x| x.block == e.block && view.sees(x.version))
                    .is_some_and(|x| x.version == e.version)
            };
            let unread = committed.iter().filter(|e| !keep.iter().any(|v| reads(v, e)));
            let drops = unread.map(|e| ((e.block, e.version.0), e.seq)).collect();
            Some(Op::Prune { chunk, replica: r.replica, epoch, keep, drops })
        }
    }
}

/// The head's view and some snapshots', one of them rolled back to, perhaps.
fn views(g: &mut Generator) -> Vec<View> {
    let mut some = || Version(1 + g.rng.below(u64::from(g.version)) as u32);
    let mut views: Vec<View> = (0..3).map(|_| View::of(some())).collect();
    let back = views[0].rolled_back(Version(g.version.max(2) - 1));
    views.push(back.unwrap_or(View::of(Version(g.version))));
    views
}

async fn drive(shard: &TestShard, g: &mut Generator, ops: u32, progress: Progress) {
    let mut waiting = VecDeque::new();
    for _ in 0..ops {
        let op = g.op();
        let op = if g.rng.one_in(20) { commit(shard, &op).unwrap_or(op) } else { op };
        let op = if g.snapshots && g.rng.one_in(8) { about_versions(shard, &op, g).unwrap_or(op) } else { op };
        let mut ticket = Box::pin(op.issue(shard));
        match ticket.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(StoreError::UnknownReplica(_))) => continue,
            Poll::Ready(Err(StoreError::Full)) => {
                assert!(adds_data(shard, &op), "{op:?} was refused");
                continue;
            }
            // There was nothing to do.
            Poll::Ready(Ok(())) => continue,
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => {}
        }
        progress.issued.borrow_mut().push(op);
        waiting.push_back(ticket);
        let keep = g.rng.index(16);
        while waiting.len() > keep {
            let ticket = waiting.pop_front().expect("longer than `keep`");
            ticket.await.expect("the disk works");
            progress.acknowledged.set(progress.acknowledged.get() + 1);
        }
        if g.rng.one_in(60) {
            let checkpoint = pin!(shard.checkpoint());
            checkpoint.await.expect("the disk works");
        }
    }
}

/// The state that the shard must be in: some point between what was acknowledged and what was issued.
fn matching(found: &Model, before: &Model, progress: &Progress) -> Option<Model> {
    let issued = progress.issued.borrow();
    let mut model = before.clone();
    issued[..progress.acknowledged.get()].iter().for_each(|op| model.apply(op));
    for next in &issued[progress.acknowledged.get()..] {
        if *found == model {
            return Some(model);
        }
        // A long write may have been cut at the end of a segment.
        if let Op::Write { count, .. } = next {
            for part in 1..*count {
                let mut partly = model.clone();
                partly.apply_part(next, part);
                if *found == partly {
                    return Some(partly);
                }
            }
        }
        model.apply(next);
    }
    (*found == model).then_some(model)
}

pub fn one_life(w: &World, g: &mut Generator, model: Model, ops: u32, power: u64, style: CrashStyle) -> Model {
    let shard = w.open();
    w.assert_state(&shard, &model);
    w.disk.power_off_after(power);
    let progress = Progress::default();
    let disk = w.disk.clone();
    w.rt.run_until(drive(&shard, g, ops, progress.clone()), || disk.is_off());
    w.crash(style);
    let shard = w.open();
    let found = w.state(&shard).expect("readable");
    let acknowledged = progress.acknowledged.get();
    let matched = matching(&found, &model, &progress);
    let end = matched.unwrap_or_else(|| panic!("lost or invented something after {acknowledged} acknowledgements"));
    drop(shard);
    // The recovered state must survive a second failure without having been written again.
    w.crash(CrashStyle::Random);
    end
}

fn lives(seed: u64, ops: u32, powers: &[u64], snapshots: bool) {
    let w = World::new(seed);
    let mut g = Generator { snapshots, ..Generator::new(seed, if snapshots { 200 } else { 500 }) };
    let mut model = Model::default();
    for power in powers {
        let style = match g.rng.below(4) {
            0 => CrashStyle::LoseAll,
            1 => CrashStyle::KeepAll,
            _ => CrashStyle::Random,
        };
        model = one_life(&w, &mut g, model, ops, *power, style);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost(
        seed in any::<u64>(),
        ops in 1u32..400,
        powers in proptest::collection::vec(1u64..900, 1..5),
    ) {
        lives(seed, ops, &powers, false);
    }

    #[test]
    fn no_version_is_lost(
        seed in any::<u64>(),
        ops in 1u32..600,
        powers in proptest::collection::vec(1u64..900, 1..5),
    ) {
        lives(seed, ops, &powers, true);
    }
}

/// A checkpoint is interrupted after each of its operations.
#[test]
fn a_checkpoint_may_be_interrupted_anywhere() {
    for power in 0..40 {
        let w = World::new(power);
        let shard = w.open();
        let mut model = Model::default();
        let mut ops: Vec<Op> = (0..4).map(|c| Op::Create(ChunkId(11 + c), 1)).collect();
        ops.extend((1..60).map(|i| write(i, (i * 7 % 400) as u32, 20)));
        for op in ops {
            model.apply(&op);
            w.run(&shard, op).expect("works");
        }
        w.rt.block_on(shard.checkpoint()).expect("works");
        let more = write(100, 3, 50);
        model.apply(&more);
        w.run(&shard, more).expect("works");
        w.disk.power_off_after(power);
        let disk = w.disk.clone();
        w.rt.run_until(shard.checkpoint(), || disk.is_off());
        w.crash(CrashStyle::Random);
        let shard = w.open();
        w.assert_state(&shard, &model);
    }
}

/// A sync fails, the daemon is started again without a power failure, and goes on with what it can read. Then power fails.
#[test]
fn what_was_recovered_after_a_failed_sync_stays() {
    for checkpoint in [false, true] {
        let w = World::new(1);
        let shard = w.open();
        let mut model = Model::default();
        for op in [Op::Create(CHUNK, 1), write(1, 3, 2)] {
            model.apply(&op);
            w.run(&shard, op).expect("works");
        }
        if checkpoint {
            // The root is written, and its sync fails: the second of the two.
            w.disk.fail_sync(1);
            w.rt.block_on(shard.checkpoint()).expect_err("the sync fails");
        } else {
            let late = write(2, 3, 2);
            model.apply(&late);
            w.disk.fail_sync(0);
            w.run(&shard, late).expect_err("the sync fails");
        }
        w.rt.abort_all();
        w.disk.kill();
        let shard = w.open();
        w.assert_state(&shard, &model);
        let next = write(3, 9, 1);
        model.apply(&next);
        w.run(&shard, next).expect("works");
        w.crash(CrashStyle::LoseAll);
        let shard = w.open();
        w.assert_state(&shard, &model);
    }
}
