use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::VolatileMemory;

use super::*;

fn memory(len: u64, flags: MFdFlags) -> File {
    let file = File::from(memfd_create(c"guard", flags | MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

#[test]
fn memory_that_is_taken_away_breaks_its_connection_alone() {
    let (broken, whole) = (Breakage::default(), Breakage::default());
    let [ours, theirs] = [&whole, &broken].map(|breakage| {
        let file = memory(0x3000, MFdFlags::empty());
        (map(&file, 0x1000, 0x2000, breakage).unwrap(), file)
    });
    theirs.0.get_slice(0, 4).unwrap().copy_from(b"gone");
    ours.0.get_slice(0, 4).unwrap().copy_from(b"here");
    theirs.1.set_len(0x1800).unwrap();
    let mut bytes = [9; 4];
    theirs.0.get_slice(0, 4).unwrap().copy_to(&mut bytes[..]);
    assert_eq!(&bytes, b"gone", "the page is there for as long as a byte of the file is");
    assert!(!broken.is_broken());
    theirs.0.get_slice(0x1000, 4).unwrap().copy_to(&mut bytes[..]);
    assert_eq!(bytes, [0; 4]);
    assert!(broken.is_broken() && !whole.is_broken());
    theirs.0.get_slice(0, 4).unwrap().copy_from(b"lost");
    ours.0.get_slice(0, 4).unwrap().copy_to(&mut bytes[..]);
    assert_eq!(&bytes, b"here");
}

#[test]
fn memory_that_could_be_sealed_is_told_apart() {
    let file = memory(0x1000, MFdFlags::MFD_ALLOW_SEALING);
    assert!(is_open_to_shrinking(&file));
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    assert!(!is_open_to_shrinking(&file));
    assert!(!is_open_to_shrinking(&memory(0x1000, MFdFlags::empty())), "its maker left that closed");
}

#[test]
fn a_file_that_is_not_memory_is_refused() {
    let breakage = Breakage::default();
    let proc = File::open("/proc/self/status").unwrap();
    assert!(matches!(map(&proc, 0, 1, &breakage), Err(MapError::NotMemory)));
    let short = memory(0x1fff, MFdFlags::empty());
    assert!(matches!(map(&short, 0, 0x2000, &breakage), Err(MapError::TooShort)));
    assert!(matches!(map(&short, u64::MAX, 0x2000, &breakage), Err(MapError::TooShort)));
}

#[test]
fn the_table_grows_and_slots_are_used_again() {
    let breakage = Breakage::default();
    let file = memory(0x1000, MFdFlags::empty());
    for _ in 0..3 {
        let regions: Vec<_> = (0..2 * BLOCK_LEN).map(|_| map(&file, 0, 0x1000, &breakage).unwrap()).collect();
        assert!(regions.iter().all(|region| slots().any(|slot| slot.holding(region.as_ptr() as usize).is_some())));
    }
    assert!(blocks().count() <= 4, "slots are not used again");
    let region = map(&file, 0, 0x1000, &breakage).unwrap();
    file.set_len(0).unwrap();
    region.get_slice(0, 1).unwrap().copy_from(b"x");
    assert!(breakage.is_broken());
}
