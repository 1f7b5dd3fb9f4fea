//! The last batch, cut or changed at every place: the state is the one before or the one after.

use super::world::*;
use crate::store::layout::ShardGeometry;
use crate::store::recovery::{Recovered, recover};
use crate::store::state::State;
use crate::testing::{CrashStyle, MemDisk};
use std::collections::BTreeMap;

/// The recovered state with the data that it refers to, which must match its checksums.
fn held(state: &State, disk: &MemDisk) -> Model {
    let g = &state.geometry;
    let mut model = Model { fence: state.index.fence(VOLUME).0, ..Model::default() };
    for r in state.index.replicas() {
        let content = |location| {
            let data = disk.peek(g.block_pos(location), 4096);
            u64::from_le_bytes(*data.first_chunk().expect("a block"))
        };
        let blocks: BTreeMap<Key, Held> = r
            .chains
            .all()
            .map(|(b, s)| {
                let n = s.place.location().map(content);
                assert!(n.is_none_or(|n| crc32c::crc32c(&block(n)) == s.crc), "wrong data");
                ((b, s.version.0), (s.seq(), n))
            })
            .collect();
        model.chunks.insert(r.chunk, (r.replica.0, r.adopted.0, blocks));
    }
    model
}

struct Tail {
    w: World,
    g: ShardGeometry,
    before: Model,
    after: Model,
    /// What was where the batch is, and what is now.
    start: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Tail {
    /// `fresh`: the batch is the first of its segment.
    fn new(fresh: bool) -> Tail {
        let w = World::new(9);
        let shard = w.open();
        let mut before = Model::default();
        for op in [Op::Create(CHUNK, 1), Op::Fence(1), write(1, 0, 4), write(2, 2, 4)] {
            before.apply(&op);
            w.run(&shard, op).expect("works");
        }
        let shard = if fresh {
            w.crash(CrashStyle::LoseAll);
            w.open()
        } else {
            shard
        };
        let old = w.disk.fork(CrashStyle::KeepAll, 1);
        let ops = [write(3, 1, 1), Op::Fence(2), write(4, 100, 1), Op::Create(levee_proto::ChunkId(50), 2)];
        let mut after = before.clone();
        let tickets: Vec<_> = ops
            .iter()
            .map(|op| {
                after.apply(op);
                op.issue(&shard)
            })
            .collect();
        w.rt.block_on(async {
            for t in tickets {
                t.await.expect("works");
            }
        });
        w.crash(CrashStyle::LoseAll);
        let changed = |p: &u64| w.disk.peek(*p, 4096) != old.peek(*p, 4096);
        let places: Vec<u64> = (0..w.disk.size()).step_by(4096).filter(changed).collect();
        let (start, end) = (places[0], places[places.len() - 1] + 4096);
        let len = (end - start) as usize;
        assert_eq!(len, if fresh { 16_384 } else { 12_288 }, "one batch: headers and two blocks");
        let (old, new) = (old.peek(start, len), w.disk.peek(start, len));
        let g = w.sb.shard(0).expect("exists");
        Tail { w, g, before, after, start, old, new }
    }

    /// Recovers with these bytes in the batch's place.
    fn check(&self, bytes: &[u8], what: &str) -> bool {
        self.w.disk.edit(self.start, bytes.len(), |b| b.copy_from_slice(bytes));
        let Recovered { state, report, .. } = self.w.rt.block_on(recover(&self.w.disk, &self.g)).expect("recovers");
        assert!(report.is_clean() && report.damaged.is_empty(), "{what}: {report:?}");
        let found = held(&state, &self.w.disk);
        assert!(found == self.before || found == self.after, "{what}");
        found == self.after
    }

    /// Every byte where there are headers and records, and places all over the data.
    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let dense = |at: usize| at % 4096 < 320 || at % 512 < 2 || at.is_multiple_of(61);
        (0..self.new.len()).filter(move |at| dense(*at))
    }
}

#[test]
fn a_tail_cut_anywhere_is_old_or_new() {
    for fresh in [false, true] {
        let t = Tail::new(fresh);
        assert!(t.check(&t.new, "whole"));
        assert!(!t.check(&t.old, "nothing"));
        for at in t.places() {
            let front = [&t.new[..at], &t.old[at..]].concat();
            t.check(&front, &format!("front to {at}"));
            let back = [&t.old[..at], &t.new[at..]].concat();
            t.check(&back, &format!("from {at} on"));
        }
    }
}

#[test]
fn a_tail_changed_anywhere_is_old_or_new() {
    for fresh in [false, true] {
        let t = Tail::new(fresh);
        for at in t.places() {
            let mut bad = t.new.clone();
            bad[at] ^= 1 << (at % 8);
            t.check(&bad, &format!("flip at {at}"));
        }
    }
}

#[test]
fn writing_goes_on_correctly_after_a_cut() {
    let t = Tail::new(false);
    let mut bad = t.new.clone();
    bad[8192] ^= 1;
    assert!(!t.check(&bad, "a data block is torn"));
    let shard = t.w.open();
    let mut model = t.before.clone();
    for op in [write(10, 1, 1), write(11, 7, 3)] {
        model.apply(&op);
        t.w.run(&shard, op).expect("works");
    }
    t.w.crash(CrashStyle::LoseAll);
    // The torn block turns up after all: the cut batch must stay cut.
    t.w.disk.edit(t.start, t.new.len(), |b| b.copy_from_slice(&t.new));
    let shard = t.w.open();
    t.w.assert_state(&shard, &model);
}
