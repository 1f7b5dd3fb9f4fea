//! A front end that controls every byte of its rings, to play an ill-behaved guest and one that outlives its daemon.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

pub const MEMORY_LEN: usize = 1 << 24;
/// Where the front end claims to see guest address 0.
const USER_BASE: u64 = 0x7f00_0000_0000;
const TABLE: u64 = 0x1000;
const AVAIL: u64 = 0x8000;
const USED: u64 = 0xc000;
/// Guest memory from here on is free.
pub const FREE: u64 = 0x1_0000;

pub const READ: u32 = 0;
pub const WRITE_OUT: u32 = 1;
pub const FLUSH: u32 = 4;
pub const GET_ID: u32 = 8;
pub const DISCARD: u32 = 11;
pub const WRITE_ZEROES: u32 = 13;

/// A guest's memory with one ring in it, and the in-flight region: what survives a daemon.
pub struct Vm {
    pub mem: GuestMemoryMmap<()>,
    pub file: File,
    pub size: u16,
    avail_idx: u16,
    seen: u16,
    pub inflight: Option<(VhostUserInflight, File)>,
}

/// A connection for that guest.
pub struct Front {
    pub frontend: Frontend,
    /// The frontend's own way to its descriptor waits while a message is being answered.
    connection: RawFd,
    pub kick: EventFd,
    pub call: EventFd,
}

impl Vm {
    pub fn new(size: u16) -> Self {
        let file = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(MEMORY_LEN as u64).unwrap();
        let range = (GuestAddress(0), MEMORY_LEN, Some(FileOffset::new(file.try_clone().unwrap(), 0)));
        let mem = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();
        Vm { mem, file, size, avail_idx: 0, seen: 0, inflight: None }
    }

