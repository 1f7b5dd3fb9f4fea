//! The daemon's side of the vhost-user protocol: just what the front end under test says.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::Shared;
use super::queue::{Outcome, Queue};

const INFLIGHT_QUEUE_SIZE: u64 = 16 + 16 * 256;
/// VERSION_1, PROTOCOL_FEATURES, EVENT_IDX, INDIRECT_DESC, MQ, WRITE_ZEROES, DISCARD, FLUSH.
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 14 | 1 << 13 | 1 << 12 | 1 << 9;
/// INFLIGHT_SHMFD, CONFIG, REPLY_ACK, MQ.
const PROTOCOL_FEATURES: u64 = 1 << 12 | 1 << 9 | 1 << 3 | 1;
const QUEUES: u16 = 4;

pub struct Connection {
    stream: UnixStream,
    shared: Arc<Shared>,
    memory: Option<GuestMemoryMmap>,
    /// User address, size and guest address of each region.
    regions: Vec<(u64, u64, u64)>,
    inflight: Option<GuestMemoryMmap>,
    queues: Vec<Queue>,
    completed: u64,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Connection {
    pub fn new(stream: UnixStream, shared: Arc<Shared>) -> Connection {
        let queues = (0..QUEUES).map(|_| Queue::default()).collect();
        Connection { stream, shared, memory: None, regions: Vec::new(), inflight: None, queues, completed: 0 }
    }

    /// Serves until the other side closes, the test ends, or a crash is due.
    pub fn serve(mut self) {
        while !self.shared.stopped() {
            let mut fds = vec![PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            for queue in &self.queues {
                fds.extend(queue.kick.as_ref().map(|kick| PollFd::new(kick.as_fd(), PollFlags::POLLIN)));
            }
            poll(&mut fds, PollTimeout::from(20u8)).unwrap();
            let message = fds[0].any().unwrap();
            if message && !self.message() {
                return;
            }
            if !self.run_queues() {
                self.shared.crashes.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }

    /// False when a crash is due.
    fn run_queues(&mut self) -> bool {
        let (Some(memory), Some(inflight)) = (&self.memory, &self.inflight) else { return true };
        for (index, queue) in self.queues.iter_mut().enumerate().filter(|(_, q)| q.enabled) {
            let region = index as u64 * INFLIGHT_QUEUE_SIZE;
            match queue.run(memory, inflight, region, &self.shared, &mut self.completed) {
                Outcome::Idle => {}
                Outcome::Crash => return false,
            }
        }
        true
    }

    /// Takes one message. False when the other side is gone.
    fn message(&mut self) -> bool {
        let mut header = [0u8; 12];
        let mut raw = [-1; 8];
        let mut parts = [libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() }];
        // SAFETY: the vector describes `header`, which outlives the call.
        let (n, count) = match unsafe { self.stream.recv_with_fds(&mut parts, &mut raw) } {
            Ok((n, count)) if n > 0 => (n, count),
            _ => return false,
        };
        assert_eq!(n, header.len());
        // SAFETY: these descriptors were just received and belong to nobody else.
        let files: Vec<File> = raw[..count].iter().map(|fd| unsafe { File::from_raw_fd(*fd) }).collect();
        let (request, flags, size) = (u32_at(&header, 0), u32_at(&header, 4), u32_at(&header, 8));
        let mut payload = vec![0; size as usize];
        self.stream.read_exact(&mut payload).unwrap();
        let answered = self.handle(request, &payload, files);
        if !answered && flags & 8 != 0 {
            self.reply(request, &0u64.to_ne_bytes(), None);
        }
        true
    }

    fn reply(&mut self, request: u32, payload: &[u8], file: Option<&File>) {
        let mut message = Vec::new();
        for word in [request, 1 | 4, payload.len() as u32] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        message.extend_from_slice(payload);
        match file {
            Some(file) => assert_eq!(self.stream.send_with_fd(&message[..], file.as_raw_fd()).unwrap(), message.len()),
            None => self.stream.write_all(&message).unwrap(),
        }
    }

    /// True if the request had an answer of its own.
    fn handle(&mut self, request: u32, payload: &[u8], mut files: Vec<File>) -> bool {
        match request {
            1 => self.reply(request, &FEATURES.to_ne_bytes(), None),
            15 => self.reply(request, &PROTOCOL_FEATURES.to_ne_bytes(), None),
            17 => self.reply(request, &u64::from(QUEUES).to_ne_bytes(), None),
            11 => {
                let index = u32_at(payload, 0) as usize;
                self.queues[index].enabled = false;
                self.reply(request, &payload[..8], None);
            }
            24 => self.config(payload),
            31 => self.new_inflight(payload),
            _ => {
                self.set(request, payload, &mut files);
                return false;
            }
        }
        true
    }

    fn set(&mut self, request: u32, payload: &[u8], files: &mut Vec<File>) {
        let index = u32_at(payload.get(..8).unwrap_or(&[0; 8]), 0) as usize & 0xff;
        match request {
            2 | 3 | 16 => {}
            5 => self.set_memory(payload, files),
            8 => assert_eq!(u32_at(payload, 4), 256),
            9 => {
                let [desc, used, avail] = [8, 16, 24].map(|at| self.translate(u64_at(payload, at)));
                self.queues[index].addresses(desc, avail, used);
            }
            10 => self.queues[index].base = u32_at(payload, 4) as u16,
            12 => self.queues[index].kick = files.pop(),
            13 => self.queues[index].call = files.pop(),
            18 => {
                self.queues[index].enabled = u32_at(payload, 4) == 1;
                let forget = self.shared.fault == super::Fault::ForgetInflight;
                let (memory, inflight) = (self.memory.as_ref().unwrap(), self.inflight.as_ref().unwrap());
                self.queues[index].resume(memory, inflight, index as u64 * INFLIGHT_QUEUE_SIZE, forget);
            }
            32 => {
                let file = files.pop().unwrap();
                self.inflight = Some(map(vec![(0, u64_at(payload, 0), file, 0)]));
            }
            other => panic!("unexpected request {other}"),
        }
    }

    fn set_memory(&mut self, payload: &[u8], files: &mut Vec<File>) {
        let mut ranges = Vec::new();
        for (region, file) in files.drain(..).enumerate() {
            let at = 8 + 32 * region;
            let [guest, size, user, offset] = [0, 8, 16, 24].map(|field| u64_at(payload, at + field));
            self.regions.push((user, size, guest));
            ranges.push((guest, size, file, offset));
        }
        self.memory = Some(map(ranges));
    }

    fn translate(&self, user: u64) -> u64 {
        let region = self.regions.iter().find(|(base, size, _)| (*base..base + size).contains(&user));
        let (base, _, guest) = region.expect("a ring outside of all regions");
        guest + (user - base)
    }

    fn config(&mut self, payload: &[u8]) {
        let mut answer = payload.to_vec();
        let space = &mut answer[12..];
        let sectors = self.shared.disk.lock().unwrap().len() as u64 / 512;
        space[..8].copy_from_slice(&sectors.to_le_bytes());
        space[34..36].copy_from_slice(&QUEUES.to_le_bytes());
        space[36..40].copy_from_slice(&4096u32.to_le_bytes());
        space[44..48].copy_from_slice(&8u32.to_le_bytes());
        space[48..52].copy_from_slice(&4096u32.to_le_bytes());
        self.reply(24, &answer, None);
    }

    fn new_inflight(&mut self, payload: &[u8]) {
        let queues = u16::from_ne_bytes(payload[16..18].try_into().unwrap());
        let size = u64::from(queues) * INFLIGHT_QUEUE_SIZE;
        let file = File::from(memfd_create("inflight", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(size).unwrap();
        let mut answer = payload.to_vec();
        answer[..8].copy_from_slice(&size.to_ne_bytes());
        self.reply(31, &answer, Some(&file));
    }
}

fn map(ranges: Vec<(u64, u64, File, u64)>) -> GuestMemoryMmap {
    let ranges = ranges.into_iter();
    let ranges =
        ranges.map(|(guest, size, file, at)| (GuestAddress(guest), size as usize, Some(FileOffset::new(file, at))));
    GuestMemoryMmap::from_ranges_with_files(ranges).unwrap()
}
