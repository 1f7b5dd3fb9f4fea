//! What Levee's processes have in common: identifiers, units, wire frames between storage daemons,
//! and the types of the meta server's HTTP API. No I/O and no runtime.
#![forbid(unsafe_code)]

pub mod api;
pub mod callers;
pub mod ids;
pub mod readers;
pub mod units;
pub mod view;
pub mod wire;

pub use callers::Caller;
pub use ids::{ChunkId, ConfigNo, DiskId, Epoch, Era, Fence, NodeId, ReplicaId, Seq, Version, VolumeId};
pub use units::{BLOCK_SIZE, BLOCKS_PER_CHUNK, CHUNK_SIZE, Geometry};
pub use view::View;
