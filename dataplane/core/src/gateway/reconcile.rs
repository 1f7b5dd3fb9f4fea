//! What a chunk's state is when its writer died: decided from the answers of its members.
//!
//! Pure. Rule (`docs/protocol.md`, takeover): let E* be the largest `adopted` among the answers.
//! Members at E* contribute every entry, members below it only entries written in E* or later: their
//! older ones may have been voided by a takeover that they were not part of. Per block and version the largest
//! seq wins. Any `copies − min_copies + 1` answers contain every acknowledged write.
//!
//! An entry that none of its holders can read, because what they stored of it is corrupt, is void if so many lack it that it cannot
//! have been acknowledged; else the chunk waits for more members: one of them may hold it.
//!
//! What no live view sees may be missing anywhere: members prune at different times. It is neither copied to those who lack
//! it nor taken from those who have it.

use super::member::Slots;
use levee_proto::view::Keep;
use levee_proto::wire::{BlockEntry, BlockKind};
use levee_proto::{Epoch, Seq, Version};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Entries in the order of listings: by block, the newest version of each first.
type Entries = BTreeMap<Key, BlockEntry>;
type Key = (u32, Reverse<Version>);

fn key(e: &BlockEntry) -> Key {
    (e.block, Reverse(e.version))
}

/// A version of a block without an entry.
pub(super) fn absent(block: u32, version: Version) -> BlockEntry {
    BlockEntry { version, ..BlockEntry::absent(block) }
}

/// One member's answer.
pub(super) struct Evidence {
    pub member: usize,
    /// It knows all that it ever held; else it decides nothing, and is only brought to what is decided.
    pub witness: bool,
    pub adopted: Epoch,
    /// In the order of listings.
    pub entries: Vec<BlockEntry>,
}

/// What a member has to change.
pub(super) struct Change {
    /// The state that this version of the block is brought to; `Absent` where an entry is void.
    pub entry: BlockEntry,
    /// The members that hold it.
    pub sources: Slots,
}

/// Entries that are void although they are evidence.
pub(super) type Void = BTreeSet<(u32, Seq)>;

/// Entries that cannot be read anywhere, as their holders are known to fail at it (`unreadable`, by block and version), and
/// that at least `quorum` members lack that would have them if they had acknowledged them.
pub(super) fn hopeless(evidence: &[Evidence], unreadable: &BTreeMap<(u32, Version), Slots>, quorum: usize) -> Void {
    let witnesses = || evidence.iter().filter(|e| e.witness);
    let newest = newest_adopted(evidence);
    let mut void = Void::new();
    for ((block, version), failed) in unreadable {
        let held = |e: &Evidence| {
            let entry = e.entries.iter().find(|x| (x.block, x.version) == (*block, *version))?;
            is_evidence(e, entry, newest).then_some((e.member, *entry))
        };
        let mut held: Vec<_> = witnesses().filter_map(held).collect();
        held.sort_by_key(|(_, entry)| Reverse(entry.seq));
        for same in held.chunk_by(|a, b| a.1.seq == b.1.seq) {
            let holders: Slots = same.iter().map(|(member, ..)| 1 << member).sum();
            let lacks = |e: &&Evidence| e.adopted > Epoch(0) && holders & (1 << e.member) == 0;
            if holders & !failed != 0 || witnesses().filter(lacks).count() < quorum {
                break;
            }
            crate::reached!("unreadable entry void at a takeover");
            void.insert((*block, same[0].1.seq));
        }
    }
    void
}

fn newest_adopted(evidence: &[Evidence]) -> Epoch {
    evidence.iter().filter(|e| e.witness).map(|e| e.adopted).max().unwrap_or_default()
}

/// Decides the state and returns, per answer, what that member has to change, version by version in block order.
pub(super) fn decide(evidence: &[Evidence], void: &Void, keep: &Keep) -> Vec<(usize, Vec<Change>)> {
    let witnesses = || evidence.iter().filter(|e| e.witness);
    let newest = newest_adopted(evidence);
    let mut decided = Entries::new();
    for answer in witnesses() {
        let counts = |e: &&BlockEntry| is_evidence(answer, e, newest) && !void.contains(&(e.block, e.seq));
        for e in answer.entries.iter().filter(counts) {
            let known = decided.entry(key(e)).or_insert(*e);
            if e.seq > known.seq {
                *known = *e;
            }
        }
    }
    let mut sources: BTreeMap<Key, Slots> = BTreeMap::new();
    for answer in witnesses() {
        for e in answer.entries.iter().filter(|e| decided.get(&key(e)) == Some(e)) {
            *sources.entry(key(e)).or_default() |= 1 << answer.member;
        }
    }
    let spare = spare(&decided, keep, |_| true);
    evidence.iter().map(|answer| (answer.member, changes(answer, &decided, &sources, &spare))).collect()
}

