//! Mappings of a front end's files that may break under the hand.
//!
//! A front end can shorten a file after it was mapped, share huge pages that the machine does not have, or keep its memory
//! in a file system that is full. The access that meets such a page raises SIGBUS, which would end the daemon, and with it
//! the disks of every other guest. So every such mapping is entered in a table, and the handler replaces the mapping that
//! broke by zeroed memory of the daemon's own, marks its connection broken and lets the access go on. What was read from
//! it, or written to it, is worth nothing: whoever copies looks at [`Breakage::is_broken`] *after* the copy and before
//! anything follows from it.
//!
//! A handler may run at any point of any thread, so the table is made of atomics alone, and is never freed.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};
use vm_memory::bitmap::{Bitmap, NewBitmap, WithBitmapSlice};
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// Whether memory of a connection has broken. Once true, nothing read from any of it can be relied on.
#[derive(Clone, Default)]
pub(crate) struct Breakage(Arc<AtomicBool>);

impl Breakage {
    pub fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a file is not mapped.
#[derive(Debug)]
pub(crate) enum MapError {
    /// It lies in a file system whose pages may take for ever, or never come.
    NotMemory,
    /// It is shorter than what is to be mapped.
    TooShort,
    System(io::Error),
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MapError::NotMemory => f.write_str(
                "its file is neither a memfd nor in tmpfs or hugetlbfs; use QEMU's memory-backend-memfd with share=on",
            ),
            MapError::TooShort => f.write_str("it reaches beyond the end of its file"),
            MapError::System(e) => write!(f, "it cannot be mapped: {e}"),
        }
    }
}

impl std::error::Error for MapError {}

impl From<nix::Error> for MapError {
    fn from(e: nix::Error) -> Self {
        MapError::System(e.into())
    }
}

/// Maps `len` bytes of `file` from `offset` for reading and writing; a break of the mapping is told to `breakage`.
///
/// A file that is sealed against shrinking cannot break in that way at all: front ends that could seal theirs are asked to.
pub(crate) fn map(file: &File, offset: u64, len: usize, breakage: &Breakage) -> Result<MmapRegion<Guard>, MapError> {
    let page = memory_page(file)?;
    if is_open_to_shrinking(file) {
        tracing::debug!(
            "shared memory can be shortened while it is used: seal it (QEMU: memory-backend-memfd,seal=on)"
        );
    }
    let end = offset.checked_add(len as u64).ok_or(MapError::TooShort)?;
    if len == 0 || file.metadata().map_err(MapError::System)?.len() < end {
        return Err(MapError::TooShort);
    }
    let guard = Guard(Some(Mapping::new(file, offset, len, page, breakage)?));
    let start = guard.0.as_ref().map_or(ptr::null_mut(), |mapping| mapping.start.as_ptr().cast());
    let builder = MmapRegionBuilder::new_with_bitmap(len, guard)
        .with_mmap_prot(READ_WRITE.bits())
        .with_mmap_flags(MapFlags::MAP_SHARED.bits());
    // SAFETY: the mapping is at least as long, and belongs to the guard, which lives in the region and ends it after it.
    unsafe { builder.with_raw_mmap_pointer(start) }.build().map_err(|e| MapError::System(io::Error::other(e)))
}

/// Whether the file can be sealed against shrinking, and is not. Files in a mounted tmpfs cannot.
fn is_open_to_shrinking(file: &File) -> bool {
    fcntl(file.as_fd(), FcntlArg::F_GET_SEALS).is_ok_and(|seals| {
        !SealFlag::from_bits_retain(seals).intersects(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL)
    })
}

/// Bytes of a page of the file's, which has to be memory.
fn memory_page(file: &File) -> Result<usize, MapError> {
    let system = fstatfs(file)?;
    match system.filesystem_type() {
        TMPFS_MAGIC | HUGETLBFS_MAGIC => Ok(usize::try_from(system.block_size()).unwrap_or(1).max(1)),
        _ => Err(MapError::NotMemory),
    }
}

/// Owns a guarded mapping. It takes the place of a region's dirty bitmap, so that it lives exactly as long as the region
/// that is copied from and to.
#[derive(Debug, Default)]
pub(crate) struct Guard(Option<Mapping>);

impl WithBitmapSlice<'_> for Guard {
    type S = ();
}

impl Bitmap for Guard {
    fn mark_dirty(&self, _offset: usize, _len: usize) {}

    fn dirty_at(&self, _offset: usize) -> bool {
        false
    }

    fn slice_at(&self, _offset: usize) {}
}

/// A region that is the daemon's own is not guarded.
impl NewBitmap for Guard {
    fn with_len(_len: usize) -> Self {
        Guard(None)
    }
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    /// Whole pages.
    len: usize,
    slot: &'static Slot,
    /// Kept alive for the handler.
    _broken: Arc<AtomicBool>,
}

