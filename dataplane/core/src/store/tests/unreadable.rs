//! Sectors that cannot be read: each costs what was stored there, and nothing else.

use super::world::*;
use crate::store::*;
use crate::testing::CrashStyle;
use bytes::Bytes;
use levee_proto::wire::Scope;
use levee_proto::{BLOCK_SIZE, Epoch, Seq, Version};

fn entries(shard: &TestShard) -> Vec<levee_proto::wire::BlockEntry> {
    shard.entries(CHUNK, 0, Version::MAX, usize::MAX, Seq::ZERO).0
}

/// Where the disk holds a block with this content; the last place.
fn place_of(w: &World, n: u64) -> u64 {
    let pages = w.disk.used_pages().into_iter().rev();
    pages.into_iter().find(|p| w.disk.peek(*p, BLOCK_SIZE) == block(n)).expect("it is stored")
}

#[test]
fn a_bad_sector_is_a_bad_block_until_it_is_repaired() {
    let w = World::new(1);
    let shard = w.open();
    for op in [Op::Create(CHUNK, 1), write(1, 0, 8)] {
        w.run(&shard, op).expect("works");
    }
    let listed = entries(&shard);
    w.disk.make_unreadable(place_of(&w, 1003));
    let read = |from, count| w.rt.block_on(shard.read(CHUNK, from, count, &newest()));
    let corrupt = Err(StoreError::Corrupt { chunk: CHUNK, blocks: vec![3] });
    assert_eq!(read(0, 8), corrupt);
    let reads = w.disk.reads();
    assert_eq!(read(3, 1), corrupt);
    assert_eq!(w.disk.reads(), reads, "it is not tried again at once");
    assert_eq!(read(0, 3).expect("good").1, blocks(1000, 3));
    assert_eq!(read(4, 4).expect("good").1, blocks(1004, 4));
    let (seq, entry) = (listed[3].seq, listed[3]);
    let repair = Op::Repair { chunk: CHUNK, epoch: 1, version: 1, block: 3, seq, to: Some(Some(1003)) };
    w.run(&shard, repair).expect("works");
    assert_eq!(read(0, 8).expect("good").1, blocks(1000, 8));
    assert_eq!(entries(&shard)[3], entry);
    w.crash(CrashStyle::LoseAll);
    assert_eq!(w.rt.block_on(w.open().read(CHUNK, 0, 8, &newest())).expect("good").1, blocks(1000, 8));
}

/// One read may fail on a disk that is sound: a cable shook.
#[test]
fn a_read_that_fails_once_is_made_again() {
    let w = World::new(2);
    let shard = w.open();
    for op in [Op::Create(CHUNK, 1), write(1, 0, 8)] {
        w.run(&shard, op).expect("works");
    }
    for (from, count) in [(0, 8), (3, 1)] {
        w.disk.fail_read(0);
        let read = w.rt.block_on(shard.read(CHUNK, from, count, &newest()));
        assert_eq!(read.expect("good").1, blocks(1000 + u64::from(from), count));
    }
}

/// Its entry is there like any other's, in all that is counted and compared, and a repair brings the data.
#[test]
fn what_is_gone_everywhere_has_an_entry_without_data() {
    let w = World::new(3);
    let shard = w.open();
    for op in [Op::Create(CHUNK, 1), write(1, 0, 2)] {
        w.run(&shard, op).expect("works");
    }
    let (whole, good) = (shard.replica(CHUNK).expect("there"), entries(&shard));
    // Who has the data keeps it.
    let gone = |entries: Vec<_>| shard.repair(CHUNK, Epoch(1), Scope::Gone, entries, Bytes::new());
    w.rt.block_on(gone(good.clone())).expect("works");
    assert_eq!(w.rt.block_on(shard.read(CHUNK, 0, 2, &newest())).expect("good").1, blocks(1000, 2));
    w.run(&shard, Op::Repair { chunk: CHUNK, epoch: 2, version: 1, block: 0, seq: Seq::ZERO, to: None })
        .expect("works");
    assert_ne!(shard.replica(CHUNK).expect("there").digest, whole.digest);
    w.rt.block_on(gone(good[..1].to_vec())).expect("works");
    for life in 0..3 {
        let shard = w.open();
        assert_eq!((entries(&shard), shard.replica(CHUNK).expect("there").digest), (good.clone(), whole.digest));
        let read = w.rt.block_on(shard.read(CHUNK, 0, 2, &newest()));
        assert_eq!(read, Err(StoreError::Corrupt { chunk: CHUNK, blocks: vec![0] }), "life {life}");
        if life == 1 {
            w.rt.block_on(shard.checkpoint()).expect("works");
        }
        w.crash(CrashStyle::LoseAll);
    }
    let shard = w.open();
    let repair = Op::Repair { chunk: CHUNK, epoch: 1, version: 1, block: 0, seq: good[0].seq, to: Some(Some(1000)) };
    w.run(&shard, repair).expect("works");
    assert_eq!(w.rt.block_on(shard.read(CHUNK, 0, 2, &newest())).expect("good").1, blocks(1000, 2));
    let zero = levee_proto::wire::BlockEntry::absent(1);
    let refused = w.rt.block_on(shard.repair(CHUNK, Epoch(1), Scope::Gone, vec![zero], Bytes::new()));
    assert!(matches!(refused, Err(StoreError::Invalid(_))));
}

