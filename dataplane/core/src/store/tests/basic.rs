//! What a shard does when nothing goes wrong, and what it refuses.

use super::world::*;
use crate::store::*;
use crate::testing::CrashStyle;
use bytes::Bytes;
use levee_proto::wire::{BlockKind, Crcs, Scope};
use levee_proto::{BLOCK_SIZE, ChunkId, Epoch, Fence, ReplicaId, Seq, Version};

#[test]
fn what_was_written_is_read_and_survives() {
    let w = World::new(1);
    let shard = w.open();
    let mut model = Model::default();
    let ops = [
        Op::Create(CHUNK, 1),
        Op::Fence(3),
        write(1, 0, 256),
        write(2, 100, 5),
        Op::Zero { chunk: CHUNK, version: 1, seq: seq(1, 3), block: 102, count: 1 },
        write(1, 90, 20),
        Op::Repair { chunk: CHUNK, epoch: 2, version: 1, block: 0, seq: seq(1, 1), to: Some(Some(77)) },
        Op::Adopt(3, CHUNK),
        Op::Create(ChunkId(12), 2),
        Op::Create(ChunkId(13), 3),
        Op::Delete(ChunkId(13), 3),
    ];
    for op in ops {
        model.apply(&op);
        assert_eq!(w.run(&shard, op), Ok(()));
        w.assert_state(&shard, &model);
    }
    w.crash(CrashStyle::LoseAll);
    let shard = w.open();
    w.assert_state(&shard, &model);
    w.rt.block_on(shard.close()).expect("closes");
    assert_eq!(w.rt.task_count(), 0, "no task is left behind");
    let (shard, report) = w.try_open().expect("opens");
    assert_eq!(report, RecoveryReport::default(), "a clean close leaves nothing to replay");
    w.assert_state(&shard, &model);
}

#[test]
fn requests_made_together_share_batches() {
    let w = World::new(2);
    let shard = w.open();
    w.run(&shard, Op::Create(CHUNK, 1)).expect("creates");
    let syncs = w.disk.syncs();
    let tickets: Vec<_> = (0..64).map(|i| write(i + 1, i as u32, 1).issue(&shard)).collect();
    w.rt.block_on(async {
        for t in tickets {
            t.await.expect("writes");
        }
    });
    assert!(w.disk.syncs() - syncs <= 2, "{} syncs", w.disk.syncs() - syncs);
}

#[test]
fn a_write_that_is_made_again_is_written_once() {
    let w = World::new(2);
    let shard = w.open();
    w.run(&shard, Op::Create(CHUNK, 1)).expect("creates");
    let before = w.disk.bytes_written();
    let run_all = |ops: Vec<Op>| {
        let tickets: Vec<_> = ops.iter().map(|op| op.issue(&shard)).collect();
        w.rt.block_on(async {
            for t in tickets {
                t.await.expect("writes");
            }
        });
        w.disk.bytes_written() - before
    };
    let first = run_all(vec![write(1, 0, 64), write(2, 100, 64)]);
    assert_eq!(run_all(vec![write(1, 0, 64), write(2, 100, 64)]), first, "both are durable");
    let again = (0..10).flat_map(|_| [write(3, 0, 64), write(4, 100, 64)]).collect();
    assert!(run_all(again) <= first + 2 * 64 * BLOCK_SIZE as u64 + 8 * BLOCK_SIZE as u64, "both are under way");
    // What an entry is taken away by, it comes back after.
    let void = Op::Repair { chunk: CHUNK, epoch: 2, version: 1, block: 0, seq: seq(1, 4), to: None };
    run_all(vec![write(5, 0, 1), void, write(5, 0, 1)]);
    assert_eq!(shard.entries(CHUNK, 0, Version::MAX, 1, Seq::ZERO).0[0].block, 0);
}

#[test]
fn a_fence_completes_after_the_writes_before_it() {
    let w = World::new(3);
    let shard = w.open();
    w.run(&shard, Op::Create(CHUNK, 1)).expect("creates");
    let _unawaited: Vec<_> = (0..300).map(|i| write(i + 1, i as u32 * 8, 8).issue(&shard)).collect();
    w.rt.block_on(shard.set_fence(VOLUME, Fence(5))).expect("fences");
    w.crash(CrashStyle::LoseAll);
    let shard = w.open();
    assert_eq!((shard.fence(VOLUME), shard.replica(CHUNK).map(|r| r.entries)), (Fence(5), Some(2400)));
}

#[test]
fn bad_requests_are_refused() {
    let w = World::new(4);
    let shard = w.open();
    let refused = |t: Ticket| w.rt.block_on(t).expect_err("refused");
    assert_eq!(refused(write(1, 0, 1).issue(&shard)), StoreError::UnknownReplica(CHUNK));
    w.run(&shard, Op::Create(CHUNK, 1)).expect("creates");
    let write = |kind, block, count, data: Bytes| {
        refused(shard.write(CHUNK, kind, Version(1), seq(1, 1), block, count, Crcs::of(&data), data))
    };
    for e in [
        write(BlockKind::Absent, 0, 1, Bytes::new()),
        write(BlockKind::Data, 16_384, 1, blocks(0, 1)),
        write(BlockKind::Data, u32::MAX, 2, blocks(0, 2)),
        write(BlockKind::Data, 0, 2, blocks(0, 1)),
        write(BlockKind::Data, 0, 0, Bytes::new()),
        write(BlockKind::Data, 0, 257, blocks(0, 257)),
        write(BlockKind::Zero, 0, 1, blocks(0, 1)),
    ] {
        assert!(matches!(e, StoreError::Invalid(_)), "{e}");
    }
    for (block, count) in [(16_384, 1), (0, 0), (1, u32::MAX)] {
        let e = w.rt.block_on(shard.read(CHUNK, block, count, &newest())).expect_err("refused");
        assert!(matches!(e, StoreError::Invalid(_)));
    }
    w.rt.block_on(shard.close()).expect("closes");
    assert_eq!(refused(shard.set_fence(VOLUME, Fence(1))), StoreError::Closed);
}

