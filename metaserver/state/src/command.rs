//! What can be asked of the state machine, and what it answers.

use crate::batches::validate_batch;
use crate::caller::validate_call;
use crate::capacity::validate_limits;
use crate::conditions::{ConditionChange, validate_change};
use crate::copysets::validate_placement;
use crate::events::{Note, validate_notes};
use crate::jobs::validate_job;
use crate::keys::{Key, validate_keyed};
use crate::limits::*;
use crate::maintenance::validate_maintenance;
use crate::rebalance::validate_moves;
use crate::recovery::{validate_inventory, validate_seen};
use levee_proto::api::*;
use levee_proto::units::{MAX_VOLUME_SIZE, show_size};
use levee_proto::{BLOCK_SIZE, DiskId, NodeId, ReplicaId, VolumeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use uuid::Uuid;

/// One change. Part of the Raft log's format: variants and fields are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Gives the cluster its id. Only the first one has an effect.
    Found {
        cluster: Uuid,
    },
    RegisterNode(RegisterNode),
    CreateVolume(CreateVolume),
    DeleteVolume {
        name: String,
    },
    /// `alive`: the nodes that the proposer does not know to be down.
    Attach {
        name: String,
        node: Option<String>,
        alive: BTreeSet<NodeId>,
    },
    Detach {
        name: String,
    },
    Open {
        name: String,
        request: OpenVolume,
    },
    /// `alive`: as in `Attach`; replicas are placed on these only.
    /// `full`: disks that are so full, by what they report, that nothing is put on them.
    Allocate {
        name: String,
        request: AllocateChunks,
        alive: BTreeSet<NodeId>,
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        full: BTreeSet<DiskId>,
    },
    /// The node's disks hold these replicas no more.
    ConfirmDeleted {
        node: NodeId,
        replicas: Vec<ReplicaRef>,
    },
    /// `alive`: the nodes on which new members may be placed; `full`: as in `Allocate`.
    ChangeReplicas {
        name: String,
        request: ChangeReplicas,
        alive: BTreeSet<NodeId>,
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        full: BTreeSet<DiskId>,
    },
    SetDisk {
        disk: DiskId,
        state: DiskState,
        reason: Option<String>,
        by: Decider,
    },
    /// Has a node make the copies of a volume whole that nobody uses.
    AttachRepair {
        volume: VolumeId,
        node: NodeId,
    },
    /// Ends that, unless the attachment is another by now.
    DetachRepair {
        volume: VolumeId,
        attachment: u64,
    },
    /// What each node may spend on background work, bytes per second; none: no limit.
    SetBackgroundRate {
        rate: Option<u64>,
    },
    /// `created_ms`: the proposer's clock, milliseconds since 1970.
    BeginSnapshots {
        request: CreateSnapshots,
        created_ms: u64,
    },
    Moved {
        name: String,
        request: Moved,
    },
    FinishSnapshots {
        name: String,
        request: Sealed,
    },
    DeleteSnapshot(SnapshotName),
    Rollback(SnapshotName),
    /// At most [`MAX_FAMILY_PER_COMMAND`] at a time.
    CreateClones(CreateClones),
    /// At most [`MAX_FAMILY_PER_COMMAND`] at a time.
    DeleteVolumes(DeleteVolumes),
    Pruned {
        name: String,
        request: Pruned,
    },
    Flatten {
        name: String,
    },
    /// Gives a detached volume its epochs anew: see [`crate::eras`].
    RecoverEpochs {
        name: String,
    },
    Flattened {
        name: String,
        request: Flattened,
    },
    Resize {
        name: String,
        request: ResizeVolume,
    },
    SetLimits(ChangeLimits),
    /// From now on commands up to this level may be given: every member knows them. See [`crate::LEVEL`].
    SetLevel {
        level: u32,
    },
    SetNode {
        node: NodeId,
        request: SetNodeState,
    },
    /// `force`: what it holds is given up.
    RemoveNode {
        node: NodeId,
        force: bool,
    },
    /// `force`: as in `RemoveNode`.
    RemoveDisk {
        disk: DiskId,
        force: bool,
    },
    SetDiskWeight {
        disk: DiskId,
        weight: u32,
    },
    SetPlacement(ChangePlacement),
    StartRebalance {
        goal: RebalanceGoal,
        moves: Vec<PlannedMove>,
    },
    CancelRebalance,
    /// Gives up moves of these copies that get nowhere.
    SkipMoves {
        replicas: BTreeSet<ReplicaId>,
    },
    StartMaintenance(StartMaintenance),
    EndMaintenance {
        node: Option<String>,
    },
    /// What the leader sees and nothing else would tell.
    Note(Vec<Note>),
    /// At most [`MAX_BATCH_VOLUMES`] at a time.
    CreateVolumes(CreateVolumes),
    /// A command that is answered as before if its key is known: see [`crate::keys`].
    Keyed {
        key: Key,
        command: Box<Command>,
    },
    /// A gateway's command, of its attachment alone: see [`crate::caller`].
    Of {
        caller: AttachmentId,
        command: Box<Command>,
    },
    /// The state may be older than what daemons have seen: see [`crate::recovery`]. `at_ms`: the proposer's clock, milliseconds since 1970.
    Recover {
        at_ms: u64,
    },
    /// What a node's disks hold.
    Inventory {
        node: NodeId,
        request: Inventory,
    },
    /// A volume is used without what was lost of it.
    AcceptLoss {
        name: String,
    },
    /// Notes which folder a meta server has.
    PinMember {
        id: u64,
        folder: Uuid,
    },
    /// Forgets it: the meta server begins anew, or has left.
    ReleaseMember {
        id: u64,
    },
    BeginJob {
        name: String,
        request: BeginJob,
    },
    EndJob {
        name: String,
        id: Uuid,
    },
    /// Does nothing if the job has been renewed since.
    CleanUpJob {
        volume: VolumeId,
        job: Uuid,
        renewed_ms: u64,
    },
    Conditions(ConditionChange),
}

