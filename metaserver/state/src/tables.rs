//! The records that make up the state. Their serialised form is the snapshot: fields are only added,
//! with a serde default.

use crate::command::Decider;
use crate::conditions::Told;
use crate::events::Events;
use crate::groups::Group;
use crate::history::{History, NO_HISTORY, Parent};
use crate::keys::Keys;
use crate::level::Level;
use crate::maintenance::Windows;
use crate::rebalance::Rebalance;
use crate::recovery::Recovery;
use crate::table::Table;
use levee_proto::api::{
    CapacityLimits, DiskClass, DiskState, FULL_WEIGHT, PlacementPolicy, ReplicaPlace, ReplicaRef, VolumeJob,
};
use levee_proto::*;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use uuid::Uuid;

/// Everything that is replicated. Ordered maps only, so that equal states have equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tables {
    pub cluster: Option<Uuid>,
    pub last: LastIds,
    pub nodes: BTreeMap<NodeId, Node>,
    pub disks: Table<DiskId, Disk>,
    pub volumes: Table<VolumeId, Volume>,
    /// Bytes per second that each node may spend on background work; none: no limit.
    #[serde(default)]
    pub background_rate: Option<u64>,
    /// Those that are not complete, by number.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<u64, Group>,
    #[serde(default)]
    pub limits: CapacityLimits,
    /// Which commands may be given: see [`crate::level`].
    #[serde(default = "Level::first")]
    pub level: Level,
    /// The newest time that a batch of commands brought, milliseconds since 1970.
    #[serde(default)]
    pub clock_ms: u64,
    #[serde(default)]
    pub placement: PlacementPolicy,
    #[serde(default)]
    pub events: Events,
    #[serde(default)]
    pub maintenance: Windows,
    #[serde(default)]
    pub rebalance: Option<Rebalance>,
    /// Of disks that have left the cluster, oldest first: what is on them is old.
    #[serde(default)]
    pub removed_disks: VecDeque<Uuid>,
    #[serde(default, skip_serializing_if = "Keys::is_empty")]
    pub keys: Keys,
    /// Of volumes that were given their epochs anew: see [`crate::eras`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub eras: BTreeMap<VolumeId, Era>,
    #[serde(default, skip_serializing_if = "Recovery::is_empty")]
    pub recovery: Recovery,
    /// The folder of each meta server.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<u64, Uuid>,
    /// What commands do to whole volumes: see [`crate::jobs`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<VolumeId, VolumeJob>,
    #[serde(default, skip_serializing_if = "Told::is_empty")]
    pub conditions: Told,
}

/// The largest id of each kind that was ever given out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LastIds {
    pub node: u32,
    pub disk: u32,
    pub volume: u64,
    pub chunk: u64,
    pub replica: u64,
    pub attachment: u64,
    #[serde(default)]
    pub group: u64,
}

impl LastIds {
    pub fn next_node(&mut self) -> NodeId {
        self.node += 1;
        NodeId(self.node)
    }

    pub fn next_disk(&mut self) -> DiskId {
        self.disk += 1;
        DiskId(self.disk)
    }

    pub fn next_group(&mut self) -> u64 {
        self.group += 1;
        self.group
    }

    pub fn next_volume(&mut self) -> VolumeId {
        self.volume += 1;
        VolumeId(self.volume)
    }

    pub fn next_chunk(&mut self) -> ChunkId {
        self.chunk += 1;
        ChunkId(self.chunk)
    }

    pub fn next_replica(&mut self) -> ReplicaId {
        self.replica += 1;
        ReplicaId(self.replica)
    }

    pub fn next_attachment(&mut self) -> u64 {
        self.attachment += 1;
        self.attachment
    }
}

/// A storage daemon, as it last registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    /// The process that registered last.
    pub incarnation: Uuid,
    /// Earlier ones, oldest first: a late message of one of them must not depose the newest.
    pub retired: Vec<Uuid>,
    pub admin_url: String,
    pub cores: Vec<String>,
    /// The disks that it brought along when it last registered.
    pub disks: BTreeSet<DiskId>,
    /// Moves whenever the node's intent changes.
    pub revision: u64,
    /// Failure domains; without, the node is one by itself.
    #[serde(default)]
    pub zone: Option<String>,
    #[serde(default)]
    pub rack: Option<String>,
    /// With which nodes it shares chunks: see [`crate::copysets`].
    #[serde(default)]
    pub group: Option<u32>,
    /// That it is being emptied, if it is.
    #[serde(default)]
    pub drain: Option<Decision>,
    /// It leaves the cluster as soon as its disks are empty.
    #[serde(default)]
    pub removed: bool,
}