#[test]
fn commit_points_only_rise_and_survive() {
    let w = World::new(8);
    let shard = w.open();
    w.run(&shard, Op::Create(CHUNK, 1)).expect("creates");
    for i in 1..=4 {
        w.run(&shard, write(i, i as u32, 1)).expect("writes");
    }
    let point = |counter| CommitPoint { chunk: CHUNK, replica: ReplicaId(1), seq: seq(1, counter) };
    let set = |shard: &TestShard, epoch, point| w.rt.block_on(shard.set_commit(Epoch(epoch), vec![point]));
    let commit = |shard: &TestShard| shard.replica(CHUNK).expect("there").commit;
    assert_eq!(set(&shard, 1, point(3)), Ok(()));
    assert_eq!(set(&shard, 1, point(2)), Ok(()));
    assert_eq!(commit(&shard), seq(1, 3));
    assert!(matches!(set(&shard, 1, point(5)), Err(StoreError::Invalid(_))));
    assert_eq!(set(&shard, 2, point(4)), Ok(()), "not adopted: ignored");
    let other = CommitPoint { replica: ReplicaId(2), ..point(4) };
    assert_eq!(set(&shard, 1, other), Err(StoreError::UnknownReplica(CHUNK)));
    w.crash(CrashStyle::LoseAll);
    let shard = w.open();
    assert_eq!(commit(&shard), seq(1, 3), "replayed");
    w.rt.block_on(shard.close()).expect("closes");
    let shard = w.open();
    assert_eq!(commit(&shard), seq(1, 3), "from the checkpoint");
    w.run(&shard, Op::Create(CHUNK, 2)).expect("creates");
    assert_eq!(commit(&shard), Seq::ZERO, "another replica");
}

#[test]
fn a_long_repair_is_one_request() {
    let w = World::new(5);
    let shard = w.open();
    w.run(&shard, Op::Create(CHUNK, 1)).expect("creates");
    let data = blocks(1, 1024);
    let crcs = Crcs::of(&data);
    let entry = |block, crc| levee_proto::wire::BlockEntry {
        block,
        kind: BlockKind::Data,
        version: Version(1),
        seq: seq(1, 5),
        crc,
    };
    let entries: Vec<_> = crcs.iter().zip(3..).map(|(crc, b)| entry(b, crc)).collect();
    w.rt.block_on(shard.repair(CHUNK, Epoch(2), Scope::Named, entries.clone(), data.clone())).expect("repairs");
    let shard = {
        w.crash(CrashStyle::LoseAll);
        w.open()
    };
    assert_eq!(shard.entries(CHUNK, 0, Version::MAX, 10_000, levee_proto::Seq::ZERO), (entries, false));
    let (_, read) = w.rt.block_on(shard.read(CHUNK, 3, 1024, &newest())).expect("reads");
    assert_eq!(read, data);
    assert_eq!(shard.entries(CHUNK, 1000, Version::MAX, 5, levee_proto::Seq::ZERO).0.len(), 5);
    assert!(shard.entries(CHUNK, 1000, Version::MAX, 5, levee_proto::Seq::ZERO).1);
}

#[test]
fn a_failed_write_or_sync_stops_the_shard() {
    for sync in [false, true] {
        let w = World::new(6);
        let shard = w.open();
        w.run(&shard, Op::Create(CHUNK, 1)).expect("creates");
        if sync {
            w.disk.fail_sync(0)
        } else {
            w.disk.fail_write(0)
        }
        let tickets = [write(1, 0, 1).issue(&shard), write(2, 0, 256).issue(&shard), write(3, 0, 256).issue(&shard)];
        w.rt.block_on(async {
            for t in tickets {
                assert!(matches!(t.await, Err(StoreError::Failed(_))));
            }
        });
        assert!(matches!(w.run(&shard, write(4, 0, 1)), Err(StoreError::Failed(_))));
        assert!(matches!(w.rt.block_on(shard.read(CHUNK, 0, 1, &newest())), Err(StoreError::Failed(_))));
        assert!(matches!(w.rt.block_on(shard.flush()), Err(StoreError::Failed(_))));
        assert!(matches!(w.rt.block_on(shard.close()), Err(StoreError::Failed(_))));
    }
}

#[test]
fn a_flipped_bit_is_found() {
    let w = World::new(7);
    let shard = w.open();
    w.run(&shard, Op::Create(CHUNK, 1)).expect("creates");
    w.run(&shard, write(1, 0, 8)).expect("writes");
    let (_, data) = w.rt.block_on(shard.read(CHUNK, 0, 8, &newest())).expect("reads");
    let pos = (0..w.disk.size()).step_by(4096).find(|p| w.disk.peek(*p, 4096) == block(1003)).expect("stored");
    assert_eq!(data[3 * 4096..4 * 4096], block(1003));
    w.disk.flip_bit(pos + 77, 3);
    let e = w.rt.block_on(shard.read(CHUNK, 0, 8, &newest())).expect_err("corrupt");
    assert_eq!(e, StoreError::Corrupt { chunk: CHUNK, blocks: vec![3] });
    let fix = Op::Repair { chunk: CHUNK, epoch: 1, version: 1, block: 3, seq: seq(1, 1), to: Some(Some(1003)) };
    w.run(&shard, fix).expect("repairs");
    assert_eq!(w.rt.block_on(shard.read(CHUNK, 0, 8, &newest())).expect("reads").1, data);
}
