//! The store: one log per shard, an index in memory, checkpoints, compaction.
//!
//! A disk has a [`Superblock`] and is divided into shards, each owned by one executor. A [`Shard`]
//! appends everything to its log and acknowledges when it is durable (write and sync):
//!
//! - `record`, `queue`, `log`: requests become records, records gather into batches, one batch is
//!   in flight at a time and carries everything that came meanwhile (group commit).
//! - `index`, `chains`: replicas, fences, and per block its entries, one per version, and where the data is. Changed only by
//!   applying durable records, at run time and in replay alike.
//! - `segments`: which piece of the disk is what, and when it may be reused.
//! - `checkpoint`, `root`: the index on disk, so that replay is bounded.
//! - `recovery`, `scan`, `load`, `walk`: from the disk to the state, whatever is on it; `firm`: and it stays there.
//! - `prune`: what is not read any more is dropped; what a replica knows to hold for ever. `tally`: how many blocks views read.
//! - `compact`, `background`: space is made while requests go on.
//! - `unreadable`: what the disk could not read is a bad block like any other, and not asked for again at once.
//!
//! Invariants: what was acknowledged is found after any crash. What is damaged is reported, and the
//! replicas concerned are flagged; wrong data is never returned. A sector that cannot be read costs its block, not the disk. A shard that is full can always be
//! emptied. The format is described in `docs/disk-format.md`.

mod background;
mod chains;
mod checkpoint;
mod compact;
mod error;
mod firm;
mod holding;
mod index;
mod layout;
pub mod limits;
mod load;
mod log;
mod prune;
mod queue;
mod read;
mod record;
mod recovery;
mod root;
mod scan;
mod segments;
mod shard;
mod state;
mod superblock;
pub mod survey;
mod tally;
mod tickets;
mod unreadable;
mod walk;

pub use error::{FormatError, StoreError};
pub use holding::LargestIds;
pub use index::ReplicaMeta;
pub use prune::Pruning;
pub use record::{CommitPoint, NewReplica, Seal};
pub use recovery::RecoveryReport;
pub use shard::{Options, ReplicaBytes, Shard, Usage};
pub use superblock::{BadCopy, FORMAT_VERSION, Superblock, claim, format, format_as, mend_superblock, read_superblock};
pub use tally::Tally;
pub use tickets::Ticket;

#[cfg(test)]
mod tests;
