//! The records of a volume's versions: its snapshots, what its head does not see, and what its gateway still has to do
//! about them. Most volumes have none of it, and pay nothing for it.

use levee_proto::api::{ImageInfo, SnapshotState};
use levee_proto::{Version, View, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What became of a volume's versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Moves whenever something else that the gateway follows does.
    pub number: u64,
    /// What the head does not see, as in [`View::hidden`].
    pub hidden: Vec<(Version, Version)>,
    /// By the version that each freezes.
    pub snapshots: BTreeMap<Version, Snapshot>,
    /// Every chunk has enough replicas that hold all up to here for ever.
    pub sealed: Version,
    /// The number from which on there is something to drop; none once the gateway has dropped it.
    pub prune: Option<u64>,
    /// What ancestors have is being copied into the volume.
    pub flatten: bool,
    /// Deleted, and kept for clones of its snapshots.
    pub deleted: bool,
    /// The snapshot that it mirrors: see [`crate::mirrors`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Parent>,
    /// The group in which a snapshot is being taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Grouped>,
}

/// A volume's part in a group of snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouped {
    pub group: u64,
    /// That its snapshot freezes.
    pub version: Version,
}

/// For volumes without.
pub(crate) static NO_HISTORY: History = History {
    number: 0,
    hidden: Vec::new(),
    snapshots: BTreeMap::new(),
    sealed: Version(0),
    prune: None,
    flatten: false,
    deleted: false,
    mirror: None,
    group: None,
};

/// A frozen version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: String,
    /// What it does not see, as in [`View::hidden`].
    #[serde(default)]
    pub hidden: Vec<(Version, Version)>,
    /// The volume's size, bytes.
    pub size: u64,
    pub state: SnapshotState,
    pub created_ms: u64,
    /// Volumes whose parent it is.
    pub children: u64,
    /// The volume that serves it for reading, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<VolumeId>,
    /// Volumes that hold all that it shows once more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<VolumeId>,
    /// What it was made of, if it is an image.
    #[serde(default)]
    pub image: Option<Box<ImageInfo>>,
}

/// The snapshot that a volume continues from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Parent {
    pub volume: VolumeId,
    pub version: Version,
}

impl Snapshot {
    pub fn view(&self, version: Version) -> View {
        View { version, hidden: self.hidden.clone() }
    }
}

impl History {
    /// The highest version that a snapshot which is not complete freezes.
    pub fn pending(&self) -> Option<Version> {
        let pending = |snapshot: &Snapshot| snapshot.state == SnapshotState::Pending;
        self.snapshots.iter().rev().find(|(_, s)| pending(s)).map(|(version, _)| *version)
    }

    /// Whether a gateway has something to do that nobody waits for in front of a screen.
    pub fn has_chores(&self) -> bool {
        self.prune.is_some() || self.flatten || self.pending().is_some()
    }

    pub fn named(&self, name: &str) -> Option<(Version, &Snapshot)> {
        self.snapshots.iter().find(|(_, s)| s.name == name).map(|(version, s)| (*version, s))
    }

    /// Completes the snapshots up to `version`, but for one that others of its group are not ready for.
    pub fn seal(&mut self, version: Version) {
        self.sealed = self.sealed.max(version);
        let waits = self.group.map(|g| g.version);
        for (at, snapshot) in self.snapshots.range_mut(..=version) {
            if snapshot.state == SnapshotState::Pending && waits != Some(*at) {
                snapshot.state = SnapshotState::Done;
            }
        }
    }
}