/// Whether an entry counts: below the newest adopted epoch it may have been void already.
fn is_evidence(answer: &Evidence, e: &BlockEntry, newest: Epoch) -> bool {
    let counts = answer.adopted == newest || e.seq.epoch() >= newest;
    if !counts {
        crate::reached!("entry void at a takeover");
    }
    counts || crate::mutant!("void entries count")
}

/// Those that no live view needs. `is_settled`: an entry can never become void, so that what it hides from a view stays hidden.
///
/// Views that come into being later need nothing else: a snapshot keeps its volume's view, and a rollback sees what the
/// snapshot did.
fn spare(entries: &Entries, keep: &Keep, is_settled: impl Fn(&BlockEntry) -> bool) -> BTreeSet<Key> {
    let mut spare = BTreeSet::new();
    let (mut block, mut newer) = (None, vec![]);
    for (key, e) in entries {
        if block.replace(e.block) != Some(e.block) {
            newer.clear();
        }
        newer.push(e.version);
        if !keep.reads(&newer, newer.len() - 1) {
            spare.insert(*key);
        }
        if !is_settled(e) {
            newer.pop();
        }
    }
    spare
}

fn changes(answer: &Evidence, decided: &Entries, sources: &BTreeMap<Key, Slots>, spare: &BTreeSet<Key>) -> Vec<Change> {
    let held: BTreeMap<_, &BlockEntry> = answer.entries.iter().map(|e| (key(e), e)).collect();
    let mut changes = vec![];
    for (key, entry) in decided {
        let mine = held.get(key);
        if mine != Some(&entry) && (mine.is_some() || !spare.contains(key)) {
            changes.push(Change { entry: *entry, sources: sources.get(key).copied().unwrap_or_default() });
        }
    }
    for (block, version) in held.keys().filter(|key| !decided.contains_key(key)) {
        changes.push(Change { entry: absent(*block, version.0), sources: 0 });
    }
    changes.sort_by_key(|c| (c.entry.version, c.entry.block));
    changes
}

/// The entries in which a member (`theirs`) differs from another (`ours`), but for what no live view needs: a takeover that lists
/// what lies above the commit point leaves such entries as they are. `is_settled`: an entry of the other is part of the decided state, so that what it hides stays hidden.
pub(super) fn differences(
    theirs: &[BlockEntry],
    ours: &[BlockEntry],
    keep: &Keep,
    is_settled: impl Fn(&BlockEntry) -> bool,
) -> Vec<(u32, Version)> {
    let is_there = |e: &&BlockEntry| e.kind != BlockKind::Absent;
    let entries = |list: &[BlockEntry]| -> Entries { list.iter().filter(is_there).map(|e| (key(e), *e)).collect() };
    let (theirs, ours) = (entries(theirs), entries(ours));
    let pairs = pairs(&theirs, &ours);
    if pairs.iter().all(|(_, theirs, ours)| theirs == ours) {
        return vec![];
    }
    let all = pairs.iter().filter_map(|(key, theirs, ours)| Some((*key, *ours.or(*theirs)?))).collect();
    let spare = spare(&all, keep, |e| ours.get(&key(e)) == Some(e) && is_settled(e));
    let different = pairs.iter().filter(|(key, theirs, ours)| theirs != ours && !spare.contains(key));
    different.map(|((block, version), ..)| (*block, version.0)).collect()
}

type Pair<'a> = (Key, Option<&'a BlockEntry>, Option<&'a BlockEntry>);

