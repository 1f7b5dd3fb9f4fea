use super::*;

/// Counts references per location.
#[derive(Default)]
struct Refs(BTreeMap<u32, i32>);

impl Ledger for Refs {
    fn change(&mut self, old: Place, new: Place) {
        for (place, by) in [(old, -1), (new, 1)] {
            if let Some(l) = place.location() {
                *self.0.entry(l).or_default() += by;
            }
        }
        self.0.retain(|_, n| *n != 0);
    }
}

const CHUNK: ChunkId = ChunkId(7);

fn create(replica: u64) -> Record {
    let new = NewReplica {
        volume: VolumeId(1),
        chunk: CHUNK,
        replica: ReplicaId(replica),
        config: ConfigNo(1),
        adopted: Epoch(1),
    };
    Record::Create { new, damaged: false }
}

fn seq(epoch: u32, counter: u64) -> Seq {
    Seq::new(Epoch(epoch), counter)
}

fn write(seq: Seq, block: u32, byte: u8) -> Record {
    let crcs = Crcs::of(&[byte; 4096]);
    Record::Write { chunk: CHUNK, kind: BlockKind::Data, version: Version(1), seq, block, count: 1, crcs }
}

fn write_at(version: u32, seq: Seq, block: u32, byte: u8) -> Record {
    let crcs = Crcs::of(&[byte; 4096]);
    Record::Write { chunk: CHUNK, kind: BlockKind::Data, version: Version(version), seq, block, count: 1, crcs }
}

fn absent(version: u32, block: u32) -> BlockEntry {
    BlockEntry { version: Version(version), ..BlockEntry::absent(block) }
}

fn prune(drops: &[(u32, u32, Seq)]) -> Record {
    let dropped =
        |(block, version, seq): &(u32, u32, Seq)| Dropped { block: *block, version: Version(*version), seq: *seq };
    Record::Prune { chunk: CHUNK, drops: drops.iter().map(dropped).collect() }
}

fn repair(epoch: u32, e: BlockEntry) -> Record {
    Record::Repair { chunk: CHUNK, epoch: Epoch(epoch), entries: vec![e] }
}

fn data(seq: Seq, block: u32, byte: u8) -> BlockEntry {
    let crc = crc32c::crc32c(&[byte; 4096]);
    BlockEntry { block, kind: BlockKind::Data, version: Version(1), seq, crc }
}

struct Log {
    index: Index,
    refs: Refs,
    next: u64,
}

impl Log {
    fn new() -> Log {
        let mut log = Log { index: Index::default(), refs: Refs::default(), next: 1 };
        log.apply(&create(1), 0);
        log
    }

    fn apply(&mut self, r: &Record, at: u32) {
        self.index.apply(r, self.next, at, &mut self.refs);
        self.next += 1;
        self.check();
    }

    fn slot(&self, block: u32) -> Slot {
        self.index.get(CHUNK).map_or(Slot::ABSENT, |r| r.chains.head(block))
    }

    /// The versions and places of a block, the newest first.
    fn chain(&self, block: u32) -> Vec<(u32, u32)> {
        let r = self.index.get(CHUNK).expect("exists");
        r.chains.chain(block).map(|s| (s.version.0, s.place.0)).collect()
    }

    /// Everything that is kept incrementally equals what a look at all entries gives.
    fn check(&self) {
        let mut locations = BTreeMap::new();
        let (mut all, mut with_data) = (0, 0);
        for r in self.index.replicas() {
            let mut digest = Digest::default();
            for (b, s) in r.chains.all() {
                digest.add(&s.entry(b));
                s.place.location().into_iter().for_each(|l| *locations.entry(l).or_insert(0) += 1);
                all += 1;
                with_data += u64::from(is_data(s));
            }
            let max = r.chains.all().map(|(_, s)| s.seq()).max().unwrap_or_default();
            let meta = r.meta();
            assert_eq!((meta.digest, meta.max_seq, meta.entries as usize), (digest, max, r.chains.all().count()));
        }
        assert_eq!(self.refs.0, locations);
        assert_eq!(self.index.entry_counts(), (with_data, all - with_data));
    }
}

