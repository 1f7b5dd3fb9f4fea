//! What a chunk's state is when its writer died: decided from the answers of its members.
//!
//! Pure. Rule (`docs/protocol.md`, takeover): let E* be the largest `adopted` among the answers.
//! Members at E* contribute every entry, members below it only entries written in E* or later: their
//! older ones may have been voided by a takeover that they were not part of. Per block the largest
//! seq wins. Any `copies − min_copies + 1` answers contain every acknowledged write.
//!
//! An entry that none of its holders can read, because what they stored of it is corrupt, is void if so many lack it that it cannot
//! have been acknowledged; else the chunk waits for more members: one of them may hold it.

use super::member::Slots;
use levee_proto::wire::{BlockEntry, BlockKind};
use levee_proto::{Epoch, Seq};
use std::collections::{BTreeMap, BTreeSet};

/// One member's answer.
pub(super) struct Evidence {
    pub member: usize,
    /// It knows all that it ever held; else it decides nothing, and is only brought to what is decided.
    pub witness: bool,
    pub adopted: Epoch,
    /// In block order.
    pub entries: Vec<BlockEntry>,
}

/// What a member has to change.
pub(super) struct Change {
    /// The state that the block is brought to; `Absent` where an entry is void.
    pub entry: BlockEntry,
    /// The members that hold it.
    pub sources: Slots,
}

/// Entries that are void although they are evidence.
pub(super) type Void = BTreeSet<(u32, Seq)>;

/// Entries that cannot be read anywhere, as their holders are known to fail at it (`unreadable`, by block), and that at least
/// `quorum` members lack that would have them if they had acknowledged them.
pub(super) fn hopeless(evidence: &[Evidence], unreadable: &BTreeMap<u32, Slots>, quorum: usize) -> Void {
    let witnesses = || evidence.iter().filter(|e| e.witness);
    let newest = newest_adopted(evidence);
    let mut void = Void::new();
    for (block, failed) in unreadable {
        let held = |e: &Evidence| {
            let entry = e.entries.iter().find(|x| x.block == *block)?;
            is_evidence(e, entry, newest).then_some((e.member, *entry))
        };
        let mut held: Vec<_> = witnesses().filter_map(held).collect();
        held.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.seq));
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

/// Decides the state and returns, per answer, what that member has to change, in block order.
pub(super) fn decide(evidence: &[Evidence], void: &Void) -> Vec<(usize, Vec<Change>)> {
    let witnesses = || evidence.iter().filter(|e| e.witness);
    let newest = newest_adopted(evidence);
    let mut decided: BTreeMap<u32, BlockEntry> = BTreeMap::new();
    for answer in witnesses() {
        let counts = |e: &&BlockEntry| is_evidence(answer, e, newest) && !void.contains(&(e.block, e.seq));
        for e in answer.entries.iter().filter(counts) {
            let known = decided.entry(e.block).or_insert(*e);
            if e.seq > known.seq {
                *known = *e;
            }
        }
    }
    let mut sources: BTreeMap<u32, Slots> = BTreeMap::new();
    for answer in witnesses() {
        for e in answer.entries.iter().filter(|e| decided.get(&e.block) == Some(e)) {
            *sources.entry(e.block).or_default() |= 1 << answer.member;
        }
    }
    evidence.iter().map(|answer| (answer.member, changes(answer, &decided, &sources))).collect()
}

/// Whether an entry counts: below the newest adopted epoch it may have been void already.
fn is_evidence(answer: &Evidence, e: &BlockEntry, newest: Epoch) -> bool {
    let counts = answer.adopted == newest || e.seq.epoch() >= newest;
    if !counts {
        crate::reached!("entry void at a takeover");
    }
    counts || crate::mutant!("void entries count")
}

fn changes(answer: &Evidence, decided: &BTreeMap<u32, BlockEntry>, sources: &BTreeMap<u32, Slots>) -> Vec<Change> {
    let held: BTreeMap<u32, &BlockEntry> = answer.entries.iter().map(|e| (e.block, e)).collect();
    let mut changes: BTreeMap<u32, Change> = BTreeMap::new();
    for (block, entry) in decided {
        if held.get(block) != Some(&entry) {
            let sources = sources.get(block).copied().unwrap_or_default();
            changes.insert(*block, Change { entry: *entry, sources });
        }
    }
    for block in held.keys().filter(|b| !decided.contains_key(b)) {
        changes.insert(*block, Change { entry: BlockEntry::absent(*block), sources: 0 });
    }
    changes.into_values().collect()
}

