//! Front ends that are anything but QEMU: their messages, descriptors, memory, rings and in-flight regions are almost right.
//!
//! Memory is written to through its file, never mapped: what is taken away from the daemon would be taken away from us too.

use super::{Port, mutate};
use crate::cluster::Cluster;
use crate::rng::Rng;
use anyhow::{Context, Result, ensure};
use levee_frontend::{FrontEnd, FrontEndOptions, Operation, Shape};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const VOLUME: &str = "victim";
const VOLUME_SIZE: u64 = 64 << 20;
/// How long the daemon may take for what it has to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// Descriptors that a daemon may have more than before: connections to others, files that it looks into.
const MORE_DESCRIPTORS: usize = 40;
/// Most descriptors that go with one message: the kernel's bound.
const MAX_DESCRIPTORS: u64 = 253;

// Requests of a front end, as numbered by the vhost-user specification.
const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SET_VRING_ENABLE: u32 = 18;
const SET_BACKEND_REQ_FD: u32 = 21;
const GET_CONFIG: u32 = 24;
const SET_CONFIG: u32 = 25;
const GET_INFLIGHT_FD: u32 = 31;
const SET_INFLIGHT_FD: u32 = 32;
const LAST_REQUEST: u32 = 45;

const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 28 | 1 << 9;
const PROTOCOL_FEATURES: u64 = 1 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12 | 1 << 15;

/// Where the front end claims to see guest address 0.
const USER_BASE: u64 = 0x7f00_0000_0000;
const RING_SIZE: u64 = 16;
/// Of each ring, guest addresses.
const RING_LEN: u64 = 0x4000;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const QUEUES: u64 = 3;
/// Guest memory from here on is free.
const FREE: u64 = 0x1_0000;

/// The socket of a volume.
pub struct FrontEndPort {
    socket: PathBuf,
    daemon: i32,
    descriptors: usize,
}

impl FrontEndPort {
    /// The volume is served by the bystander's daemon and, as there is but one, on its core.
    pub fn open(cluster: &Cluster, _rng: &mut Rng) -> Result<FrontEndPort> {
        cluster.create_volume(VOLUME, VOLUME_SIZE)?;
        let attached = cluster.attach_at(VOLUME, "node-1")?;
        let daemons = cluster.daemons()?;
        let daemon = daemons.iter().find(|daemon| daemon.name == "node-1").context("node-1 does not run")?.pid;
        let descriptors = descriptors_of(daemon)?;
        Ok(FrontEndPort { socket: attached.socket, daemon, descriptors })
    }
}

