//! Bounds on what the cluster holds and on what one command may carry.

/// Storage daemons in a cluster.
pub const MAX_NODES: usize = 10_000;
/// Volumes in a cluster.
pub const MAX_VOLUMES: usize = 1_000_000;
/// Disks that one daemon may register.
pub const MAX_DISKS_PER_NODE: usize = 64;
/// Locks that one daemon may name: of its disks, and of its folder.
pub const MAX_LOCKS: usize = MAX_DISKS_PER_NODE + 1;
/// Data links (cores) that one daemon may register.
pub const MAX_CORES_PER_NODE: usize = 256;
/// Shards of one disk.
pub const MAX_SHARDS: u16 = 1024;
/// Bytes of a `host:port`, a URL or a path.
pub const MAX_ADDRESS: usize = 1024;
/// Bytes of one disk: 1 EiB, so that sums over a cluster stay far from overflow.
pub const MAX_DISK_CAPACITY: u64 = 1 << 60;
/// Copies of a block.
pub const MAX_COPIES: u8 = 5;
/// Chunks that one command may allocate.
pub const MAX_ALLOCATE: usize = 256;
/// Chunks whose replica sets one command may change.
pub const MAX_CHANGES: usize = 256;
/// Bytes of the reason for which a disk is out of service.
pub const MAX_REASON: usize = 1000;
/// Replicas to delete in one intent, and confirmed in one command.
pub const MAX_DELETES: usize = 1000;
/// Earlier incarnations of a daemon that are remembered, so that a late message of one is refused.
pub const MAX_RETIRED_INCARNATIONS: usize = 8;
/// So many clones, and the copies of a snapshot that can be read double; then again, and again.
pub const MIRROR_CLONES: [u64; 3] = [64, 512, 4096];
/// Most mirrors of a snapshot: with three copies each, and the snapshot's own, there are 24 to read from.
pub const MAX_SNAPSHOT_MIRRORS: usize = 7;
/// Snapshots of one volume, those that clones keep after they were deleted included.
pub const MAX_SNAPSHOTS: usize = 1000;
/// Volumes that one command creates from a snapshot, or deletes: commits wait meanwhile.
pub const MAX_FAMILY_PER_COMMAND: u32 = 4096;
/// Parents, their parents and so on of one volume: reading a block may have to ask each.
pub const MAX_ANCESTORS: usize = 16;
/// Volumes that one command creates as a batch: commits wait meanwhile.
pub const MAX_BATCH_VOLUMES: usize = 10_000;
/// Bytes of an idempotency key.
pub const MAX_KEY: usize = 128;
/// Idempotency keys that are remembered, those of each part of a request counted.
pub const MAX_KEYS: u64 = 100_000;
/// Bytes, about, that they and what was answered may take.
pub const MAX_KEYS_WEIGHT: u64 = 64 << 20;
/// For how long they are remembered.
pub const KEY_LIFE_MS: u64 = 24 * 3600 * 1000;
/// A share of the disks that are used.
pub const MAX_PERCENT: u32 = 100;
/// Refusals that the answer to a deletion of many volumes names.
pub const MAX_REFUSALS: usize = 100;
/// Events that are remembered.
pub const MAX_EVENTS: usize = 10_000;
/// Conditions that are told at a time, and changes of them in one command.
pub const MAX_TOLD: usize = 4000;
/// Events that one command may add.
pub const MAX_NOTES: usize = 1000;
/// Nodes that a group must keep when it is divided: chunks have three copies as a rule.
pub const MIN_GROUP: usize = 3;
/// Volumes that are not in their first era: every daemon is told all of them.
pub const MAX_ERAS: usize = 10_000;
/// Uuids of disks that were taken out of the cluster, and are not let in again as they are.
pub const MAX_REMOVED_DISKS: usize = 10_000;
/// Moves of a rebalance that are under way at a time, in all, and to or from one disk.
pub const MAX_MOVES_UNDER_WAY: usize = 64;
pub const MAX_MOVES_PER_DISK: usize = 2;
/// Moves that wait which are looked at when others are done.
pub const MOVES_LOOKED_AT: usize = 1000;
/// How far ids leap where their time is no help: more than can have been given out meanwhile, and few enough for a million times.
pub const RECOVERY_IDS: u64 = 1 << 32;
/// Where the ids of a generation begin, by its time: those of two generations differ although both may go on from the same state.
pub const RECOVERY_IDS_PER_MS: u64 = 1 << 10;
/// The same of ids of nodes and disks.
pub const RECOVERY_NODES: u32 = 1 << 16;
/// The same of epochs, of which there are fewer. What daemons have seen of them is reported besides.
pub const RECOVERY_EPOCHS: u64 = 256;
/// Generations whose times differ by so much, and that begin with one state, have epochs of their own; so many of them.
pub const RECOVERY_EPOCH_MS: u64 = 1000;
pub const OPENS_IN_EPOCH_MS: u64 = 16;
/// How often at most a volume was opened in a lost part of the state: a fence that is farther above was not a gateway's.
pub const MAX_OPENS_LOST: u32 = 1 << 20;
/// How far an epoch leaps that copies have refused.
pub const REFUSED_EPOCHS: u32 = 16;
/// Replicas that the state does not know, which are remembered by their ids.
pub const MAX_NOTED_REPLICAS: usize = 100_000;
