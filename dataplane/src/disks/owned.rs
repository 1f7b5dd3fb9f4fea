//! Disks before any executor runs: locking them, and reading what they are.

use anyhow::{Context, Result, bail, ensure};
use levee_core::ports::Disk;
use levee_core::store::{self, Superblock};
use levee_proto::units::show_size;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use uuid::Uuid;

/// A disk that this process has to itself.
pub struct OwnedDisk {
    pub superblock: Superblock,
    lock: Flock<File>,
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
    /// Locks a formatted disk and reads its superblock.
    pub fn open(path: &Path) -> Result<OwnedDisk, Unusable> {
        let show = path.display();
        check_kind(path)?;
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                anyhow::anyhow!("there is no disk {show}: make it with `levee-stored format {show} --size 100G`")
            }
            _ => anyhow::anyhow!("cannot open disk {show}: {e}"),
        })?;
        let lock = lock(file, path).map_err(|why| Unusable { in_use: true, why })?;
        Ok(Self::read(lock, path)?)
    }

    fn read(lock: Flock<File>, path: &Path) -> Result<OwnedDisk> {
        let show = path.display();
        let superblock = futures_lite::future::block_on(store::read_superblock(&PlainDisk::of(&lock)?))
            .with_context(|| format!("disk {show} cannot be used"))?;
        let actual = size_of_disk(&lock)?;
        ensure!(
            actual >= superblock.size,
            "disk {show} has {} but was formatted with {}: it was cut short, put the whole one back",
            show_size(actual),
            show_size(superblock.size)
        );
        Ok(OwnedDisk { superblock, lock })
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

pub(super) fn lock(file: File, path: &Path) -> Result<Flock<File>> {
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            bail!("{} is in use by another daemon: stop that one first", path.display())
        }
        Err((_, e)) => bail!("cannot lock {}: {e}", path.display()),
    }
}

/// Takes a folder for this process alone. Held until dropped; the kernel gives it up when the process dies.
pub fn lock_dir(dir: &Path) -> Result<Flock<File>> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    lock(file.with_context(|| format!("cannot write to {}", dir.display()))?, dir)
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
