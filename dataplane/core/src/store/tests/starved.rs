//! A disk that is a file in a file system which has no more room: what would need some is refused as full, everything else goes on, and
//! nothing fails.

use super::world::*;
use crate::ports::Runtime;
use crate::store::limits::{ROOT_AREA, SHARDS_START};
use crate::store::*;
use crate::testing::CrashStyle;
use levee_proto::ChunkId;
use std::time::Duration;

const SMALL: u32 = 40;
/// Of them the file system has room for.
const ROOM: u32 = 16;
/// By then a shard has noticed that there is room again.
const NOTICED: Duration = Duration::from_secs(5);

fn starving(seed: u64, room: u32) -> World {
    let w = World::sized(seed, SMALL);
    limit(&w, Some(room));
    w
}

/// So many segments more can be written; `None`: all.
fn limit(w: &World, room: Option<u32>) {
    w.disk.limit_space(SHARDS_START + ROOT_AREA, room.map(|segments| u64::from(segments) * u64::from(SEGMENT)));
}

/// Writes new blocks until the shard is full.
fn fill(w: &World, shard: &TestShard, model: &mut Model, counter: &mut u64) -> u64 {
    let mut written = 0;
    loop {
        *counter += 1;
        let block = (*counter % 16_000) as u32;
        let op = Op::Write { chunk: CHUNK, version: 1, seq: seq(1, *counter), block, count: 8, n: *counter << 20 };
        match w.run(shard, op.clone()) {
            Ok(()) => model.apply(&op),
            Err(e) => {
                assert_eq!(e, StoreError::Full);
                return written;
            }
        }
        written += 8;
        *counter += 8;
    }
}

fn must(w: &World, shard: &TestShard, model: &mut Model, op: Op) {
    assert_eq!(w.run(shard, op.clone()), Ok(()), "{op:?}");
    model.apply(&op);
}

#[test]
fn without_room_below_a_shard_is_full_and_goes_on() {
    for seed in 0..6 {
        let w = starving(seed, ROOM);
        let mut shard = w.open();
        let (mut model, mut counter, whole) = (Model::default(), 0, shard.usage().capacity);
        must(&w, &shard, &mut model, Op::Create(CHUNK, 1));
        let written = fill(&w, &shard, &mut model, &mut counter);
        let usage = shard.usage();
        // It counts as one of the size that it has come to.
        assert!(written > 1000 && usage.used <= usage.capacity, "{written} blocks, {usage:?}");
        assert!(usage.capacity < whole * 3 / 4 && usage.used > usage.capacity * 9 / 10, "{usage:?}, once {whole}");
        // What needs no more room works for as long as one likes, in whatever order, over restarts.
        for round in 0..1500u32 {
            counter += 10;
            let (seq, block) = (seq(1, counter), round * 37 % 900 * 9 % 8000);
            let op = match round % 5 {
                0 => Op::Fence(round),
                1 => Op::Zero { chunk: CHUNK, version: 1, seq, block: 16_100 + round % 100, count: 5 },
                _ => match model.chunks[&CHUNK].2.range((block, 0)..).find(|(_, held)| held.1.is_some()) {
                    Some(((block, _), _)) => {
                        Op::Write { chunk: CHUNK, version: 1, seq, block: *block, count: 1, n: counter << 20 }
                    }
                    None => continue,
                },
            };
            must(&w, &shard, &mut model, op);
            if round % 500 == 499 {
                w.assert_state(&shard, &model);
                w.crash(CrashStyle::Random);
                shard = w.open();
                w.assert_state(&shard, &model);
            }
        }
        assert_eq!(shard.failed(), None);
        // It can be emptied, and what was freed can be written again, though nothing else can.
        must(&w, &shard, &mut model, Op::Delete(CHUNK, 1));
        w.rt.block_on(w.rt.sleep(NOTICED));
        let other = ChunkId(12);
        must(&w, &shard, &mut model, Op::Create(other, 2));
        for block in 0..100 {
            counter += 1;
            let n = counter << 20;
            must(
                &w,
                &shard,
                &mut model,
                Op::Write { chunk: other, version: 1, seq: seq(1, counter), block, count: 1, n },
            );
        }
        w.assert_state(&shard, &model);
    }
}

#[test]
fn room_that_is_made_below_is_used() {
    let w = starving(9, ROOM);
    let shard = w.open();
    let (mut model, mut counter) = (Model::default(), 0);
    must(&w, &shard, &mut model, Op::Create(CHUNK, 1));
    fill(&w, &shard, &mut model, &mut counter);
    limit(&w, None);
    w.rt.block_on(w.rt.sleep(NOTICED));
    assert!(fill(&w, &shard, &mut model, &mut counter) > 1000);
    w.assert_state(&shard, &model);
    // What is full now is the shard itself.
    let usage = shard.usage();
    assert!(usage.used * 10 > usage.capacity * 9, "{usage:?}");
}