/// The blocks in which two members differ.
pub(super) fn differences(a: &[BlockEntry], b: &[BlockEntry]) -> Vec<u32> {
    let a: BTreeMap<u32, &BlockEntry> =
        a.iter().filter(|e| e.kind != BlockKind::Absent).map(|e| (e.block, e)).collect();
    let b: BTreeMap<u32, &BlockEntry> =
        b.iter().filter(|e| e.kind != BlockKind::Absent).map(|e| (e.block, e)).collect();
    let mut blocks: Vec<u32> = a.iter().filter(|(k, e)| b.get(k) != Some(e)).map(|(k, _)| *k).collect();
    blocks.extend(b.keys().filter(|k| !a.contains_key(k)));
    blocks.sort_unstable();
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::{Seq, Version};

    fn entry(block: u32, epoch: u32, counter: u64) -> BlockEntry {
        let crc = epoch * 1000 + counter as u32;
        BlockEntry { block, kind: BlockKind::Data, version: Version(1), seq: Seq::new(Epoch(epoch), counter), crc }
    }

    fn answer(member: usize, adopted: u32, entries: &[BlockEntry]) -> Evidence {
        Evidence { member, witness: true, adopted: Epoch(adopted), entries: entries.to_vec() }
    }

    fn decide_all(evidence: &[Evidence]) -> Vec<(usize, Vec<Change>)> {
        decide(evidence, &Void::new())
    }

    fn shape(plan: &[(usize, Vec<Change>)]) -> Vec<(usize, Vec<(BlockEntry, Slots)>)> {
        plan.iter().map(|(m, c)| (*m, c.iter().map(|c| (c.entry, c.sources)).collect())).collect()
    }

    #[test]
    fn the_largest_seq_wins_and_goes_to_those_without_it() {
        let plan = decide_all(&[
            answer(0, 1, &[entry(7, 1, 1), entry(8, 1, 4)]),
            answer(2, 1, &[entry(7, 1, 3), entry(8, 1, 4)]),
        ]);
        assert_eq!(shape(&plan), [(0, vec![(entry(7, 1, 3), 0b100)]), (2, vec![])]);
    }

    #[test]
    fn an_entry_that_an_earlier_takeover_did_not_adopt_is_void() {
        // Member 2 took an unacknowledged write of epoch 1, missed the takeover of epoch 2 (which did
        // not see it), and is back for epoch 3.
        let plan = decide_all(&[answer(0, 2, &[entry(7, 1, 1)]), answer(2, 1, &[entry(7, 1, 9), entry(9, 1, 8)])]);
        assert_eq!(shape(&plan), [(0, vec![]), (2, vec![(entry(7, 1, 1), 0b1), (BlockEntry::absent(9), 0)])]);
    }

    #[test]
    fn a_member_behind_still_contributes_what_it_acknowledged_in_the_newest_epoch() {
        let plan = decide_all(&[answer(0, 2, &[entry(7, 1, 1)]), answer(1, 1, &[entry(7, 2, 1)])]);
        assert_eq!(shape(&plan), [(0, vec![(entry(7, 2, 1), 0b10)]), (1, vec![])]);
    }

    #[test]
    fn a_damaged_member_decides_nothing() {
        let mut damaged = answer(2, 3, &[entry(7, 1, 1), entry(9, 2, 5)]);
        damaged.witness = false;
        let plan = decide_all(&[answer(0, 2, &[]), answer(1, 2, &[entry(7, 1, 1)]), damaged]);
        let expected = [(0, vec![(entry(7, 1, 1), 0b10)]), (1, vec![]), (2, vec![(BlockEntry::absent(9), 0)])];
        assert_eq!(shape(&plan), expected);
    }

    #[test]
    fn what_nobody_can_read_is_void_only_if_it_cannot_have_been_acknowledged() {
        // Two of three acknowledge; member 0 holds a write that it cannot read.
        let failed = BTreeMap::from([(7, 0b001)]);
        let (bad, old) = (entry(7, 1, 9), entry(7, 1, 1));
        let all = [answer(0, 1, &[bad]), answer(1, 1, &[old]), answer(2, 1, &[old])];
        let void = hopeless(&all, &failed, 2);
        assert_eq!(void, BTreeSet::from([(7, bad.seq)]));
        assert_eq!(shape(&decide(&all, &void)), [(0, vec![(old, 0b110)]), (1, vec![]), (2, vec![])]);
        // The third may have acknowledged it.
        assert!(hopeless(&all[..2], &failed, 2).is_empty());
        // One that was never filled never acknowledged anything older.
        let newcomer = [answer(0, 1, &[bad]), answer(1, 1, &[old]), answer(2, 0, &[])];
        assert!(hopeless(&newcomer, &failed, 2).is_empty());
        // Another holder can read it.
        let two = [answer(0, 1, &[bad]), answer(1, 1, &[bad]), answer(2, 1, &[old]), answer(3, 1, &[old])];
        assert!(hopeless(&two, &failed, 2).is_empty());
    }

    #[test]
    fn differences_are_symmetric() {
        let (a, b) = ([entry(1, 1, 1), entry(2, 1, 2)], [entry(2, 1, 3), entry(4, 1, 1)]);
        assert_eq!(differences(&a, &b), [1, 2, 4]);
        assert_eq!(differences(&b, &a), [1, 2, 4]);
    }
}