/// What each of two has at every key that either has, in order. One walk: a chunk has thousands of entries, and guests wait
/// for the core that compares them.
fn pairs<'a>(theirs: &'a Entries, ours: &'a Entries) -> Vec<Pair<'a>> {
    let (mut left, mut right) = (theirs.iter().peekable(), ours.iter().peekable());
    let mut pairs = Vec::with_capacity(theirs.len().max(ours.len()));
    loop {
        let key = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => *(*a).min(*b),
            (Some((key, _)), None) | (None, Some((key, _))) => **key,
            (None, None) => return pairs,
        };
        let theirs = left.next_if(|(k, _)| **k == key).map(|(_, e)| e);
        pairs.push((key, theirs, right.next_if(|(k, _)| **k == key).map(|(_, e)| e)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::view::View;

    fn at(version: u32, block: u32, epoch: u32, counter: u64) -> BlockEntry {
        let crc = epoch * 1000 + counter as u32;
        let seq = Seq::new(Epoch(epoch), counter);
        BlockEntry { block, kind: BlockKind::Data, version: Version(version), seq, crc }
    }

    fn entry(block: u32, epoch: u32, counter: u64) -> BlockEntry {
        at(1, block, epoch, counter)
    }

    fn answer(member: usize, adopted: u32, entries: &[BlockEntry]) -> Evidence {
        Evidence { member, witness: true, adopted: Epoch(adopted), entries: entries.to_vec() }
    }

    fn shape(plan: &[(usize, Vec<Change>)]) -> Vec<(usize, Vec<(BlockEntry, Slots)>)> {
        plan.iter().map(|(m, c)| (*m, c.iter().map(|c| (c.entry, c.sources)).collect())).collect()
    }

    /// Views of these versions.
    fn keep(versions: &[u32]) -> Keep {
        Keep::new(&versions.iter().map(|v| View::of(Version(*v))).collect::<Vec<_>>())
    }

    #[test]
    fn the_largest_seq_wins_and_goes_to_those_without_it() {
        let evidence =
            [answer(0, 1, &[entry(7, 1, 1), entry(8, 1, 4)]), answer(2, 1, &[entry(7, 1, 3), entry(8, 1, 4)])];
        assert_eq!(
            shape(&decide(&evidence, &Void::new(), &keep(&[1]))),
            [(0, vec![(entry(7, 1, 3), 0b100)]), (2, vec![])]
        );
    }

    #[test]
    fn an_entry_that_an_earlier_takeover_did_not_adopt_is_void() {
        // Member 2 took an unacknowledged write of epoch 1, missed the takeover of epoch 2 (which did
        // not see it), and is back for epoch 3.
        let evidence = [answer(0, 2, &[entry(7, 1, 1)]), answer(2, 1, &[entry(7, 1, 9), entry(9, 1, 8)])];
        let expected = [(0, vec![]), (2, vec![(entry(7, 1, 1), 0b1), (absent(9, Version(1)), 0)])];
        assert_eq!(shape(&decide(&evidence, &Void::new(), &keep(&[1]))), expected);
    }

    #[test]
    fn a_member_behind_still_contributes_what_it_acknowledged_in_the_newest_epoch() {
        let evidence = [answer(0, 2, &[entry(7, 1, 1)]), answer(1, 1, &[entry(7, 2, 1)])];
        assert_eq!(
            shape(&decide(&evidence, &Void::new(), &keep(&[1]))),
            [(0, vec![(entry(7, 2, 1), 0b10)]), (1, vec![])]
        );
    }

    #[test]
    fn a_damaged_member_decides_nothing() {
        let mut damaged = answer(2, 3, &[entry(7, 1, 1), entry(9, 2, 5)]);
        damaged.witness = false;
        let plan = decide(&[answer(0, 2, &[]), answer(1, 2, &[entry(7, 1, 1)]), damaged], &Void::new(), &keep(&[1]));
        let expected = [(0, vec![(entry(7, 1, 1), 0b10)]), (1, vec![]), (2, vec![(absent(9, Version(1)), 0)])];
        assert_eq!(shape(&plan), expected);
    }

    #[test]
    fn each_version_of_a_block_is_decided_by_itself() {
        // Member 0 has the newest write of version 1, member 1 the newest of version 2; member 2 a void one of either.
        let evidence = [
            answer(0, 2, &[at(1, 7, 1, 5)]),
            answer(1, 2, &[at(2, 7, 2, 1), at(1, 7, 1, 4)]),
            answer(2, 1, &[at(2, 7, 1, 9), at(1, 7, 1, 5), at(1, 8, 1, 6)]),
        ];
        let (old, new) = (at(1, 7, 1, 5), at(2, 7, 2, 1));
        let expected =
            [(0, vec![(new, 0b10)]), (1, vec![(old, 0b101)]), (2, vec![(absent(8, Version(1)), 0), (new, 0b10)])];
        assert_eq!(shape(&decide(&evidence, &Void::new(), &keep(&[1, 2]))), expected);
    }

    #[test]
    fn what_no_view_needs_is_left_where_it_is() {
        let chain = [at(3, 7, 2, 2), at(2, 7, 2, 1), at(1, 7, 1, 1)];
        let evidence = || [answer(0, 2, &chain), answer(1, 2, &[chain[0], chain[2]]), answer(2, 2, &[chain[0]])];
        // Versions 1 and 3 are live: member 1 has pruned, member 2 lacks something.
        let plan = decide(&evidence(), &Void::new(), &keep(&[3, 1]));
        assert_eq!(shape(&plan), [(0, vec![]), (1, vec![]), (2, vec![(chain[2], 0b11)])]);
        let plan = decide(&evidence(), &Void::new(), &keep(&[3, 2, 1]));
        assert_eq!(shape(&plan)[1..], [(1, vec![(chain[1], 0b1)]), (2, vec![(chain[2], 0b11), (chain[1], 0b1)])]);
    }

    #[test]
    fn a_void_entry_hides_nothing() {
        // Nobody needs version 1 but below version 2, whose entry nobody acknowledged.
        let evidence =
            [answer(0, 2, &[at(1, 7, 1, 1)]), answer(1, 2, &[]), answer(2, 1, &[at(2, 7, 1, 3), at(1, 7, 1, 1)])];
        let plan = decide(&evidence, &Void::new(), &keep(&[2]));
        let expected = [(0, vec![]), (1, vec![(at(1, 7, 1, 1), 0b101)]), (2, vec![(absent(7, Version(2)), 0)])];
        assert_eq!(shape(&plan), expected);
    }

    fn differ(a: &[BlockEntry], b: &[BlockEntry], views: &[u32]) -> Vec<(u32, u32)> {
        differences(a, b, &keep(views), |e| e.seq.epoch() < Epoch(9)).into_iter().map(|(b, v)| (b, v.0)).collect()
    }

    #[test]
    fn differences_are_symmetric() {
        let (a, b) = ([entry(1, 1, 1), entry(2, 1, 2)], [entry(2, 1, 3), entry(4, 1, 1)]);
        assert_eq!(differ(&a, &b, &[1]), [(1, 1), (2, 1), (4, 1)]);
        assert_eq!(differ(&b, &a, &[1]), [(1, 1), (2, 1), (4, 1)]);
    }

    #[test]
    fn who_has_pruned_does_not_differ() {
        let (new, old) = (at(2, 7, 1, 2), at(1, 7, 1, 1));
        let (full, pruned) = ([new, old], [new]);
        assert_eq!(differ(&full, &pruned, &[2]), []);
        assert_eq!(differ(&pruned, &full, &[2]), []);
        assert_eq!(differ(&pruned, &full, &[2, 1]), [(7, 1)]);
        assert_eq!(differ(&full, &pruned, &[2, 1]), [(7, 1)]);
    }

    #[test]
    fn what_may_become_void_hides_nothing() {
        let (new, old) = (at(2, 7, 9, 2), at(1, 7, 1, 1));
        assert_eq!(differ(&[new], &[new, old], &[2]), [(7, 1)]);
        assert_eq!(differ(&[], &[new, old], &[2]), [(7, 2), (7, 1)]);
        // Nor does what only the other one has.
        assert_eq!(differ(&[at(2, 7, 1, 2)], &[old], &[2]), [(7, 2), (7, 1)]);
    }

    #[test]
    fn what_nobody_can_read_is_void_only_if_it_cannot_have_been_acknowledged() {
        // Two of three acknowledge; member 0 holds a write that it cannot read.
        let failed = BTreeMap::from([((7, Version(1)), 0b001)]);
        let (bad, old) = (entry(7, 1, 9), entry(7, 1, 1));
        let all = [answer(0, 1, &[bad]), answer(1, 1, &[old]), answer(2, 1, &[old])];
        let void = hopeless(&all, &failed, 2);
        assert_eq!(void, BTreeSet::from([(7, bad.seq)]));
        assert_eq!(shape(&decide(&all, &void, &keep(&[1]))), [(0, vec![(old, 0b110)]), (1, vec![]), (2, vec![])]);
        // The third may have acknowledged it.
        assert!(hopeless(&all[..2], &failed, 2).is_empty());
        // One that was never filled never acknowledged anything older.
        let newcomer = [answer(0, 1, &[bad]), answer(1, 1, &[old]), answer(2, 0, &[])];
        assert!(hopeless(&newcomer, &failed, 2).is_empty());
        // Another holder can read it.
        let two = [answer(0, 1, &[bad]), answer(1, 1, &[bad]), answer(2, 1, &[old]), answer(3, 1, &[old])];
        assert!(hopeless(&two, &failed, 2).is_empty());
    }
}
