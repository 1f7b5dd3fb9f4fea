//! A shard that is full to the last block: what takes no space always works, what is freed comes back soon, and
//! power may fail at any moment.

use super::crash::{Generator, one_life};
use super::world::*;
use crate::ports::Runtime;
use crate::store::*;
use crate::testing::CrashStyle;
use levee_proto::{ChunkId, Fence, ReplicaId};
use proptest::prelude::*;
use std::time::Duration;

/// The shard holds about 2,300 blocks.
const SMALL: u32 = 13;
/// Of each of four chunks: a little more than there is room for.
const BLOCKS: u64 = 600;
/// In which freed space is to be of use again. Virtual time: disks take none of it.
const SOON: Duration = Duration::from_secs(1);

/// Writes the chunks one after the other until nothing fits any more.
fn fill(w: &World, shard: &TestShard, g: &mut Generator, model: &mut Model) {
    let mut do_it = |op: Op| {
        let done = w.run(shard, op.clone());
        match done {
            Ok(()) => model.apply(&op),
            Err(e) => assert_eq!(e, StoreError::Full),
        }
    };
    for c in 0..4 {
        let chunk = ChunkId(11 + c);
        g.next_replica += 1;
        do_it(Op::Create(chunk, g.next_replica));
        for block in 0..BLOCKS as u32 {
            g.counter += 1;
            let n = (g.counter * 1000) << 8;
            do_it(Op::Write { chunk, version: 1, seq: seq(g.epoch, g.counter), block, count: 1, n });
        }
    }
    let usage = shard.usage();
    assert!(usage.used + 4096 > usage.capacity, "{usage:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_full_shard_loses_nothing_and_never_stalls(
        seed in any::<u64>(),
        ops in 1u32..500,
        powers in proptest::collection::vec(1u64..1500, 1..4),
    ) {
        let w = World::sized(seed, SMALL);
        let mut g = Generator { snapshots: seed % 2 == 0, ..Generator::new(seed, BLOCKS) };
        let mut model = Model::default();
        fill(&w, &w.open(), &mut g, &mut model);
        w.crash(CrashStyle::LoseAll);
        for power in powers {
            model = one_life(&w, &mut g, model, ops, power, CrashStyle::Random);
        }
    }
}

fn full(seed: u64) -> (World, TestShard, Generator, Model) {
    let w = World::sized(seed, SMALL);
    let shard = w.open();
    let (mut g, mut model) = (Generator::new(seed, BLOCKS), Model::default());
    fill(&w, &shard, &mut g, &mut model);
    (w, shard, g, model)
}

/// Does it, which must not take long.
fn soon(w: &World, shard: &TestShard, model: &mut Model, op: Op) {
    let begin = w.rt.now();
    assert_eq!(w.run(shard, op.clone()), Ok(()), "{op:?}");
    assert!(w.rt.now() - begin < SOON, "{op:?} took {:?}", w.rt.now() - begin);
    model.apply(&op);
}

#[test]
fn what_takes_no_space_works_for_ever() {
    let (w, shard, mut g, mut model) = full(1);
    let before = w.disk.bytes_written();
    for i in 0..3000u32 {
        g.counter += 1;
        let (seq, block) = (seq(1, g.counter), i * 7 % 500);
        let chunk = ChunkId(11 + u64::from(i % 3));
        let point = shard.replica(chunk).map(|r| CommitPoint { chunk, replica: r.replica, seq: r.max_seq });
        let op = match i % 7 {
            0 => Op::Fence(i),
            1 => Op::Commit { epoch: 1, point: point.expect("there") },
            // Discards of what was never written take no data either.
            2 => Op::Zero { chunk, version: 1, seq, block: 1000 + i * 4, count: 200 },
            3 => Op::Repair { chunk, epoch: 1, version: 1, block: 15_000 + block, seq, to: None },
            _ => Op::Write { chunk, version: 1, seq, block, count: 20, n: g.counter << 20 },
        };
        soon(&w, &shard, &mut model, op);
    }
    assert!(w.disk.bytes_written() - before > 2 * w.disk.size(), "the log went round");
    w.assert_state(&shard, &model);
    w.crash(CrashStyle::LoseAll);
    w.assert_state(&w.open(), &model);
}

#[test]
fn what_is_freed_is_of_use_again_soon() {
    let (w, shard, mut g, mut model) = full(2);
    let extra = |g: &mut Generator, block, count| {
        g.counter += 1;
        Op::Write { chunk: ChunkId(11), version: 1, seq: seq(2, g.counter), block, count, n: g.counter << 20 }
    };
    for round in 0..6 {
        let more = extra(&mut g, 2000 + round * 600, 250);
        assert_eq!(w.run(&shard, more.clone()), Err(StoreError::Full));
        let used = shard.usage().used;
        if round % 2 == 0 {
            let chunk = ChunkId(12);
            let replica = shard.replica(chunk).expect("there").replica.0;
            soon(&w, &shard, &mut model, Op::Delete(chunk, replica));
            assert!(shard.usage().used < used - 4096 * 300);
            soon(&w, &shard, &mut model, Op::Create(chunk, replica + 1));
            for block in (0..600).step_by(100) {
                g.counter += 1;
                let seq = seq(2, g.counter);
                soon(
                    &w,
                    &shard,
                    &mut model,
                    Op::Write { chunk, version: 1, seq, block, count: 100, n: g.counter << 20 },
                );
            }
            g.counter += 1;
        } else {
            g.counter += 1;
            let seq = seq(2, g.counter);
            let (chunk, block) = [(13, 0), (13, 250), (11, 0)][round as usize / 2];
            soon(&w, &shard, &mut model, Op::Zero { chunk: ChunkId(chunk), version: 1, seq, block, count: 250 });
            soon(&w, &shard, &mut model, more);
        }
    }
    w.assert_state(&shard, &model);
    w.crash(CrashStyle::LoseAll);
    w.assert_state(&w.open(), &model);
}

/// Everything deleted, everything is there again.
#[test]
fn an_emptied_shard_has_all_its_room() {
    let (w, shard, _, _) = full(3);
    for round in 0..3 {
        for r in shard.all_replicas() {
            w.rt.block_on(shard.delete_replica(r.chunk, r.replica)).expect("deletes");
        }
        assert_eq!(shard.usage().used, 0);
        let mut g =
            Generator { epoch: 2 + round, next_replica: 100 * u64::from(round + 1), ..Generator::new(3, BLOCKS) };
        w.rt.block_on(shard.set_fence(VOLUME, Fence(g.epoch))).expect("fences");
        let mut model = Model { fence: g.epoch, ..Model::default() };
        fill(&w, &shard, &mut g, &mut model);
        w.assert_state(&shard, &model);
    }
    assert!(shard.replica(ChunkId(11)).is_some_and(|r| r.replica > ReplicaId(300)));
}