/// Any sector of a disk whose daemon does not run: the shard opens, and says of what it lost that it is lost.
#[test]
fn no_bad_sector_keeps_a_shard_closed_or_makes_wrong_data() {
    let w = World::new(4);
    let shard = w.open();
    w.run(&shard, Op::Create(CHUNK, 1)).expect("works");
    for n in 1..60 {
        w.run(&shard, write(n, (n as u32 * 7) % 90, 1 + n as u32 % 5)).expect("works");
        if n % 25 == 0 {
            w.rt.block_on(shard.checkpoint()).expect("works");
        }
    }
    let model = w.state(&shard).expect("readable");
    w.crash(CrashStyle::LoseAll);
    // Without its last batch a log looks shorter, not damaged.
    let batch_number = |p: &u64| u64::from_le_bytes(*w.disk.peek(*p + 32, 8).first_chunk().expect("eight bytes"));
    let batches = w.disk.used_pages().into_iter().filter(|p| w.disk.peek(*p, 4) == b"LVBA");
    let last = batches.max_by_key(batch_number).expect("there are batches");
    let used = w.disk.used_pages().into_iter().filter(|p| *p >= limits::SHARDS_START && *p != last);
    let (mut clean, mut bad) = (0, 0);
    for pos in used {
        let w = w.fork(CrashStyle::KeepAll, pos);
        w.disk.make_unreadable(pos);
        let (shard, report) = w.try_open().expect("one sector is not the shard");
        match w.state(&shard) {
            Ok(found) if report.damaged.is_empty() && !report.tail_cut => {
                assert_eq!(found, model, "at {pos}: {report}")
            }
            Ok(_) => {}
            Err(e) => assert!(matches!(&e, StoreError::Corrupt { blocks, .. } if blocks.len() == 1), "at {pos}: {e}"),
        }
        clean += u32::from(report.is_clean());
        bad += u32::from(!report.is_clean());
        w.run(&shard, write(1000, 5, 3)).expect("goes on");
        w.crash(CrashStyle::LoseAll);
        assert!(w.try_open().is_ok());
    }
    assert!(clean > 100 && bad > 5, "{clean} {bad}");
}

#[test]
fn an_unreadable_segment_header_costs_nothing() {
    let w = World::new(5);
    let shard = w.open();
    w.run(&shard, Op::Create(CHUNK, 1)).expect("works");
    for n in 1..60 {
        w.run(&shard, write(n, (n as u32 * 37) % 900, 30)).expect("works");
        if n == 30 {
            w.rt.block_on(shard.checkpoint()).expect("works");
        }
    }
    let model = w.state(&shard).expect("readable");
    w.crash(CrashStyle::LoseAll);
    let g = w.sb.shard(0).expect("exists");
    for segment in 0..g.segments {
        let w = w.fork(CrashStyle::KeepAll, u64::from(segment));
        w.disk.make_unreadable(g.segment_pos(segment));
        for _ in 0..2 {
            let shard = w.open();
            w.assert_state(&shard, &model);
            w.crash(CrashStyle::LoseAll);
        }
    }
}
