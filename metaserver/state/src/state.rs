//! The state as a whole: applying commands, and the look-up tables derived from the records.

use crate::capacity::promised_to;
use crate::command::{Answer, Command, Outcome};
use crate::keys::Name;
use crate::readers::only_read;
use crate::tables::{Disk, Tables, Volume};
use levee_proto::api::{DiskState, EventKind, Problem, ProblemKind, SnapshotName};
use levee_proto::{DiskId, NodeId, VolumeId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The cluster as it should be.
///
/// Serialising it gives the snapshot: only [`Tables`], the rest is derived. Deserialising rebuilds what
/// is derived and refuses a snapshot that breaks an invariant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) tables: Tables,
    pub(crate) index: Index,
}

/// Look-ups by name and uuid. Always what [`Index::of`] makes of the tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub node_by_name: BTreeMap<String, NodeId>,
    pub disk_by_uuid: BTreeMap<Uuid, DiskId>,
    pub volume_by_name: BTreeMap<String, VolumeId>,
    /// Attached volumes of each node that has any.
    pub attached: BTreeMap<NodeId, BTreeSet<VolumeId>>,
    /// Volumes that are attached for repair.
    pub repairs: BTreeSet<VolumeId>,
    /// Disks that are not in service and hold replicas of chunks that exist.
    pub evacuate: BTreeMap<DiskId, DiskState>,
    /// Volumes with snapshots.
    pub snapshotted: BTreeSet<VolumeId>,
    /// Volumes whose gateway has something to do about versions.
    pub chores: BTreeSet<VolumeId>,
    /// What all volumes may come to take of the disks, bytes.
    pub provisioned: u128,
    /// Numbers of what is remembered by idempotency keys.
    pub keys: BTreeMap<Name, u64>,
}

impl Index {
    pub fn of(tables: &Tables) -> Index {
        let mut index = Index {
            node_by_name: tables.nodes.iter().map(|(id, n)| (n.name.clone(), *id)).collect(),
            disk_by_uuid: tables.disks.iter().map(|(id, d)| (d.uuid, *id)).collect(),
            volume_by_name: tables.volumes.iter().map(|(id, v)| (v.name.clone(), *id)).collect(),
            attached: BTreeMap::new(),
            repairs: BTreeSet::new(),
            evacuate: tables.disks.iter().filter_map(|(id, d)| Some((*id, leaving(d)?))).collect(),
            snapshotted: BTreeSet::new(),
            chores: BTreeSet::new(),
            provisioned: tables.volumes.values().map(promised_to).sum(),
            keys: tables.keys.by_age.iter().map(|(n, r)| ((r.key.clone(), r.part), *n)).collect(),
        };
        for (id, volume) in tables.volumes.iter() {
            if let Some(attachment) = &volume.attachment {
                index.attach(attachment.node, *id, attachment.repair);
            }
            index.note_history(*id, volume);
        }
        index
    }

    pub fn attach(&mut self, node: NodeId, volume: VolumeId, repair: bool) {
        self.attached.entry(node).or_default().insert(volume);
        if repair {
            self.repairs.insert(volume);
        }
    }

    pub fn note_history(&mut self, id: VolumeId, volume: &Volume) {
        let history = volume.history();
        note(&mut self.snapshotted, id, !history.snapshots.is_empty());
        note(&mut self.chores, id, history.has_chores());
    }

    pub fn forget_history(&mut self, id: VolumeId) {
        note(&mut self.snapshotted, id, false);
        note(&mut self.chores, id, false);
    }

    pub fn detach(&mut self, node: NodeId, volume: VolumeId) {
        self.repairs.remove(&volume);
        if let Some(volumes) = self.attached.get_mut(&node) {
            volumes.remove(&volume);
            if volumes.is_empty() {
                self.attached.remove(&node);
            }
        }
    }
}

fn note(set: &mut BTreeSet<VolumeId>, id: VolumeId, is_in: bool) {
    if is_in {
        set.insert(id);
    } else {
        set.remove(&id);
    }
}

/// What the disk is if its replicas are to be put elsewhere.
pub(crate) fn leaving(disk: &Disk) -> Option<DiskState> {
    Some(disk.state()).filter(|state| *state != DiskState::InService && disk.live() > 0)
}

