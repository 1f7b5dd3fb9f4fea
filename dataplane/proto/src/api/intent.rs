//! What a node is to do, told to its daemon.

use super::{DiskState, ReplicaRef, StateMark};
use crate::ids::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// What a node should do. `revision` moves whenever anything in it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Intent {
    pub revision: u64,
    /// Volumes that this node should serve.
    pub attach: Vec<AttachIntent>,
    /// Every node's data links, so that gateways find replicas.
    pub peers: Vec<PeerInfo>,
    /// Replicas that nothing needs any more; at most a page of them at a time.
    pub deletes: Vec<ReplicaRef>,
    /// Disks whose replicas are to be put elsewhere, by the gateways that have replicas there.
    #[serde(default)]
    pub evacuate: Vec<EvacuateDisk>,
    /// Background work allowed on this node, bytes per second; absent: no limit.
    #[serde(default)]
    pub background_rate: Option<u64>,
    /// Replicas that are to be put elsewhere though their disks stay in service, of volumes that this node serves. As with
    /// a disk that is drained: a newcomer first, then the old one goes. The meta server says where the newcomer goes. One that
    /// is not named any more stays.
    #[serde(default)]
    pub moves: Vec<MoveReplica>,
    /// Volumes that were given their epochs anew, and how often; any other is in its first era.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eras: Vec<VolumeEra>,
    /// The state that this was read from. A daemon follows none that is older than one it has seen, and tells of it instead: see
    /// [`Seen`]. Once in each generation it reports an [`Inventory`].
    #[serde(default)]
    pub state: StateMark,
}

/// How often a volume was given its epochs anew: fences of a later era stand above all of earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeEra {
    pub volume: VolumeId,
    pub era: Era,
}

impl Intent {
    /// Each volume's replicas that are to be put elsewhere.
    pub fn moves_by_volume(&self) -> BTreeMap<VolumeId, BTreeSet<ReplicaId>> {
        let mut moves: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for MoveReplica { volume, replica } in &self.moves {
            moves.entry(*volume).or_default().insert(*replica);
        }
        moves
    }
}

/// A replica that is to be put elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct MoveReplica {
    pub volume: VolumeId,
    pub replica: ReplicaId,
}

/// A disk whose replicas are to be put elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EvacuateDisk {
    pub disk: DiskId,
    /// [`DiskState::Draining`] or [`DiskState::Dead`].
    pub state: DiskState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachIntent {
    pub volume: VolumeId,
    pub name: String,
    /// Distinguishes this attachment from an earlier one of the same volume to the same node.
    pub attachment: u64,
    /// Nobody uses the volume: it is opened without a socket, to make its copies whole, to complete its snapshots, to
    /// drop what no snapshot needs, or to flatten it.
    #[serde(default)]
    pub repair: bool,
    /// Moves when the volume's [`VolumeVersions`] do: they are to be fetched then.
    #[serde(default)]
    pub versions: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerInfo {
    pub node: NodeId,
    pub cores: Vec<String>,
    /// Disks of the node, and in how many shards each is divided.
    pub disks: Vec<PeerDisk>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerDisk {
    pub disk: DiskId,
    pub shards: u16,
}
