//! Space: overwriting for ever, full and emptied again, compaction under readers and over damage.

use super::world::*;
use crate::store::*;
use crate::testing::{CrashStyle, TestRng};
use levee_proto::ChunkId;

fn capacity_blocks(shard: &TestShard) -> u32 {
    (shard.usage().capacity / 4096) as u32
}

/// Fills `blocks` blocks in order, over as many chunks as it takes.
fn fill(w: &World, shard: &TestShard, model: &mut Model, blocks: u32) {
    let mut counter = 0;
    for first in (0..blocks).step_by(64) {
        let chunk = ChunkId(11 + u64::from(first / 4096));
        if first % 4096 == 0 {
            run(w, shard, model, Op::Create(chunk, 1)).expect("creates");
        }
        counter += 1;
        let count = 64.min(blocks - first);
        let op = Op::Write { chunk, version: 1, seq: seq(1, counter), block: first % 4096, count, n: counter << 20 };
        run(w, shard, model, op).expect("there is room");
    }
}

fn run(w: &World, shard: &TestShard, model: &mut Model, op: Op) -> Result<(), StoreError> {
    let done = w.run(shard, op.clone());
    if done.is_ok() {
        model.apply(&op);
    }
    done
}

#[test]
fn a_nearly_full_shard_can_be_overwritten_for_ever() {
    let w = World::sized(1, 24);
    let shard = w.open();
    let mut model = Model::default();
    let live = capacity_blocks(&shard) * 85 / 100;
    fill(&w, &shard, &mut model, live);
    let mut rng = TestRng::new(1);
    let shard_blocks = 24 * 512;
    let mut written = 0;
    for i in 0u64.. {
        let count = if rng.one_in(4) { 1 + rng.below(100) as u32 } else { 1 };
        let first = rng.below(u64::from(live - count)) as u32 / 4096 * 4096 + rng.below(4096 - 100) as u32;
        let first = first.min(live - count);
        let chunk = ChunkId(11 + u64::from(first / 4096));
        let block = first % 4096;
        let count = count.min(4096 - block);
        let op = Op::Write { chunk, version: 1, seq: seq(2, i), block, count, n: (1 << 40) + (i << 10) };
        run(&w, &shard, &mut model, op).expect("overwriting needs no new space");
        written += count;
        if written > 4 * shard_blocks {
            break;
        }
    }
    w.assert_state(&shard, &model);
    w.crash(CrashStyle::Random);
    let shard = w.open();
    w.assert_state(&shard, &model);
}

#[test]
fn a_full_shard_can_be_emptied() {
    let w = World::new(2);
    let shard = w.open();
    let mut model = Model::default();
    let room = capacity_blocks(&shard);
    let mut counter = 0;
    run(&w, &shard, &mut model, Op::Create(CHUNK, 1)).expect("creates");
    loop {
        counter += 1;
        let op = write(counter, counter as u32 * 64, 64);
        match run(&w, &shard, &mut model, op) {
            Ok(()) => {}
            Err(e) => break assert_eq!(e, StoreError::Full),
        }
    }
    assert!(counter as u32 * 64 > room * 8 / 10, "only {counter} of {room}");
    // Overwriting still works, and so does everything that adds no data.
    for i in 0..300 {
        counter += 1;
        run(&w, &shard, &mut model, write(counter, 64 + i * 5, 1)).expect("overwrites");
        run(&w, &shard, &mut model, Op::Fence(i + 1)).expect("fences");
    }
    let extra = ChunkId(70);
    run(&w, &shard, &mut model, Op::Create(extra, 2)).expect("creates");
    for block in (0..2000).step_by(100) {
        counter += 1;
        let zero = Op::Zero { chunk: CHUNK, version: 1, seq: seq(1, counter), block, count: 100 };
        run(&w, &shard, &mut model, zero).expect("discards");
    }
    counter += 1;
    run(&w, &shard, &mut model, write(counter, 0, 64)).expect("there is room again");
    run(&w, &shard, &mut model, Op::Delete(CHUNK, 1)).expect("deletes");
    run(&w, &shard, &mut model, Op::Create(CHUNK, 3)).expect("creates");
    for i in 0..20 {
        run(&w, &shard, &mut model, write(counter + i, i as u32 * 64, 64)).expect("there is room again");
    }
    w.assert_state(&shard, &model);
    w.crash(CrashStyle::LoseAll);
    let shard = w.open();
    w.assert_state(&shard, &model);
}