#[test]
fn larger_seq_wins_whatever_the_order() {
    let mut log = Log::new();
    log.apply(&write(seq(1, 5), 3, b'b'), 10);
    log.apply(&write(seq(1, 4), 3, b'a'), 11);
    assert_eq!(log.slot(3).place, Place(10));
    log.apply(&write(seq(1, 5), 3, b'b'), 12);
    assert_eq!(log.slot(3).place, Place(12), "the same write again replaces the location");
    log.apply(&write(seq(1, 5), 3, b'x'), 13);
    assert_eq!(log.slot(3).place, Place(12), "another write of the same seq does not");
}

#[test]
fn repair_replaces_older_epochs_and_merges_with_its_own() {
    let mut log = Log::new();
    log.apply(&write(seq(3, 9), 0, b'a'), 10);
    log.apply(&repair(4, data(seq(2, 1), 0, b'b')), 11);
    assert_eq!((log.slot(0).seq(), log.slot(0).place), (seq(2, 1), Place(11)));
    log.apply(&repair(4, BlockEntry::absent(0)), 0);
    assert_eq!(log.slot(0), Slot::ABSENT);
    log.apply(&write(seq(4, 2), 0, b'c'), 12);
    log.apply(&repair(4, BlockEntry::absent(0)), 0);
    log.apply(&repair(4, data(seq(4, 1), 0, b'd')), 13);
    assert_eq!(log.slot(0).place, Place(12));
    log.apply(&repair(4, data(seq(4, 3), 0, b'e')), 14);
    assert_eq!(log.slot(0).place, Place(14));
}

#[test]
fn a_move_needs_the_old_location() {
    let mut log = Log::new();
    log.apply(&write(seq(1, 1), 0, b'a'), 10);
    let crc = crc32c::crc32c(&[b'a'; 4096]);
    let moved = Moved { chunk: CHUNK, block: 0, version: Version(1), seq: seq(1, 1), crc, from: 10 };
    log.apply(&Record::Move { blocks: vec![moved] }, 20);
    assert_eq!(log.slot(0).place, Place(20));
    log.apply(&Record::Move { blocks: vec![moved] }, 30);
    log.apply(&Record::Lost { blocks: vec![moved] }, 0);
    assert_eq!(log.slot(0).place, Place(20));
    log.apply(&Record::Lost { blocks: vec![Moved { from: 20, ..moved }] }, 0);
    assert_eq!(log.slot(0).place, Place::LOST);
    log.apply(&repair(1, data(seq(1, 1), 0, b'a')), 40);
    assert_eq!(log.slot(0).place, Place(40));
}

#[test]
fn records_of_an_earlier_replica_do_not_touch_a_later_one() {
    let mut log = Log::new();
    log.apply(&write(seq(1, 1), 0, b'a'), 10);
    log.apply(&Record::Delete { chunk: CHUNK, replica: ReplicaId(2) }, 0);
    assert_eq!(log.slot(0).place, Place(10), "deletes name their replica");
    log.apply(&Record::Delete { chunk: CHUNK, replica: ReplicaId(1) }, 0);
    log.apply(&create(2), 0);
    // Replay from a checkpoint that already has the second replica.
    let end = log.next;
    log.next = 1;
    log.apply(&create(1), 0);
    log.apply(&write(seq(1, 1), 0, b'a'), 10);
    log.apply(&Record::Delete { chunk: CHUNK, replica: ReplicaId(2) }, 0);
    log.apply(&Record::Adopt { epoch: Epoch(9), chunks: vec![CHUNK] }, 0);
    log.next = end;
    let meta = log.index.get(CHUNK).map(Replica::meta).expect("the second replica is untouched");
    assert_eq!((meta.replica, meta.entries, meta.adopted), (ReplicaId(2), 0, Epoch(1)));
}

