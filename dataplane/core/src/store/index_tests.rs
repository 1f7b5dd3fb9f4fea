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
        Record::Fence { volume: VolumeId(1), epoch: Epoch(2) },
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
        assert_eq!((log.slot(5).place, log.index.fence(VolumeId(1))), (Place(113), Epoch(2)));
    }
}
