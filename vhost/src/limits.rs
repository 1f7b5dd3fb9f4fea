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
/// Length of one data segment as told to the guest, bytes. A driver that does not ask for it may send any.
pub const MAX_SEGMENT_LEN: u32 = 32 << 10;
/// Data of one request, bytes: the used ring tells lengths in 32 bits. A longer one is answered with an I/O error.
pub const MAX_REQUEST_LEN: u64 = u32::MAX as u64 / SECTOR_SIZE * SECTOR_SIZE;
/// A request is carried out in pieces of at most so many bytes.
pub const PIECE_LEN: u64 = 128 << 10;

/// Bytes that a volume may begin before it is another's turn.
pub const QUANTUM: u64 = PIECE_LEN;
/// Bytes that all volumes of an executor may begin before its other tasks get a turn: some pieces are done as soon as they
/// are begun, and make room for the next.
pub const TURN_BYTES: u64 = 2 * PIECE_LEN;
/// Bytes that all volumes of an executor have in flight, reads and writes apart, while more than one is used.
pub const CONTESTED_WINDOW: u64 = 4 << 20;
/// A volume counts as used for so long after its last request.
pub const RECENT: Duration = Duration::from_secs(1);
/// What reading one descriptor may cost an executor whose time others want too. About four times what it does cost.
pub const DESCRIPTOR_TIME: Duration = Duration::from_nanos(200);
/// What a request costs beside its descriptors, in descriptors.
pub const REQUEST_DESCRIPTORS: usize = 48;
/// A volume that has used so much more of the executor's time than it may stays away from it.
pub const MAX_OWED: Duration = Duration::from_micros(500);

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
/// The same in descriptors; the last chain may go beyond it.
pub const MAX_BATCH_DESCRIPTORS: usize = 1024;

/// How long a queue that has to wait without being told lets the executor run.
pub const TURN: Duration = Duration::from_micros(1);
/// How often a queue without a kick descriptor looks at its ring.
pub const UNKICKED_POLL: Duration = Duration::from_millis(1);
/// How often a queue that is being drained looks whether it is empty.
pub const DRAIN_PAUSE: Duration = Duration::from_micros(200);
/// How long a front end that stops a queue without having given it an in-flight region waits for what is in flight: what
/// is not completed then is lost to the guest.
pub const UNTRACKED_DRAIN: Duration = Duration::from_secs(30);
/// How long a front end may take for its first message, and for each one that it has begun.
pub const MESSAGE_TIME: Duration = Duration::from_secs(5);
/// How long nobody is served after a front end that has stopped the executor.
pub const OFFENCE_PAUSE: Duration = Duration::from_secs(10);
/// How often it looks whether a message that has been begun is whole.
pub const MESSAGE_POLL: Duration = Duration::from_millis(1);
/// How often the protocol thread, waiting for a queue to drain, looks whether its peer has gone.
pub const HANGUP_CHECK: Duration = Duration::from_millis(100);