impl State {
    /// Applies one command. A refusal leaves the state as it was.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        command.validate()?;
        self.check_level(command)?;
        let outcome = self.dispatch(command);
        if outcome.is_ok() {
            self.go_on_recovering();
        }
        outcome
    }

    fn dispatch(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Found { cluster } => {
                if self.tables.cluster.is_none() {
                    self.tables.cluster = Some(*cluster);
                    self.tell(EventKind::Cluster, "cluster", "was founded");
                }
                Ok(Answer::Done)
            }
            Command::RegisterNode(request) => self.register_node(request),
            Command::CreateVolume(request) => self.create_volume(request),
            Command::DeleteVolume { name } => self.delete_volume(name),
            Command::Attach { name, node, alive } => self.attach(name, node.as_deref(), alive),
            Command::Detach { name } => self.detach(name),
            Command::Open { name, request } => self.open(name, request),
            Command::Allocate { name, request, alive, full } => self.allocate(name, request, alive, full),
            Command::ConfirmDeleted { node, replicas } => self.confirm_deleted(*node, replicas),
            Command::ChangeReplicas { name, request, alive, full } => self.change_replicas(name, request, alive, full),
            Command::SetDisk { disk, state, reason, by } => self.set_disk(*disk, *state, reason.as_deref(), *by),
            Command::AttachRepair { volume, node } => self.attach_repair(*volume, *node),
            Command::DetachRepair { volume, attachment } => self.detach_repair(*volume, *attachment),
            Command::SetBackgroundRate { rate } => Ok(self.set_background_rate(*rate)),
            Command::BeginSnapshots { request, created_ms } => self.begin_snapshots(request, *created_ms),
            Command::Moved { name, request } => self.moved(name, request),
            Command::FinishSnapshots { name, request } => self.finish_snapshots(name, request),
            Command::DeleteSnapshot(name) => self.delete_snapshot(name),
            Command::Rollback(name) => self.rollback(name),
            Command::CreateClones(request) => self.create_clones(request),
            Command::DeleteVolumes(request) => self.delete_volumes(request),
            Command::Pruned { name, request } => self.pruned(name, request),
            Command::Flatten { name } => self.flatten(name),
            Command::Flattened { name, request } => self.flattened(name, request),
            Command::Resize { name, request } => self.resize(name, request),
            Command::RecoverEpochs { name } => self.begin_era(name),
            Command::SetLimits(change) => self.set_limits(change),
            Command::SetLevel { level } => self.set_level(*level),
            Command::SetNode { node, request } => self.set_node(*node, request),
            Command::RemoveNode { node, force } => self.remove_node(*node, *force),
            Command::RemoveDisk { disk, force } => self.remove_disk(*disk, *force),
            Command::SetDiskWeight { disk, weight } => self.set_disk_weight(*disk, *weight),
            Command::SetPlacement(change) => self.set_placement(change),
            Command::StartRebalance { goal, moves } => self.start_rebalance(*goal, moves),
            Command::CancelRebalance => self.cancel_rebalance(),
            Command::SkipMoves { replicas } => self.skip_moves(replicas),
            Command::StartMaintenance(request) => self.start_maintenance(request),
            Command::EndMaintenance { node } => self.end_maintenance(node.as_deref()),
            Command::Note(notes) => self.add_notes(notes),
            Command::CreateVolumes(request) => self.create_volumes(request),
            Command::Keyed { key, command } => self.apply_keyed(key, command),
            Command::Of { caller, command } => self.apply_call(*caller, command),
            Command::Recover { at_ms } => self.recover(*at_ms),
            Command::Inventory { node, request } => self.take_inventory(*node, request),
            Command::AcceptLoss { name } => self.accept_loss(name),
            Command::PinMember { id, folder } => self.pin_member(*id, *folder),
            Command::ReleaseMember { id } => self.release_member(*id),
            Command::BeginJob { name, request } => self.begin_job(name, request),
            Command::EndJob { name, id } => self.end_job(name, *id),
            Command::CleanUpJob { volume, job, renewed_ms } => self.clean_up_job(*volume, *job, *renewed_ms),
            Command::Conditions(change) => self.tell_conditions(change),
        }
    }

    /// Without what is derived: for looking at records only.
    pub(crate) fn of_tables(tables: Tables) -> State {
        State { tables, index: Index::default() }
    }

    /// The cluster's id; none until it is founded.
    pub fn cluster(&self) -> Option<Uuid> {
        self.tables.cluster
    }

    /// For gateways, which open deleted volumes as well.
    pub(crate) fn volume_id(&self, name: &str) -> Result<VolumeId, Problem> {
        self.index.volume_by_name.get(name).copied().ok_or_else(|| no_volume_named(name))
    }

    /// For users, who do not see those that were deleted, and do to volumes what cannot be done to snapshots.
    pub(crate) fn user_volume_id(&self, name: &str) -> Result<VolumeId, Problem> {
        if let Some(snapshot) = SnapshotName::parse(name) {
            return Err(only_read(&snapshot));
        }
        let id = self.volume_id(name)?;
        if self.tables.volumes[&id].is_hidden() { Err(no_volume_named(name)) } else { Ok(id) }
    }

    /// The node's name, or its number if it is unknown.
    pub(crate) fn node_name(&self, id: NodeId) -> String {
        self.tables.nodes.get(&id).map_or_else(|| id.to_string(), |n| n.name.clone())
    }

    /// The node's intent has changed.
    pub(crate) fn touch(&mut self, node: NodeId) {
        if let Some(node) = self.tables.nodes.get_mut(&node) {
            node.revision += 1;
        }
    }

    pub(crate) fn touch_all(&mut self) {
        for node in self.tables.nodes.values_mut() {
            node.revision += 1;
        }
    }
}

fn no_volume_named(name: &str) -> Problem {
    let shown = levee_proto::api::shown_name(name);
    Problem::new(ProblemKind::NotFound, format!("there is no volume named '{shown}'"))
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.tables.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<State, D::Error> {
        let tables = Tables::deserialize(deserializer)?;
        let state = State { index: Index::of(&tables), tables };
        state.check().map_err(serde::de::Error::custom)?;
        Ok(state)
    }
}
