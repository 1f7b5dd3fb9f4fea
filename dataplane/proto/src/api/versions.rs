//! Snapshots, clones, rollback and resizing, in the API's terms.

use super::ChunkInfo;
use crate::ids::*;
use crate::units::Geometry;
use crate::view::View;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most volumes in one group of snapshots.
pub const MAX_SNAPSHOT_GROUP: usize = 64;
/// Most clones made by one request, and volumes deleted by one.
pub const MAX_FAMILY: u32 = 65_536;
/// Stands in the name of a family of volumes where each one's number goes.
pub const NUMBER_MARK: &str = "{}";

/// How far a snapshot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    /// The volume writes at the next version; not every replica is known to hold all that came before.
    Pending,
    /// It can be cloned and rolled back to.
    Done,
    /// It was deleted, and stays until the last clone of it is gone or flattened.
    Deleting,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotInfo {
    pub volume: String,
    pub name: String,
    pub version: Version,
    /// The volume's size when it was taken, bytes.
    pub size: u64,
    pub state: SnapshotState,
    /// Milliseconds since 1970, by the clock of the meta server that took the request.
    pub created_ms: u64,
    /// Volumes that were cloned from it and still need it.
    pub clones: u64,
    /// Copies of its data that clones can read, those of the volume included: more of them as clones become many.
    #[serde(default)]
    pub read_copies: u32,
    /// What it was made of, if it is an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageInfo>,
}

/// The name of the snapshot that makes an image of a volume.
pub const IMAGE_SNAPSHOT: &str = "image";

/// Where a disk came from that is to be cloned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageInfo {
    /// Of the file, such as `qcow2`: as a name may be.
    pub format: String,
    /// Bytes of the disk in the file; the volume may have more.
    pub disk_size: u64,
    /// Bytes of it that were not zero.
    pub data: u64,
    /// CRC-32C of all that the snapshot holds.
    pub crc32c: u32,
}

/// Names a snapshot; written `VOLUME@NAME` where a person reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct SnapshotName {
    pub volume: String,
    pub snapshot: String,
}

impl SnapshotName {
    /// `VOLUME@NAME`; `None`: it is something else, such as the name of a volume.
    pub fn parse(text: &str) -> Option<SnapshotName> {
        let (volume, snapshot) = text.split_once('@')?;
        let valid = super::is_valid_name(volume) && super::is_valid_name(snapshot);
        valid.then(|| SnapshotName { volume: volume.into(), snapshot: snapshot.into() })
    }
}

impl std::fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.volume, self.snapshot)
    }
}

/// Takes snapshots of one or several volumes: all are recorded in one commit, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateSnapshots {
    /// At most 64, each of another volume.
    pub snapshots: Vec<SnapshotName>,
    /// Makes images of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedSnapshots {
    /// In the order asked for. Those that are still pending are completed all the same.
    pub snapshots: Vec<SnapshotInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollback {
    /// Name of one of the volume's snapshots.
    pub snapshot: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResizeVolume {
    /// Bytes: a multiple of 4096, at least 4096.
    pub size: u64,
    /// Allows less than the volume has, if nothing is allocated beyond.
    #[serde(default)]
    pub allow_shrink: bool,
}

/// Creates volumes whose content is that of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateClones {
    pub from: SnapshotName,
    #[serde(flatten)]
    pub names: Family,
    /// Bytes, at least the snapshot's; absent: as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Absent: as the snapshot's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<u8>,
    /// Absent: as the snapshot's volume, but no more than `copies`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_copies: Option<u8>,
}

/// One volume, or volumes whose names differ in a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Family {
    /// With `count`: `{}` in it stands for the number; without, `-` and the number follow it.
    pub name: String,
    /// Absent: one volume of just this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// The first number.
    #[serde(default = "one")]
    pub first: u32,
}

fn one() -> u32 {
    1
}

impl Family {
    /// One volume of this name.
    pub fn single(name: impl Into<String>) -> Family {
        Family { name: name.into(), count: None, first: 1 }
    }

    /// How many volumes it names.
    pub fn len(&self) -> u32 {
        self.count.unwrap_or(1)
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of the volume at position `i`, from 0.
    pub fn name_at(&self, i: u32) -> String {
        if self.count.is_none() {
            return self.name.clone();
        }
        let number = u64::from(self.first) + u64::from(i);
        if self.name.contains(NUMBER_MARK) {
            self.name.replacen(NUMBER_MARK, &number.to_string(), 1)
        } else {
            format!("{}-{number}", self.name)
        }
    }

    /// All the names.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        (0..self.len()).map(|i| self.name_at(i))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedClones {
    pub from: SnapshotName,
    pub count: u32,
    pub first: String,
    pub last: String,
    /// Bytes, of each.
    pub size: u64,
}

/// Deletes volumes; each is deleted or refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeleteVolumes {
    /// At most 65,536 volumes in all.
    pub volumes: Vec<Family>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedVolumes {
    pub deleted: u32,
    /// Those that were not deleted, at most the first 100.
    pub refused: Vec<RefusedVolume>,
    /// How many were not deleted.
    pub refusals: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedVolume {
    pub volume: String,
    pub kind: super::ProblemKind,
    /// Why: one line for a person.
    pub detail: String,
}

/// The snapshot that a volume was cloned from, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParentName {
    /// Absent once that volume was deleted; what its clones need is kept.
    #[serde(default)]
    pub volume: Option<String>,
    pub id: VolumeId,
    pub snapshot: String,
}

/// What a clone's gateway needs to read what the clone has not written itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParentInfo {
    pub volume: VolumeId,
    /// That of the snapshot.
    pub view: View,
    /// Bytes: what lies beyond reads as zeros, whatever ancestors have there.
    pub size: u64,
    /// The clone's own is the same.
    pub geometry: Geometry,
    pub copies: u8,
    /// The first allocated chunks, in index order.
    pub chunks: Vec<ChunkInfo>,
    /// There are others: `GET /v1/maps/{volume}` has those behind the last one.
    #[serde(default)]
    pub more: bool,
    #[serde(default)]
    #[schema(no_recursion)]
    pub parent: Option<Box<ParentInfo>>,
    /// Where the same can be read.
    #[serde(default)]
    pub mirrors: Vec<MirrorInfo>,
}

