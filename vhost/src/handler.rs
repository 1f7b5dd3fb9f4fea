//! The vhost-user messages of one connection.
//!
//! A handler lives as long as its connection. Every message is checked; one that cannot be obeyed is answered with
//! an error (if the front end asked for an answer) and ends the connection.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::bindings::{virtio_blk, virtio_config, virtio_ring};

use crate::config::{DeviceConfig, WRITEBACK_OFFSET};
use crate::guard::Breakage;
use crate::inflight::{InflightError, InflightRegion};
use crate::limits::MAX_MEMORY_REGIONS;
use crate::memory::MemoryMap;
use crate::server::Shared;
use crate::vring::{Link, Starter, Stopping, Vring};

const PROTOCOL_FEATURES: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
const EVENT_IDX: u64 = 1 << virtio_ring::VIRTIO_RING_F_EVENT_IDX;

/// What a disk that can be changed offers. EVENT_IDX is always among them: without it suppression of kicks is not seen.
const FEATURES: u64 = PROTOCOL_FEATURES
    | EVENT_IDX
    | 1 << virtio_config::VIRTIO_F_VERSION_1
    | 1 << virtio_ring::VIRTIO_RING_F_INDIRECT_DESC
    | 1 << virtio_blk::VIRTIO_BLK_F_SIZE_MAX
    | 1 << virtio_blk::VIRTIO_BLK_F_SEG_MAX
    | 1 << virtio_blk::VIRTIO_BLK_F_BLK_SIZE
    | 1 << virtio_blk::VIRTIO_BLK_F_TOPOLOGY
    | 1 << virtio_blk::VIRTIO_BLK_F_FLUSH
    | 1 << virtio_blk::VIRTIO_BLK_F_CONFIG_WCE
    | 1 << virtio_blk::VIRTIO_BLK_F_MQ
    | CHANGES;

/// Beside writing.
const CHANGES: u64 = 1 << virtio_blk::VIRTIO_BLK_F_DISCARD | 1 << virtio_blk::VIRTIO_BLK_F_WRITE_ZEROES;
const READ_ONLY_FEATURES: u64 = FEATURES & !CHANGES | 1 << virtio_blk::VIRTIO_BLK_F_RO;

/// What the device is, for every connection.
#[derive(Clone)]
pub(crate) struct Device {
    pub name: String,
    pub queues: u16,
    pub queue_size: u16,
    pub read_only: bool,
    pub content: u128,
    pub shared: Arc<Shared>,
    pub starter: Starter,
    /// How long requests in flight are waited for when a ring is stopped.
    pub drain: Duration,
}

pub(crate) struct Handler {
    device: Device,
    memory: MemoryMap,
    breakage: Breakage,
    inflight: Option<InflightRegion>,
    vrings: Vec<Vring>,
}

impl Handler {
    pub fn new(device: Device, connection: Arc<OwnedFd>) -> Result<Self> {
        let breakage = Breakage::default();
        let memory = MemoryMap::new(breakage.clone());
        let link = Link {
            memory: memory.memory(),
            breakage: breakage.clone(),
            starter: device.starter.clone(),
            connection,
            shared: device.shared.clone(),
            drain: device.drain,
        };
        let vrings = (0..device.queues)
            .map(|index| Vring::new(format!("{}/{index}", device.name), device.queue_size, link.clone()))
            .collect::<Result<_>>()?;
        Ok(Handler { device, memory, breakage, inflight: None, vrings })
    }

    /// Whether memory of the connection is gone, so that nothing more can come of it.
    pub fn is_broken(&self) -> bool {
        self.breakage.is_broken()
    }

    /// Whether a guest uses the device: a ring is running.
    pub fn is_started(&self) -> bool {
        self.vrings.iter().any(Vring::is_running)
    }

    /// Stops all rings, side by side, and returns when none is served any more.
    pub fn stop_all(&mut self, how: Stopping) {
        for vring in &self.vrings {
            vring.announce_stop(how);
        }
        for vring in &mut self.vrings {
            vring.stop(how);
        }
    }