#[test]
fn replaying_onto_any_later_state_gives_the_same_end() {
    let records = [
        write(seq(1, 1), 0, b'a'),
        write(seq(1, 2), 1, b'b'),
        Record::Fence { volume: VolumeId(1), fence: Fence(2) },
        repair(2, data(seq(1, 1), 1, b'r')),
        repair(2, BlockEntry::absent(0)),
        Record::Adopt { epoch: Epoch(2), chunks: vec![CHUNK] },
        write(seq(2, 1), 0, b'c'),
        repair(2, BlockEntry::absent(0)),
        Record::Delete { chunk: CHUNK, replica: ReplicaId(1) },
        create(2),
        write(seq(2, 2), 2, b'd'),
        write(seq(2, 1), 2, b'e'),
        repair(3, data(seq(1, 7), 2, b'f')),
        write(seq(3, 1), 5, b'g'),
    ];
    for checkpoint_at in 0..=records.len() {
        let mut log = Log::new();
        for (i, r) in records[..checkpoint_at].iter().enumerate() {
            log.apply(r, 100 + i as u32);
        }
        log.next = 2;
        for (i, r) in records.iter().enumerate() {
            log.apply(r, 100 + i as u32);
        }
        let meta = log.index.get(CHUNK).map(Replica::meta).expect("exists");
        assert_eq!((meta.replica, meta.entries, meta.adopted), (ReplicaId(2), 2, Epoch(1)));
        assert_eq!((log.slot(2).seq(), log.slot(2).place), (seq(1, 7), Place(112)), "{checkpoint_at}");
        assert_eq!((log.slot(5).place, log.index.fence(VolumeId(1))), (Place(113), Fence(2)));
    }
}

#[test]
fn each_version_of_a_block_is_a_register_of_its_own() {
    let mut log = Log::new();
    log.apply(&write_at(2, seq(1, 5), 3, b'b'), 10);
    log.apply(&write_at(1, seq(1, 3), 3, b'a'), 11);
    log.apply(&write_at(4, seq(1, 9), 3, b'd'), 12);
    assert_eq!(log.chain(3), [(4, 12), (2, 10), (1, 11)], "later ones may come first");
    log.apply(&write_at(1, seq(1, 2), 3, b'x'), 13);
    log.apply(&write_at(2, seq(1, 6), 3, b'y'), 14);
    log.apply(&write_at(3, seq(1, 7), 3, b'c'), 15);
    assert_eq!(log.chain(3), [(4, 12), (3, 15), (2, 14), (1, 11)]);
    let grows = |version, block| log.index.growth(CHUNK, Version(version), block, 1);
    assert_eq!([grows(4, 3), grows(1, 3), grows(5, 3), grows(4, 4)], [0, 0, 1, 1]);
}

#[test]
fn a_repair_replaces_or_removes_one_version_of_older_epochs() {
    let mut log = Log::new();
    let base = [(1, seq(1, 1), b'a'), (2, seq(1, 2), b'b'), (3, seq(2, 3), b'c')];
    base.iter().zip(10..).for_each(|((v, s, b), at)| log.apply(&write_at(*v, *s, 0, *b), at));
    log.apply(&repair(2, BlockEntry { version: Version(2), ..data(seq(1, 1), 0, b'r') }), 20);
    assert_eq!(log.chain(0), [(3, 12), (2, 20), (1, 10)], "an older seq replaces what is void");
    log.apply(&repair(2, absent(3, 0)), 0);
    log.apply(&repair(2, absent(9, 0)), 0);
    assert_eq!(log.chain(0), [(3, 12), (2, 20), (1, 10)], "the epoch's own stays");
    log.apply(&repair(3, absent(3, 0)), 0);
    assert_eq!(log.chain(0), [(2, 20), (1, 10)], "what is below becomes the head");
    log.apply(&write_at(5, seq(3, 1), 0, b'e'), 30);
    log.apply(&repair(3, absent(0, 0)), 0);
    assert_eq!(log.chain(0), [(5, 30)], "all versions, but the epoch's own");
}

