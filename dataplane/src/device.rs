//! A volume as a block device for virtual machines.

use crate::stats::{IoKind, IoStats};
use bytes::Bytes;
use levee_core::gateway::{Cluster, Failure, Gateway};
use levee_core::ports::Runtime;
use levee_vhost::{BlockDevice, IoError};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tracing::debug;

/// A request that takes longer is worth a line to those who look for it.
const SLOW: Duration = Duration::from_millis(50);

/// The gateway of a volume behind a vhost-user device.
pub struct VolumeDevice<R: Runtime, C: Cluster> {
    pub gateway: Gateway<R, C>,
    /// Shown to the guest as the disk's serial number.
    pub serial: String,
    pub stats: Rc<IoStats>,
    /// As in [`BlockDevice::content`].
    pub content: u128,
}

impl<R: Runtime, C: Cluster> VolumeDevice<R, C> {
    fn check_writable(&self) -> Result<(), IoError> {
        if self.gateway.is_read_only() { Err(IoError::Failed) } else { Ok(()) }
    }

    async fn timed<T>(
        &self,
        kind: IoKind,
        bytes: u64,
        io: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, IoError> {
        let begin = Instant::now();
        let _pending = self.stats.begin(begin);
        let done = io.await.map_err(|failure| match failure {
            Failure::Stopped(_) => IoError::Stopped,
            Failure::Lost => IoError::Failed,
        })?;
        let took = begin.elapsed();
        self.stats.record(kind, bytes, took);
        if took >= SLOW {
            debug!(disk = %self.serial, ?kind, bytes, "a request took {} ms", took.as_millis());
        }
        Ok(done)
    }
}

impl<R: Runtime, C: Cluster> BlockDevice for VolumeDevice<R, C> {
    fn capacity(&self) -> u64 {
        self.gateway.size()
    }

    fn is_read_only(&self) -> bool {
        self.gateway.is_read_only()
    }

    fn id(&self) -> String {
        self.serial.clone()
    }

    fn content(&self) -> u128 {
        self.content
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<Bytes>, IoError> {
        self.timed(IoKind::Read, len as u64, self.gateway.read(offset, len)).await
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), IoError> {
        self.check_writable()?;
        self.timed(IoKind::Write, data.len() as u64, self.gateway.write(offset, data)).await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.check_writable()?;
        self.timed(IoKind::Discard, len, self.gateway.discard(offset, len)).await
    }

    async fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> Result<(), IoError> {
        self.check_writable()?;
        self.timed(IoKind::Discard, len, self.gateway.write_zeroes(offset, len)).await
    }

    /// Nothing to do: every write that was answered is durable on enough copies.
    async fn flush(&self) -> Result<(), IoError> {
        if self.gateway.stopped().is_some() { Err(IoError::Stopped) } else { Ok(()) }
    }
}
