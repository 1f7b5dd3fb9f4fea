//! A disk that cannot be changed, whatever the guest makes of being told so.

use crate::common::Served;
use crate::common::front::{DISCARD, FLUSH, FREE, Front, GET_ID, READ, Vm, WRITE_OUT, WRITE_ZEROES};
use crate::common::ram::RamDisk;
use vhost::VhostBackend;

const SIZE: u16 = 16;
const CAPACITY: usize = 1 << 20;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const FILLED: u8 = 0x77;
const MEMORY: u64 = FREE + 0x10_0000;

const READ_ONLY: u64 = 1 << 5;
const DISCARDS: u64 = 1 << 13;
const ZEROES: u64 = 1 << 14;

fn served() -> Served {
    Served::start(|| RamDisk::read_only(CAPACITY, FILLED))
}

/// Submits a request of the usual form and returns its status.
fn status_of(front: &Front, vm: &mut Vm, kind: u32, sector: u64, len: u32) -> u8 {
    let status = vm.request(0, MEMORY, kind, sector, len);
    vm.submit(0);
    front.kick();
    assert_eq!(front.completion(vm).0, 0);
    vm.byte(status)
}

/// One range of sectors, as discards and zeroes have it.
fn put_range(vm: &Vm, sector: u64, sectors: u32, flags: u32) {
    vm.put(MEMORY + 0x100, sector.to_le());
    vm.put(MEMORY + 0x108, sectors.to_le());
    vm.put(MEMORY + 0x10c, flags.to_le());
}

fn assert_intact(front: &Front, vm: &mut Vm) {
    for sector in [0, 7, CAPACITY as u64 / 512 - 1] {
        vm.put(MEMORY + 0x100, [0u8; 16]);
        assert_eq!(status_of(front, vm, READ, sector, 512), OK);
        assert_eq!(vm.byte(MEMORY + 0x10f), FILLED);
    }
}

#[test]
fn it_says_so_and_offers_no_changes() {
    let served = served();
    let vm = Vm::new(SIZE);
    let front = vm.negotiate(served.socket());
    let offered = front.frontend.get_features().unwrap();
    assert_eq!(offered & (READ_ONLY | DISCARDS | ZEROES), READ_ONLY);
    drop(front);
    let front = vm.negotiate(served.socket());
    assert!(front.frontend.set_features(offered | DISCARDS).is_err(), "what is not offered cannot be had");
    drop(front);
    served.stop();
    let served = Served::start(|| RamDisk::new(CAPACITY));
    let front = vm.negotiate(served.socket());
    assert_eq!(front.frontend.get_features().unwrap() & (READ_ONLY | DISCARDS | ZEROES), DISCARDS | ZEROES);
    drop(front);
    served.stop();
}

/// The guest does not acknowledge that the disk is read-only.
#[test]
fn changes_fail_and_nothing_else_does() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    assert_intact(&front, &mut vm);
    for len in [0, 512, 4096] {
        assert_eq!(status_of(&front, &mut vm, WRITE_OUT, 7, len), IO_ERROR, "a write of {len} bytes");
    }
    for (sectors, unmap) in [(8, 0), (8, 1), (0, 0), (u32::MAX, 0)] {
        put_range(&vm, 0, sectors, unmap);
        assert_eq!(status_of(&front, &mut vm, WRITE_ZEROES, 0, 16), IO_ERROR, "{sectors} sectors");
        put_range(&vm, 0, sectors, 0);
        assert_eq!(status_of(&front, &mut vm, DISCARD, 0, 16), IO_ERROR, "{sectors} sectors");
    }
    assert_eq!(status_of(&front, &mut vm, FLUSH, 0, 0), OK);
    assert_eq!(status_of(&front, &mut vm, GET_ID, 0, 20), OK);
    assert_intact(&front, &mut vm);
    served.stop();
}

/// Many at once, more than the memory for writes would have room for: each is refused by itself, in its turn.
#[test]
fn a_queue_full_of_writes_is_refused() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    const SLOTS: u16 = 5;
    let at = |slot: u16| MEMORY + u64::from(slot) * 0x10_0000;
    let status = (0..SLOTS).map(|slot| vm.request(slot * 3, at(slot), WRITE_OUT, 0, 0xf_0000)).collect::<Vec<_>>();
    (0..SLOTS).for_each(|slot| vm.submit(slot * 3));
    front.kick();
    let heads: Vec<u32> = (0..SLOTS).map(|_| front.completion(&mut vm).0).collect();
    assert_eq!(heads, (0..SLOTS).map(|slot| u32::from(slot) * 3).collect::<Vec<_>>());
    assert!(status.iter().all(|at| vm.byte(*at) == IO_ERROR));
    assert_intact(&front, &mut vm);
    served.stop();
}
