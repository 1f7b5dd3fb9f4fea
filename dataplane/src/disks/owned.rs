//! Disks before any executor runs: locking them, and reading what they are.

use super::lock::{self, DiskLock};
use anyhow::{Context, Result, ensure};
use levee_core::ports::Disk;
use levee_core::store::{self, Superblock};
use levee_proto::units::show_size;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::time::Duration;
use tracing::warn;
use uuid::Uuid;

/// A disk that this process has to itself.
pub struct OwnedDisk {
    pub superblock: Superblock,
    /// What others know the lock by.
    pub lock_name: String,
    lock: DiskLock,
}

/// Why a disk cannot be used.
pub struct Unusable {
    /// Nothing is wrong with the disk: another daemon has it.
    pub in_use: bool,
    pub why: anyhow::Error,
}

impl From<anyhow::Error> for Unusable {
    fn from(why: anyhow::Error) -> Self {
        Unusable { in_use: false, why }
    }
}

impl OwnedDisk {
    /// Locks a formatted disk and reads its superblock. One that somebody still has is waited for, for so long.
    pub fn open(path: &Path, patience: Duration) -> Result<OwnedDisk, Unusable> {
        let show = path.display();
        check_kind(path)?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                anyhow::anyhow!("there is no disk {show}: make it with `levee-stored format {show} --size 100G`")
            }
            _ => anyhow::anyhow!("cannot open disk {show}: {e}"),
        })?;
        let lock = lock::take_disk(file, path, patience).map_err(|why| Unusable { in_use: true, why })?;
        Ok(Self::read(lock, path)?)
    }

    fn read(lock: DiskLock, path: &Path) -> Result<OwnedDisk> {
        let show = path.display();
        let (superblock, bad) = futures_lite::future::block_on(store::mend_superblock(&PlainDisk::of(&lock)?))
            .with_context(|| format!("disk {show} cannot be used"))?;
        if let Some(bad) = bad {
            let mended = bad.stays.map_or("it was written anew".into(), |e| format!("it cannot be written anew: {e}"));
            warn!("disk {show}: its superblock at byte {} was bad ({}); {mended}", bad.pos, bad.why);
        }
        let actual = size_of_disk(&lock)?;
        ensure!(
            actual >= superblock.size,
            "disk {show} has {} but was formatted with {}: it was cut short, put the whole one back",
            show_size(actual),
            show_size(superblock.size)
        );
        let lock_name = lock::name(&lock)?;
        Ok(OwnedDisk { superblock, lock_name, lock })
    }

    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.superblock.disk_uuid)
    }

    /// Makes the disk a member's of the cluster. Idempotent; a disk of another cluster is refused.
    pub fn claim(
        &mut self,
        path: &Path,
        cluster: Uuid,
        node: levee_proto::NodeId,
        disk: levee_proto::DiskId,
    ) -> Result<()> {
        let plain = PlainDisk::of(&self.lock)?;
        let claim = store::claim(&plain, &self.superblock, *cluster.as_bytes(), disk, node);
        self.superblock = futures_lite::future::block_on(claim)
            .with_context(|| format!("disk {} cannot join the cluster", path.display()))?;
        Ok(())
    }
}

/// Opening something else, such as a watchdog or a pipe, may have an effect of its own.
fn check_kind(path: &Path) -> Result<()> {
    let is_disk = |m: std::fs::Metadata| m.is_file() || m.file_type().is_block_device();
    let fits = std::fs::metadata(path).map(is_disk).unwrap_or(true);
    ensure!(fits, "{} is neither a file nor a block device", path.display());
    Ok(())
}

pub(super) fn size_of_disk(mut file: &File) -> Result<u64> {
    Ok(file.seek(SeekFrom::End(0))?)
}

/// Blocking I/O: for the few reads and writes before the executors start.
pub(super) struct PlainDisk(File);

impl PlainDisk {
    pub fn of(file: &File) -> Result<PlainDisk> {
        Ok(PlainDisk(file.try_clone()?))
    }
}

impl Disk for PlainDisk {
    type WriteBuf = Vec<u8>;
    type ReadBuf = Vec<u8>;

    fn alloc(&self, len: usize) -> Vec<u8> {
        vec![0; len]
    }

    async fn write(&self, pos: u64, buf: Vec<u8>) -> io::Result<()> {
        self.0.write_all_at(&buf, pos)
    }

    async fn read(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buf = vec![0; len];
        self.0.read_exact_at(&mut buf, pos)?;
        Ok(buf)
    }

    async fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
