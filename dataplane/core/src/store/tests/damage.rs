//! Damage that is no torn tail: reported, replicas flagged, never a panic, never wrong data.

use super::world::*;
use crate::store::*;
use crate::testing::{CrashStyle, TestRng};
use levee_proto::{ChunkId, Epoch, ReplicaId, Seq, Version};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A shard with a checkpoint, log behind it, several chunks and segments.
fn used(seed: u64) -> (World, Model, Vec<Op>) {
    let w = World::new(seed);
    let shard = w.open();
    let mut model = Model::default();
    let mut ops: Vec<Op> = (0..3).map(|c| Op::Create(ChunkId(11 + c), 1)).collect();
    let op = |i: u64| Op::Write {
        chunk: ChunkId(11 + i % 3),
        version: 1,
        seq: seq(1, i),
        block: (i * 13 % 300) as u32,
        count: 1 + (i * 5 % 40) as u32,
        n: i * 1000,
    };
    ops.extend((1..50).map(op));
    ops.push(Op::Fence(4));
    let half = ops.len();
    ops.extend((50..110).map(op));
    for (i, op) in ops.iter().enumerate() {
        model.apply(op);
        w.run(&shard, op.clone()).expect("works");
        if i == half / 2 || i == half {
            w.rt.block_on(shard.checkpoint()).expect("works");
        }
    }
    w.crash(CrashStyle::LoseAll);
    (w, model, ops)
}

/// Positions of blocks that begin with `magic`.
fn find(w: &World, magic: &[u8]) -> Vec<u64> {
    (0..w.disk.size()).step_by(4096).filter(|p| w.disk.peek(*p, magic.len()) == magic).collect()
}

fn batch_number(w: &World, pos: u64) -> u64 {
    u64::from_le_bytes(*w.disk.peek(pos + 32, 8).first_chunk().expect("eight bytes"))
}

#[test]
fn a_lost_batch_is_reported_and_flags_the_replicas() {
    let (w, model, _) = used(1);
    let mut batches = find(&w, b"LVBA");
    batches.sort_by_key(|p| batch_number(&w, *p));
    let bad = batches[batches.len() - 10];
    w.disk.flip_bit(bad + 70, 1);
    let lost = batch_number(&w, bad);
    let (shard, report) = w.try_open().expect("opens");
    assert_eq!(report.lost_batches, vec![lost..lost + 1]);
    assert_eq!(report.damaged, vec![ChunkId(11), ChunkId(12), ChunkId(13)]);
    assert!(shard.all_replicas().iter().all(|r| r.damaged));
    let found = w.state(&shard).expect("readable");
    let differing = found.chunks.values().zip(model.chunks.values()).filter(|(a, b)| a != b).count();
    assert_eq!((differing, found.fence), (1, 4), "one write is missing");
    // The flag is durable, until it is cleared.
    w.rt.block_on(shard.clear_damaged(CHUNK)).expect("clears");
    w.run(&shard, Op::Create(ChunkId(40), 7)).expect("creates");
    w.crash(CrashStyle::LoseAll);
    let (_, report) = w.try_open().expect("opens");
    assert!(report.is_clean());
    assert_eq!(report.damaged, vec![ChunkId(12), ChunkId(13)]);
}

/// Spoils the newest batch but `behind`.
fn spoil(w: &World, behind: usize) {
    let mut batches = find(w, b"LVBA");
    batches.sort_by_key(|p| batch_number(w, *p));
    w.disk.flip_bit(batches[batches.len() - 1 - behind] + 70, 1);
}

#[test]
fn a_replica_made_just_before_a_lost_batch_is_flagged() {
    let w = World::new(12);
    let shard = w.open();
    for op in [Op::Fence(1), Op::Create(CHUNK, 1), write(1, 0, 1), write(2, 1, 1)] {
        w.run(&shard, op).expect("works");
    }
    w.crash(CrashStyle::LoseAll);
    spoil(&w, 1);
    let (_, report) = w.try_open().expect("opens");
    assert_eq!(report.damaged, [CHUNK], "its first write is missing");
}

/// That a replica was once made whole says nothing of what was lost since.
#[test]
fn what_is_lost_after_a_replica_was_made_whole_flags_it() {
    for clear_is_before in [false, true] {
        let w = World::new(13);
        let shard = w.open();
        for op in [Op::Create(CHUNK, 1), write(1, 0, 1)] {
            w.run(&shard, op).expect("works");
        }
        let lost_or_clear = |lost: bool| match lost {
            true => w.run(&shard, write(2, 1, 1)),
            false => w.rt.block_on(shard.clear_damaged(CHUNK)),
        };
        lost_or_clear(!clear_is_before).expect("works");
        lost_or_clear(clear_is_before).expect("works");
        w.run(&shard, write(3, 2, 1)).expect("works");
        w.crash(CrashStyle::LoseAll);
        spoil(&w, if clear_is_before { 1 } else { 2 });
        let (_, report) = w.try_open().expect("opens");
        assert_eq!(report.damaged, [CHUNK]);
    }
}

