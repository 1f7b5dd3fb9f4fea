//! What a device needs of the disk behind it.

use std::future::Future;

use bytes::Bytes;

/// Why a request did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// The request failed; the guest sees an I/O error.
    Failed,
    /// The disk is shutting down or fenced. The request is *not* completed: it stays in flight, and
    /// the next daemon that the front end connects to takes it up again.
    Stopped,
}

/// The disk behind a device, used on the executor that serves it.
///
/// Offsets and lengths are bytes, multiples of [`SECTOR_SIZE`](crate::limits::SECTOR_SIZE), inside
/// [`BlockDevice::capacity`] and bounded by [`crate::limits`] (data by
/// [`PIECE_LEN`](crate::limits::PIECE_LEN)); this crate has checked them.
///
/// Each method is called and polled once before the next request is begun, reads and writes each in the order the
/// guest submitted them: an implementation takes a request's place in its write order before its first
/// await. Many requests are in flight at once, and complete in any order; those that the guest submitted without
/// waiting for one another have no order, so what is waiting for memory may be overtaken by another kind.
///
/// A future that is dropped belongs to a guest whose connection has ended: what it has not begun yet is not to happen any
/// more, and what it has begun comes, in the order, before whatever is asked for later.
pub trait BlockDevice: 'static {
    /// Bytes, a multiple of the sector size. May grow; see [`ServerHandle::resized`](crate::ServerHandle::resized).
    fn capacity(&self) -> u64;

    /// Whether it cannot be changed. The guest is told so; and its writes, discards and zeroes fail before they get here,
    /// whether it cares or not.
    fn is_read_only(&self) -> bool {
        false
    }

    /// The serial number the guest sees; cut at 20 bytes.
    fn id(&self) -> String;

    /// Which disk this is, and which of its contents: a guest that left one and finds another is not served, because it would
    /// go on with what it remembers of the one it left.
    fn content(&self) -> u128 {
        0
    }

    /// Reads `len` bytes: pieces that together are exactly that long.
    fn read(&self, offset: u64, len: usize) -> impl Future<Output = Result<Vec<Bytes>, IoError>>;

    /// Writes `data`.
    fn write(&self, offset: u64, data: Bytes) -> impl Future<Output = Result<(), IoError>>;

    /// The guest no longer needs what is in the range. A hint: unaligned edges may be kept.
    fn discard(&self, offset: u64, len: u64) -> impl Future<Output = Result<(), IoError>>;

    /// Makes the range read as zeroes; with `unmap` its space may be given back.
    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> impl Future<Output = Result<(), IoError>>;

    /// Makes every write completed before this call durable.
    fn flush(&self) -> impl Future<Output = Result<(), IoError>>;
}
