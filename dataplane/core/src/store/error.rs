//! What can go wrong in the store.

use levee_proto::{ChunkId, DiskId};
use std::rc::Rc;
use thiserror::Error;

/// Why a request to a shard failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// Only more space, or deleting, helps.
    #[error("the disk is full: delete or discard data, or move replicas to other disks")]
    Full,
    /// A write or sync failed: what the disk holds is no longer known, so the shard stopped.
    #[error("the disk failed and its shard has stopped ({0}): check the disk, then restart or replace it")]
    Failed(Rc<str>),
    /// A read failed, and with it the whole disk.
    #[error("reading the disk failed: {0}")]
    Io(Rc<str>),
    /// Stored blocks cannot be read, or do not match their checksums.
    #[error("{} blocks of chunk {chunk} cannot be read or do not match their checksums, from block {} on", blocks.len(), blocks.first().unwrap_or(&0))]
    Corrupt { chunk: ChunkId, blocks: Vec<u32> },
    #[error("no replica of chunk {0} is on this shard")]
    UnknownReplica(ChunkId),
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    #[error("the shard is closed")]
    Closed,
    /// Neither root leads to a usable checkpoint.
    #[error("the shard cannot be recovered ({0}): remove the disk and add it again as an empty one")]
    Unrecoverable(String),
    #[error("shard {0} does not exist on this disk")]
    NoSuchShard(u16),
    #[error("disk {0} is not served here: it was taken out, or has failed")]
    NoSuchDisk(DiskId),
}

/// Why a disk was not accepted, or not formatted.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    #[error("not a Levee disk: add it with `levee disk add` to format it")]
    NotLevee,
    #[error("the superblock is damaged in both copies: the disk cannot be identified; replace it")]
    Damaged,
    #[error("the disk has format version {found}, this build reads up to {supported}: use a newer build")]
    NewerVersion { found: u32, supported: u32 },
    #[error("the disk has {size} bytes, at least {min} are needed: use a larger disk or file")]
    TooSmall { size: u64, min: u64 },
    #[error("the disk is too large for {shards} shards: use at least {needed}")]
    TooFewShards { shards: u16, needed: u64 },
    #[error("the disk of {size} bytes is too small for {shards} shards: use at most {most}")]
    TooManyShards { size: u64, shards: u16, most: u64 },
    #[error("the disk now has {actual} bytes but was formatted with {expected}: it was truncated or is another disk")]
    SizeChanged { expected: u64, actual: u64 },
    #[error("the disk belongs to another cluster: remove it there, or format it anew")]
    OtherCluster,
    #[error("{0}")]
    Io(String),
}
