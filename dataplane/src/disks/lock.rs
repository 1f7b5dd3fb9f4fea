//! Locks that say that the process before is dead: on the daemon's folder, and on each of its disks.
//!
//! A lock belongs to an open file, and the kernel gives it up when that file is closed for good: when no descriptor refers to it any more, and no
//! request that was submitted through it is under way. What a killed process had submitted is not waited for when
//! the process ends: a write may reach the disk when its descriptors are long gone. So a lock on one
//! open file says nothing of writes that went through another. Therefore every open file through which a disk is written
//! holds a shared lock, and who takes the disk must once get it exclusively: that is possible only when the last write of
//! whoever had it has ended.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tracing::warn;
use uuid::Uuid;

/// What tells this boot of the machine from others; where it cannot be told, nobody is shown anything.
static BOOT: LazyLock<String> = LazyLock::new(|| {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map_or_else(|_| Uuid::new_v4().to_string(), |boot| boot.trim().to_string())
});

/// Held until dropped; the kernel gives it up when the process dies.
pub(super) type DiskLock = Flock<File>;

/// For how long a disk that somebody still has is waited for. A disk may be slow to take the last writes.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// Between two attempts to get a lock that somebody has.
const LOOK: Duration = Duration::from_millis(20);

/// Takes a folder for this process alone.
pub fn lock_dir(dir: &Path) -> Result<Flock<File>> {
    // What is in it is nobody else's business.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("cannot create {}", dir.display()))?;
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    exclusively(file.with_context(|| format!("cannot write to {}", dir.display()))?, dir, Duration::ZERO)
}

/// Takes a disk for this process, which may then open it for writing as often as it likes: see [`join`].
pub(super) fn take_disk(file: File, path: &Path, patience: Duration) -> Result<DiskLock> {
    let lock = exclusively(file, path, patience)?;
    match lock.relock(FlockArg::LockSharedNonblock) {
        Ok(()) => Ok(lock),
        Err(e) => bail!("cannot share the lock of {}: {e}", path.display()),
    }
}

/// Takes a file's lock, as soon as nobody else has it.
pub(super) fn exclusively(mut file: File, path: &Path, patience: Duration) -> Result<Flock<File>> {
    let begun = Instant::now();
    let mut said = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if begun.elapsed() < patience => file = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                bail!("{} is in use by another daemon: stop that one first", path.display())
            }
            Err((_, e)) => bail!("cannot lock {}: {e}", path.display()),
        }
        if !std::mem::replace(&mut said, true) {
            warn!("{} is still in use: waiting for the last writes of the daemon before", path.display());
        }
        std::thread::sleep(LOOK);
    }
}

/// Gives another open file of a disk that this process has taken its share of the lock, for as long as it is open.
#[expect(deprecated, reason = "the lock is to end with the open file, not with a value")]
pub fn join(file: &impl AsRawFd) -> io::Result<()> {
    Ok(nix::fcntl::flock(file.as_raw_fd(), FlockArg::LockSharedNonblock)?)
}

/// What others know a lock by: the kernel that keeps it and the file that it is on. A copy has another name, and so has the same disk
/// as another host sees it.
pub fn name(file: &File) -> Result<String> {
    let file = file.metadata()?;
    Ok(format!("{}:{}:{}", BOOT.as_str(), file.dev(), file.ino()))
}
