//! Which entries of a block a reader sees.
//!
//! A volume's versions are numbered as they are opened; which of them belong to a head or a snapshot is not a
//! matter of order alone: a rollback leaves versions behind that the head does not see any more. A [`View`] says it
//! in a few numbers, so that a store needs to know nothing of snapshots.

use crate::ids::Version;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most hidden ranges of one view: rollbacks since the last of which the earlier ones could not be merged.
pub const MAX_HIDDEN: usize = 32;

/// An entry of version x is visible iff x <= `version` and x lies in none of the ranges `hidden`. A block reads as the
/// visible entry with the largest version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct View {
    pub version: Version,
    /// Inclusive ranges: sorted, disjoint, not adjacent, below or at `version`, at most [`MAX_HIDDEN`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Vec<u32>>)]
    pub hidden: Vec<(Version, Version)>,
}

impl Default for View {
    /// That of a volume that was never snapshotted.
    fn default() -> View {
        View::up_to(Version::FIRST)
    }
}

impl View {
    /// Everything up to `version`.
    pub fn up_to(version: Version) -> View {
        View { version, hidden: Vec::new() }
    }

    /// What was written at exactly this version.
    pub fn only(version: Version) -> View {
        View { version, hidden: vec![(Version(0), Version(version.0.saturating_sub(1)))] }
    }

    /// Whether an entry of this version is visible.
    pub fn sees(&self, version: Version) -> bool {
        version <= self.version && !self.hidden.iter().any(|(first, last)| (*first..=*last).contains(&version))
    }

    /// Whether the ranges are what they should be. Anything read from outside is checked with this.
    pub fn is_valid(&self) -> bool {
        let apart = |pair: &[(Version, Version)]| pair[0].1.0.checked_add(1).is_some_and(|next| next < pair[1].0.0);
        self.version >= Version::FIRST
            && self.hidden.len() <= MAX_HIDDEN
            && self.hidden.iter().all(|(first, last)| first <= last)
            && self.hidden.last().is_none_or(|(_, last)| *last <= self.version)
            && self.hidden.windows(2).all(apart)
    }

    /// The view of a head at version `head` + 1 that continues from this view, with all that was written since left
    /// out; none when the version numbers or the hidden ranges are used up.
    pub fn continued_after(&self, head: Version) -> Option<View> {
        let version = head.next()?;
        let mut hidden = self.hidden.clone();
        if self.version < head {
            let first = Version(self.version.0 + 1);
            match hidden.last_mut() {
                Some(last) if last.1 == self.version => last.1 = head,
                _ => hidden.push((first, head)),
            }
        }
        Some(View { version, hidden }).filter(|view| view.hidden.len() <= MAX_HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(version: u32, hidden: &[(u32, u32)]) -> View {
        View { version: Version(version), hidden: hidden.iter().map(|(a, b)| (Version(*a), Version(*b))).collect() }
    }

    #[test]
    fn a_view_sees_what_is_not_hidden() {
        let view = view(9, &[(2, 3), (5, 5)]);
        let seen: Vec<u32> = (1..=12).filter(|v| view.sees(Version(*v))).collect();
        assert_eq!(seen, [1, 4, 6, 7, 8, 9]);
        let only: Vec<u32> = (1..=12).filter(|v| View::only(Version(4)).sees(Version(*v))).collect();
        assert_eq!(only, [4]);
    }

    #[test]
    fn ranges_are_sorted_apart_and_within() {
        for good in
            [view(1, &[]), view(9, &[(2, 3), (5, 9)]), View::default(), View::only(Version(7)), View::only(Version(1))]
        {
            assert!(good.is_valid(), "{good:?}");
        }
        let many: Vec<(u32, u32)> = (1..=MAX_HIDDEN as u32 + 1).map(|i| (i * 2, i * 2)).collect();
        let (most, too_many) = (view(200, &many[1..]), view(200, &many));
        assert!(most.is_valid() && !too_many.is_valid());
        for bad in [
            view(0, &[]),
            view(9, &[(3, 2)]),
            view(9, &[(2, 3), (4, 5)]),
            view(9, &[(5, 5), (2, 3)]),
            view(9, &[(9, 10)]),
        ] {
            assert!(!bad.is_valid(), "{bad:?}");
        }
    }

    #[test]
    fn a_rollback_hides_what_came_since() {
        assert_eq!(view(3, &[]).continued_after(Version(7)), Some(view(8, &[(4, 7)])));
        assert_eq!(view(3, &[(2, 3)]).continued_after(Version(7)), Some(view(8, &[(2, 7)])), "adjacent ranges merge");
        assert_eq!(view(7, &[]).continued_after(Version(7)), Some(view(8, &[])));
        assert_eq!(view(3, &[]).continued_after(Version::MAX), None);
    }
}