fn descriptors_of(pid: i32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

impl Port for FrontEndPort {
    /// Twice where the machine has nothing else to do; other attacks may run beside this one.
    const SLOWER: Option<f64> = Some(4.0);

    fn attack(&mut self, rng: &mut Rng) -> Result<()> {
        let stream = UnixStream::connect(&self.socket).context("nobody listens at the volume's socket")?;
        stream.set_nonblocking(true)?;
        let mut hostile = Hostile::new(stream)?;
        hostile.begin(rng)?;
        for _ in 0..rng.below(12) {
            hostile.act(rng)?;
        }
        Ok(())
    }

    /// An honest front end is served, and nothing of the others is left.
    fn check(&mut self, _cluster: &Cluster) -> Result<()> {
        let begun = Instant::now();
        let options = FrontEndOptions { socket: self.socket.clone(), queues: 1, max_data: 4096 };
        let mut front = loop {
            match FrontEnd::connect(options.clone()) {
                Ok(front) => break front,
                Err(e) if begun.elapsed() > PATIENCE => return Err(e.context("an honest front end is not served")),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        for operation in [Operation::Write { offset: 0, len: 4096 }, Operation::Read { offset: 0, len: 4096 }] {
            let tag = front.free_slot(0).context("no slot is free")?;
            front.submit(tag, operation, Shape::default());
            front.kick();
            let mut done = Vec::new();
            while done.is_empty() {
                ensure!(begun.elapsed() < PATIENCE, "{operation:?} of an honest front end is not answered");
                front.poll(Duration::from_millis(20), &mut done)?;
            }
            ensure!(done[0].status == 0, "{operation:?} of an honest front end failed");
        }
        front.close()?;
        let left = descriptors_of(self.daemon)?;
        let before = self.descriptors;
        ensure!(left <= before + MORE_DESCRIPTORS, "the daemon had {before} descriptors before, and {left} after it");
        Ok(())
    }
}

/// One connection.
struct Hostile {
    stream: UnixStream,
    memory: File,
    kicks: Vec<EventFd>,
    calls: Vec<EventFd>,
    avail: [u16; QUEUES as usize],
    /// The connection has ended.
    over: bool,
}

impl Hostile {
    fn new(stream: UnixStream) -> Result<Hostile> {
        let event = || EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let events = || (0..QUEUES).map(|_| event()).collect::<Result<Vec<_>, _>>();
        let memory = File::from(memfd_create(c"hostile", MFdFlags::MFD_CLOEXEC)?);
        Ok(Hostile { stream, memory, kicks: events()?, calls: events()?, avail: [0; QUEUES as usize], over: false })
    }

    /// Sets the device up as QEMU does, but for some message.
    fn begin(&mut self, rng: &mut Rng) -> Result<()> {
        let len = *rng.pick(&[1u64 << 20, 4 << 20, 16 << 20]);
        self.memory.set_len(len)?;
        let memory = self.memory.try_clone()?;
        self.say(rng, SET_OWNER, &[], &[])?;
        self.say(rng, GET_FEATURES, &[], &[])?;
        self.say(rng, SET_FEATURES, &[FEATURES], &[])?;
        self.say(rng, SET_PROTOCOL_FEATURES, &[PROTOCOL_FEATURES], &[])?;
        self.say(rng, SET_MEM_TABLE, &[1, 0, len, USER_BASE, 0], &[memory.as_raw_fd()])?;
        if rng.chance(60) {
            self.share_inflight(rng)?;
        }
        for queue in 0..QUEUES {
            self.start_queue(rng, queue)?;
        }
        self.fill(rng)
    }

    fn start_queue(&mut self, rng: &mut Rng, queue: u64) -> Result<()> {
        let ring = USER_BASE + queue * RING_LEN;
        let [kick, call] = [&self.kicks, &self.calls].map(|events| events[queue as usize].as_fd().as_raw_fd());
        self.say(rng, SET_VRING_NUM, &[queue | RING_SIZE << 32], &[])?;
        self.say(rng, SET_VRING_BASE, &[queue], &[])?;
        self.say(rng, SET_VRING_ADDR, &[queue, ring, ring + USED, ring + AVAIL, 0], &[])?;
        self.say(rng, SET_VRING_CALL, &[queue], &[call])?;
        self.say(rng, SET_VRING_KICK, &[queue], &[kick])?;
        self.say(rng, SET_VRING_ENABLE, &[queue | 1 << 32], &[])
    }

    /// A region that no daemon has written to.
    fn share_inflight(&mut self, rng: &mut Rng) -> Result<()> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let region = File::from(memfd_create(c"hostile-inflight", flags)?);
        region.set_len(0x10000)?;
        region.write_all_at(&mutate::bytes(rng, 0x2000), 0)?;
        if rng.chance(70) {
            // Version and size as they should be, and nothing else.
            region.write_all_at(&[1, 0, RING_SIZE as u8, 0], 8)?;
        }
        if rng.chance(80) {
            fcntl(region.as_fd(), FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::F_SEAL_SHRINK))?;
        }
        let queues = QUEUES | RING_SIZE << 16;
        self.say(rng, GET_INFLIGHT_FD, &[0, 0, queues], &[])?;
        self.say(rng, SET_INFLIGHT_FD, &[0x10000, 0, queues], &[region.as_raw_fd()])
    }

    /// One thing that no front end does.
    fn act(&mut self, rng: &mut Rng) -> Result<()> {
        let queue = rng.below(QUEUES);
        match rng.below(14) {
            0..4 => self.fill(rng)?,
            4 => self.memory.set_len(rng.below(FREE * 2) & !0xfff)?,
            5 => fcntl(self.calls[queue as usize].as_fd(), FcntlArg::F_SETFL(OFlag::O_RDWR)).map(drop)?,
            6 => self.fill_call(queue)?,
            7 => drop(self.kicks[queue as usize].read()),
            8 => {
                let count = rng.between(1, MAX_DESCRIPTORS);
                let descriptors =
                    (0..count.min(rng.between(1, 60))).map(|_| descriptor(rng)).collect::<Result<Vec<_>>>()?;
                let all: Vec<RawFd> = descriptors.iter().cycle().take(count as usize).map(AsRawFd::as_raw_fd).collect();
                let request =
                    *rng.pick(&[SET_BACKEND_REQ_FD, SET_MEM_TABLE, SET_VRING_CALL, SET_INFLIGHT_FD, GET_FEATURES]);
                self.send(&message(request, 1, &mutate::bytes(rng, 64)), &all)?;
            }
            9 => {
                let descriptor = descriptor(rng)?;
                let request = *rng.pick(&[SET_VRING_CALL, SET_VRING_KICK, SET_BACKEND_REQ_FD, SET_MEM_TABLE]);
                self.say(rng, request, &[queue], &[descriptor.as_raw_fd()])?;
            }
            10 => self.say(rng, GET_VRING_BASE, &[queue], &[])?,
            11 => self.start_queue(rng, queue)?,
            12 => {
                let any = rng.below(u64::from(LAST_REQUEST)) as u32;
                let request = *rng.pick(&[GET_CONFIG, SET_CONFIG, any]);
                self.send(&message(request, rng.below(16) as u32, &mutate::bytes(rng, 300)), &[])?;
            }
            _ => self.share_inflight(rng)?,
        }
        self.kick(queue);
        if rng.chance(30) {
            std::thread::sleep(Duration::from_millis(rng.below(5)));
        }
        Ok(())
    }

    /// Fills a ring with descriptors that are almost right, and makes some of them available.
    fn fill(&mut self, rng: &mut Rng) -> Result<()> {
        let queue = rng.below(QUEUES);
        let ring = queue * RING_LEN;
        for index in 0..RING_SIZE {
            let addr = if rng.chance(85) { FREE + rng.below(0x8_0000) } else { rng.next_u64() };
            let len = *rng.pick(&[16, 16, 512, 4096, 65536, 1, 0, 1 << 20, u32::MAX]);
            let known_flags = rng.chance(90);
            let flags = rng.below(if known_flags { 8 } else { 1 << 16 }) as u16;
            let next = rng.below(RING_SIZE + 1) as u16;
            let descriptor =
                [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
            self.memory.write_all_at(&descriptor, ring + index * 16)?;
        }
        for _ in 0..32 {
            let kind = *rng.pick(&[0u64, 1, 4, 8, 11, 13, 99]);
            let header = [kind.to_le_bytes(), rng.below(VOLUME_SIZE / 512 + 9).to_le_bytes()].concat();
            self.memory.write_all_at(&header, FREE + rng.below(0x4000) * 16)?;
        }
        let most = if rng.chance(95) { RING_SIZE } else { 1000 };
        for _ in 0..rng.between(1, most) {
            let slot = u64::from(self.avail[queue as usize]) % RING_SIZE;
            let beyond = u64::from(rng.chance(2));
            let head = rng.below(RING_SIZE + beyond) as u16;
            self.memory.write_all_at(&head.to_le_bytes(), ring + AVAIL + 4 + slot * 2)?;
            self.avail[queue as usize] = self.avail[queue as usize].wrapping_add(1);
        }
        self.memory.write_all_at(&self.avail[queue as usize].to_le_bytes(), ring + AVAIL + 2)?;
        self.kick(queue);
        Ok(())
    }

    /// Fills the counter of a call, whether it blocks or not.
    fn fill_call(&self, queue: u64) -> Result<()> {
        let call = &self.calls[queue as usize];
        let flags = OFlag::from_bits_retain(fcntl(call.as_fd(), FcntlArg::F_GETFL)?);
        fcntl(call.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        // One that is full already cannot be fuller.
        let _ = call.write(u64::MAX - 1);
        fcntl(call.as_fd(), FcntlArg::F_SETFL(flags))?;
        Ok(())
    }

    fn kick(&self, queue: u64) {
        // One that is full says what it has to say.
        let _ = self.kicks[queue as usize].write(1);
    }

    /// Sends a message, one in some changed.
    fn say(&mut self, rng: &mut Rng, request: u32, words: &[u64], descriptors: &[RawFd]) -> Result<()> {
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        if rng.chance(4) && !body.is_empty() {
            let at = rng.below(body.len() as u64) as usize;
            body[at] ^= 1 << rng.below(8);
        }
        let flags = if rng.chance(50) { 1 } else { 1 | 8 };
        let mut message = message(request, flags, &body);
        if rng.chance(1) {
            message.truncate(rng.below(message.len() as u64) as usize);
        }
        self.send(&message, descriptors)
    }

    /// Sends bytes, and takes whatever has been answered. A connection that has ended is as it should be.
    fn send(&mut self, bytes: &[u8], descriptors: &[RawFd]) -> Result<()> {
        if self.over || bytes.is_empty() {
            return Ok(());
        }
        let control: &[ControlMessage<'_>] =
            if descriptors.is_empty() { &[] } else { &[ControlMessage::ScmRights(descriptors)] };
        let sent =
            sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
        let mut answers = [0; 4096];
        while self.stream.read(&mut answers).is_ok_and(|got| got > 0) {}
        self.over = sent.is_err();
        Ok(())
    }
}

/// A message as it goes over the socket.
fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let header = [request, flags, body.len() as u32].map(u32::to_ne_bytes);
    [&header.concat()[..], body].concat()
}

/// Something to be handed over, for whatever purpose.
fn descriptor(rng: &mut Rng) -> Result<OwnedFd> {
    Ok(match rng.below(6) {
        0 => EventFd::from_value_and_flags(u32::MAX, EfdFlags::EFD_CLOEXEC)?.as_fd().try_clone_to_owned()?,
        1 => File::open("/dev/zero")?.into(),
        2 => File::open("/")?.into(),
        3 => UnixStream::pair()?.0.into(),
        4 => nix::unistd::pipe()?.1,
        _ => memfd_create(c"hostile-empty", MFdFlags::MFD_CLOEXEC)?,
    })
}