/// Who says that a disk is dead. One can only take back what itself or a lesser one said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decider {
    /// Nothing was heard of it for long; over when it is heard of again.
    Silence,
    /// Its daemon reported that it failed.
    Failure,
    Operator,
}

/// What a command that took effect answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Done,
    Registered(Registered),
    /// Without the gateway's report, which is not replicated.
    Volume(VolumeInfo),
    Opened(OpenedVolume),
    Allocated(AllocatedChunks),
    Changed(ChangedReplicas),
    /// Without what daemons report.
    Disk(DiskInfo),
    /// Without what daemons report.
    Node(NodeInfo),
    Rebalance(RebalanceStatus),
    Snapshots(Vec<SnapshotInfo>),
    Versions(VolumeVersions),
    Cloned(CreatedClones),
    Deleted(DeletedVolumes),
    /// In the order asked for.
    Created(Vec<CreatedVolume>),
}

/// A refused command has changed nothing.
pub type Outcome = Result<Answer, Problem>;

impl Command {
    /// Refuses what is wrong whatever the state: sizes, counts, names. The state machine checks it too;
    /// checking before the proposal keeps nonsense out of the log.
    pub fn validate(&self) -> Result<(), Problem> {
        match self {
            Command::RegisterNode(request) => validate_node(request),
            Command::CreateVolume(request) => validate_volume(request),
            Command::Allocate { request, .. } => validate_allocate(request),
            Command::ChangeReplicas { request, .. } => validate_changes(request),
            Command::SetDisk { reason: Some(reason), .. } => validate_reason(reason),
            Command::BeginSnapshots { request, .. } => validate_snapshots(request),
            Command::CreateClones(request) => validate_clones(request),
            Command::DeleteVolumes(request) => validate_deletion(request),
            Command::Resize { name, request } => validate_size(name, request.size),
            Command::SetLimits(change) => validate_limits(change),
            Command::SetNode { request: SetNodeState { reason: Some(reason), .. }, .. } => validate_reason(reason),
            Command::SetDiskWeight { weight, .. } if *weight > MAX_WEIGHT => {
                Err(invalid(format!("a weight of {weight}: at most {MAX_WEIGHT} is allowed, {FULL_WEIGHT} is usual")))
            }
            Command::SetPlacement(change) => validate_placement(change),
            Command::StartRebalance { moves, .. } => validate_moves(moves),
            Command::StartMaintenance(request) => validate_maintenance(request),
            Command::Note(notes) => validate_notes(notes),
            Command::CreateVolumes(request) => validate_batch(request),
            Command::Keyed { key, command } => validate_keyed(key, command),
            Command::Of { command, .. } => validate_call(command),
            Command::Inventory { request, .. } => validate_inventory(request),
            Command::BeginJob { request, .. } => validate_job(request),
            Command::Conditions(change) => validate_change(change),
            Command::ConfirmDeleted { replicas, .. } if replicas.len() > MAX_DELETES => Err(invalid(format!(
                "{} deleted replicas in one message: at most {MAX_DELETES} are allowed",
                replicas.len()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether an idempotency key goes with it. What gateways and the leader itself propose may be proposed again as it is.
    pub fn takes_key(&self) -> bool {
        use Command::*;
        !matches!(
            self,
            Found { .. }
                | RegisterNode(_)
                | Open { .. }
                | Allocate { .. }
                | ConfirmDeleted { .. }
                | ChangeReplicas { .. }
                | AttachRepair { .. }
                | DetachRepair { .. }
                | SetBackgroundRate { .. }
                | Moved { .. }
                | FinishSnapshots { .. }
                | Pruned { .. }
                | Flattened { .. }
                | Keyed { .. }
                | Of { .. }
                | Recover { .. }
                | Inventory { .. }
                | CleanUpJob { .. }
                | Conditions(_)
        )
    }

    /// About how many bytes the command takes in the log.
    pub fn weight(&self) -> usize {
        const BASE: usize = 512;
        const FAMILY_WEIGHT: usize = 256;
        BASE + match self {
            Command::RegisterNode(r) => {
                let disks: usize = r.disks.iter().map(|d| d.path.len() + 128).sum();
                disks + r.seen.disks.len() * 64 + r.cores.iter().map(|c| c.len() + 4).sum::<usize>()
            }
            Command::Attach { alive, .. } => alive.len() * 6,
            Command::Allocate { request, alive, full, .. } => {
                request.indexes.len() * 10 + (alive.len() + full.len()) * 6
            }
            Command::ConfirmDeleted { replicas, .. } => replicas.len() * 64,
            Command::ChangeReplicas { request, alive, full, .. } => {
                let removed: usize = request.changes.iter().map(|c| c.remove.len()).sum();
                request.changes.len() * 64 + removed * 20 + (alive.len() + full.len()) * 6
            }
            Command::Inventory { request, .. } => request.replicas.len() * 96 + request.fences.len() * 40,
            Command::SetDisk { reason, .. } => reason.as_ref().map_or(0, String::len),
            Command::StartRebalance { moves, .. } => moves.len() * 96,
            Command::Note(notes) => weight_of(notes),
            Command::Conditions(change) => {
                let keys = change.began.iter().chain(&change.ended);
                keys.map(|key| key.subject.len() + 96).sum::<usize>() + weight_of(&change.notes)
            }
            Command::BeginSnapshots { request, .. } => request.snapshots.len() * 2 * (MAX_NAME + 32),
            // The work counts, not the bytes.
            Command::CreateClones(request) => FAMILY_WEIGHT.saturating_mul(request.names.len() as usize),
            Command::DeleteVolumes(request) => FAMILY_WEIGHT.saturating_mul(members(request) as usize),
            Command::CreateVolumes(request) => FAMILY_WEIGHT.saturating_mul(request.volumes.len()),
            Command::Keyed { command, .. } | Command::Of { command, .. } => command.weight(),
            _ => 0,
        }
    }
}

fn weight_of(notes: &[Note]) -> usize {
    notes.iter().map(|n| n.subject.len() + n.text.len() + 64).sum()
}

pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Invalid, detail)
}

fn validate_name(what: &str, name: &str) -> Result<(), Problem> {
    if is_valid_name(name) {
        return Ok(());
    }
    let shown = shown_name(name);
    Err(invalid(format!(
        "'{shown}' cannot name a {what}: use at most {MAX_NAME} letters, digits, '.', '_' and '-', the first a letter or digit"
    )))
}

fn validate_address(what: &str, text: &str) -> Result<(), Problem> {
    if text.is_empty() || text.len() > MAX_ADDRESS || text.chars().any(char::is_control) {
        return Err(invalid(format!("the {what} must be 1 to {MAX_ADDRESS} bytes of plain text")));
    }
    Ok(())
}

fn validate_node(r: &RegisterNode) -> Result<(), Problem> {
    validate_name("node", &r.name)?;
    validate_address("admin_url", &r.admin_url)?;
    if r.cores.len() > MAX_CORES_PER_NODE || r.disks.len() > MAX_DISKS_PER_NODE {
        return Err(invalid(format!(
            "node '{}' has {} cores and {} disks: at most {MAX_CORES_PER_NODE} and {MAX_DISKS_PER_NODE} are allowed",
            r.name,
            r.cores.len(),
            r.disks.len()
        )));
    }
    if r.cores.is_empty() && !r.disks.is_empty() {
        return Err(invalid(format!("node '{}' brings disks but no data link to reach them: name its cores", r.name)));
    }
    r.cores.iter().try_for_each(|core| validate_address("core's address", core))?;
    validate_locks(&r.locks)?;
    r.disks.iter().try_for_each(validate_disk)?;
    r.zone.iter().try_for_each(|zone| validate_name("zone", zone))?;
    r.rack.iter().try_for_each(|rack| validate_name("rack", rack))?;
    validate_seen(&r.seen)?;
    let uuids: BTreeSet<Uuid> = r.disks.iter().map(|d| d.uuid).collect();
    if uuids.len() < r.disks.len() {
        return Err(invalid(format!("node '{}' names the same disk uuid twice: was a disk copied?", r.name)));
    }
    Ok(())
}

/// Checks what a daemon says of its locks.
pub fn validate_locks(locks: &[String]) -> Result<(), Problem> {
    if locks.len() > MAX_LOCKS {
        return Err(invalid(format!("{} locks of one daemon: at most {MAX_LOCKS} are allowed", locks.len())));
    }
    locks.iter().try_for_each(|lock| validate_address("lock", lock))
}

fn validate_disk(d: &RegisterDisk) -> Result<(), Problem> {
    validate_address("disk's path", &d.path)?;
    if !(1..=MAX_SHARDS).contains(&d.shards) {
        return Err(invalid(format!("disk {} has {} shards: 1 to {MAX_SHARDS} are allowed", d.path, d.shards)));
    }
    if d.capacity > MAX_DISK_CAPACITY {
        return Err(invalid(format!("disk {} of {} bytes is larger than {MAX_DISK_CAPACITY}", d.path, d.capacity)));
    }
    Ok(())
}

pub(crate) fn validate_volume(v: &CreateVolume) -> Result<(), Problem> {
    validate_name("volume", &v.name)?;
    validate_size(&v.name, v.size)?;
    validate_copies(&v.name, v.copies, v.min_copies)
}

fn validate_size(name: &str, size: u64) -> Result<(), Problem> {
    let block = BLOCK_SIZE as u64;
    if size >= block && size.is_multiple_of(block) && size <= MAX_VOLUME_SIZE {
        return Ok(());
    }
    Err(invalid(format!(
        "volume '{name}' cannot have {size} bytes: the size must be a multiple of {block}, at least {block} and at most {}",
        show_size(MAX_VOLUME_SIZE)
    )))
}

pub(crate) fn validate_copies(name: &str, copies: u8, min_copies: u8) -> Result<(), Problem> {
    if !(1..=MAX_COPIES).contains(&copies) {
        return Err(invalid(format!("volume '{name}' cannot have {copies} copies: 1 to {MAX_COPIES} are allowed")));
    }
    if !(1..=copies).contains(&min_copies) {
        return Err(invalid(format!(
            "volume '{name}' cannot have {min_copies} min-copies: 1 to its {copies} copies are allowed"
        )));
    }
    Ok(())
}

fn validate_snapshots(r: &CreateSnapshots) -> Result<(), Problem> {
    if r.snapshots.is_empty() || r.snapshots.len() > MAX_SNAPSHOT_GROUP {
        return Err(invalid(format!(
            "{} snapshots asked for: 1 to {MAX_SNAPSHOT_GROUP} are allowed",
            r.snapshots.len()
        )));
    }
    r.snapshots.iter().try_for_each(|s| validate_name("snapshot", &s.snapshot))?;
    if let Some(image) = &r.image {
        validate_name("image format", &image.format)?;
    }
    let mut volumes = BTreeSet::new();
    match r.snapshots.iter().find(|s| !volumes.insert(&s.volume)) {
        Some(twice) => Err(invalid(format!("volume '{}' is named twice: one snapshot of each is taken", twice.volume))),
        None => Ok(()),
    }
}

/// The longest names are the last ones.
fn validate_family(family: &Family) -> Result<(), Problem> {
    let count = family.len();
    if count == 0 || count > MAX_FAMILY_PER_COMMAND {
        return Err(invalid(format!("{count} volumes in one command: 1 to {MAX_FAMILY_PER_COMMAND} are allowed")));
    }
    if family.first.checked_add(count - 1).is_none() {
        return Err(invalid(format!(
            "volumes cannot be numbered from {} on: the numbers end at {}",
            family.first,
            u32::MAX
        )));
    }
    validate_name("volume", &family.name_at(count - 1))
}

fn validate_clones(r: &CreateClones) -> Result<(), Problem> {
    validate_family(&r.names)?;
    if let Some(size) = r.size {
        validate_size(&r.names.name, size)?;
    }
    let copies = r.copies.unwrap_or(MAX_COPIES);
    validate_copies(&r.names.name, copies, r.min_copies.unwrap_or(1))
}

/// How many volumes are named.
fn members(r: &DeleteVolumes) -> u64 {
    r.volumes.iter().map(|family| u64::from(family.len())).sum()
}

fn validate_deletion(r: &DeleteVolumes) -> Result<(), Problem> {
    let count = members(r);
    if count == 0 || count > u64::from(MAX_FAMILY_PER_COMMAND) {
        return Err(invalid(format!("{count} volumes in one command: 1 to {MAX_FAMILY_PER_COMMAND} are allowed")));
    }
    r.volumes.iter().try_for_each(validate_family)
}

fn validate_allocate(r: &AllocateChunks) -> Result<(), Problem> {
    if r.indexes.is_empty() || r.indexes.len() > MAX_ALLOCATE {
        return Err(invalid(format!("{} chunks asked for: 1 to {MAX_ALLOCATE} are allowed", r.indexes.len())));
    }
    Ok(())
}

fn validate_changes(r: &ChangeReplicas) -> Result<(), Problem> {
    if r.changes.len() > MAX_CHANGES {
        return Err(invalid(format!("{} changes asked for: at most {MAX_CHANGES} are allowed", r.changes.len())));
    }
    let indexes: BTreeSet<u32> = r.changes.iter().map(|c| c.index).collect();
    if indexes.len() < r.changes.len() {
        return Err(invalid("a chunk is to be changed twice: name each one once"));
    }
    let most = usize::from(MAX_COPIES) + 1;
    match r.changes.iter().find(|c| c.remove.len() > most || usize::from(c.add) > most) {
        Some(c) => Err(invalid(format!(
            "chunk {}: {} members to remove and {} to add: at most {most} are allowed",
            c.index,
            c.remove.len(),
            c.add
        ))),
        None => Ok(()),
    }
}

pub(crate) fn validate_reason(reason: &str) -> Result<(), Problem> {
    if reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
        return Err(invalid(format!("a reason must be one line of at most {MAX_REASON} bytes")));
    }
    Ok(())
}
