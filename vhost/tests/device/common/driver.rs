//! A front end made of crate virtio-driver: a well-behaved guest.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use virtio_driver::{
    VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkReqBuf, VirtioBlkTransport,
    VirtioFeatureFlags,
};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

/// Buffer of one request.
pub const SLOT: usize = 1 << 16;
const SLOTS_PER_QUEUE: usize = 32;

pub struct Guest {
    pub queues: Vec<GuestQueue>,
    pub config: VirtioBlkConfig,
    transport: Box<VirtioBlkTransport>,
}

pub struct GuestQueue {
    queue: VirtioBlkQueue<'static, usize>,
    index: usize,
    /// This queue's part of the data memory is the slots from `index * SLOTS_PER_QUEUE`.
    data: std::sync::Arc<MmapRegion<()>>,
    notifier: Box<dyn virtio_driver::QueueNotifier>,
    completion: std::sync::Arc<virtio_driver::EventFd>,
}

impl Guest {
    pub fn connect(socket: &Path, queues: usize) -> Self {
        let features = VirtioFeatureFlags::VERSION_1.bits()
            | VirtioFeatureFlags::RING_EVENT_IDX.bits()
            | VirtioFeatureFlags::RING_INDIRECT_DESC.bits()
            | VirtioBlkFeatureFlags::all().bits();
        let transport = VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(socket.to_str().unwrap(), features).unwrap();
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        let config = transport.get_config().unwrap();
        let file = File::from(memfd_create(c"guest-data", MFdFlags::MFD_CLOEXEC).unwrap());
        let len = queues * SLOTS_PER_QUEUE * SLOT;
        file.set_len(len as u64).unwrap();
        let fd = file.as_raw_fd();
        let data = std::sync::Arc::new(MmapRegion::<()>::from_file(FileOffset::new(file, 0), len).unwrap());
        transport.map_mem_region(data.as_ptr() as usize, len, fd, 0).unwrap();
        let rings = VirtioBlkQueue::setup_queues(&mut *transport, queues, 128).unwrap();
        let queues = rings
            .into_iter()
            .enumerate()
            .map(|(index, queue)| GuestQueue {
                queue,
                index,
                data: data.clone(),
                notifier: transport.get_submission_notifier(index),
                completion: transport.get_completion_fd(index),
            })
            .collect();
        Guest { queues, config, transport }
    }
}

impl GuestQueue {
    fn buffer(&self, slot: usize) -> usize {
        assert!(slot < SLOTS_PER_QUEUE);
        (self.index * SLOTS_PER_QUEUE + slot) * SLOT
    }

    pub fn fill(&self, slot: usize, bytes: &[u8]) {
        self.data.as_volatile_slice().write_slice(bytes, self.buffer(slot)).unwrap();
    }

    pub fn content(&self, slot: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.data.as_volatile_slice().read_slice(&mut bytes, self.buffer(slot)).unwrap();
        bytes
    }

    /// Submits a read of `len` bytes into `slot`.
    pub fn submit_read(&mut self, offset: u64, len: usize, slot: usize) {
        assert!(len <= SLOT);
        let at = self.data.as_ptr().wrapping_add(self.buffer(slot));
        // SAFETY: the slot lies in the mapping, which lives as long as the queue, and is not borrowed.
        unsafe { self.queue.read_raw(offset, at, len, slot) }.unwrap();
    }

    /// Submits a write of `len` bytes from `slot`.
    pub fn submit_write(&mut self, offset: u64, len: usize, slot: usize) {
        assert!(len <= SLOT);
        let at = self.data.as_ptr().wrapping_add(self.buffer(slot));
        // SAFETY: the slot lies in the mapping, which lives as long as the queue, and is not borrowed.
        unsafe { self.queue.write_raw(offset, at, len, slot) }.unwrap();
    }

    pub fn submit_flush(&mut self) {
        self.queue.flush(0).unwrap();
    }

    pub fn submit_discard(&mut self, offset: u64, len: u64) {
        self.queue.discard(offset, len, 0).unwrap();
    }

    pub fn submit_write_zeroes(&mut self, offset: u64, len: u64, unmap: bool) {
        self.queue.write_zeroes(offset, len, unmap, 0).unwrap();
    }

    pub fn notify(&mut self) {
        if self.queue.avail_notif_needed() {
            self.notifier.notify().unwrap();
        }
    }

    /// Waits until at least one request has completed, and returns the slot and result of each.
    pub fn completed(&mut self) -> Vec<(usize, i32)> {
        loop {
            self.queue.set_used_notif_enabled(true);
            if !self.queue.completions().has_next() {
                // SAFETY: the descriptor is open for as long as `completion` lives.
                super::wait_readable(unsafe { BorrowedFd::borrow_raw(self.completion.as_raw_fd()) });
                self.completion.read().unwrap();
            }
            self.queue.set_used_notif_enabled(false);
            let completed: Vec<_> = self.queue.completions().map(|c| (c.context, c.ret)).collect();
            if !completed.is_empty() {
                return completed;
            }
        }
    }

    /// Notifies the device and waits for the one request in flight.
    pub fn result(&mut self) -> i32 {
        self.notify();
        self.completed()[0].1
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.fill(0, bytes);
        self.submit_write(offset, bytes.len(), 0);
        assert_eq!(self.result(), 0);
    }

    pub fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.submit_read(offset, len, 0);
        assert_eq!(self.result(), 0);
        self.content(0, len)
    }
}
