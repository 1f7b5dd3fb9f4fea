//! One connection to a daemon: what is said to it before requests flow, and at the end.
//!
//! The order of messages is QEMU's. Everything is said again on each connection; the in-flight region is
//! asked for on the first one and handed back on all others.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::layout::Layout;
use crate::limits::{MAX_INFLIGHT_REGION, RING_SIZE};
use crate::memory::GuestMemory;
use crate::message::{Channel, Payload, Request};
use crate::notices::Notices;

pub const F_FLUSH: u64 = 1 << 9;
pub const F_MQ: u64 = 1 << 12;
pub const F_DISCARD: u64 = 1 << 13;
pub const F_WRITE_ZEROES: u64 = 1 << 14;
pub const F_INDIRECT: u64 = 1 << 28;
pub const F_EVENT_IDX: u64 = 1 << 29;
const F_PROTOCOL_FEATURES: u64 = 1 << 30;
const F_VERSION_1: u64 = 1 << 32;
const WANTED_FEATURES: u64 = (1 << 2) // SEG_MAX
    | (1 << 6) // BLK_SIZE
    | F_FLUSH
    | (1 << 10) // TOPOLOGY
    | F_MQ
    | F_DISCARD
    | F_WRITE_ZEROES
    | F_INDIRECT
    | F_EVENT_IDX
    | F_PROTOCOL_FEATURES
    | F_VERSION_1;

const P_MQ: u64 = 1;
const P_REPLY_ACK: u64 = 1 << 3;
const P_BACKEND_REQ: u64 = 1 << 5;
const P_CONFIG: u64 = 1 << 9;
const P_INFLIGHT: u64 = 1 << 12;

/// Bytes of the virtio-blk configuration space up to the write-zeroes fields.
const CONFIG_SIZE: u32 = 60;

/// What the device says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Bytes.
    pub capacity: u64,
    pub queues: u16,
    /// Largest discard and write-zeroes, bytes; 0 where the device offers none.
    pub max_discard: u64,
    pub max_write_zeroes: u64,
    /// Only whole pieces of so many bytes are sure to be discarded.
    pub discard_alignment: u64,
}

/// Shared memory in which the daemons note what is in flight, kept for the next one.
pub struct Inflight {
    file: File,
    size: u64,
    offset: u64,
    queues: u16,
}

/// Kick and call of one queue.
pub struct Doorbell {
    pub kick: EventFd,
    pub call: EventFd,
}

impl Doorbell {
    fn new() -> Result<Doorbell> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let new = || EventFd::from_value_and_flags(0, flags).context("cannot create an event fd");
        Ok(Doorbell { kick: new()?, call: new()? })
    }
}

/// A live connection whose queues run.
pub struct Session {
    channel: Channel,
    /// What the daemon says unasked, if it offers to say anything.
    notices: Option<Notices>,
    pub doorbells: Vec<Doorbell>,
    pub features: u64,
    pub config: DeviceConfig,
}

/// What stays the same from connection to connection.
pub struct Guest<'a> {
    pub memory: &'a GuestMemory,
    pub layout: &'a Layout,
    pub queues: usize,
}

impl Session {
    /// Connects and starts the queues, each from its position in `bases`.
    ///
    /// `inflight` is filled on the first connection to a daemon that has in-flight tracking.
    pub fn open(path: &Path, guest: &Guest<'_>, inflight: &mut Option<Inflight>, bases: &[u16]) -> Result<Session> {
        let mut channel = Channel::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
        let (features, protocol) = negotiate(&mut channel)?;
        let notices = match protocol & P_BACKEND_REQ {
            0 => None,
            _ => Some(open_notices(&mut channel)?),
        };
        let config = read_config(&mut channel, features)?;
        ensure!(
            guest.queues <= usize::from(config.queues),
            "the device has {} queues, but {} are asked for",
            config.queues,
            guest.queues
        );
        if protocol & P_INFLIGHT != 0 {
            hand_over_inflight(&mut channel, guest.queues as u16, inflight)?;
        } else {
            ensure!(inflight.is_none(), "the daemon before tracked requests in flight, this one does not");
        }
        channel.tell(Request::SetFeatures, Payload::default().u64(features), &[])?;
        set_memory(&mut channel, guest)?;
        let mut doorbells = Vec::new();
        for (queue, base) in bases.iter().enumerate() {
            doorbells.push(start_queue(&mut channel, guest, queue, *base)?);
        }
        for queue in 0..guest.queues {
            channel.tell(Request::SetVringEnable, vring_state(queue, 1), &[])?;
        }
        // What was published while no daemon was there has to be looked at now.
        for doorbell in &doorbells {
            doorbell.kick.write(1).context("cannot kick a queue")?;
        }
        Ok(Session { channel, notices, doorbells, features, config })
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.channel.stream().as_fd()
    }

    /// What tells that the daemon has said something unasked.
    pub fn notices(&self) -> Option<BorrowedFd<'_>> {
        self.notices.as_ref().and_then(Notices::fd)
    }

    /// Takes what the daemon has said unasked. True if that has changed `config`.
    pub fn take_notices(&mut self) -> Result<bool> {
        let Some(notices) = &mut self.notices else { return Ok(false) };
        if !notices.take()? {
            return Ok(false);
        }
        let before = self.config;
        self.config = read_config(&mut self.channel, self.features)?;
        Ok(self.config != before)
    }

    /// Stops the queues as a guest does that shuts down.
    pub fn close(mut self) -> Result<()> {
        for queue in 0..self.doorbells.len() {
            self.channel.ask(Request::GetVringBase, vring_state(queue, 0), &[])?;
        }
        Ok(())
    }
}