#[test]
fn compaction_and_pruning_name_an_entry_of_a_chain() {
    let mut log = Log::new();
    log.apply(&write_at(1, seq(1, 1), 0, b'a'), 10);
    log.apply(&write_at(2, seq(1, 2), 0, b'b'), 11);
    let crc = crc32c::crc32c(&[b'a'; 4096]);
    let moved = Moved { chunk: CHUNK, block: 0, version: Version(1), seq: seq(1, 1), crc, from: 10 };
    log.apply(&Record::Move { blocks: vec![moved] }, 20);
    assert_eq!(log.chain(0), [(2, 11), (1, 20)]);
    log.apply(&Record::Lost { blocks: vec![Moved { from: 20, ..moved }] }, 0);
    assert_eq!(log.chain(0), [(2, 11), (1, Place::LOST.0)]);
    log.apply(&repair(1, data(seq(1, 1), 0, b'a')), 21);
    assert_eq!(log.chain(0), [(2, 11), (1, 21)]);
    log.apply(&prune(&[(0, 1, seq(1, 9)), (0, 3, seq(1, 1)), (1, 1, seq(1, 1))]), 0);
    assert_eq!(log.chain(0), [(2, 11), (1, 21)], "another seq, another version, another block");
    log.apply(&prune(&[(0, 2, seq(1, 2))]), 0);
    assert_eq!(log.chain(0), [(1, 21)]);
}

#[test]
fn only_what_is_committed_is_pruned() {
    use crate::store::prune::prunable;
    use levee_proto::View;
    use levee_proto::view::Keep;
    let mut log = Log::new();
    for v in 1..=3 {
        log.apply(&write_at(v, seq(1, v.into()), 0, b'a'), v);
        log.apply(&write_at(v, seq(1, 10 + u64::from(v)), 1, b'b'), 10 + v);
    }
    let mut drops = |commit, keep: &[View]| {
        let seq = seq(1, commit);
        log.apply(&Record::Commit { points: vec![CommitPoint { chunk: CHUNK, replica: ReplicaId(1), seq }] }, 0);
        let r = log.index.get(CHUNK).expect("exists");
        let mut found: Vec<_> = prunable(r, &Keep::new(keep), 0).0.iter().map(|d| (d.block, d.version.0)).collect();
        found.sort_unstable();
        found
    };
    let head = View::of(Version(3));
    let early = View::of(Version(2));
    assert_eq!(drops(0, std::slice::from_ref(&early)), []);
    assert_eq!(drops(0, std::slice::from_ref(&head)), []);
    assert_eq!(drops(1, std::slice::from_ref(&head)), []);
    assert_eq!(drops(2, std::slice::from_ref(&head)), [(0, 1)], "version 3 may turn out void, and 2 is read then");
    assert_eq!(drops(3, std::slice::from_ref(&head)), [(0, 1), (0, 2)]);
    assert_eq!(drops(12, &[head.clone(), View::of(Version(1))]), [(0, 2)]);
    // Version 2 is rolled back, and hides nothing from this view; what does is not committed.
    let back = View { version: Version(3), hidden: vec![(Version(2), Version(2))] };
    assert_eq!(drops(12, std::slice::from_ref(&back)), [(0, 1), (0, 2), (1, 2)]);
    // Views from before the head moved on say nothing of what was written since.
    assert_eq!(drops(13, std::slice::from_ref(&early)), [(0, 1), (1, 1)]);
    assert_eq!(drops(13, &[back]), [(0, 1), (0, 2), (1, 1), (1, 2)]);
}

