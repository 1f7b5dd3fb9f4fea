//! What a disk is made of, as the kernel says.

use levee_proto::api::DiskClass;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The class of a disk: a block device's, or that of the device that holds the file. What the kernel does not know
/// (file systems without a device, remote ones) counts as solid state.
pub fn class_of(path: &Path) -> DiskClass {
    let Ok(metadata) = std::fs::metadata(path) else { return DiskClass::default() };
    let device = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
    let (major, minor) = (libc::major(device), libc::minor(device));
    rotational(&PathBuf::from(format!("/sys/dev/block/{major}:{minor}")))
}

/// `device`: its folder in sysfs. A partition has no queue of its own.
fn rotational(device: &Path) -> DiskClass {
    let read = |folder: &str| std::fs::read_to_string(device.join(folder).join("queue/rotational")).ok();
    match read(".").or_else(|| read("..")).as_deref().map(str::trim) {
        Some("1") => DiskClass::Hdd,
        _ => DiskClass::Ssd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_is_told_from_what_does_not() {
        let sys = tempfile::tempdir().unwrap();
        let disk = sys.path().join("sda");
        std::fs::create_dir_all(disk.join("queue")).unwrap();
        std::fs::create_dir_all(disk.join("sda1")).unwrap();
        for (says, class) in [("1\n", DiskClass::Hdd), ("0\n", DiskClass::Ssd), ("?", DiskClass::Ssd)] {
            std::fs::write(disk.join("queue/rotational"), says).unwrap();
            assert_eq!((rotational(&disk), rotational(&disk.join("sda1"))), (class, class));
        }
        assert_eq!(rotational(&sys.path().join("none")), DiskClass::Ssd);
    }
}
