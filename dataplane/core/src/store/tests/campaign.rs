//! One thing goes wrong on one copy: a bit flips, a block goes back to what it was, a write lands at another place.
//! Whatever it is, what is read is right, or the store says what is not.
//!
//! `LEVEE_SEEDS` sets how many disks are made; each is harmed in [`HARMS`] ways, one at a time.

use super::crash::Generator;
use super::world::*;
use crate::store::*;
use crate::testing::{CrashStyle, MemDisk, TestRng};
use levee_proto::wire::BlockKind;
use levee_proto::{ChunkId, Seq, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

const DISKS: u64 = 3;
const HARMS: u64 = 100;
const OPS: usize = 1500;
/// The rest is more than a segment holds.
const BEFORE_LAST: usize = OPS - 600;
const PAGE: u64 = 4096;

/// Contents by what they are content of.
type Ever = BTreeMap<(ChunkId, Key, Seq), BTreeSet<u64>>;

/// A disk with a history, and what it was like at moments of it.
struct Base {
    w: World,
    earlier: Vec<MemDisk>,
    model: Model,
    /// Without the last requests, and these.
    before_last: Model,
    last: Vec<Op>,
    ever: Ever,
    /// Places that are not zero.
    used: Vec<u64>,
    /// Batches: where they are.
    batches: Vec<Range<u64>>,
}

impl Base {
    fn new(seed: u64) -> Base {
        let w = World::sized(seed, 13);
        let shard = w.open();
        let mut g = Generator { snapshots: seed % 2 == 1, ..Generator::new(seed, 450) };
        let (mut model, mut before_last, mut last) = (Model::default(), Model::default(), Vec::new());
        let (mut earlier, mut ever) = (Vec::new(), Ever::new());
        let mut done = 0;
        while done < OPS {
            let op = g.op();
            if w.run(&shard, op.clone()).is_ok() {
                model.apply(&op);
                remember(&mut ever, &op);
                done += 1;
                match done {
                    ..=BEFORE_LAST => before_last.apply(&op),
                    _ => last.push(op),
                }
            }
            if done % 150 == 0 {
                earlier.push(w.disk.fork(CrashStyle::KeepAll, 1));
            }
        }
        w.crash(CrashStyle::KeepAll);
        let used: Vec<u64> = (0..w.disk.size())
            .step_by(PAGE as usize)
            .filter(|p| w.disk.peek(*p, 4096).iter().any(|b| *b != 0))
            .collect();
        let batches = used.iter().filter_map(|p| batch(&w.disk, *p)).collect();
        Base { w, earlier, model, before_last, last, ever, used, batches }
    }
}

impl Base {
    /// How many of the last requests have had no effect, if all before have had theirs.
    fn missing_last(&self, found: &Model) -> Option<usize> {
        let mut model = self.before_last.clone();
        for (i, op) in self.last.iter().enumerate() {
            if model == *found {
                return Some(self.last.len() - i);
            }
            if let Op::Write { chunk, count, .. } = op
                && others(&model, *chunk).eq(others(found, *chunk))
            {
                // Cut at the end of a segment.
                let partly = |part: u32| {
                    let mut m = model.clone();
                    m.apply_part(op, part);
                    m == *found
                };
                if (1..*count).any(partly) {
                    return Some(self.last.len() - i);
                }
            }
            model.apply(op);
        }
        None
    }
}

fn others(model: &Model, chunk: ChunkId) -> impl Iterator<Item = (&ChunkId, &(u64, u32, BTreeMap<Key, Held>))> {
    model.chunks.iter().filter(move |(c, _)| **c != chunk)
}

fn remember(ever: &mut Ever, op: &Op) {
    let mut put = |chunk, block, seq, n| ever.entry((chunk, block, seq)).or_default().insert(n);
    match *op {
        Op::Write { chunk, version, seq, block, count, n } => {
            for i in 0..count {
                put(chunk, (block + i, version), seq, n + u64::from(i));
            }
        }
        Op::Repair { chunk, version, block, seq, to: Some(Some(n)), .. } => {
            put(chunk, (block, version), seq, n);
        }
        _ => {}
    }
}

/// The batch that begins here, if one does.
fn batch(disk: &MemDisk, pos: u64) -> Option<Range<u64>> {
    let head = disk.peek(pos, 64);
    let word = |at: usize| u64::from(u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let len = (64 + word(52)).next_multiple_of(PAGE) + word(56);
    (head.starts_with(b"LVBA") && pos + len <= disk.size()).then_some(pos..pos + len)
}

/// Harms the disk; what was done.
fn harm(base: &Base, disk: &MemDisk, rng: &mut TestRng) -> &'static str {
    match rng.below(3) {
        0 => {
            let pos = base.used[rng.index(base.used.len())];
            disk.flip_bit(pos + rng.below(PAGE), rng.below(8) as u8);
            "bit flip"
        }
        1 => {
            let old = &base.earlier[rng.index(base.earlier.len())];
            let differs = |p: &u64| disk.peek(*p, 4096) != old.peek(*p, 4096);
            let from = rng.index(base.used.len());
            if let Some(pos) = base.used[from..].iter().copied().find(differs) {
                disk.edit(pos, 4096, |b| b.copy_from_slice(&old.peek(pos, 4096)));
            }
            "stale block"
        }
        _ => {
            let from = base.batches[rng.index(base.batches.len())].clone();
            let len = (from.end - from.start) as usize;
            let content = disk.peek(from.start, len);
            // What was there before it was written.
            if let Some(old) = base.earlier.iter().rev().find(|d| d.peek(from.start, 64) != content[..64]) {
                disk.edit(from.start, len, |b| b.copy_from_slice(&old.peek(from.start, len)));
            }
            let places = (disk.size() - len as u64) / PAGE;
            let to = rng.below(places) * PAGE;
            disk.edit(to, len, |b| b.copy_from_slice(&content));
            "misdirected write"
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Nothing that is still of use was hit.
    Harmless,
    /// Told when the shard was opened.
    FoundAtOpening,
    /// Told when the blocks were read.
    FoundByReading,
    /// The last batch is gone: that looks like one that a crash tore.
    Tail,
    /// So does the end of the log when a write lands on all of it, or the first write of its last segment elsewhere.
    LongTail,
}

/// What the shard holds, and which blocks it says are corrupt. Content must have been written there once.
fn read_all(base: &Base, w: &World, shard: &TestShard) -> (Model, BTreeSet<(ChunkId, u32)>) {
    let (mut model, mut corrupt) = (Model { fence: shard.fence(VOLUME).0, ..Model::default() }, BTreeSet::new());
    for r in shard.all_replicas() {
        let mut held = BTreeMap::new();
        let entries = shard.entries(r.chunk, 0, Version::MAX, usize::MAX, Seq::ZERO).0;
        for e in &entries {
            let key = (e.block, e.version.0);
            if e.kind == BlockKind::Zero {
                held.insert(key, (e.seq, None));
                continue;
            }
            match w.rt.block_on(shard.read_entries(r.chunk, &[(e.block, e.version)])) {
                Ok((_, data)) => {
                    let n = u64::from_le_bytes(*data.first_chunk().expect("a block"));
                    let written = base.ever.get(&(r.chunk, key, e.seq)).is_some_and(|ns| ns.contains(&n));
                    assert!(written && data[..] == block(n)[..], "wrong data was read");
                    held.insert(key, (e.seq, Some(n)));
                }
                Err(StoreError::Corrupt { .. }) => {
                    corrupt.insert((r.chunk, e.block));
                    let known = base.model.chunks.get(&r.chunk).and_then(|c| c.2.get(&key));
                    held.insert(key, *known.unwrap_or(&(e.seq, None)));
                }
                Err(e) => panic!("{e}"),
            }
        }
        model.chunks.insert(r.chunk, (r.replica.0, r.adopted.0, held));
        if r.commit > Seq::ZERO {
            model.commits.insert(r.chunk, r.commit);
        }
        if r.sealed > Version(0) {
            model.seals.insert(r.chunk, r.sealed.0);
        }
    }
    (model, corrupt)
}

fn judge(base: &Base, w: &World) -> Verdict {
    let (shard, report) = match w.try_open() {
        Ok(opened) => opened,
        Err(StoreError::Unrecoverable(_)) => return Verdict::FoundAtOpening,
        Err(e) => panic!("{e}"),
    };
    let (found, corrupt) = read_all(base, w, &shard);
    if report.is_clean() && report.damaged.is_empty() {
        if found == base.model {
            return if corrupt.is_empty() { Verdict::Harmless } else { Verdict::FoundByReading };
        }
        match base.missing_last(&found) {
            None => {
                let differing = base.model.chunks.iter().filter(|(c, held)| found.chunks.get(c) != Some(held));
                let differing: Vec<_> = differing.map(|(c, _)| c).collect();
                panic!("chunks {differing:?} lack something, and nobody says so: {report}");
            }
            Some(1) => return Verdict::Tail,
            Some(_) => return Verdict::LongTail,
        }
    }
    for (chunk, held) in &base.model.chunks {
        match found.chunks.get(chunk) {
            None => assert!(report.log_gap, "{chunk} is forgotten, and nobody says so: {report}"),
            Some(f) if f != held => assert!(report.damaged.contains(chunk), "{chunk} differs unnoticed: {report}"),
            Some(_) => {}
        }
    }
    let invented = |c: &&ChunkId| !base.model.chunks.contains_key(c) && !report.damaged.contains(c);
    assert_eq!(found.chunks.keys().find(invented), None, "{report}");
    assert!(found.fence == base.model.fence || report.log_gap, "a fence is forgotten: {report}");
    Verdict::FoundAtOpening
}

#[test]
fn whatever_happens_to_one_place_is_found() {
    let disks = std::env::var("LEVEE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(DISKS);
    let mut seen: BTreeMap<(&str, Verdict), u64> = BTreeMap::new();
    for disk in 0..disks {
        let base = Base::new(disk);
        for i in 0..HARMS {
            let w = base.w.fork(CrashStyle::KeepAll, i);
            let mut rng = TestRng::new(disk * HARMS + i);
            let what = harm(&base, &w.disk, &mut rng);
            println!("disk {disk}, harm {i}: {what}");
            let verdict = judge(&base, &w);
            assert!(verdict != Verdict::LongTail || what == "misdirected write", "{what}");
            *seen.entry((what, verdict)).or_default() += 1;
        }
    }
    for ((what, verdict), n) in seen {
        println!("{what}: {verdict:?} {n}");
    }
}
