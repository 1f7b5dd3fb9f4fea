//! A disk that keeps writes waiting until the test decides.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use levee_vhost::{BlockDevice, IoError};

/// Bytes.
pub const CAPACITY: u64 = 8 << 20;

/// What becomes of requests at the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    Wait,
    Complete,
    Stop,
    /// Writes wait, everything else completes: as on a full disk.
    HoldWrites,
}

/// What the disk was asked for, in order, and what it is to answer.
#[derive(Clone)]
pub struct Desk {
    verdict: Arc<AtomicU8>,
    /// Sector and first byte of each write.
    writes: Arc<Mutex<Vec<(u64, u8)>>>,
    /// Writes that are neither answered nor dropped, and the most there ever were.
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// One of them.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Desk {
    pub fn new(verdict: Verdict) -> Self {
        let verdict = Arc::new(AtomicU8::new(verdict as u8));
        Desk { verdict, writes: Arc::default(), under_way: Arc::default(), most: Arc::default() }
    }

    /// The most writes that were at the disk at the same time.
    pub fn most_writes(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn begin(&self) -> UnderWay {
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        UnderWay(self.under_way.clone())
    }

    pub fn decide(&self, verdict: Verdict) {
        self.verdict.store(verdict as u8, Ordering::SeqCst);
    }

    pub fn writes(&self) -> Vec<(u64, u8)> {
        self.writes.lock().unwrap().clone()
    }

    pub fn wait_for_writes(&self, count: usize) {
        super::wait_until("writes reach the disk", || self.writes.lock().unwrap().len() >= count);
    }

    pub fn disk(&self) -> HeldDisk {
        HeldDisk { desk: self.clone() }
    }

    async fn verdict(&self, is_write: bool) -> Result<(), IoError> {
        loop {
            match self.verdict.load(Ordering::SeqCst) {
                v if v == Verdict::Complete as u8 => return Ok(()),
                v if v == Verdict::HoldWrites as u8 && !is_write => return Ok(()),
                v if v == Verdict::Stop as u8 => return Err(IoError::Stopped),
                _ => glommio::timer::sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

pub struct HeldDisk {
    desk: Desk,
}

impl BlockDevice for HeldDisk {
    fn capacity(&self) -> u64 {
        CAPACITY
    }

    fn id(&self) -> String {
        "held".to_owned()
    }

    async fn read(&self, _offset: u64, len: usize) -> Result<Vec<Bytes>, IoError> {
        self.desk.verdict(false).await?;
        Ok(vec![Bytes::from(vec![0x5a; len])])
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), IoError> {
        let _under_way = self.desk.begin();
        self.desk.writes.lock().unwrap().push((offset / 512, data[0]));
        self.desk.verdict(true).await
    }

    async fn discard(&self, _offset: u64, _len: u64) -> Result<(), IoError> {
        self.desk.verdict(false).await
    }

    async fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> Result<(), IoError> {
        self.desk.verdict(false).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.desk.verdict(false).await
    }
}