// SAFETY: the address is only used to end the mapping, which any thread may do.
unsafe impl Send for Mapping {}
// SAFETY: nothing can be done with a shared reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, offset: u64, len: usize, page: usize, breakage: &Breakage) -> Result<Self, MapError> {
        install_handler()?;
        let len = len.checked_next_multiple_of(page).ok_or(MapError::TooShort)?;
        let size = NonZeroUsize::new(len).ok_or(MapError::TooShort)?;
        let offset = i64::try_from(offset).map_err(|_| MapError::TooShort)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { mmap(None, size, READ_WRITE, flags, file, offset)? };
        let slot = Slot::enter(start.as_ptr() as usize, len, &breakage.0);
        Ok(Mapping { start, len, slot, _broken: breakage.0.clone() })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.slot.leave();
        // SAFETY: nobody has the region any more that these addresses were reached through. A failure leaves them mapped.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// One mapping as the handler sees it.
#[derive(Debug)]
struct Slot {
    /// Odd while the rest is being changed.
    version: AtomicUsize,
    /// Zero: free.
    start: AtomicUsize,
    len: AtomicUsize,
    broken: AtomicPtr<AtomicBool>,
}

impl Slot {
    const fn new() -> Self {
        Slot {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            broken: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Takes a free slot. The caller keeps `broken` alive until it leaves.
    fn enter(start: usize, len: usize, broken: &Arc<AtomicBool>) -> &'static Slot {
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let free = slots().find(|slot| slot.start.load(Ordering::Relaxed) == 0);
        let slot = free.unwrap_or_else(add_block);
        slot.change(start, len, Arc::as_ptr(broken).cast_mut());
        slot
    }

    fn leave(&self) {
        let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        self.change(0, 0, ptr::null_mut());
    }

    fn change(&self, start: usize, len: usize, broken: *mut AtomicBool) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.start.store(start, Ordering::SeqCst);
        self.len.store(len, Ordering::SeqCst);
        self.broken.store(broken, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// What the slot says, if it holds `address`. One that is being changed does not: a mapping that is accessed is
    /// neither entered nor left at that time.
    fn holding(&self, address: usize) -> Option<(usize, usize, *const AtomicBool)> {
        let version = self.version.load(Ordering::SeqCst);
        let (start, len) = (self.start.load(Ordering::SeqCst), self.len.load(Ordering::SeqCst));
        let broken = self.broken.load(Ordering::SeqCst);
        let stable = version.is_multiple_of(2) && self.version.load(Ordering::SeqCst) == version;
        let holds = stable && start != 0 && (start..start.saturating_add(len)).contains(&address);
        holds.then_some((start, len, broken.cast_const()))
    }
}

const BLOCK_LEN: usize = 256;

/// Slots, and where more are.
struct Block {
    slots: [Slot; BLOCK_LEN],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Self {
        Block { slots: [const { Slot::new() }; BLOCK_LEN], next: AtomicPtr::new(ptr::null_mut()) }
    }
}

static TABLE: Block = Block::new();
/// Held by whoever changes the table.
static CHANGING: Mutex<()> = Mutex::new(());

fn blocks() -> impl Iterator<Item = &'static Block> {
    // SAFETY: a block that was linked is never freed.
    std::iter::successors(Some(&TABLE), |block| unsafe { block.next.load(Ordering::Acquire).as_ref() })
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    blocks().flat_map(|block| &block.slots)
}

/// Makes the table longer and returns the first of its new slots. It never gets shorter: what it takes is bounded by the
/// largest number of mappings there ever were at a time.
fn add_block() -> &'static Slot {
    let block: &'static Block = Box::leak(Box::new(Block::new()));
    if let Some(last) = blocks().last() {
        last.next.store(ptr::from_ref(block).cast_mut(), Ordering::Release);
    }
    &block.slots[0]
}

/// What was done about SIGBUS before.
static BEFORE: OnceLock<SigAction> = OnceLock::new();

fn install_handler() -> Result<(), MapError> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::SigAction(on_sigbus), flags, SigSet::empty());
        // SAFETY: the handler touches nothing but atomics and makes one system call.
        if let Ok(before) = unsafe { sigaction(Signal::SIGBUS, &action) } {
            let _ = BEFORE.set(before);
        }
    });
    match BEFORE.get() {
        Some(_) => Ok(()),
        None => Err(MapError::System(io::Error::other("the handler for broken memory cannot be installed"))),
    }
}

/// Replaces the mapping that broke; an access elsewhere is handled as it was before.
extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel hands over a valid structure.
    let address = unsafe { (*info).si_addr() } as usize;
    let errno = nix::errno::Errno::last_raw();
    let replaced = slots().find_map(|slot| slot.holding(address)).is_some_and(|(start, len, broken)| {
        let replaced = replace(start, len);
        if replaced && !broken.is_null() {
            // SAFETY: the mapping that is being accessed keeps the flag alive.
            unsafe { (*broken).store(true, Ordering::Release) };
        }
        replaced
    });
    nix::errno::Errno::set_raw(errno);
    if !replaced && let Some(before) = BEFORE.get() {
        // SAFETY: as it was before; the access is repeated and met by it.
        let _ = unsafe { sigaction(Signal::SIGBUS, before) };
    }
}

/// Puts zeroed memory over a mapping.
fn replace(start: usize, len: usize) -> bool {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_ANONYMOUS | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
    let (Some(start), Some(len)) = (NonZeroUsize::new(start), NonZeroUsize::new(len)) else { return false };
    // SAFETY: the addresses are those of a mapping of this table, whose content is only ever accessed as volatile bytes.
    unsafe { nix::sys::mman::mmap_anonymous(Some(start), len, READ_WRITE, flags) }.is_ok()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