/// The record of a replica's creation may be lost itself. What is not there counts as unknown from then on.
#[test]
fn a_shard_remembers_that_it_may_have_forgotten_replicas() {
    let w = World::new(16);
    let shard = w.open();
    assert!(!shard.has_log_gap());
    for op in [Op::Fence(1), Op::Create(CHUNK, 1), write(1, 0, 1), Op::Fence(2)] {
        w.run(&shard, op).expect("works");
    }
    w.crash(CrashStyle::LoseAll);
    spoil(&w, 2);
    let (shard, report) = w.try_open().expect("opens");
    assert!(report.log_gap && shard.has_log_gap() && shard.replica(CHUNK).is_none());
    for life in 0..3 {
        let w = w.fork(CrashStyle::KeepAll, life);
        let shard = w.open();
        assert!(shard.has_log_gap());
        let create = |chunk, adopted| {
            let new = NewReplica { adopted: Epoch(adopted), ..new_replica(ChunkId(chunk), 1) };
            w.rt.block_on(shard.create_replica(new)).expect("creates");
        };
        create(CHUNK.0, 0);
        create(50, 2);
        let damaged =
            |shard: &TestShard| shard.all_replicas().iter().filter(|r| r.damaged).map(|r| r.chunk).collect::<Vec<_>>();
        assert_eq!(damaged(&shard), [CHUNK], "but not the one that is new with its chunk");
        if life == 1 {
            w.rt.block_on(shard.checkpoint()).expect("works");
        }
        w.crash(CrashStyle::LoseAll);
        let (shard, report) = w.try_open().expect("opens");
        assert!(report.is_clean() && report.log_gap);
        assert_eq!(damaged(&shard), [CHUNK]);
        w.rt.block_on(shard.clear_damaged(CHUNK)).expect("clears");
        assert!(damaged(&shard).is_empty() && shard.has_log_gap());
    }
}

/// Without room for a checkpoint the gap is found again.
#[test]
fn a_gap_is_not_forgotten_when_the_checkpoint_is_interrupted() {
    for power in (0..90).step_by(2) {
        let w = World::new(17);
        let shard = w.open();
        for op in [Op::Create(CHUNK, 1), write(1, 0, 1), Op::Fence(2), Op::Fence(3)] {
            w.run(&shard, op).expect("works");
        }
        w.crash(CrashStyle::LoseAll);
        spoil(&w, 2);
        w.disk.power_off_after(power);
        let disk = w.disk.clone();
        let open = Shard::open(w.disk.clone(), w.rt.clone(), &w.sb, 0, Options::default());
        w.rt.run_until(open, || disk.is_off());
        w.crash(CrashStyle::Random);
        let (shard, report) = w.try_open().expect("opens");
        assert!(report.log_gap && shard.has_log_gap());
    }
}

#[test]
fn a_damaged_replica_has_no_commit_point() {
    let w = World::new(15);
    let shard = w.open();
    let point = CommitPoint { chunk: CHUNK, replica: ReplicaId(1), seq: seq(1, 1) };
    let commit = Op::Commit { epoch: 1, point };
    let ops = [Op::Create(CHUNK, 1), write(1, 0, 1), commit.clone(), write(2, 1, 1), write(3, 2, 1)];
    ops.into_iter().for_each(|op| w.run(&shard, op).expect("works"));
    w.crash(CrashStyle::LoseAll);
    spoil(&w, 1);
    let (shard, report) = w.try_open().expect("opens");
    assert_eq!(report.damaged, [CHUNK]);
    let known = |shard: &TestShard| shard.replica(CHUNK).expect("there").commit;
    w.run(&shard, commit.clone()).expect("is ignored");
    assert_eq!(known(&shard), Seq::ZERO);
    w.rt.block_on(shard.clear_damaged(CHUNK)).expect("clears");
    assert_eq!(known(&shard), Seq::ZERO);
    w.run(&shard, commit).expect("is taken");
    w.crash(CrashStyle::LoseAll);
    assert_eq!(known(&w.open()), seq(1, 1));
}

