//! What lies on a block device that somebody wants to be formatted: formatting deletes it, so it is named first.

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A name, and what stands where on the device, bytes from its start.
type Mark = (&'static str, u64, &'static [u8]);

/// From the formats' own descriptions, as util-linux collects them for `wipefs`.
const MARKS: &[Mark] = &[
    ("an ext2, ext3 or ext4 file system", 0x438, &[0x53, 0xef]),
    ("an XFS file system", 0, b"XFSB"),
    ("a Btrfs file system", 0x1_0040, b"_BHRfS_M"),
    ("an F2FS file system", 0x400, &[0x10, 0x20, 0xf5, 0xf2]),
    ("an NTFS file system", 3, b"NTFS    "),
    ("a FAT file system", 0x52, b"FAT32   "),
    ("a FAT file system", 0x36, b"FAT1"),
    ("an ISO 9660 file system", 0x8001, b"CD001"),
    ("a bcachefs or bcache device", 0x1018, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]),
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("an LVM physical volume", 0x218, b"LVM2 001"),
    ("a member of a RAID (md)", 0x1000, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("a member of a RAID (md)", 0, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("a Ceph disk", 0, b"bluestore block device"),
    ("swap space", 0xff6, b"SWAPSPACE2"),
    ("a GPT partition table", 0x200, b"EFI PART"),
    ("a GPT partition table", 0x1000, b"EFI PART"),
    ("a Levee disk", 0, b"LEVEEDSK"),
    ("a Levee disk", 0x1000, b"LEVEEDSK"),
    ("a partition table (MBR) or boot sector", 0x1fe, &[0x55, 0xaa]),
];

/// ZFS keeps rings of these in its first and last label, one of them at least in the first 256 KiB.
const ZFS: [u8; 8] = 0x00ba_b10cu64.to_le_bytes();
/// Bytes at the start of a device that are looked at: more than any mark needs.
const HEAD: usize = 1 << 20;

/// What was found, for a person; `None`: nothing but zeros.
pub fn find(device: &File) -> io::Result<Option<String>> {
    let mut head = vec![0; HEAD];
    let mut len = 0;
    while len < HEAD {
        match device.read_at(&mut head[len..], len as u64)? {
            0 => break,
            more => len += more,
        }
    }
    Ok(name(&head[..len]))
}

/// What stands behind the start, in a file: anything but zeros. Of a device only the start is looked at.
pub fn find_data(file: &File) -> io::Result<Option<String>> {
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let (mut at, mut piece) = (0, vec![0; HEAD]);
    // What was never written is left out.
    loop {
        let data = match lseek64(file, at, Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let len = file.read_at(&mut piece, data as u64)?;
        if let Some(first) = piece[..len].iter().position(|byte| *byte != 0) {
            return Ok(Some(format!("data (a byte that is not zero is at {})", data as usize + first)));
        }
        if len == 0 {
            return Ok(None);
        }
        at = data + len as i64;
    }
}

fn name(head: &[u8]) -> Option<String> {
    let found = MARKS.iter().find(|(_, at, mark)| head.get(*at as usize..).is_some_and(|rest| rest.starts_with(mark)));
    if let Some((name, ..)) = found {
        return Some((*name).into());
    }
    if head.chunks_exact(1024).skip(128).take(128).any(|block| block.starts_with(&ZFS)) {
        return Some("a ZFS pool".into());
    }
    let first = head.iter().position(|byte| *byte != 0)?;
    Some(format!("data that is not known here (its first byte that is not zero is at {first})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_found_by_its_name() {
        for (what, at, mark) in MARKS {
            let mut head = vec![0; HEAD];
            head[*at as usize..*at as usize + mark.len()].copy_from_slice(mark);
            assert_eq!(name(&head).as_deref(), Some(*what));
        }
        let mut head = vec![0; HEAD];
        head[(128 + 5) * 1024..][..8].copy_from_slice(&ZFS);
        assert_eq!(name(&head).as_deref(), Some("a ZFS pool"));
    }

    #[test]
    fn a_file_is_looked_at_to_its_end() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&[0; 4096], 8 << 20).unwrap();
        assert_eq!(find_data(&file).unwrap(), None);
        file.write_all_at(b"x", (40 << 20) + 5).unwrap();
        assert!(find_data(&file).unwrap().is_some_and(|what| what.contains(&((40 << 20) + 5).to_string())));
    }

    #[test]
    fn zeros_are_nothing_and_anything_else_is_something() {
        assert_eq!(name(&[]), None);
        assert_eq!(name(&vec![0; HEAD]), None);
        let mut head = vec![0; HEAD];
        head[77] = 1;
        assert!(name(&head).is_some_and(|what| what.contains("at 77")));
    }
}
