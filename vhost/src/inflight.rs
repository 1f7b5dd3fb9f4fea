//! Tracking of requests in flight, in memory that outlives the daemon ("Inflight I/O tracking" of the vhost-user
//! specification, split rings).
//!
//! The front end keeps the region and hands it to the next daemon, which finds there which requests its
//! predecessor took and did not complete, and in which order it had taken them. So that a crash at *any* point
//! neither loses nor repeats a completion: a request is marked before it is started; a completion is named as the
//! last one, published in the used ring, and only then unmarked.
//!
//! ```text
//! queue region, 64-byte aligned:
//!   0 features u64 | 8 version u16 | 10 desc_num u16 | 12 last_batch_head u16 | 14 used_idx u16
//!   16 + 16 * head: inflight u8 | 5 unused | next u16 | counter u64
//! ```
//!
//! Behind the queues' regions stands which disk they belong to, and which of its contents: a magic number u64, 8 unused
//! bytes, and [`BlockDevice::content`](crate::BlockDevice::content). A front end that comes back with a region tells with it
//! what it left. QEMU forgets the region when its guest is reset, which is when the guest forgets what was on the disk.
//!
//! The front end can write to the region at any time, so everything read from it is checked. It cannot shrink it: only
//! regions sealed against that are accepted; and it is mapped like guest memory ([`crate::guard`]).

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release, SeqCst};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{AtomicAccess, Bytes, MmapRegion, VolatileMemory};

use crate::guard::{self, Breakage, Guard, MapError};
use crate::limits::{MAX_QUEUE_SIZE, MAX_QUEUES};

/// Layout version of a queue region.
const VERSION: u16 = 1;
const ALIGNMENT: usize = 64;
const HEADER_LEN: usize = 16;
const ENTRY_LEN: usize = 16;

/// What follows the queues' regions: magic number, and the content at [`CONTENT_AT`] in it.
const TRAILER_LEN: usize = 32;
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"levee-if");
const CONTENT_AT: usize = 16;

const VERSION_AT: usize = 8;
const DESC_NUM_AT: usize = 10;
const LAST_BATCH_HEAD_AT: usize = 12;
const USED_IDX_AT: usize = 14;
const ENTRY_NEXT_AT: usize = 6;
const ENTRY_COUNTER_AT: usize = 8;

/// Why a region cannot be used.
#[derive(Debug)]
pub(crate) enum InflightError {
    /// The numbers that describe it are out of bounds, or do not fit its file.
    Geometry,
    /// It could be made shorter while it is used.
    NotSealed,
    /// The system refused to make one.
    System(std::io::Error),
    Map(MapError),
    /// It holds a layout that is not known, or one for another size of queue.
    Layout {
        version: u16,
        desc_num: u16,
    },
    /// It was made for another disk, or another content of it.
    OtherContent,
    /// The mapping is shorter than it was.
    Access,
}

impl fmt::Display for InflightError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InflightError::Geometry => f.write_str("the size of the in-flight region is invalid"),
            InflightError::NotSealed => f.write_str("the in-flight region is not sealed against shrinking"),
            InflightError::System(e) => write!(f, "the in-flight region cannot be made: {e}"),
            InflightError::Map(e) => write!(f, "the in-flight region is refused: {e}"),
            InflightError::Layout { version, desc_num } => {
                write!(f, "the in-flight region has unknown version {version} or a wrong queue size {desc_num}")
            }
            InflightError::OtherContent => f.write_str(
                "the guest left another disk, or another content of this one (it was rolled back, or deleted and made again): \
                 reset or restart the guest to use what is here now",
            ),
            InflightError::Access => f.write_str("the in-flight region cannot be accessed"),
        }
    }
}

impl std::error::Error for InflightError {}

fn queue_region_len(queue_size: u16) -> usize {
    (HEADER_LEN + ENTRY_LEN * usize::from(queue_size)).next_multiple_of(ALIGNMENT)
}

fn region_len(queues: u16, queue_size: u16) -> Result<usize, InflightError> {
    let in_bounds = (1..=MAX_QUEUES).contains(&queues) && (1..=MAX_QUEUE_SIZE).contains(&queue_size);
    in_bounds.then(|| usize::from(queues) * queue_region_len(queue_size)).ok_or(InflightError::Geometry)
}

