//! What the core asks of the world: disks, time, tasks. The daemon implements these over glommio,
//! tests and the simulator in memory, so that the very code that ships is the code that is simulated.
//!
//! Everything here is single-threaded: a core's objects live on one executor.

use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// One disk as seen by one shard: positioned, unbuffered, asynchronous I/O.
///
/// Positions and lengths are bytes and multiples of [`levee_proto::BLOCK_SIZE`].
pub trait Disk: 'static {
    /// An aligned buffer to write from.
    type WriteBuf: DerefMut<Target = [u8]>;
    /// What a read returns; as long as was asked for.
    type ReadBuf: Deref<Target = [u8]>;

    /// A buffer of `len` bytes of undefined content.
    fn alloc(&self, len: usize) -> Self::WriteBuf;

    /// Writes the whole buffer. Durable only after a later [`Disk::sync`]. One that [lacks space](is_no_space) may have been done in part; nothing
    /// is wrong with the disk then, and the same may be written again.
    fn write(&self, pos: u64, buf: Self::WriteBuf) -> impl Future<Output = io::Result<()>>;

    /// Reads `len` bytes. Fails if they reach beyond the end, or if any of them cannot be read: which, is found out by reading
    /// block by block.
    fn read(&self, pos: u64, len: usize) -> impl Future<Output = io::Result<Self::ReadBuf>>;

    /// Whether the disk as a whole has failed: an error of a read then says nothing of what was to be read.
    fn has_failed(&self) -> bool {
        false
    }

    /// Whether what lies below may run out of room for what was never written: see [`is_no_space`].
    fn is_thin(&self) -> bool {
        false
    }

    /// Makes every completed write durable on the medium.
    fn sync(&self) -> impl Future<Output = io::Result<()>>;

    /// Writes the whole buffer and makes it durable on the medium: for devices that do both in one operation.
    fn write_durable(&self, pos: u64, buf: Self::WriteBuf) -> impl Future<Output = io::Result<()>> {
        async move {
            self.write(pos, buf).await?;
            self.sync().await
        }
    }
}

/// Whether an operation failed because what lies below the disk has no more room: a file in a file system that is full, or a device
/// that is given out only as it is written.
pub fn is_no_space(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Time and tasks of one executor.
pub trait Runtime: Clone + 'static {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Completes after `time`. Background work that has nothing to wait for ends each slice with a
    /// short sleep, so that foreground I/O is not starved.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()>;

    /// Runs `task` to its end on this executor. It may be polled before this returns: hold no borrow.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}