    fn features(&self) -> u64 {
        if self.device.read_only { READ_ONLY_FEATURES } else { FEATURES }
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring> {
        self.vrings.get_mut(index as usize).ok_or(Error::InvalidParam)
    }

    fn set_enabled(&mut self, index: u32, enabled: bool) -> Result<()> {
        let vring = self.vrings.get_mut(index as usize).ok_or(Error::InvalidParam)?;
        vring.set_enabled(enabled, self.inflight.as_ref(), index as u16)
    }

    fn config(&self) -> DeviceConfig {
        DeviceConfig {
            capacity: self.device.shared.capacity.load(Ordering::Acquire),
            queues: self.device.queues,
            writeback: self.device.shared.writeback.load(Ordering::Acquire),
        }
    }
}

impl VhostUserBackendReqHandlerMut for Handler {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.stop_all(Stopping::Drain);
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.stop_all(Stopping::Drain);
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(self.features())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.features() != 0 {
            return Err(Error::InvalidParam);
        }
        for index in 0..u32::from(self.device.queues) {
            self.vring(index)?.set_event_idx(features & EVENT_IDX != 0)?;
            // Without the protocol features there is no message to enable a ring.
            if features & PROTOCOL_FEATURES == 0 {
                self.set_enabled(index, true)?;
            }
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(u64::from(self.device.queues))
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.memory.replace(regions, files).map(|()| None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_MEMORY_REGIONS as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.memory.add(region, file).map(|()| None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.memory.remove(region)
    }

    fn set_vring_num(&mut self, index: u32, size: u32) -> Result<()> {
        self.vring(index)?.set_size(size)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let [descriptors, available, used] = [descriptors, available, used].map(|addr| self.memory.translate(addr));
        self.vring(index)?.set_addresses(descriptors?, available?, used?)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.vring(index)?.set_base(base)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.vring(index)?.stop(Stopping::Drain);
        Ok(VhostUserVringState::new(index, u32::from(base)))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let vring = self.vrings.get_mut(usize::from(index)).ok_or(Error::InvalidParam)?;
        vring.set_kick(file, self.inflight.as_ref(), u16::from(index))
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.vring(u32::from(index))?.set_call(file)
    }

    fn set_vring_err(&mut self, index: u8, _file: Option<File>) -> Result<()> {
        self.vring(u32::from(index)).map(|_| ())
    }

    /// A front end that starts its device may have asked for the configuration long ago: QEMU asks when the device is
    /// plugged in, ignores notices until it is started, and does not ask again after a reconnection.
    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.set_enabled(index, enable)?;
        if index == 0 && enable {
            self.device.shared.notify();
        }
        Ok(())
    }

    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Ok(self.config().read(offset, size))
    }

    /// Only the cache mode can be set. It changes nothing here: a write is answered when it is durable.
    fn set_config(&mut self, offset: u32, bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        match (offset, bytes) {
            (WRITEBACK_OFFSET, [writeback @ (0 | 1)]) => {
                self.device.shared.writeback.store(*writeback == 1, Ordering::Release);
                Ok(())
            }
            _ => Err(Error::InvalidOperation("only the cache mode of the configuration can be set")),
        }
    }

    fn get_inflight_fd(&mut self, area: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        InflightRegion::create(area.num_queues, area.queue_size, self.device.content).map_err(refused)
    }

    fn set_inflight_fd(&mut self, area: &VhostUserInflight, file: File) -> Result<()> {
        self.inflight = Some(InflightRegion::map(area, &file, &self.breakage, self.device.content).map_err(refused)?);
        Ok(())
    }

    fn set_gpu_socket(&mut self, _backend: GpuBackend) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shared_object(&mut self, _object: VhostUserSharedMsg) -> Result<File> {
        Err(NOT_OFFERED)
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        Err(NOT_OFFERED)
    }

    fn check_device_state(&mut self) -> Result<()> {
        Err(NOT_OFFERED)
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(NOT_OFFERED)
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        Err(NOT_OFFERED)
    }
}

const NOT_OFFERED: Error = Error::InvalidOperation("the feature was not offered");

fn refused(error: InflightError) -> Error {
    Error::ReqHandlerError(std::io::Error::other(error))
}