/// A volume that holds all that a snapshot shows, what its ancestors have included. What it has no entry of reads as zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorInfo {
    pub volume: VolumeId,
    pub view: View,
    /// The first allocated chunks, in index order; the geometry is the snapshot's.
    pub chunks: Vec<ChunkInfo>,
    /// There are others: `GET /v1/maps/{volume}` has those behind the last one.
    #[serde(default)]
    pub more: bool,
}

/// The ancestors of a volume as of now: their chunks move when they are repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeParent {
    /// Absent: the volume is no clone, or was flattened.
    pub parent: Option<ParentInfo>,
}

/// What a volume's gateway follows while it is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeVersions {
    /// Moves whenever anything else in here does, but for the epoch; [`super::AttachIntent::versions`] is the newest.
    pub number: u64,
    /// The volume's epoch when they were so: only that gateway may follow them.
    #[serde(default)]
    pub epoch: Epoch,
    /// What the volume writes at.
    pub version: Version,
    /// The head's.
    pub view: View,
    /// Those of the snapshots that are to be kept, oldest first: pending and deleted but still needed ones as well.
    pub snapshots: Vec<View>,
    /// The highest version that is known to be sealed; 0: none.
    pub sealed: Version,
    /// The highest version that a snapshot which is not complete freezes: to be sealed, and reported ([`Sealed`]).
    #[serde(default)]
    pub pending: Option<Version>,
    /// Bytes; it only grows while the volume is attached.
    pub size: u64,
    /// Something may be dropped since the gateway last reported that nothing is left to drop ([`Pruned`]).
    #[serde(default)]
    pub prune: bool,
    /// All that ancestors have is to be copied into the volume, and that reported ([`Flattened`]).
    #[serde(default)]
    pub flatten: bool,
    /// Writes at later versions are not answered as long as this is there, and that they are made is reported
    /// ([`Moved`]): other volumes of a group may still be written at the versions that are to be frozen.
    #[serde(default)]
    pub hold: Option<Version>,
}

/// Asks a volume's gateway what differs between a snapshot of it and another one, or the volume as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffVolume {
    /// The version that the snapshot froze; 0, with `to` absent: all parts in which the volume may hold anything are told, by
    /// groups of chunks.
    pub from: Version,
    /// Absent: the volume as it is.
    #[serde(default)]
    pub to: Option<Version>,
}

/// Bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ByteRange {
    pub offset: u64,
    pub length: u64,
}

/// What was found of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum DiffEvent {
    /// Parts that may read differently: whole blocks, in order over all events.
    Changed {
        ranges: Vec<ByteRange>,
    },
    /// Everything else reads the same.
    Done,
    Failed {
        detail: String,
    },
}

/// A gateway reports: every chunk has `min_copies` replicas that are sealed at `version`. All snapshots up to there are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sealed {
    /// Refused unless it is the volume's current epoch.
    pub epoch: Epoch,
    pub version: Version,
}

/// A gateway reports: nothing is written at `version` any more, by it or by those before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// Refused unless it is the volume's current epoch.
    pub epoch: Epoch,
    /// [`VolumeVersions::hold`].
    pub version: Version,
    /// Whether all writes at later versions are waiting for their answers. If not, the group of snapshots is given up.
    pub held: bool,
}

/// A gateway reports: what no view of these [`VolumeVersions`] sees has been dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pruned {
    /// Refused unless it is the volume's current epoch.
    pub epoch: Epoch,
    /// [`VolumeVersions::number`] of those that were applied.
    pub number: u64,
}

/// A gateway reports: the volume holds all that its ancestors had, and needs them no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flattened {
    /// Refused unless it is the volume's current epoch.
    pub epoch: Epoch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_snapshots_are_told_from_those_of_volumes() {
        assert_eq!(SnapshotName::parse("vm1@a.b").map(|s| s.to_string()), Some("vm1@a.b".into()));
        for other in ["vm1", "vm1@", "@a", "vm1@a@b", "a b@c", ".deleted-1@a", ""] {
            assert_eq!(SnapshotName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn families_have_numbers_where_asked() {
        let family = |name: &str, count, first| Family { name: name.into(), count, first };
        let names = |f: Family| f.names().collect::<Vec<_>>();
        assert_eq!(names(Family::single("a")), ["a"]);
        assert_eq!(names(family("a", Some(2), 1)), ["a-1", "a-2"]);
        assert_eq!(names(family("vm-{}-disk", Some(2), 9)), ["vm-9-disk", "vm-10-disk"]);
        let clones: CreateClones =
            serde_json::from_str(r#"{"from":{"volume":"v","snapshot":"s"},"name":"c","count":3}"#).unwrap();
        assert_eq!((clones.names.len(), clones.names.first, clones.from.to_string()), (3, 1, "v@s".into()));
    }
}