/// The in-flight region of a device.
pub(crate) struct InflightRegion {
    mapping: Arc<MmapRegion<Guard>>,
    queues: u16,
    queue_size: u16,
}

impl InflightRegion {
    /// A new, empty region in a file to be given to the front end.
    pub fn create(queues: u16, queue_size: u16, content: u128) -> Result<(VhostUserInflight, File), InflightError> {
        let queues_len = region_len(queues, queue_size)? as u64;
        let len = queues_len + TRAILER_LEN as u64;
        let system = |e: nix::Error| InflightError::System(e.into());
        let fd =
            memfd_create(c"vhost-inflight", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).map_err(system)?;
        let file = File::from(fd);
        file.set_len(len).map_err(InflightError::System)?;
        file.write_all_at(&TRAILER_MAGIC.to_le_bytes(), queues_len).map_err(InflightError::System)?;
        file.write_all_at(&content.to_le_bytes(), queues_len + CONTENT_AT as u64).map_err(InflightError::System)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals)).map_err(system)?;
        Ok((VhostUserInflight::new(len, 0, queues, queue_size), file))
    }

    /// Maps a region that the front end kept, for a disk with this content.
    pub fn map(
        area: &VhostUserInflight,
        file: &File,
        breakage: &Breakage,
        content: u128,
    ) -> Result<Self, InflightError> {
        let needed = region_len(area.num_queues, area.queue_size)?;
        let end = area.mmap_offset.checked_add(area.mmap_size).ok_or(InflightError::Geometry)?;
        let file_len = file.metadata().map_err(InflightError::System)?.len();
        if area.mmap_size < needed as u64 || end > file_len {
            return Err(InflightError::Geometry);
        }
        let seals = fcntl(file.as_fd(), FcntlArg::F_GET_SEALS).map_err(|_| InflightError::NotSealed)?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
            return Err(InflightError::NotSealed);
        }
        let has_trailer = area.mmap_size >= (needed + TRAILER_LEN) as u64;
        let len = if has_trailer { needed + TRAILER_LEN } else { needed };
        let mapping = guard::map(file, area.mmap_offset, len, breakage).map_err(|e| match e {
            MapError::TooShort => InflightError::Geometry,
            e => InflightError::Map(e),
        })?;
        if has_trailer && content_of(&mapping, needed).is_some_and(|of| of != content) {
            return Err(InflightError::OtherContent);
        }
        Ok(InflightRegion { mapping: Arc::new(mapping), queues: area.num_queues, queue_size: area.queue_size })
    }

    /// The part of queue `index`; `None` if the region has none for it.
    pub fn queue(&self, index: u16) -> Option<InflightQueue> {
        (index < self.queues).then(|| InflightQueue {
            mapping: self.mapping.clone(),
            base: usize::from(index) * queue_region_len(self.queue_size),
            queue_size: self.queue_size,
            counter: Cell::new(0),
        })
    }
}

/// The content that a region was made for; `None`: an older daemon made it.
fn content_of(mapping: &MmapRegion<Guard>, trailer: usize) -> Option<u128> {
    let mut bytes = [0; TRAILER_LEN];
    mapping.get_slice(trailer, TRAILER_LEN).ok()?.copy_to(&mut bytes[..]);
    let (head, content) = bytes.split_at(CONTENT_AT);
    let is_ours = head.starts_with(&TRAILER_MAGIC.to_le_bytes());
    is_ours.then(|| content.try_into().ok().map(u128::from_le_bytes)).flatten()
}

/// The in-flight tracking of one queue.
pub(crate) struct InflightQueue {
    mapping: Arc<MmapRegion<Guard>>,
    base: usize,
    queue_size: u16,
    /// Place in the order of submission of the next request.
    counter: Cell<u64>,
}

impl InflightQueue {
    fn load<T: AtomicAccess>(&self, at: usize, order: Ordering) -> Result<T, InflightError> {
        let slice = self.mapping.get_slice(self.base + at, size_of::<T>()).map_err(|_| InflightError::Access)?;
        slice.load(0, order).map_err(|_| InflightError::Access)
    }

    fn store<T: AtomicAccess>(&self, at: usize, value: T, order: Ordering) -> Result<(), InflightError> {
        let slice = self.mapping.get_slice(self.base + at, size_of::<T>()).map_err(|_| InflightError::Access)?;
        slice.store(value, 0, order).map_err(|_| InflightError::Access)
    }