#[test]
fn fences_alone_do_not_fill_a_shard() {
    let w = World::new(3);
    let shard = w.open();
    for i in 1..12_000 {
        w.run(&shard, Op::Fence(i)).expect("fences");
    }
    assert!(w.disk.bytes_written() > w.disk.size(), "the log went round");
    w.crash(CrashStyle::LoseAll);
    assert_eq!(w.open().fence(VOLUME).0, 11_999);
}

#[test]
fn reads_are_right_while_segments_are_reused() {
    let w = World::new(4);
    let shard = w.open();
    let mut model = Model::default();
    let live = capacity_blocks(&shard) * 80 / 100;
    fill(&w, &shard, &mut model, live.min(4096));
    let (shard2, rt) = (shard.clone(), w.rt.clone());
    let reader = async move {
        let mut rng = TestRng::new(9);
        for _ in 0..3000 {
            let b = rng.below(u64::from(live.min(4096)) - 64) as u32;
            let (entries, data) = shard2.read(CHUNK, b, 64, &newest()).await.expect("readable");
            assert!(entries.iter().zip(data.chunks(4096)).all(|(e, d)| crc32c::crc32c(d) == e.crc));
        }
    };
    let (done, finished) = crate::sync::oneshot();
    crate::ports::Runtime::spawn(&rt, async move {
        reader.await;
        done.send(());
    });
    let mut rng = TestRng::new(5);
    for i in 0..400 {
        let b = rng.below(u64::from(live.min(4096)) - 64) as u32;
        let op = Op::Write { chunk: CHUNK, version: 1, seq: seq(2, i), block: b, count: 60, n: (1 << 40) + (i << 10) };
        run(&w, &shard, &mut model, op).expect("overwrites");
    }
    assert_eq!(w.rt.block_on(finished), Some(()));
    w.assert_state(&shard, &model);
}

#[test]
fn compaction_does_not_spread_damage() {
    let w = World::new(5);
    let shard = w.open();
    let mut model = Model::default();
    fill(&w, &shard, &mut model, 2000);
    let victim = block(1 << 20);
    let pos = (0..w.disk.size()).step_by(4096).find(|p| w.disk.peek(*p, 4096) == victim).expect("stored");
    w.disk.flip_bit(pos + 5, 5);
    for i in 0..600 {
        let op = Op::Write {
            chunk: CHUNK,
            version: 1,
            seq: seq(2, i),
            block: 100 + (i * 37 % 1800) as u32,
            count: 30,
            n: i << 30,
        };
        run(&w, &shard, &mut model, op).expect("overwrites");
    }
    let damaged = StoreError::Corrupt { chunk: CHUNK, blocks: vec![0] };
    assert_eq!(w.rt.block_on(shard.read(CHUNK, 0, 2, &newest())), Err(damaged.clone()));
    w.crash(CrashStyle::LoseAll);
    let shard = w.open();
    assert_eq!(w.rt.block_on(shard.read(CHUNK, 0, 2, &newest())), Err(damaged));
    let fix = Op::Repair { chunk: CHUNK, epoch: 1, version: 1, block: 0, seq: seq(1, 1), to: Some(Some(1 << 20)) };
    run(&w, &shard, &mut model, fix).expect("repairs");
    w.assert_state(&shard, &model);
}

/// Readers may be all that keeps segments from being reused: when they end, writes go on.
#[test]
fn writes_stalled_by_a_reader_go_on_when_it_ends() {
    let w = World::new(6);
    let shard = w.open();
    let mut model = Model::default();
    fill(&w, &shard, &mut model, 1000);
    let pins: Vec<_> = {
        let s = shard.inner().state.borrow();
        (0..s.segments.count()).map(|segment| s.segments.pin(segment)).collect()
    };
    let (rt, disk, stalled) = (w.rt.clone(), w.disk.clone(), shard.clone());
    crate::ports::Runtime::spawn(&w.rt, async move {
        while !stalled.inner().state.borrow().is_stalled() {
            crate::ports::Runtime::sleep(&rt, std::time::Duration::from_millis(1)).await;
        }
        crate::ports::Runtime::sleep(&rt, std::time::Duration::from_secs(1)).await;
        assert!(disk.writes() > 0 && stalled.inner().state.borrow().is_stalled());
        drop(pins);
    });
    for i in 0..400 {
        let op =
            Op::Write { chunk: CHUNK, version: 1, seq: seq(2, i), block: (i * 31 % 900) as u32, count: 60, n: i << 30 };
        run(&w, &shard, &mut model, op).expect("goes on");
    }
    assert_eq!(shard.inner().state.borrow().segments.count(), SEGMENTS);
    w.assert_state(&shard, &model);
}
