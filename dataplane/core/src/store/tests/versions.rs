//! Snapshots on a whole shard: their space, and compaction and checkpoints with many versions.

use super::world::*;
use crate::store::*;
use crate::testing::{CrashStyle, TestRng};
use levee_proto::view::{Keep, View};
use levee_proto::{Epoch, ReplicaId, Seq, Version};

fn run(w: &World, shard: &TestShard, model: &mut Model, op: Op) {
    assert_eq!(w.run(shard, op.clone()), Ok(()), "{op:?}");
    model.apply(&op);
}

fn write_at(version: u32, counter: u64, block: u32, count: u32) -> Op {
    Op::Write { chunk: CHUNK, version, seq: seq(1, counter), block, count, n: counter << 20 }
}

/// Blocks at two versions that take most of the shard.
struct TwoVersions {
    w: World,
    shard: TestShard,
    model: Model,
    blocks: u32,
    counter: u64,
}

fn two_versions() -> TwoVersions {
    let w = World::sized(1, 24);
    let shard = w.open();
    let mut model = Model::default();
    run(&w, &shard, &mut model, Op::Create(CHUNK, 1));
    let blocks = (shard.usage().capacity / 4096 * 40 / 100) as u32 / 64 * 64;
    let mut counter = 0;
    for version in 1..=2 {
        for block in (0..blocks).step_by(64) {
            counter += 1;
            run(&w, &shard, &mut model, write_at(version, counter, block, 64));
        }
    }
    TwoVersions { w, shard, model, blocks, counter }
}

#[test]
fn older_versions_are_moved_and_stay_readable() {
    let TwoVersions { w, shard, mut model, blocks, mut counter } = two_versions();
    let mut rng = TestRng::new(7);
    let before = w.disk.bytes_written();
    while w.disk.bytes_written() - before < 2 * w.disk.size() {
        counter += 1;
        let (block, count) = (rng.below(u64::from(blocks) - 50) as u32, 1 + rng.below(50) as u32);
        run(&w, &shard, &mut model, write_at(1 + rng.below(2) as u32, counter, block, count));
    }
    w.assert_state(&shard, &model);
    w.crash(CrashStyle::Random);
    let shard = w.open();
    w.assert_state(&shard, &model);
}

#[test]
fn space_comes_back_when_a_snapshot_is_pruned() {
    let TwoVersions { w, shard, mut model, blocks, mut counter } = two_versions();
    let used = shard.usage().used;
    assert_eq!(used, u64::from(2 * blocks) * 4096);
    // Another version of all of it does not fit.
    let third: Vec<Op> = (0..blocks).step_by(64).map(|b| write_at(3, counter + 1 + u64::from(b), b, 64)).collect();
    let mut refused = third.iter().filter(|op| w.run(&shard, (*op).clone()).inspect(|()| model.apply(op)).is_err());
    assert!(refused.next().is_some());
    drop(refused);
    counter += 1 + u64::from(blocks);
    let seq = shard.replica(CHUNK).expect("there").max_seq;
    let point = CommitPoint { chunk: CHUNK, replica: ReplicaId(1), seq };
    run(&w, &shard, &mut model, Op::Commit { epoch: 1, point });
    // Nobody reads version 1 any more.
    let keep = Keep::new(&[View::of(Version(2)), View::of(Version(3))]);
    let (mut dropped, mut next) = (0, Some(0));
    while let Some(from) = next {
        let step = shard.prune(CHUNK, ReplicaId(1), Epoch(1), &keep, from);
        w.rt.block_on(step.done).expect("works");
        (dropped, next) = (dropped + step.dropped, step.next);
    }
    assert_eq!(dropped, u64::from(blocks));
    model.chunks.values_mut().for_each(|c| c.2.retain(|(_, version), _| *version > 1));
    w.assert_state(&shard, &model);
    w.crash(CrashStyle::LoseAll);
    let shard = w.open();
    w.assert_state(&shard, &model);
    for b in (0..blocks).step_by(64) {
        counter += 1;
        run(&w, &shard, &mut model, write_at(3, counter, b, 64));
    }
    w.assert_state(&shard, &model);
    assert!(shard.usage().used <= used);
}

/// More entries than one part of a checkpoint holds.
#[test]
fn a_replica_with_many_versions_survives_in_a_checkpoint() {
    let w = World::new(3);
    let shard = w.open();
    let mut model = Model::default();
    run(&w, &shard, &mut model, Op::Create(CHUNK, 1));
    let mut tickets = Vec::new();
    for i in 1..=17_000u32 {
        let (version, block) = (1 + i / 50, i % 50);
        let op = Op::Zero { chunk: CHUNK, version, seq: seq(1, i.into()), block, count: 1 };
        model.apply(&op);
        tickets.push(op.issue(&shard));
    }
    w.rt.block_on(async {
        for t in tickets {
            t.await.expect("works");
        }
    });
    run(&w, &shard, &mut model, write_at(341, 20_000, 10, 30));
    let seal = Seal { chunk: CHUNK, replica: ReplicaId(1), version: Version(340) };
    run(&w, &shard, &mut model, Op::Seal { epoch: 1, seal });
    w.rt.block_on(shard.checkpoint()).expect("works");
    w.crash(CrashStyle::LoseAll);
    let (shard, report) = w.try_open().expect("opens");
    assert_eq!(report, RecoveryReport::default(), "all of it is from the checkpoint");
    w.assert_state(&shard, &model);
    let (all, _) = shard.entries(CHUNK, 0, Version::MAX, usize::MAX, Seq::ZERO);
    assert!(all.len() > 17_000 && all.is_sorted_by_key(|e| (e.block, std::cmp::Reverse(e.version))));
}
