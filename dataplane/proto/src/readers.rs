//! Which of several views read an entry: what nobody reads can be dropped, and what only one of them reads is what that one costs.

use crate::ids::Version;
use crate::view::View;
use std::collections::BTreeMap;

/// Views, by their positions in the list that they came in.
#[derive(Clone, Debug, Default)]
pub struct Readers {
    /// Views that hide the same, together: what they hide, and their versions in order, with the positions.
    groups: Vec<(View, Vec<(Version, usize)>)>,
}

/// Which ranges a view hides.
type Hidden = [(Version, Version)];

/// Who reads an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Nobody,
    /// The view at this position, and no other.
    Only(usize),
    Several,
}

impl Readers {
    /// Of these views. One that is named twice counts as two.
    pub fn new(views: &[View]) -> Readers {
        let mut groups: BTreeMap<&Hidden, Vec<(Version, usize)>> = BTreeMap::new();
        for (position, v) in views.iter().enumerate() {
            groups.entry(&v.hidden).or_default().push((v.version, position));
        }
        let group = |(hidden, mut versions): (&Hidden, Vec<_>)| {
            versions.sort_unstable();
            (View { version: Version::MAX, hidden: hidden.to_vec() }, versions)
        };
        Readers { groups: groups.into_iter().map(group).collect() }
    }

    /// Whether one of them sees everything up to `version`.
    pub fn see_all_up_to(&self, version: Version) -> bool {
        let whole = |(hides, versions): &(View, Vec<(Version, usize)>)| {
            hides.hidden.is_empty() && versions.last().is_some_and(|(last, _)| *last >= version)
        };
        self.groups.iter().any(whole)
    }

    /// Who reads the entry of version `chain[at]`. `chain`: the versions of a block's entries, newest first.
    pub fn of(&self, chain: &[Version], at: usize) -> Reader {
        let mut reader = Reader::Nobody;
        for (hides, versions) in &self.groups {
            if !hides.sees(chain[at]) {
                continue;
            }
            // Those before the next newer entry that they would see.
            let newer = chain[..at].iter().rev().find(|v| hides.sees(**v));
            let first = versions.partition_point(|(v, _)| *v < chain[at]);
            let end = newer.map_or(versions.len(), |newer| versions.partition_point(|(v, _)| v < newer));
            reader = match (reader, versions.get(first..end).unwrap_or_default()) {
                (found, []) => found,
                (Reader::Nobody, [(_, position)]) => Reader::Only(*position),
                _ => return Reader::Several,
            };
        }
        reader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The newest that a view sees of a chain.
    fn read_by(view: &View, chain: &[Version]) -> Option<usize> {
        chain.iter().position(|v| view.sees(*v))
    }

    #[test]
    fn readers_are_those_whose_newest_visible_entry_it_is() {
        let version = Version;
        let first = View::of(version(2));
        let back = first.rolled_back(version(5)).unwrap();
        let again = View::of(version(4)).rolled_back(version(7)).unwrap();
        let views = [back, View::of(version(4)), first, View::of(version(3)), again];
        let readers = Readers::new(&views);
        // All chains of versions 1 to 9.
        for set in 1_u32..1 << 9 {
            let chain: Vec<Version> =
                (0..9).rev().filter(|bit| set & (1 << bit) != 0).map(|b| version(b + 1)).collect();
            for at in 0..chain.len() {
                let who: Vec<usize> = (0..views.len()).filter(|i| read_by(&views[*i], &chain) == Some(at)).collect();
                let expected = match who.as_slice() {
                    [] => Reader::Nobody,
                    [one] => Reader::Only(*one),
                    _ => Reader::Several,
                };
                assert_eq!(readers.of(&chain, at), expected, "{chain:?} at {at}");
            }
        }
        assert_eq!(Readers::default().of(&[version(1)], 0), Reader::Nobody);
    }
}
