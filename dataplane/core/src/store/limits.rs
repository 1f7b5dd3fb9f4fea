//! Every bound and size of the store, in one place. Sizes are bytes unless the name says otherwise.

use levee_proto::BLOCK_SIZE;

/// Everything on disk is laid out in these.
pub const BLOCK: usize = BLOCK_SIZE;

/// Smallest disk that can be formatted: room for the log, its reserve, and some data.
pub const MIN_DISK_SIZE: u64 = 256 << 20;
/// Segment sizes that formatting chooses from (powers of two).
pub const MIN_SEGMENT_SIZE: u32 = 4 << 20;
/// See [`MIN_SEGMENT_SIZE`]. Bounds what compaction moves at a time.
pub const MAX_SEGMENT_SIZE: u32 = 64 << 20;
/// Segments that formatting aims at: enough that whole-segment rounding does not matter.
pub const TARGET_SEGMENTS: u64 = 1024;
/// Fewest segments of a shard.
pub const MIN_SEGMENTS: u32 = 12;
/// Most shards of a disk.
pub const MAX_SHARDS: u16 = 256;
/// Most blocks of a shard: locations are 32 bits, some of which mean something else.
pub const MAX_SHARD_BLOCKS: u64 = u32::MAX as u64 - 16;

/// Where the first shard begins; the superblocks are before.
pub const SHARDS_START: u64 = 1 << 20;
/// Before a shard's segments: the two root slots.
pub const ROOT_AREA: u64 = 64 << 10;
/// The second root slot, from the start of the shard: apart from the first.
pub const SECOND_ROOT: u64 = 32 << 10;

/// Most data in one batch.
pub const MAX_BATCH_DATA: usize = 1 << 20;
/// Most header (with records) in one batch.
pub const MAX_BATCH_HEADER: usize = 64 << 10;
/// Most entries in one Repair record.
pub const MAX_REPAIR_ENTRIES: usize = 1024;
/// Most chunks in one Adopt record.
pub const MAX_ADOPT_CHUNKS: usize = 4096;
/// Most points in one Commit record.
pub const MAX_COMMIT_POINTS: usize = 2048;
/// Most drops in one Prune record.
pub const MAX_DROPS: usize = 2048;
/// Most replicas in one Seal record.
pub const MAX_SEALS: usize = 2048;
/// Blocks whose chains one step of pruning, or of counting, looks at.
pub const PRUNE_BLOCKS: u32 = 1024;
/// Most blocks that compaction moves in one record.
pub const MAX_MOVE_BLOCKS: usize = 128;
/// Most blocks of one repair call's data, so that one caller cannot fill the memory.
pub const MAX_CALL_DATA: usize = 64 << 20;

/// A block that could not be read is not tried again for so long: drives take their time to find out that they cannot.
pub const UNREADABLE_REST_MS: u64 = 2_000;
/// Most such blocks that a shard remembers. More are tried again at once.
pub const MAX_UNREADABLE: usize = 4096;

/// Most entries in one call that reads them by version.
pub const MAX_CALL_ENTRIES: usize = 16 << 10;

/// A piece of a checkpoint is closed when it is this long; one replica's entries may exceed it.
pub const PIECE_TARGET: usize = 256 << 10;
/// Most bytes of one checkpoint piece: the target and one replica with an entry for every block.
pub const MAX_PIECE: usize = 1 << 20;

/// Segments kept for compaction to write to, beside what a checkpoint needs: at least this many,
/// and at least one of [`MOVE_RESERVE_FRACTION`], so that one checkpoint frees many segments.
pub const MOVE_RESERVE_SEGMENTS: u32 = 2;
/// See [`MOVE_RESERVE_SEGMENTS`].
pub const MOVE_RESERVE_FRACTION: u32 = 64;
/// Segments that no data is promised, beside the reserves: the open one, and one for rounding.
pub const FIXED_RESERVE_SEGMENTS: u32 = 2;
/// Live data may fill this part of what the reserve leaves; the rest is what compaction works with.
pub const FILL_NUMERATOR: u64 = 9;
/// See [`FILL_NUMERATOR`].
pub const FILL_DENOMINATOR: u64 = 10;
/// Compaction starts when the free segments beyond the reserve fall below this, or below this part of all.
pub const LOW_FREE_SEGMENTS: u32 = 3;
/// See [`LOW_FREE_SEGMENTS`].
pub const LOW_FREE_FRACTION: u32 = 64;
/// Zeroed segments kept ready.
pub const READY_SEGMENTS: u32 = 2;
/// Between two attempts to write where nothing was written before, while there is no room for that below the disk.
pub const NO_SPACE_PAUSE_MS: u64 = 1000;
/// One write of zeros.
pub const ZERO_STEP: usize = 1 << 20;

/// Log that is written before a checkpoint is due, unless the checkpoint itself is large.
pub const CHECKPOINT_LOG_BYTES: u64 = 256 << 20;
/// Log per byte of checkpoint before the next is due.
pub const CHECKPOINT_LOG_RATIO: u64 = 4;

/// Segment headers read at a time while opening.
pub const SCAN_PARALLEL: usize = 32;
/// How much of a segment recovery reads at a time.
pub const RECOVERY_WINDOW: usize = 2 << 20;

/// A segment that is fuller than this percentage is not worth compacting.
pub const COMPACT_BELOW_PERCENT: u32 = 97;
/// Pause between two steps of compaction while nobody waits for space.
pub const COMPACT_PAUSE_US: u64 = 200;
/// How often a shard that is short of space looks whether reads have let go of segments.
pub const SHORT_OF_SPACE_POLL_MS: u64 = 5;