#[test]
fn steps_of_pruning_look_only_at_blocks_with_more_than_one_entry() {
    use crate::store::limits::PRUNE_BLOCKS;
    use crate::store::prune::prunable;
    use levee_proto::View;
    use levee_proto::view::Keep;
    let mut log = Log::new();
    let (all, again) = (0..3 * PRUNE_BLOCKS, 100..100 + PRUNE_BLOCKS + 50);
    for block in all.clone() {
        log.apply(&write_at(1, seq(1, u64::from(block) + 1), block, b'a'), block);
    }
    for block in again.clone() {
        log.apply(&write_at(2, seq(1, u64::from(all.end + block) + 1), block, b'b'), all.end + block);
    }
    let commit = CommitPoint { chunk: CHUNK, replica: ReplicaId(1), seq: seq(1, (all.end + again.end).into()) };
    log.apply(&Record::Commit { points: vec![commit] }, 0);
    let r = log.index.get(CHUNK).expect("exists");
    let keep = Keep::new(&[View::of(Version(2))]);
    let (first, next) = prunable(r, &keep, 0);
    assert_eq!((first.len(), next), (PRUNE_BLOCKS as usize, Some(100 + PRUNE_BLOCKS)));
    assert_eq!((first[0].block, first[0].version), (100, Version(1)));
    let (rest, end) = prunable(r, &keep, next.unwrap());
    assert_eq!((rest.len(), rest[49].block, end), (50, again.end - 1, None));
    // Where the head hides something, all blocks are looked at.
    let back = Keep::new(&[View { version: Version(3), hidden: vec![(Version(2), Version(2))] }]);
    let (drops, next) = prunable(r, &back, 0);
    assert_eq!((drops.len(), next), ((PRUNE_BLOCKS - 100) as usize, Some(PRUNE_BLOCKS)));
}

#[test]
fn a_seal_grows_and_ends_with_damage() {
    let mut log = Log::new();
    let seal = |replica, v| Record::Seal {
        seals: vec![Seal { chunk: CHUNK, replica: ReplicaId(replica), version: Version(v) }],
    };
    let sealed = |log: &Log| log.index.get(CHUNK).map(|r| r.sealed.0);
    for (replica, v, expected) in [(1, 3, 3), (1, 2, 3), (2, 9, 3), (1, 4, 4)] {
        log.apply(&seal(replica, v), 0);
        assert_eq!(sealed(&log), Some(expected));
    }
    log.index.mark_damaged(|_| true);
    log.apply(&seal(1, 5), 0);
    assert_eq!(sealed(&log), Some(0));
    log.apply(&Record::ClearDamaged { chunk: CHUNK }, 0);
    log.apply(&seal(1, 5), 0);
    assert_eq!(sealed(&log), Some(5));
    log.apply(&create(2), 0);
    assert_eq!(sealed(&log), Some(0));
}

#[test]
fn replaying_versions_onto_any_later_state_gives_the_same_end() {
    let records = [
        write_at(1, seq(1, 1), 0, b'a'),
        write_at(2, seq(1, 2), 0, b'b'),
        write_at(1, seq(1, 3), 1, b'c'),
        prune(&[(0, 1, seq(1, 1))]),
        write_at(3, seq(1, 4), 0, b'd'),
        repair(2, absent(3, 0)),
        repair(2, BlockEntry { version: Version(2), ..data(seq(1, 2), 0, b'b') }),
        write_at(3, seq(2, 1), 1, b'e'),
        prune(&[(1, 1, seq(1, 3))]),
        write_at(4, seq(2, 2), 0, b'f'),
        repair(3, absent(0, 1)),
        repair(3, BlockEntry { version: Version(2), ..data(seq(2, 1), 1, b'g') }),
    ];
    for checkpoint_at in 0..=records.len() {
        let mut log = Log::new();
        for (i, r) in records[..checkpoint_at].iter().enumerate() {
            log.apply(r, 100 + i as u32);
        }
        log.next = 2;
        for (i, r) in records.iter().enumerate() {
            log.apply(r, 100 + i as u32);
        }
        assert_eq!((log.chain(0), log.chain(1)), (vec![(4, 109), (2, 106)], vec![(2, 111)]), "{checkpoint_at}");
    }
}
