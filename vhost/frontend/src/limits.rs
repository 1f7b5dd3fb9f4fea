//! Every bound of this crate, in one place.

use std::time::Duration;

/// Descriptors in a virtqueue.
pub const RING_SIZE: u16 = 256;
/// Most virtqueues of one front end.
pub const MAX_QUEUES: usize = 16;
/// Descriptors that each request slot of a queue owns: header, data pieces, status.
pub const SLOT_DESCRIPTORS: u16 = 8;
/// Requests that one queue can have in flight.
pub const SLOTS_PER_QUEUE: usize = (RING_SIZE / SLOT_DESCRIPTORS) as usize;
/// Most data that a request may be given room for, bytes: what one request may carry to a Levee device.
pub const MAX_SLOT_DATA: usize = 4 << 20;
/// Most pieces that the data of one request is split into.
pub const MAX_PIECES: usize = SLOT_DESCRIPTORS as usize - 2;
/// Largest payload of a vhost-user message that is accepted.
pub const MAX_MESSAGE: usize = 4096;
/// Messages of the daemon's own that are taken in one go, before requests have their turn.
pub const MAX_NOTICES: usize = 16;
/// How long a daemon may take to answer one vhost-user message.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause between attempts to reach a daemon that is gone.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// Largest in-flight region that is accepted from a daemon, bytes.
pub const MAX_INFLIGHT_REGION: u64 = 16 << 20;
