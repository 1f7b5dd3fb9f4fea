use super::*;

struct Unheard;

impl Ledger for Unheard {
    fn change(&mut self, _old: Place, _new: Place) {}
}

fn slot(version: u32) -> Slot {
    Slot::new(Version(version), Seq(u64::from(version)), version * 3, Place(version))
}

fn versions(c: &Chains, block: u32) -> Vec<u32> {
    c.chain(block).map(|s| s.version.0).collect()
}

#[test]
fn entries_are_found_in_whatever_order_they_came() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let mut c = Chains::default();
        order.iter().for_each(|v| c.put(7, Version(*v), slot(*v), &mut Unheard));
        assert_eq!(versions(&c, 7), [3, 2, 1]);
        for v in 0..5 {
            let expected = if (1..4).contains(&v) { slot(v) } else { Slot::ABSENT };
            assert_eq!(c.get(7, Version(v)), expected);
        }
        // And leave in whatever order.
        for (gone, v) in order.iter().rev().enumerate() {
            c.put(7, Version(*v), Slot::ABSENT, &mut Unheard);
            assert_eq!(versions(&c, 7).len(), 2 - gone);
            assert!(!versions(&c, 7).contains(v));
        }
        let nothing = (c.entries(), c.data_entries(), c.digest(), c.max_seq(), c.has_older());
        assert_eq!(nothing, (0, 0, Digest::default(), Seq::ZERO, false));
    }
}

#[test]
fn a_listing_goes_on_at_any_entry() {
    let mut c = Chains::default();
    let all = [(3, 9), (3, 4), (3, 1), (4, 2), (300, 9), (300, 1)];
    all.iter().for_each(|(block, v)| c.put(*block, Version(*v), slot(*v), &mut Unheard));
    let from = |block, v| c.all_from(block, Version(v)).map(|(b, s)| (b, s.version.0)).collect::<Vec<_>>();
    assert_eq!(from(0, u32::MAX), all);
    for (i, (block, v)) in all.iter().enumerate() {
        assert_eq!(from(*block, *v), all[i..]);
        assert_eq!(from(*block, v - 1), all[i + 1..]);
    }
}

#[test]
fn views_go_down_a_chain_over_what_they_hide() {
    let mut c = Chains::default();
    [2, 4, 5, 6, 9].iter().for_each(|v| c.put(0, Version(*v), slot(*v), &mut Unheard));
    let read = |version, hidden: &[(u32, u32)]| {
        let hidden = hidden.iter().map(|(a, b)| (Version(*a), Version(*b))).collect();
        c.visible(0, &View { version: Version(version), hidden }).version.0
    };
    assert_eq!(
        [read(12, &[]), read(9, &[]), read(8, &[]), read(5, &[]), read(3, &[]), read(1, &[])],
        [9, 9, 6, 5, 2, 0]
    );
    assert_eq!([read(10, &[(9, 9)]), read(10, &[(5, 9)]), read(10, &[(3, 4), (6, 9)])], [6, 4, 5]);
    assert_eq!([read(10, &[(3, 9)]), read(10, &[(2, 9)]), read(10, &[(0, 9)])], [2, 0, 0]);
}

/// With the older entries taken away, everything about heads still works: nothing of it looks at them.
#[test]
fn a_head_is_found_without_its_chain() {
    let mut c = Chains::default();
    (1..=1000).for_each(|v| c.put(5, Version(v), slot(v), &mut Unheard));
    assert_eq!((c.entries(), c.max_seq(), versions(&c, 5).len()), (1000, Seq(1000), 1000));
    assert_eq!(c.visible(5, &View::of(Version(500))), slot(500));
    let older = std::mem::take(&mut c.older);
    assert_eq!(older.len(), 999);
    assert_eq!(
        (c.head(5), c.get(5, Version(1000)), c.visible(5, &View::of(Version(1000)))),
        (slot(1000), slot(1000), slot(1000))
    );
    let again = Slot::new(Version(1000), Seq(2000), 1, Place(2));
    c.put(5, Version(1000), again, &mut Unheard);
    assert_eq!((c.head(5), c.has_older()), (again, false));
}

#[test]
fn without_snapshots_there_is_a_slot_per_block_and_nothing_else() {
    let mut c = Chains::default();
    for round in 0..3 {
        (0..BLOCKS_PER_CHUNK)
            .for_each(|b| c.put(b, Version(1), Slot::new(Version(1), Seq(round), 0, Place(b)), &mut Unheard));
    }
    assert_eq!((c.older.len(), c.pages.len()), (0, PAGES));
    assert!(c.pages.iter().flatten().all(|p| size_of_val(&**p) == 20 * PAGE_SLOTS));
}