#[test]
fn a_replica_whose_entries_are_lost_stays_flagged() {
    let w = World::new(14);
    let shard = w.open();
    for op in [Op::Create(CHUNK, 1), write(1, 0, 1)] {
        w.run(&shard, op).expect("works");
    }
    w.rt.block_on(shard.checkpoint()).expect("works");
    w.rt.block_on(shard.clear_damaged(CHUNK)).expect("works");
    w.run(&shard, Op::Create(ChunkId(40), 2)).expect("works");
    w.crash(CrashStyle::LoseAll);
    let pieces = find(&w, b"LVCP");
    let entries: Vec<_> = pieces.iter().filter(|p| w.disk.peek(**p + 6, 1) == [checkpoint::ENTRIES as u8]).collect();
    entries.iter().for_each(|p| w.disk.flip_bit(**p + 50, 0));
    // The older root is as good as none.
    let roots = find(&w, b"LEVEEROT");
    let oldest = roots.iter().min_by_key(|p| w.disk.peek(**p + 24, 1)[0]).expect("two roots");
    w.disk.flip_bit(oldest + 30, 0);
    let (_, report) = w.try_open().expect("opens");
    assert_eq!((report.bad_pieces, report.damaged), (1, vec![CHUNK]));
}

/// One write at a wrong place can take away a batch and the end of the log: replicas made between them are flagged, too.
#[test]
fn a_lost_batch_puts_the_end_in_doubt() {
    let w = World::new(18);
    let shard = w.open();
    let late = ChunkId(40);
    let last = Op::Write { chunk: late, version: 1, seq: seq(1, 1), block: 0, count: 1, n: 5 };
    for op in [Op::Create(CHUNK, 1), write(1, 0, 1), Op::Create(late, 2), last] {
        w.run(&shard, op).expect("works");
    }
    w.crash(CrashStyle::LoseAll);
    spoil(&w, 2);
    spoil(&w, 0);
    let (_, report) = w.try_open().expect("opens");
    assert_eq!(report.damaged, [CHUNK, late]);
}

#[test]
fn a_bad_segment_header_costs_nothing() {
    let (w, model, _) = used(2);
    for pos in find(&w, b"LEVEESEG") {
        w.disk.flip_bit(pos + 20, 1);
        let shard = w.open();
        w.assert_state(&shard, &model);
        w.crash(CrashStyle::LoseAll);
        w.disk.flip_bit(pos + 20, 1);
    }
}

#[test]
fn a_lost_segment_is_noticed() {
    let (w, _, _) = used(3);
    let g = w.sb.shard(0).expect("exists");
    let root = w.rt.block_on(root::read_all(&w.disk, &g)).remove(0);
    let in_use = |p: &u64| w.disk.peek(*p + 42, 2) == [1, 0] && *p != g.segment_pos(root.replay.segment);
    let generation = |p: &u64| w.disk.peek(*p + 24, 8)[0];
    let mut segments: Vec<u64> = find(&w, b"LEVEESEG").into_iter().filter(in_use).collect();
    segments.sort_by_key(generation);
    let bad = segments[segments.len() - 2];
    assert!(u64::from(generation(&bad)) > root.replay.generation, "it is in the replayed part");
    w.disk.edit(bad, SEGMENT as usize, |b| b.fill(0));
    let (_, report) = w.try_open().expect("opens");
    assert!(!report.lost_batches.is_empty());
    assert_eq!(report.damaged.len(), 3);
}

#[test]
fn a_bad_checkpoint_falls_back_to_the_one_before() {
    let (w, model, _) = used(4);
    let pieces = find(&w, b"LVCP");
    let newest = pieces.iter().map(|p| w.disk.peek(p + 24, 8)[0]).max().expect("there are pieces");
    for p in pieces.iter().filter(|p| w.disk.peek(**p + 24, 8)[0] == newest) {
        let copy = w.fork(CrashStyle::KeepAll, 1);
        copy.disk.flip_bit(p + 50, 0);
        let (shard, report) = copy.try_open().expect("opens");
        assert!(report.fell_back && report.damaged.is_empty() && report.lost_batches.is_empty(), "{report:?}");
        copy.assert_state(&shard, &model);
    }
    // With both bad, the replicas of a bad piece are known by name, and a bad directory is the end.
    for p in &pieces {
        w.disk.flip_bit(p + 50, 0);
    }
    assert!(matches!(w.try_open(), Err(StoreError::Unrecoverable(_))));
    for p in pieces.iter().filter(|p| w.disk.peek(**p + 6, 1) != [checkpoint::ENTRIES as u8]) {
        w.disk.flip_bit(p + 50, 0);
    }
    let (shard, report) = w.try_open().expect("opens");
    assert_eq!((report.bad_pieces, report.damaged.len()), (1, 3));
    assert_eq!(shard.all_replicas().len(), 3);
}

#[test]
fn one_root_is_enough_and_none_is_an_error() {
    let (w, model, _) = used(5);
    let roots = find(&w, b"LEVEEROT");
    assert_eq!(roots.len(), 2);
    for p in &roots {
        let copy = w.fork(CrashStyle::KeepAll, 1);
        copy.disk.flip_bit(p + 30, 0);
        let (shard, report) = copy.try_open().expect("opens");
        assert!(report.damaged.is_empty());
        copy.assert_state(&shard, &model);
    }
    roots.iter().for_each(|p| w.disk.flip_bit(p + 30, 0));
    assert!(matches!(w.try_open(), Err(StoreError::Unrecoverable(_))));
}

