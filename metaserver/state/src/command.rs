//! What can be asked of the state machine, and what it answers.

use crate::limits::*;
use levee_proto::api::*;
use levee_proto::units::MAX_VOLUME_SIZE;
use levee_proto::{BLOCK_SIZE, DiskId, NodeId, VolumeId};
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
    Allocate {
        name: String,
        request: AllocateChunks,
        alive: BTreeSet<NodeId>,
    },
    /// The node's disks hold these replicas no more.
    ConfirmDeleted {
        node: NodeId,
        replicas: Vec<ReplicaRef>,
    },
    /// `alive`: the nodes on which new members may be placed.
    ChangeReplicas {
        name: String,
        request: ChangeReplicas,
        alive: BTreeSet<NodeId>,
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
            Command::ConfirmDeleted { replicas, .. } if replicas.len() > MAX_DELETES => Err(invalid(format!(
                "{} deleted replicas in one message: at most {MAX_DELETES} are allowed",
                replicas.len()
            ))),
            _ => Ok(()),
        }
    }

    /// About how many bytes the command takes in the log.
    pub fn weight(&self) -> usize {
        const BASE: usize = 512;
        BASE + match self {
            Command::RegisterNode(r) => {
                let disks: usize = r.disks.iter().map(|d| d.path.len() + 128).sum();
                disks + r.cores.iter().map(|c| c.len() + 4).sum::<usize>()
            }
            Command::Attach { alive, .. } => alive.len() * 6,
            Command::Allocate { request, alive, .. } => request.indexes.len() * 10 + alive.len() * 6,
            Command::ConfirmDeleted { replicas, .. } => replicas.len() * 64,
            Command::ChangeReplicas { request, alive, .. } => {
                let removed: usize = request.changes.iter().map(|c| c.remove.len()).sum();
                request.changes.len() * 64 + removed * 20 + alive.len() * 6
            }
            Command::SetDisk { reason, .. } => reason.as_ref().map_or(0, String::len),
            _ => 0,
        }
    }
}

pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Invalid, detail)
}

fn validate_name(what: &str, name: &str) -> Result<(), Problem> {
    if is_valid_name(name) {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
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
    r.disks.iter().try_for_each(validate_disk)?;
    let uuids: BTreeSet<Uuid> = r.disks.iter().map(|d| d.uuid).collect();
    if uuids.len() < r.disks.len() {
        return Err(invalid(format!("node '{}' names the same disk uuid twice: was a disk copied?", r.name)));
    }
    Ok(())
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

fn validate_volume(v: &CreateVolume) -> Result<(), Problem> {
    validate_name("volume", &v.name)?;
    let block = BLOCK_SIZE as u64;
    if v.size < block || !v.size.is_multiple_of(block) || v.size > MAX_VOLUME_SIZE {
        return Err(invalid(format!(
            "volume '{}' cannot have {} bytes: the size must be a multiple of {block}, at least {block} and at most {MAX_VOLUME_SIZE}",
            v.name, v.size
        )));
    }
    if !(1..=MAX_COPIES).contains(&v.copies) {
        return Err(invalid(format!(
            "volume '{}' cannot have {} copies: 1 to {MAX_COPIES} are allowed",
            v.name, v.copies
        )));
    }
    if !(1..=v.copies).contains(&v.min_copies) {
        return Err(invalid(format!(
            "volume '{}' cannot have {} min-copies: 1 to its {} copies are allowed",
            v.name, v.min_copies, v.copies
        )));
    }
    Ok(())
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

fn validate_reason(reason: &str) -> Result<(), Problem> {
    if reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
        return Err(invalid(format!("a reason must be one line of at most {MAX_REASON} bytes")));
    }
    Ok(())
}
