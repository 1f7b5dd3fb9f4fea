//! What lies on a disk that a node is to use.

use super::{Finding, USER};
use crate::limits::DISK_HEAD;
use levee_proto::BLOCK_SIZE;
use nix::unistd::{Group, User};
use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// How a Levee disk begins, and where it says for how many cores: see docs/disk-format.md.
const MAGIC: &[u8] = b"LEVEEDSK";
const SHARES_AT: std::ops::Range<usize> = 76..78;
/// Copies of that, a block each.
const SUPERBLOCKS: usize = 2;

/// What was found at the beginning of a disk.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Nothing,
    /// A Levee disk, for so many cores.
    Levee(u16),
    Something,
}

pub fn look(path: &Path, cores: usize) -> Finding {
    let what = format!("disk {}", path.display());
    let format = format!("levee-stored format {} --cores {cores}", path.display());
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let hint = if path.starts_with("/dev") {
                "look for its name with lsblk".into()
            } else {
                format!("{format} --size SIZE")
            };
            return Finding::missing(what, "is not there", hint);
        }
        Err(e) => return Finding::missing(what, e.to_string(), "run this as root"),
    };
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        return Finding::missing(what, "is neither a file nor a block device", "name another one in the configuration");
    }
    match content(path, &metadata) {
        Ok(Content::Levee(shares)) if usize::from(shares) != cores => Finding::missing(
            what,
            format!("was formatted for {shares} core(s), and `data` has {cores} address(es)"),
            "give `data` as many addresses, or wipe the disk and format it anew",
        ),
        Ok(Content::Levee(shares)) if !may_use(&metadata) => Finding::missing(
            what,
            format!("a Levee disk for {shares} core(s), which the user {USER} may not use"),
            format!("chown {USER}: {}", path.display()),
        ),
        Ok(Content::Levee(shares)) => Finding::ok(what, format!("a Levee disk for {shares} core(s)")),
        Ok(Content::Nothing) if metadata.is_file() && metadata.len() == 0 => {
            Finding::missing(what, "empty, and not formatted yet", format!("{format} --size SIZE"))
        }
        Ok(Content::Nothing) => Finding::missing(what, "empty, and not formatted yet", format),
        Ok(Content::Something) => Finding::missing(
            what,
            "holds something that is not Levee's",
            format!("is it the right one? Formatting deletes what is on it: {format} --force"),
        ),
        Err(e) => unusable(what, &e),
    }
}

fn unusable(what: String, error: &io::Error) -> Finding {
    let (detail, to_do) = match error.raw_os_error() {
        Some(libc::EBUSY) => ("is mounted, or part of another device".into(), "name another disk, or unmount it"),
        Some(libc::EINVAL) => {
            ("cannot be read without the page cache".into(), "use a block device, or a file on ext4 or XFS")
        }
        Some(libc::EACCES | libc::EPERM) => ("may not be read".into(), "run this as root"),
        _ => (error.to_string(), "replace it"),
    };
    Finding::missing(what, detail, to_do)
}

/// Reads the beginning as the daemon will: directly. The kernel grants a device exclusively only if it is not mounted.
fn content(path: &Path, metadata: &Metadata) -> io::Result<Content> {
    let exclusive = if metadata.file_type().is_block_device() { libc::O_EXCL } else { 0 };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | exclusive).open(path)?;
    let mut memory = vec![0; DISK_HEAD + BLOCK_SIZE];
    let aligned = memory.as_ptr().align_offset(BLOCK_SIZE);
    let head = &mut memory[aligned..aligned + DISK_HEAD];
    let read = file.read_at(head, 0)?;
    Ok(classify(&head[..read]))
}

/// Either of the two superblocks is enough: the daemon writes the other one anew.
fn classify(head: &[u8]) -> Content {
    let superblock = |copy: &&[u8]| copy.starts_with(MAGIC) && copy.len() >= SHARES_AT.end;
    if let Some(copy) = head.chunks(BLOCK_SIZE).take(SUPERBLOCKS).find(superblock) {
        return Content::Levee(u16::from_le_bytes([copy[SHARES_AT.start], copy[SHARES_AT.start + 1]]));
    }
    if head.iter().all(|byte| *byte == 0) { Content::Nothing } else { Content::Something }
}

/// Whether the services' user may read and write it; if there is no such user, nobody asks.
fn may_use(metadata: &Metadata) -> bool {
    let Ok(Some(user)) = User::from_name(USER) else { return true };
    let disk = Group::from_name("disk").ok().flatten().map(|group| group.gid.as_raw());
    let (mode, gid) = (metadata.mode(), metadata.gid());
    let as_owner = metadata.uid() == user.uid.as_raw() && mode & 0o600 == 0o600;
    let as_member = (gid == user.gid.as_raw() || Some(gid) == disk) && mode & 0o060 == 0o060;
    as_owner || as_member || mode & 0o006 == 0o006
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_told_apart() {
        assert_eq!(classify(&[0; 4096]), Content::Nothing);
        assert_eq!(classify(&[]), Content::Nothing);
        assert_eq!(classify(b"LEVEEDSK"), Content::Something, "cut short");
        let mut head = [0; 4096];
        head[..8].copy_from_slice(MAGIC);
        head[76] = 2;
        assert_eq!(classify(&head), Content::Levee(2));
        head[0] = b'X';
        assert_eq!(classify(&head), Content::Something);
        let second = [[0; 4096], [0; 4096]].concat();
        assert_eq!(classify(&second), Content::Nothing);
        let mut second = second;
        second[4096..4104].copy_from_slice(MAGIC);
        second[4096 + 76] = 2;
        assert_eq!(classify(&second), Content::Levee(2), "the first one is lost");
    }
}
