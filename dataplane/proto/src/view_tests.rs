use super::*;

fn view(version: u32, hidden: &[(u32, u32)]) -> View {
    View { version: Version(version), hidden: hidden.iter().map(|(a, b)| (Version(*a), Version(*b))).collect() }
}

#[test]
fn a_view_sees_what_is_not_later_and_not_hidden() {
    let v = view(9, &[(2, 3), (6, 6)]);
    let seen: Vec<u32> = (0..12).filter(|n| v.sees(Version(*n))).collect();
    assert_eq!(seen, [0, 1, 4, 5, 7, 8, 9]);
    assert_eq!(v.newest_from(Version(20)), Some(Version(9)));
    assert_eq!(v.newest_from(Version(6)), Some(Version(5)));
    assert_eq!(v.newest_from(Version(3)), Some(Version(1)));
    assert_eq!(view(9, &[(0, 8)]).newest_from(Version(8)), None);
    assert_eq!(view(9, &[(3, 4), (5, 8)]).newest_from(Version(8)), Some(Version(2)));
}

#[test]
fn only_views_in_order_are_valid() {
    for good in [view(1, &[]), view(9, &[(2, 3), (4, 4)]), view(9, &[(8, 8)])] {
        assert!(good.is_valid(), "{good:?}");
    }
    for bad in [view(9, &[(3, 2)]), view(9, &[(2, 4), (4, 5)]), view(9, &[(5, 6), (2, 3)]), view(9, &[(8, 9)])] {
        assert!(!bad.is_valid(), "{bad:?}");
    }
    let ranges: Vec<(u32, u32)> = (0..33).map(|n| (2 * n, 2 * n)).collect();
    assert!(view(99, &ranges[..MAX_HIDDEN]).is_valid());
    assert!(!view(99, &ranges).is_valid());
}

#[test]
fn a_rollback_hides_what_came_after_the_snapshot() {
    let first = view(3, &[]).rolled_back(Version(5)).expect("in order");
    assert_eq!(first, view(6, &[(4, 5)]));
    // A snapshot taken then, at 6; the head is at 8.
    assert_eq!(first.rolled_back(Version(8)), Some(view(9, &[(4, 5), (7, 8)])));
    // Back to the first snapshot: one range covers all.
    assert_eq!(view(3, &[]).rolled_back(Version(9)), Some(view(10, &[(4, 9)])));
    assert_eq!(view(3, &[]).rolled_back(Version(3)), None, "nothing was frozen at the head");
    assert_eq!(view(3, &[]).rolled_back(Version::MAX), None);
}

/// `Keep::reads` against the plain definition, on every chain and set of views over five versions.
#[test]
fn what_a_set_of_views_reads_is_what_one_of_them_reads() {
    let views = [view(1, &[]), view(2, &[]), view(3, &[]), view(4, &[(2, 3)]), view(5, &[(2, 3)]), view(5, &[(4, 4)])];
    for set in 0u32..1 << views.len() {
        let set: Vec<View> = (0..views.len()).filter(|i| set & (1 << i) != 0).map(|i| views[i].clone()).collect();
        let keep = Keep::new(&set);
        let newest = set.iter().map(|v| v.version).max().unwrap_or_default();
        for present in 0u32..1 << 5 {
            let chain: Vec<Version> = (1..=5).rev().filter(|v| present & (1 << (v - 1)) != 0).map(Version).collect();
            for at in 0..chain.len() {
                let read = |v: &View| chain.iter().find(|x| v.sees(**x)) == Some(&chain[at]);
                let expected = chain[at] > newest || set.iter().any(read);
                assert_eq!(keep.reads(&chain, at), expected, "{set:?} {chain:?} {at}");
            }
        }
        for version in 1..=5 {
            let all = |v: &View| v.hidden.is_empty() && v.version.0 >= version;
            assert_eq!(keep.sees_all_up_to(Version(version)), set.iter().any(all));
        }
    }
}