/// A disk that was registered once. It stays known when its node starts without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    pub uuid: Uuid,
    pub node: NodeId,
    pub path: String,
    /// Bytes usable for data.
    pub capacity: u64,
    pub shards: u16,
    /// Replicas on the disk, those that wait to be deleted included.
    pub placed: u64,
    /// Replicas that nothing needs any more and whose deletion the node has not confirmed.
    pub deletes: BTreeSet<ReplicaRef>,
    /// That it is being drained, if it is.
    #[serde(default)]
    pub drain: Option<Decision>,
    /// That it counts as lost, if it does. Stands beside `drain`: a disk that is found again is drained on.
    #[serde(default)]
    pub death: Option<Decision>,
    #[serde(default)]
    pub class: DiskClass,
    /// As [`levee_proto::api::SetDiskWeight`].
    #[serde(default = "full_weight")]
    pub weight: u32,
    /// It leaves the cluster as soon as no chunk has a replica on it.
    #[serde(default)]
    pub removed: bool,
}

fn full_weight() -> u32 {
    FULL_WEIGHT
}

/// Who took a disk out of service, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub by: Decider,
    /// One line for a person.
    pub reason: Option<String>,
}

impl Disk {
    /// How many replicas fit: none is placed without room for all of its chunk.
    pub fn slots(&self) -> u64 {
        self.capacity / CHUNK_SIZE
    }

    pub fn state(&self) -> DiskState {
        match (&self.death, &self.drain) {
            (Some(_), _) => DiskState::Dead,
            (None, Some(_)) => DiskState::Draining,
            (None, None) => DiskState::InService,
        }
    }

    /// Why it is not in service.
    pub fn reason(&self) -> Option<&str> {
        self.death.as_ref().or(self.drain.as_ref())?.reason.as_deref()
    }

    /// Replicas of chunks that exist.
    pub fn live(&self) -> u64 {
        self.placed.saturating_sub(self.deletes.len() as u64)
    }

    /// Whether a replica of the chunk waits here to be deleted.
    pub(crate) fn deletes_chunk(&self, id: DiskId, chunk: ChunkId) -> bool {
        let replica = |n| ReplicaRef { disk: id, chunk, replica: ReplicaId(n) };
        self.deletes.range(replica(0)..=replica(u64::MAX)).next().is_some()
    }
}

/// A virtual disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub size: u64,
    pub copies: u8,
    pub min_copies: u8,
    pub geometry: Geometry,
    /// The newest epoch that was opened; 0 before the first.
    pub epoch: Epoch,
    pub version: Version,
    pub attachment: Option<VolumeAttachment>,
    /// By position in the volume.
    pub chunks: BTreeMap<u32, Chunk>,
    /// What it was cloned from: blocks that it has not written are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// None as long as there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<Box<History>>,
    /// It serves its parent, a snapshot, for reading, and is there only while it is attached: see [`crate::readers`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// On which disks it is; none: on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<DiskClass>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Volume {
    pub fn history(&self) -> &History {
        self.history.as_deref().unwrap_or(&NO_HISTORY)
    }

    pub(crate) fn history_mut(&mut self) -> &mut History {
        self.history.get_or_insert_default()
    }

    /// What the head sees.
    pub fn view(&self) -> View {
        View { version: self.version, hidden: self.history().hidden.clone() }
    }

    /// How many chunks a volume of this size has.
    pub(crate) fn chunk_count(&self) -> u32 {
        self.geometry.chunk_count(self.size)
    }

    /// The attachment that somebody asked for.
    pub fn user(&self) -> Option<&VolumeAttachment> {
        self.attachment.as_ref().filter(|a| !a.repair)
    }
}

/// Where a volume should be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAttachment {
    pub id: u64,
    pub node: NodeId,
    /// The process that holds the volume's epoch; none until the attachment is opened.
    pub opened_by: Option<Uuid>,
    /// Nobody asked for it: the volume's copies are made whole.
    #[serde(default)]
    pub repair: bool,
}

/// One allocated chunk. There are tens of millions: it is written as an array, which is read like the object that it once was.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Chunk {
    pub id: ChunkId,
    pub config: ConfigNo,
    pub replicas: Vec<ReplicaPlace>,
}

impl Serialize for Chunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let replicas: Vec<_> = self.replicas.iter().map(|r| (r.replica, r.node, r.disk)).collect();
        (self.id, self.config, replicas).serialize(serializer)
    }
}
