//! Views: which entries of a block's versions a reader sees, and which entries nobody sees any more.
//!
//! Each block of a replica has a chain of entries, at most one per version. A [`View`] reads each block as the newest
//! entry that it sees. Snapshots freeze a version: the volume goes on at the next. A rollback hides the versions between the
//! snapshot and the head. Views that come into being later see nothing that no view of today sees; so what is not
//! seen by any of those that are to be kept can be dropped: [`Keep`].
//!
//! Invariant of a valid view: the hidden ranges are sorted, disjoint, and below its version.

use crate::ids::Version;
use crate::readers::{Reader, Readers};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most ranges that a view hides: one per rollback that did not swallow an earlier one.
pub const MAX_HIDDEN: usize = 32;

/// Which versions of a volume a reader sees: those up to `version` but the hidden ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct View {
    pub version: Version,
    /// Ranges, both ends included: what was written in them has been rolled back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<(Version, Version)>,
}

impl Default for View {
    /// That of the head of a volume that was never snapshotted.
    fn default() -> View {
        View::of(Version::FIRST)
    }
}

impl View {
    /// Everything up to `version`: the view of a volume that was never rolled back.
    pub fn of(version: Version) -> View {
        View { version, hidden: Vec::new() }
    }

    /// What was written at exactly this version.
    pub fn only(version: Version) -> View {
        let below = version.0.checked_sub(1).map(|last| (Version(0), Version(last)));
        View { version, hidden: below.into_iter().collect() }
    }

    /// Whether the ranges are sorted, disjoint, not too many, and below the version.
    pub fn is_valid(&self) -> bool {
        let in_order = self.hidden.iter().all(|(first, last)| first <= last);
        let disjoint = self.hidden.windows(2).all(|w| w[0].1 < w[1].0);
        let below = self.hidden.last().is_none_or(|(_, last)| *last < self.version);
        self.hidden.len() <= MAX_HIDDEN && in_order && disjoint && below
    }

    /// Whether an entry of this version is visible.
    #[inline]
    pub fn sees(&self, version: Version) -> bool {
        version <= self.version && (self.hidden.is_empty() || self.hiding(version).is_none())
    }

    /// The largest version that may be visible among those up to `version`. `None`: none is.
    pub fn newest_from(&self, version: Version) -> Option<Version> {
        let mut at = version.min(self.version);
        while let Some((first, _)) = self.hiding(at) {
            at = Version(first.0.checked_sub(1)?);
        }
        Some(at)
    }

    /// The view of the head after a volume, whose head was at `head`, was rolled back to this snapshot. `None` if that would
    /// hide too many ranges, if the numbers are used up, or if this is no snapshot of a volume with that head.
    pub fn rolled_back(&self, head: Version) -> Option<View> {
        let (first, version) = (Version(self.version.0.checked_add(1)?), Version(head.0.checked_add(1)?));
        if first > head {
            return None;
        }
        let mut hidden = self.hidden.clone();
        match hidden.last_mut() {
            Some(last) if last.1.0 + 1 == first.0 => last.1 = head,
            _ => hidden.push((first, head)),
        }
        Some(View { version, hidden }).filter(View::is_valid)
    }

    fn hiding(&self, version: Version) -> Option<(Version, Version)> {
        let at = self.hidden.partition_point(|(_, last)| *last < version);
        self.hidden.get(at).copied().filter(|(first, _)| *first <= version)
    }
}

/// A set of views, asked which entries of a chain any of them sees.
///
/// An entry that is newer than all of them counts as seen: it was written since they were put together, by a head that has moved on, and
/// whoever heard of the set late must not drop it.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    readers: Readers,
    newest: Version,
}

impl Keep {
    /// The set of these views.
    pub fn new(views: &[View]) -> Keep {
        let newest = views.iter().map(|v| v.version).max().unwrap_or_default();
        Keep { readers: Readers::new(views), newest }
    }

    /// Whether one of the views sees everything up to `version`.
    pub fn sees_all_up_to(&self, version: Version) -> bool {
        self.readers.see_all_up_to(version)
    }

    /// Whether the newest entry of every block is read, whatever its version: so it is unless the newest view hides something.
    pub fn reads_all_heads(&self) -> bool {
        self.sees_all_up_to(self.newest)
    }

    /// Whether any view reads the entry of version `chain[at]`. `chain`: the versions of a block's entries, newest first.
    pub fn reads(&self, chain: &[Version], at: usize) -> bool {
        chain[at] > self.newest || self.readers.of(chain, at) != Reader::Nobody
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