    /// Where the entry of `head` begins.
    fn entry(&self, head: u16) -> Result<usize, InflightError> {
        let known = head < self.queue_size;
        known.then(|| HEADER_LEN + ENTRY_LEN * usize::from(head)).ok_or(InflightError::Access)
    }

    /// Takes the region up for a ring of `ring_size` whose used index is `ring_used_idx`.
    ///
    /// Returns the heads of the requests that were taken and not completed, in the order they were taken; `None`
    /// if the region was never used.
    pub fn resume(&self, ring_size: u16, ring_used_idx: u16) -> Result<Option<Vec<u16>>, InflightError> {
        if ring_size > self.queue_size {
            return Err(InflightError::Layout { version: VERSION, desc_num: self.queue_size });
        }
        let version = self.load::<u16>(VERSION_AT, Acquire)?;
        let desc_num = self.load::<u16>(DESC_NUM_AT, Acquire)?;
        if version == 0 || desc_num == 0 {
            self.initialize(ring_used_idx)?;
            return Ok(None);
        }
        if version != VERSION || desc_num != self.queue_size {
            return Err(InflightError::Layout { version, desc_num });
        }
        self.finish_last_batch(ring_used_idx)?;
        self.in_flight(ring_size).map(Some)
    }

    fn initialize(&self, ring_used_idx: u16) -> Result<(), InflightError> {
        for head in 0..self.queue_size {
            self.store(self.entry(head)?, 0u8, Relaxed)?;
        }
        self.store(LAST_BATCH_HEAD_AT, 0u16, Relaxed)?;
        self.store(USED_IDX_AT, ring_used_idx, Relaxed)?;
        self.store(DESC_NUM_AT, self.queue_size, Relaxed)?;
        self.store(VERSION_AT, VERSION, Release)
    }

    /// Unmarks what was published in the used ring just before the crash.
    fn finish_last_batch(&self, ring_used_idx: u16) -> Result<(), InflightError> {
        let batch = ring_used_idx.wrapping_sub(self.load::<u16>(USED_IDX_AT, Acquire)?);
        let mut head = self.load::<u16>(LAST_BATCH_HEAD_AT, Acquire)?;
        // A batch is never longer than the queue; a larger difference means that the ring was reset.
        for _ in 0..batch.min(self.queue_size) {
            let Ok(entry) = self.entry(head) else { break };
            self.store(entry, 0u8, Relaxed)?;
            head = self.load(entry + ENTRY_NEXT_AT, Relaxed)?;
        }
        self.store(USED_IDX_AT, ring_used_idx, SeqCst)
    }

    fn in_flight(&self, ring_size: u16) -> Result<Vec<u16>, InflightError> {
        let mut marked = Vec::new();
        for head in 0..ring_size {
            let entry = self.entry(head)?;
            if self.load::<u8>(entry, Acquire)? == 1 {
                marked.push((self.load::<u64>(entry + ENTRY_COUNTER_AT, Relaxed)?, head));
            }
        }
        marked.sort_unstable();
        if let Some((last, _)) = marked.last() {
            self.counter.set(last.wrapping_add(1));
        }
        Ok(marked.into_iter().map(|(_, head)| head).collect())
    }

    /// Marks a request, before it is started.
    pub fn submitted(&self, head: u16) -> Result<(), InflightError> {
        let entry = self.entry(head)?;
        let counter = self.counter.get();
        self.counter.set(counter.wrapping_add(1));
        self.store(entry + ENTRY_COUNTER_AT, counter, Relaxed)?;
        self.store(entry, 1u8, Release)
    }

    /// Names the completion that is about to be published in the used ring.
    pub fn completing(&self, head: u16) -> Result<(), InflightError> {
        let entry = self.entry(head)?;
        let last = self.load::<u16>(LAST_BATCH_HEAD_AT, Relaxed)?;
        self.store(entry + ENTRY_NEXT_AT, last, Relaxed)?;
        self.store(LAST_BATCH_HEAD_AT, head, Release)
    }

    /// Unmarks a completion that the used ring now shows, whose index is `ring_used_idx`.
    pub fn completed(&self, head: u16, ring_used_idx: u16) -> Result<(), InflightError> {
        self.store(self.entry(head)?, 0u8, Release)?;
        self.store(USED_IDX_AT, ring_used_idx, Release)
    }
}

#[cfg(test)]
#[path = "inflight_tests.rs"]
mod tests;
