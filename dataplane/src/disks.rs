//! Disks before any executor runs: formatting, locking, and reading what they are.

use crate::args::FormatArgs;
use anyhow::{Context, Result, bail, ensure};
use levee_core::ports::Disk;
use levee_core::store::{self, Superblock};
use levee_proto::units::show_size;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A disk that this process has to itself.
pub struct OwnedDisk {
    pub path: PathBuf,
    pub superblock: Superblock,
    lock: Flock<File>,
}

impl OwnedDisk {
    /// Locks a formatted disk and reads its superblock.
    pub fn open(path: &Path) -> Result<OwnedDisk> {
        let show = path.display();
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                anyhow::anyhow!("there is no disk {show}: make it with `levee-stored format {show} --size 100G`")
            }
            _ => anyhow::anyhow!("cannot open disk {show}: {e}"),
        })?;
        let lock = lock(file, path)?;
        let superblock = futures_lite::future::block_on(store::read_superblock(&PlainDisk::of(&lock)?))
            .with_context(|| format!("disk {show} cannot be used"))?;
        let actual = size_of_disk(&lock)?;
        ensure!(
            actual >= superblock.size,
            "disk {show} has {} but was formatted with {}: it was cut short, put the whole one back",
            show_size(actual),
            show_size(superblock.size)
        );
        Ok(OwnedDisk { path: path.to_owned(), superblock, lock })
    }

    /// Makes the disk a member's of the cluster. Idempotent; a disk of another cluster is refused.
    pub fn claim(&mut self, cluster: Uuid, node: levee_proto::NodeId, disk: levee_proto::DiskId) -> Result<()> {
        let plain = PlainDisk::of(&self.lock)?;
        let claim = store::claim(&plain, &self.superblock, *cluster.as_bytes(), disk, node);
        self.superblock = futures_lite::future::block_on(claim)
            .with_context(|| format!("disk {} cannot join the cluster", self.path.display()))?;
        Ok(())
    }
}

/// Carries `levee-stored format` out.
pub fn format(args: &FormatArgs) -> Result<()> {
    let path = args.path.display();
    let existing = std::fs::symlink_metadata(&args.path).ok();
    let is_device = existing.as_ref().is_some_and(|m| m.file_type().is_block_device());
    if let Some(m) = &existing {
        ensure!(is_device || m.is_file(), "{path} is neither a file nor a block device");
        ensure!(
            is_device || m.len() == 0,
            "{path} exists and is not empty: remove it first if nothing on it is needed"
        );
    }
    ensure!(
        is_device != args.size.is_some(),
        "{}",
        match is_device {
            true => format!("{path} is a block device: leave --size out, all of it is used"),
            false => format!("{path} is a file: say how large it shall be with --size"),
        }
    );
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&args.path);
    let lock = lock(file.with_context(|| format!("cannot create {path}"))?, &args.path)?;
    let made = make(&lock, args, is_device);
    if made.is_err() && existing.is_none() {
        let _ = std::fs::remove_file(&args.path);
    }
    let size = made.with_context(|| format!("cannot make {path} a disk"))?;
    println!("{path} is a Levee disk of {} for {} core(s)", show_size(size), args.cores);
    Ok(())
}

fn make(file: &File, args: &FormatArgs, is_device: bool) -> Result<u64> {
    if is_device {
        let known = futures_lite::future::block_on(store::read_superblock(&PlainDisk::of(file)?));
        ensure!(known.is_err(), "it is a Levee disk already: wipe its first MiB if nothing on it is needed");
    } else if let Some(size) = args.size {
        // Checked before the file grows, so that a refused size leaves nothing behind.
        Superblock::plan(size, args.cores, [0; 16])?;
        file.set_len(size)?;
    }
    let size = size_of_disk(file)?;
    futures_lite::future::block_on(store::format(&PlainDisk::of(file)?, size, args.cores, *Uuid::new_v4().as_bytes()))?;
    file.sync_all()?;
    Ok(size)
}

fn lock(file: File, path: &Path) -> Result<Flock<File>> {
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

fn size_of_disk(mut file: &File) -> Result<u64> {
    Ok(file.seek(SeekFrom::End(0))?)
}

/// Blocking I/O: for the few reads and writes before the executors start.
struct PlainDisk(File);

impl PlainDisk {
    fn of(file: &File) -> Result<PlainDisk> {
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
