//! Every bound of this crate, by name.

use levee_proto::wire::{HEADER_LEN, MAX_DATA, MAX_META};
use std::time::Duration;

/// The largest frame, bytes.
pub(crate) const MAX_FRAME: usize = HEADER_LEN + MAX_META + MAX_DATA;
/// The largest frame that a peer may send before it has said hello, bytes.
pub(crate) const MAX_HELLO_FRAME: usize = 2048;
/// Longest text of an error reply, bytes.
pub(crate) const MAX_DETAIL: usize = 1024;
/// Most pieces in one gathered send.
pub(crate) const MAX_PIECES: usize = 128;
/// Memory kept for the headers of a batch between batches, bytes.
pub(crate) const KEPT_HEADS: usize = 256 << 10;

/// Size of a receive buffer: what one read can bring, bytes.
pub(crate) const SLAB_SIZE: usize = 256 << 10;
/// Receive buffers that a link keeps for reuse while slices of them are still in use elsewhere.
pub(crate) const KEPT_SLABS: usize = 8;
/// Free room below which a link turns to another receive buffer, bytes.
pub(crate) const MIN_ROOM: usize = 32 << 10;

/// Turns a task may take back to back before it lets the reactor run.
pub(crate) const TURNS_PER_PAUSE: u32 = 8;
/// How long it then sleeps: any timer makes the executor go through its reactor.
pub(crate) const PAUSE: Duration = Duration::from_micros(1);

/// Wait before the second attempt to connect; doubles with every failure.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait between two attempts to connect.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Addresses of one host name that are tried.
pub(crate) const MAX_ADDRESSES: usize = 4;
/// Wait after a failed `accept`, so that a lack of file descriptors does not turn into a busy loop.
pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Reads from a peer that was refused, before its connection is closed.
pub(crate) const MAX_DRAINED_READS: usize = 16;
/// Sent but unacknowledged data older than this breaks the connection (`TCP_USER_TIMEOUT`).
pub(crate) const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);

/// Bounds of a [`Client`](crate::Client).
///
/// Silence is counted in ticks of the own executor, not read off a clock: a process that was stopped
/// for a minute counts one tick, and then sees what its peers sent meanwhile.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Requests that wait for credits, or for the first attempt to connect.
    pub queue_requests: usize,
    /// Bytes that they may hold.
    pub queue_bytes: usize,
    /// Requests in flight, if the server grants more.
    pub max_in_flight: u32,
    /// One attempt to connect, the hello included.
    pub connect_timeout: Duration,
    /// How often a link is looked at.
    pub tick: Duration,
    /// Ticks without a byte from the peer after which it is pinged.
    pub ping_ticks: u32,
    /// Ticks without a byte, while the peer owes an answer, after which the link is down.
    pub down_ticks: u32,
}

impl Default for ClientLimits {
    /// Ping after 1 s, down after 3 s.
    fn default() -> Self {
        ClientLimits {
            queue_requests: 4096,
            queue_bytes: 64 << 20,
            max_in_flight: 1024,
            connect_timeout: Duration::from_secs(1),
            tick: Duration::from_millis(500),
            ping_ticks: 2,
            down_ticks: 6,
        }
    }
}

/// Bounds of a [`Server`](crate::Server).
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Requests in flight granted to each link; at least 1.
    pub max_requests: u32,
    /// Bytes in flight granted to each link: requests with their data and the largest possible answers.
    /// A request that exceeds this is admitted when it is alone.
    pub max_bytes: u32,
    /// Links open at a time; further ones are closed at once.
    pub max_links: usize,
    /// How often the links are looked at.
    pub tick: Duration,
    /// Ticks within which a new link has to say hello.
    pub hello_ticks: u32,
    /// Ticks without a byte after which a link is closed. Clients ping more often than that.
    pub idle_ticks: u32,
    /// Ticks that a frame may take to arrive once it has begun.
    pub frame_ticks: u32,
}

impl Default for ServerLimits {
    /// 3 s for the hello, 10 s of silence, 20 s for a frame.
    fn default() -> Self {
        ServerLimits {
            max_requests: 256,
            max_bytes: 16 << 20,
            max_links: 4096,
            tick: Duration::from_millis(500),
            hello_ticks: 6,
            idle_ticks: 20,
            frame_ticks: 40,
        }
    }
}