    pub fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.mem.write_obj(value, GuestAddress(at)).unwrap();
    }

    pub fn descriptor(&self, index: u16, addr: u64, len: u32, flags: u16, next: u16) {
        self.put(TABLE + u64::from(index) * 16, Descriptor::new(addr, len, flags, next));
    }

    /// Describes a request in descriptors `head..head + 3` with its memory at `at`: header, data from `at + 0x100`,
    /// and the status before that. Returns where the status is.
    pub fn request(&self, head: u16, at: u64, kind: u32, sector: u64, data_len: u32) -> u64 {
        let status = at + 0x80;
        self.put(at, kind.to_le());
        self.put(at + 8, sector.to_le());
        self.put(status, 0xffu8);
        let direction = if [WRITE_OUT, DISCARD, WRITE_ZEROES].contains(&kind) { 0 } else { WRITE };
        if data_len == 0 {
            self.descriptor(head, at, 16, NEXT, head + 2);
        } else {
            self.descriptor(head, at, 16, NEXT, head + 1);
            self.descriptor(head + 1, at + 0x100, data_len, NEXT | direction, head + 2);
        }
        self.descriptor(head + 2, status, 1, WRITE, 0);
        status
    }

    pub fn byte(&self, at: u64) -> u8 {
        self.mem.read_obj(GuestAddress(at)).unwrap()
    }

    /// Makes a chain available, without a kick.
    pub fn submit(&mut self, head: u16) {
        self.put(AVAIL + 4 + u64::from(self.avail_idx % self.size) * 2, head.to_le());
        self.set_avail_idx(self.avail_idx.wrapping_add(1));
    }

    pub fn set_avail_idx(&mut self, index: u16) {
        self.avail_idx = index;
        self.mem.store(index.to_le(), GuestAddress(AVAIL + 2), Ordering::Release).unwrap();
    }

    pub fn used_idx(&self) -> u16 {
        u16::from_le(self.mem.load(GuestAddress(USED + 2), Ordering::Acquire).unwrap())
    }

    /// The next completion: head and length.
    pub fn used(&mut self) -> Option<(u32, u32)> {
        if self.used_idx() == self.seen {
            return None;
        }
        let at = USED + 4 + u64::from(self.seen % self.size) * 8;
        self.seen = self.seen.wrapping_add(1);
        let word = |at| u32::from_le(self.mem.read_obj(GuestAddress(at)).unwrap());
        Some((word(at), word(at + 4)))
    }

    /// Connects as QEMU does: negotiates, shares memory, sets the in-flight region and starts the ring.
    pub fn connect(&mut self, socket: &Path) -> Front {
        let mut front = self.negotiate(socket);
        self.share_memory(&mut front);
        self.set_inflight(&mut front);
        self.start_ring(&mut front);
        front
    }

    pub fn negotiate(&self, socket: &Path) -> Front {
        let mut frontend = Frontend::connect(socket, 1).unwrap();
        frontend.set_owner().unwrap();
        // VERSION_1, INDIRECT_DESC and the protocol features; every completion is signalled.
        let offered = frontend.get_features().unwrap();
        frontend.set_features(offered & (1 << 32 | 1 << 30 | 1 << 28)).unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        frontend
            .set_protocol_features(
                protocol
                    & (VhostUserProtocolFeatures::REPLY_ACK
                        | VhostUserProtocolFeatures::CONFIG
                        | VhostUserProtocolFeatures::INFLIGHT_SHMFD
                        | VhostUserProtocolFeatures::MQ),
            )
            .unwrap();
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let connection = frontend.as_raw_fd();
        let call = EventFd::new(EFD_NONBLOCK).unwrap();
        Front { frontend, connection, kick: EventFd::new(0).unwrap(), call }
    }

    pub fn share_memory(&self, front: &mut Front) {
        front
            .frontend
            .set_mem_table(&[VhostUserMemoryRegionInfo {
                guest_phys_addr: 0,
                memory_size: MEMORY_LEN as u64,
                userspace_addr: USER_BASE,
                mmap_offset: 0,
                mmap_handle: self.file.as_raw_fd(),
            }])
            .unwrap();
    }

    fn set_inflight(&mut self, front: &mut Front) {
        if self.inflight.is_none() {
            let wanted = VhostUserInflight::new(0, 0, 1, self.size);
            self.inflight = Some(front.frontend.get_inflight_fd(&wanted).unwrap());
        }
        let (area, file) = self.inflight.as_ref().unwrap();
        front.frontend.set_inflight_fd(area, file.as_raw_fd()).unwrap();
    }

    pub fn start_ring(&self, front: &mut Front) {
        front.frontend.set_vring_num(0, self.size).unwrap();
        front.frontend.set_vring_base(0, self.used_idx()).unwrap();
        let addresses = VringConfigData {
            queue_max_size: self.size,
            queue_size: self.size,
            flags: 0,
            desc_table_addr: USER_BASE + TABLE,
            used_ring_addr: USER_BASE + USED,
            avail_ring_addr: USER_BASE + AVAIL,
            log_addr: None,
        };
        front.frontend.set_vring_addr(0, &addresses).unwrap();
        front.frontend.set_vring_kick(0, &front.kick).unwrap();
        front.frontend.set_vring_call(0, &front.call).unwrap();
        front.frontend.set_vring_enable(0, true).unwrap();
    }
}

impl Front {
    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// Waits for the next completion.
    pub fn completion(&self, vm: &mut Vm) -> (u32, u32) {
        loop {
            if let Some(used) = vm.used() {
                return used;
            }
            // SAFETY: the descriptor is open for as long as `call` lives.
            super::wait_readable(unsafe { BorrowedFd::borrow_raw(self.call.as_raw_fd()) });
            self.call.read().unwrap();
        }
    }

    /// Ends the connection while a message may be waiting for its answer.
    pub fn hang_up(&self) {
        nix::sys::socket::shutdown(self.connection, nix::sys::socket::Shutdown::Both).unwrap();
    }

    /// Stops the ring and returns the index the device would take next.
    pub fn stop_ring(&self) -> u32 {
        self.frontend.get_vring_base(0).unwrap()
    }
}
