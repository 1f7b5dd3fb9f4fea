//! What a chunk's state is when its writer died: decided from the answers of its members.
//!
//! Pure. Rule (`docs/protocol.md`, takeover): let E* be the largest `adopted` among the answers.
//! Members at E* contribute every entry, members below it only entries written in E* or later: their
//! older ones may have been voided by a takeover that they were not part of. Per block the largest
//! seq wins. Any `copies − min_copies + 1` answers contain every acknowledged write.

use super::member::Slots;
use levee_proto::Epoch;
use levee_proto::wire::{BlockEntry, BlockKind};
use std::collections::BTreeMap;

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

/// Decides the state and returns, per answer, what that member has to change, in block order.
pub(super) fn decide(evidence: &[Evidence]) -> Vec<(usize, Vec<Change>)> {
    let witnesses = || evidence.iter().filter(|e| e.witness);
    let newest = witnesses().map(|e| e.adopted).max().unwrap_or_default();
    let mut decided: BTreeMap<u32, BlockEntry> = BTreeMap::new();
    for answer in witnesses() {
        for e in answer.entries.iter().filter(|e| is_evidence(answer, e, newest)) {
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

    fn shape(plan: &[(usize, Vec<Change>)]) -> Vec<(usize, Vec<(BlockEntry, Slots)>)> {
        plan.iter().map(|(m, c)| (*m, c.iter().map(|c| (c.entry, c.sources)).collect())).collect()
    }

    #[test]
    fn the_largest_seq_wins_and_goes_to_those_without_it() {
        let plan =
            decide(&[answer(0, 1, &[entry(7, 1, 1), entry(8, 1, 4)]), answer(2, 1, &[entry(7, 1, 3), entry(8, 1, 4)])]);
        assert_eq!(shape(&plan), [(0, vec![(entry(7, 1, 3), 0b100)]), (2, vec![])]);
    }

    #[test]
    fn an_entry_that_an_earlier_takeover_did_not_adopt_is_void() {
        // Member 2 took an unacknowledged write of epoch 1, missed the takeover of epoch 2 (which did
        // not see it), and is back for epoch 3.
        let plan = decide(&[answer(0, 2, &[entry(7, 1, 1)]), answer(2, 1, &[entry(7, 1, 9), entry(9, 1, 8)])]);
        assert_eq!(shape(&plan), [(0, vec![]), (2, vec![(entry(7, 1, 1), 0b1), (BlockEntry::absent(9), 0)])]);
    }

    #[test]
    fn a_member_behind_still_contributes_what_it_acknowledged_in_the_newest_epoch() {
        let plan = decide(&[answer(0, 2, &[entry(7, 1, 1)]), answer(1, 1, &[entry(7, 2, 1)])]);
        assert_eq!(shape(&plan), [(0, vec![(entry(7, 2, 1), 0b10)]), (1, vec![])]);
    }

    #[test]
    fn a_damaged_member_decides_nothing() {
        let mut damaged = answer(2, 3, &[entry(7, 1, 1), entry(9, 2, 5)]);
        damaged.witness = false;
        let plan = decide(&[answer(0, 2, &[]), answer(1, 2, &[entry(7, 1, 1)]), damaged]);
        let expected = [(0, vec![(entry(7, 1, 1), 0b10)]), (1, vec![]), (2, vec![(BlockEntry::absent(9), 0)])];
        assert_eq!(shape(&plan), expected);
    }

    #[test]
    fn differences_are_symmetric() {
        let (a, b) = ([entry(1, 1, 1), entry(2, 1, 2)], [entry(2, 1, 3), entry(4, 1, 1)]);
        assert_eq!(differences(&a, &b), [1, 2, 4]);
        assert_eq!(differences(&b, &a), [1, 2, 4]);
    }
}