/// Settles virtio and protocol features, both returned.
fn negotiate(channel: &mut Channel) -> Result<(u64, u64)> {
    let features = channel.ask_u64(Request::GetFeatures)? & WANTED_FEATURES;
    ensure!(features & F_VERSION_1 != 0, "the device does not offer VIRTIO_F_VERSION_1");
    ensure!(features & F_PROTOCOL_FEATURES != 0, "the device does not offer vhost-user protocol features");
    let wanted = P_MQ | P_REPLY_ACK | P_BACKEND_REQ | P_CONFIG | P_INFLIGHT;
    let protocol = channel.ask_u64(Request::GetProtocolFeatures)? & wanted;
    ensure!(protocol & P_CONFIG != 0, "the daemon does not offer the configuration space");
    channel.tell(Request::SetProtocolFeatures, Payload::default().u64(protocol), &[])?;
    channel.acknowledges = protocol & P_REPLY_ACK != 0;
    if protocol & P_MQ != 0 {
        channel.ask_u64(Request::GetQueueNum)?;
    }
    channel.tell(Request::SetOwner, Payload::default(), &[])?;
    Ok((features, protocol))
}

fn open_notices(channel: &mut Channel) -> Result<Notices> {
    let (notices, theirs) = Notices::pair()?;
    channel.tell(Request::SetBackendReqFd, Payload::default(), &[theirs.as_raw_fd()])?;
    Ok(notices)
}

fn read_config(channel: &mut Channel, features: u64) -> Result<DeviceConfig> {
    let payload = Payload::default().u32(0).u32(CONFIG_SIZE).u32(0).zeros(CONFIG_SIZE as usize);
    let answer = channel.ask(Request::GetConfig, payload, &[])?;
    let space = answer.bytes(12, CONFIG_SIZE as usize)?;
    let u32_at = |at: usize| u32::from_le_bytes([space[at], space[at + 1], space[at + 2], space[at + 3]]);
    let sectors = u64::from(u32_at(0)) | u64::from(u32_at(4)) << 32;
    let limit = |feature: u64, at: usize| if features & feature == 0 { 0 } else { u64::from(u32_at(at)) * 512 };
    Ok(DeviceConfig {
        capacity: sectors.checked_mul(512).context("the device's capacity is out of range")?,
        queues: if features & F_MQ == 0 { 1 } else { u16::from_le_bytes([space[34], space[35]]) },
        max_discard: limit(F_DISCARD, 36),
        max_write_zeroes: limit(F_WRITE_ZEROES, 48),
        discard_alignment: limit(F_DISCARD, 44).max(512),
    })
}

fn inflight_payload(size: u64, offset: u64, queues: u16) -> Payload {
    Payload::default().u64(size).u64(offset).u16(queues).u16(RING_SIZE).zeros(4)
}

fn hand_over_inflight(channel: &mut Channel, queues: u16, kept: &mut Option<Inflight>) -> Result<()> {
    if kept.is_none() {
        let answer = channel.ask(Request::GetInflightFd, inflight_payload(0, 0, queues), &[])?;
        let (size, offset) = (answer.u64(0)?, answer.u64(8)?);
        ensure!(
            (1..=MAX_INFLIGHT_REGION).contains(&size) && offset <= MAX_INFLIGHT_REGION,
            "the daemon's in-flight region is out of bounds: {size} bytes at {offset}"
        );
        let file = answer.file.context("the daemon sent no file for its in-flight region")?;
        *kept = Some(Inflight { file, size, offset, queues });
    }
    if let Some(i) = kept {
        channel.tell(Request::SetInflightFd, inflight_payload(i.size, i.offset, i.queues), &[i.file.as_raw_fd()])?;
    }
    Ok(())
}

fn set_memory(channel: &mut Channel, guest: &Guest<'_>) -> Result<()> {
    let regions = guest.layout.regions();
    let mut payload = Payload::default().u32(regions.len() as u32).u32(0);
    for region in &regions {
        payload = payload
            .u64(region.guest_address)
            .u64(region.len as u64)
            .u64(guest.memory.address() + region.offset as u64)
            .u64(region.offset as u64);
    }
    channel.tell(Request::SetMemTable, payload, &[guest.memory.raw_fd(); 2])
}

fn vring_state(queue: usize, num: u32) -> Payload {
    Payload::default().u32(queue as u32).u32(num)
}

fn start_queue(channel: &mut Channel, guest: &Guest<'_>, queue: usize, base: u16) -> Result<Doorbell> {
    let user = |offset: usize| guest.memory.address() + offset as u64;
    let doorbell = Doorbell::new()?;
    channel.tell(Request::SetVringNum, vring_state(queue, u32::from(RING_SIZE)), &[])?;
    channel.tell(Request::SetVringBase, vring_state(queue, u32::from(base)), &[])?;
    let addresses = Payload::default()
        .u32(queue as u32)
        .u32(0)
        .u64(user(guest.layout.descriptors(queue)))
        .u64(user(guest.layout.used(queue)))
        .u64(user(guest.layout.avail(queue)))
        .u64(0);
    channel.tell(Request::SetVringAddr, addresses, &[])?;
    let index = || Payload::default().u64(queue as u64);
    channel.tell(Request::SetVringKick, index(), &[doorbell.kick.as_fd().as_raw_fd()])?;
    channel.tell(Request::SetVringCall, index(), &[doorbell.call.as_fd().as_raw_fd()])?;
    Ok(doorbell)
}