/// Every content that each (chunk, block) was ever given, by seq.
fn ever_written(ops: &[Op]) -> BTreeMap<(ChunkId, Key, u64), u64> {
    let mut all = BTreeMap::new();
    for op in ops {
        if let Op::Write { chunk, version, seq, block, count, n } = op {
            all.extend((0..*count).map(|i| ((*chunk, (block + i, *version), seq.0), n + u64::from(i))));
        }
    }
    all
}

fn harm(w: &World, rng: &mut TestRng, interesting: &[u64]) {
    let pos = interesting[rng.index(interesting.len())];
    match rng.below(5) {
        0 => w.disk.edit(pos, 4096, |b| b.fill(0)),
        1 => w.disk.edit(pos, 512, |b| b.fill(0xff)),
        2 => {
            let other = w.disk.peek(interesting[rng.index(interesting.len())], 4096);
            w.disk.edit(pos, 4096, |b| b.copy_from_slice(&other));
        }
        _ => w.disk.flip_bit(pos + rng.below(300), rng.below(8) as u8),
    }
}

thread_local! {
    static BASE: (World, Vec<Op>) = {
        let (w, _, ops) = used(6);
        (w, ops)
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is done to the disk, what is read was once written there, or an error says so.
    #[test]
    fn no_damage_makes_wrong_data(seed in any::<u64>(), harms in 1usize..12) {
        let (w, ops) = BASE.with(|(w, ops)| (w.fork(CrashStyle::KeepAll, seed), ops.clone()));
        let written = ever_written(&ops);
        let mut rng = TestRng::new(seed);
        let interesting: Vec<u64> =
            (1 << 20..w.disk.size()).step_by(4096).filter(|p| w.disk.peek(*p, 4096).iter().any(|b| *b != 0)).collect();
        (0..harms).for_each(|_| harm(&w, &mut rng, &interesting));
        let Ok((shard, _)) = w.try_open() else { return Ok(()) };
        for r in shard.all_replicas() {
            for e in shard.entries(r.chunk, 0, Version::MAX, usize::MAX, levee_proto::Seq::ZERO).0 {
                match w.rt.block_on(shard.read_entries(r.chunk, &[(e.block, e.version)])) {
                    Ok((_, data)) => {
                        let n = written.get(&(r.chunk, (e.block, e.version.0), e.seq.0));
                        prop_assert_eq!(&data[..], &block(*n.expect("written once"))[..]);
                    }
                    Err(e) => {
                        let corrupt = matches!(e, StoreError::Corrupt { .. });
                        prop_assert!(corrupt, "{}", e);
                    },
                }
            }
        }
        // And the shard goes on.
        w.run(&shard, Op::Create(ChunkId(99), 1000)).expect("works");
        let data = blocks(5, 2);
        let crcs = levee_proto::wire::Crcs::of(&data);
        let kind = levee_proto::wire::BlockKind::Data;
        let t = shard.write(ChunkId(99), kind, levee_proto::Version(1), seq(1, 1), 0, 2, crcs, data.clone());
        w.rt.block_on(t).expect("works");
        w.crash(CrashStyle::LoseAll);
        let (shard, _) = w.try_open().expect("opens");
        prop_assert_eq!(w.rt.block_on(shard.read(ChunkId(99), 0, 2, &newest())).expect("reads").1, data);
    }
}

#[test]
fn reports_read_as_one_line() {
    let report = RecoveryReport { batches: 51, records: 402, tail_cut: true, ..RecoveryReport::default() };
    assert_eq!(report.to_string(), "replayed 51 batches, 402 records; cut a torn tail");
    let report = RecoveryReport {
        batches: 1,
        records: 1,
        lost_batches: vec![7..9, 12..13],
        bad_pieces: 1,
        damaged: vec![ChunkId(4)],
        ..RecoveryReport::default()
    };
    assert_eq!(
        report.to_string(),
        "replayed 1 batch, 1 record; damaged: 3 batches of the log missing, 1 piece of the checkpoint unreadable; \
         1 replica may have lost blocks, made whole from other copies once the volume is attached"
    );
    let report = RecoveryReport { log_gap: true, ..RecoveryReport::default() };
    assert_eq!(
        report.to_string(),
        "replayed 0 batches, 0 records; replicas may have been forgotten: what is not here counts as unknown"
    );
    let report = RecoveryReport { fell_back: true, ..RecoveryReport::default() };
    assert_eq!(
        report.to_string(),
        "replayed 0 batches, 0 records; damaged: the newest checkpoint unusable, the one before it used; \
         no replica lost anything"
    );
}
