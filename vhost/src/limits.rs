//! Every bound of this crate, in one place.
//!
//! What a front end or a guest sends is held against these before anything is allocated for it.

use std::time::Duration;

/// A sector as virtio-blk counts it, bytes. Offsets and lengths of requests are multiples of it.
pub const SECTOR_SIZE: u64 = 512;
/// Preferred alignment of requests as told to the guest, as a power of two of sectors: 4 KiB.
pub const PHYSICAL_BLOCK_EXP: u8 = 3;

/// Queues of one device.
pub const MAX_QUEUES: u16 = 64;
/// Descriptors in one queue; what QEMU allows at most.
pub const MAX_QUEUE_SIZE: u16 = 1024;
/// Descriptors in one chain, with those of its indirect table.
pub const MAX_CHAIN_LEN: usize = 1024;

/// Data segments of one request as told to the guest: with header and status a chain of 128.
pub const MAX_SEGMENTS: u32 = 126;
/// Length of one data segment as told to the guest, bytes.
///
/// Together with [`MAX_SEGMENTS`] it keeps a well-behaved guest below [`MAX_REQUEST_LEN`].
pub const MAX_SEGMENT_LEN: u32 = 32 << 10;
/// Data of one request, bytes. A longer one is answered with an I/O error.
pub const MAX_REQUEST_LEN: u64 = 4 << 20;
/// Data of all reads of one queue that the disk has, and of all its writes, bytes. Beyond it those that come wait
/// in the queue without their data.
pub const MAX_BYTES_IN_FLIGHT: u64 = 32 << 20;

/// Sectors of one discard: 1 GiB.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 21;
/// Sectors of one write-zeroes: 64 MiB.
pub const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 17;
/// Ranges in one discard or write-zeroes request.
pub const MAX_RANGES: u32 = 1;
/// Length of the serial number a guest asks for with GET_ID, bytes.
pub const SERIAL_LEN: usize = 20;

/// Memory regions of one guest; what QEMU's own back ends offer.
pub const MAX_MEMORY_REGIONS: usize = 509;

/// Requests taken from a ring before what they started gets a turn.
pub const MAX_BATCH: usize = 64;

/// How long a queue that has to wait without being told lets the executor run.
pub const TURN: Duration = Duration::from_micros(1);
/// How often a queue without a kick descriptor looks at its ring.
pub const UNKICKED_POLL: Duration = Duration::from_millis(1);
/// How often a queue that is being drained looks whether it is empty.
pub const DRAIN_PAUSE: Duration = Duration::from_micros(200);
/// How often the protocol thread, waiting for a queue to drain, looks whether its peer has gone.
pub const HANGUP_CHECK: Duration = Duration::from_millis(100);
