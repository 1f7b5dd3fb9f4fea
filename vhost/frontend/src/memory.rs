//! Guest memory: one memfd, mapped here and by the daemon.
//!
//! The daemon may change any of it at any time, so nothing hands out references into it: bytes are
//! copied in and out, and the ring indexes go through atomics.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Memory shared with the daemon. Offsets are in bytes from its start and are checked on every use.
pub struct GuestMemory {
    fd: OwnedFd,
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is reached by address only; moving the value to
// another thread moves nothing in memory.
unsafe impl Send for GuestMemory {}

impl GuestMemory {
    pub fn new(len: usize) -> Result<GuestMemory> {
        let size = NonZeroUsize::new(len).context("guest memory must not be empty")?;
        let fd = memfd_create("levee-guest-memory", MFdFlags::MFD_CLOEXEC).context("cannot create guest memory")?;
        nix::unistd::ftruncate(&fd, len as i64).context("cannot size guest memory")?;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base =
            unsafe { mmap(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, &fd, 0) }
                .context("cannot map guest memory")?;
        Ok(GuestMemory { fd, base, len })
    }

    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Where the memory lies in this process: vhost-user calls it the user address.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Pointer to `len` bytes at `offset`; panics where they do not lie within the memory, which only a
    /// bug of the front end itself could cause.
    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "{offset}+{len} is outside of guest memory"
        );
        // SAFETY: the assertion keeps the pointer inside of the mapping.
        unsafe { self.base.as_ptr().cast::<u8>().add(offset) }
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: `to` points to as many mapped bytes; `bytes` is ordinary memory and cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    pub fn fill(&self, offset: usize, len: usize, byte: u8) {
        let to = self.at(offset, len);
        // SAFETY: `to` points to `len` mapped bytes.
        unsafe { std::ptr::write_bytes(to, byte, len) }
    }

    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: `from` points to as many mapped bytes; `into` is ordinary memory and cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }

    pub fn read_array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(offset, &mut bytes);
        bytes
    }

    fn atomic(&self, offset: usize) -> &AtomicU16 {
        assert!(offset.is_multiple_of(2), "index at an odd offset");
        // SAFETY: two mapped, aligned bytes that live as long as `self`; all access to ring indexes is atomic.
        unsafe { AtomicU16::from_ptr(self.at(offset, 2).cast()) }
    }

    /// Reads a ring index, and with it all that was written before it.
    pub fn load(&self, offset: usize) -> u16 {
        u16::from_le(self.atomic(offset).load(Ordering::Acquire))
    }

    /// Publishes a ring index, and with it all that was written before.
    pub fn store(&self, offset: usize, value: u16) {
        self.atomic(offset).store(value.to_le(), Ordering::Release);
    }
}

impl Drop for GuestMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` and nothing refers to it any more. An error leaves it mapped.
        let _ = unsafe { munmap(self.base, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_indexes_are_where_they_were_put() {
        let m = GuestMemory::new(8192).unwrap();
        m.write(100, b"levee");
        assert_eq!(&m.read_array::<5>(100), b"levee");
        m.store(8190, 0xabcd);
        assert_eq!(m.load(8190), 0xabcd);
        m.fill(0, 4, 7);
        assert_eq!(m.read_array::<5>(0), [7, 7, 7, 7, 0]);
    }

    #[test]
    #[should_panic(expected = "outside of guest memory")]
    fn nothing_outside_is_reached() {
        GuestMemory::new(4096).unwrap().write(4090, &[0; 7]);
    }
}
