//! Disks that fail on demand: over each node's disk file lies a file system in user space, served by this
//! process, that fails or delays what the rules say.
//!
//! The real file lies beside the mount point while it is mounted, and is put back afterwards. Unmounting never
//! waits for a daemon that still has the disk open; a run that was killed is tidied up by the next one.

mod file;
pub mod rules;

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use fuser::{BackgroundSession, Config, MountOption};
use nix::mount::{MntFlags, umount2};

use file::OneFile;
use rules::{Rules, Trouble};

/// Threads that serve one disk: what is late waits in one of them, and is not to hold up the rest.
const THREADS: usize = 8;
/// What the real file is called while it is mounted over.
const BACKING: &str = "backing";
const MOUNTS: &str = "/proc/self/mounts";

/// One disk that can fail.
pub struct FaultDisk {
    pub rules: Arc<Rules>,
    path: PathBuf,
    backing: PathBuf,
    /// Ends when the kernel lets go of the mount.
    _session: BackgroundSession,
}

impl FaultDisk {
    /// Mounts over the disk file `path`, which no daemon uses.
    pub fn mount(path: &Path) -> Result<FaultDisk> {
        let show = path.display();
        ensure!(nix::unistd::geteuid().is_root(), "mounting needs root");
        File::open("/dev/fuse").context("cannot open /dev/fuse")?;
        let backing = path.with_extension(BACKING);
        std::fs::rename(path, &backing).with_context(|| format!("cannot rename {show}"))?;
        let mounted = mount_over(path, &backing);
        let (session, rules) = mounted.inspect_err(|_| put_back(path, &backing)).with_context(|| format!("{show}"))?;
        Ok(FaultDisk { rules, path: path.into(), backing, _session: session })
    }

    /// The file that holds the disk's content.
    pub fn backing(&self) -> &Path {
        &self.backing
    }
}

fn mount_over(path: &Path, backing: &Path) -> Result<(BackgroundSession, Arc<Rules>)> {
    File::create_new(path).context("cannot create the mount point")?;
    let content = OpenOptions::new().read(true).write(true).open(backing)?;
    let rules = Arc::new(Rules::default());
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("levee-faults".into()), MountOption::NoAtime];
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let session = fuser::spawn_mount(OneFile::new(content, rules.clone())?, path, &config).context("cannot mount")?;
    Ok((session, rules))
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        self.rules.set(Trouble::None);
        // The session would wait for daemons that have it open.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        put_back(&self.path, &self.backing);
    }
}

/// The real file takes the mount point's place again. There is nobody to tell if it cannot.
fn put_back(path: &Path, backing: &Path) {
    let _ = std::fs::rename(backing, path);
}

/// Unmounts what a run that was killed left below `dir`, and puts the real files back.
pub fn tidy_up_below(dir: &Path) -> Result<()> {
    let Ok(dir) = dir.canonicalize() else { return Ok(()) };
    let mounts = std::fs::read_to_string(MOUNTS).with_context(|| format!("cannot read {MOUNTS}"))?;
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(mount).starts_with(&dir) {
            umount2(mount, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {mount}"))?;
        }
    }
    for node in read_folder(&dir)? {
        for file in read_folder(&node)?.into_iter().filter(|file| file.extension().is_some_and(|e| e == BACKING)) {
            put_back(&file.with_extension("img"), &file);
        }
    }
    Ok(())
}

/// What is in a folder; nothing if it is none.
fn read_folder(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::rules::Access;
    use super::*;
    use std::os::unix::fs::{FileExt, OpenOptionsExt};

    /// `None` where this machine allows no mounts.
    fn mount(dir: &Path) -> Option<FaultDisk> {
        let path = dir.join("disk-1.img");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        FaultDisk::mount(&path).inspect_err(|e| eprintln!("nothing is tested: {e:#}")).ok()
    }

    fn open(path: &Path) -> File {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DSYNC).open(path).unwrap()
    }

    #[test]
    fn a_disk_fails_as_told_and_keeps_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let Some(disk) = mount(dir.path()) else { return };
        let path = dir.path().join("disk-1.img");
        let file = open(&path);
        file.write_all_at(&[1; 4096], 4096).unwrap();
        disk.rules.set(Trouble::FailSome { access: Access::Write, left: 1 });
        assert_eq!(file.write_at(&[2; 4096], 4096).unwrap_err().raw_os_error(), Some(libc::EIO));
        file.write_all_at(&[3; 4096], 8192).unwrap();
        disk.rules.set(Trouble::FailReads);
        let mut read = [0; 4096];
        assert!(file.read_exact_at(&mut read, 4096).is_err());
        disk.rules.clear();
        file.read_exact_at(&mut read, 4096).unwrap();
        assert_eq!(read, [1; 4096]);
        assert!(file.write_at(&[0; 4096], 1 << 20).is_err(), "beyond the end");
        // The file is open, and it is unmounted all the same.
        drop(disk);
        let content = std::fs::read(&path).unwrap();
        assert_eq!((content.len(), content[0], content[4096], content[8192]), (1 << 20, 7, 1, 3));
        assert!(!dir.path().join("disk-1.backing").exists());
    }

    #[test]
    fn what_a_killed_run_left_is_tidied_up() {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node-1");
        std::fs::create_dir(&node).unwrap();
        let Some(disk) = mount(&node) else { return };
        std::mem::forget(disk);
        tidy_up_below(dir.path()).unwrap();
        assert_eq!(std::fs::read(node.join("disk-1.img")).unwrap().len(), 1 << 20);
        assert!(!std::fs::read_to_string(MOUNTS).unwrap().contains(dir.path().to_str().unwrap()));
    }
}
