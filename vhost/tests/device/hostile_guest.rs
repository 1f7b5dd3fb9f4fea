//! A guest and a front end that do everything wrong. Whatever they do, the next good request is served.

use crate::common::Served;
use crate::common::front::{FLUSH, FREE, Front, GET_ID, INDIRECT, MEMORY_LEN, NEXT, READ, Vm, WRITE, WRITE_OUT};
use crate::common::ram::RamDisk;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vhost::VhostBackend;

const SIZE: u16 = 16;
const CAPACITY: usize = 1 << 20;
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;
/// Where good requests have their memory.
const GOOD: u64 = FREE + 0x10_0000;

fn served() -> Served {
    Served::start(|| RamDisk::new(CAPACITY))
}

/// Submits the chain at `head`, waits for it and returns the length.
fn submit(front: &Front, vm: &mut Vm, head: u16) -> u32 {
    vm.submit(head);
    front.kick();
    let (used, len) = front.completion(vm);
    assert_eq!(used, u32::from(head));
    len
}

/// Submits a request of the usual form and returns its status.
fn status_of(front: &Front, vm: &mut Vm, kind: u32, sector: u64, len: u32) -> u8 {
    let status = vm.request(0, GOOD, kind, sector, len);
    submit(front, vm, 0);
    vm.byte(status)
}

fn assert_alive(front: &Front, vm: &mut Vm) {
    vm.put(GOOD + 0x100, [0xa5u8; 16]);
    assert_eq!(status_of(front, vm, WRITE_OUT, 7, 512), OK);
    vm.put(GOOD + 0x100, [0u8; 16]);
    assert_eq!(status_of(front, vm, READ, 7, 512), OK);
    assert_eq!(vm.byte(GOOD + 0x10f), 0xa5);
}

#[test]
fn requests_of_every_kind() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    assert_alive(&front, &mut vm);
    assert_eq!(status_of(&front, &mut vm, FLUSH, 0, 0), OK);
    assert_eq!(status_of(&front, &mut vm, GET_ID, 0, 20), OK);
    assert_eq!(&(0..8).map(|i| vm.byte(GOOD + 0x100 + i)).collect::<Vec<_>>(), b"ram-disk");
    assert_eq!(status_of(&front, &mut vm, 99, 0, 0), UNSUPPORTED);
    assert_eq!(status_of(&front, &mut vm, READ, 0, 100), IO_ERROR);
    assert_eq!(status_of(&front, &mut vm, READ, CAPACITY as u64 / 512, 512), IO_ERROR);
    assert_eq!(status_of(&front, &mut vm, WRITE_OUT, u64::MAX, 512), IO_ERROR);
    assert_eq!(status_of(&front, &mut vm, READ, 0, 5 << 20), IO_ERROR);
    assert_eq!(status_of(&front, &mut vm, READ, 0, u32::MAX), IO_ERROR);
    assert_alive(&front, &mut vm);
    served.stop();
}

#[test]
fn a_header_in_pieces_and_an_indirect_table() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    assert_alive(&front, &mut vm);
    // Header of 3 + 13 bytes, data of 100 + 412 with the status behind it.
    let table = GOOD + 0x8000;
    let pieces =
        [(GOOD, 3, NEXT), (GOOD + 3, 13, NEXT), (GOOD + 0x1000, 100, NEXT | WRITE), (GOOD + 0x2000, 413, WRITE)];
    for (i, (addr, len, flags)) in pieces.into_iter().enumerate() {
        let descriptor = virtio_queue::desc::split::Descriptor::new(addr, len, flags, i as u16 + 1);
        vm.put(table + i as u64 * 16, descriptor);
    }
    vm.put(GOOD, READ.to_le());
    vm.put(GOOD + 8, 7u64.to_le());
    vm.put(GOOD + 0x2000 + 412, 0xffu8);
    vm.descriptor(5, table, 64, INDIRECT, 0);
    assert_eq!(submit(&front, &mut vm, 5), 513);
    assert_eq!(vm.byte(GOOD + 0x1000), 0xa5);
    assert_eq!(vm.byte(GOOD + 0x2000 + 412), OK);
    served.stop();
}

#[test]
fn chains_without_an_answer_come_back_empty() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    vm.descriptor(4, GOOD, 16, NEXT, 4); // a loop
    assert_eq!(submit(&front, &mut vm, 4), 0);
    vm.descriptor(4, GOOD, 16, NEXT, SIZE); // out of the table
    assert_eq!(submit(&front, &mut vm, 4), 0);
    vm.descriptor(4, GOOD, 16, 0, 0); // no status
    assert_eq!(submit(&front, &mut vm, 4), 0);
    vm.descriptor(4, MEMORY_LEN as u64, 1, WRITE, 0); // a status outside memory
    assert_eq!(submit(&front, &mut vm, 4), 0);
    vm.descriptor(4, MEMORY_LEN as u64 - 16, 32, INDIRECT, 0);
    assert_eq!(submit(&front, &mut vm, 4), 0);
    vm.descriptor(4, GOOD, 0, 0, 0); // nothing at all
    assert_eq!(submit(&front, &mut vm, 4), 0);
    assert_alive(&front, &mut vm);
    served.stop();
}

/// A ring that makes no sense is left alone, and a new connection is served.
#[test]
fn a_broken_ring_stops_only_itself() {
    type Breakage = fn(&mut Vm);
    let breakages: [Breakage; 3] = [|vm| vm.set_avail_idx(SIZE + 100), |vm| vm.submit(SIZE), |vm| vm.submit(u16::MAX)];
    let served = served();
    for breakage in breakages {
        let mut vm = Vm::new(SIZE);
        let front = vm.connect(served.socket());
        assert_alive(&front, &mut vm);
        let used = vm.used_idx();
        breakage(&mut vm);
        front.kick();
        front.stop_ring();
        assert_eq!(vm.used_idx(), used);
        drop(front);
        let mut vm = Vm::new(SIZE);
        let front = vm.connect(served.socket());
        assert_alive(&front, &mut vm);
    }
    served.stop();
}

#[test]
fn messages_that_cannot_be_obeyed() {
    type Message = fn(&mut Front) -> bool;
    let messages: [Message; 6] = [
        |front| front.frontend.set_vring_num(0, 3).is_err(),
        |front| front.frontend.set_vring_num(0, 2048).is_err(),
        |front| front.frontend.set_vring_base(0, 0).is_err(), // while it runs
        |front| front.frontend.set_features(u64::MAX).is_err(),
        |front| {
            let file = tempfile::tempfile().unwrap();
            // SAFETY: the descriptor is open and given up by `into`.
            let not_an_eventfd = unsafe {
                <vmm_sys_util::eventfd::EventFd as std::os::fd::FromRawFd>::from_raw_fd(
                    std::os::fd::IntoRawFd::into_raw_fd(file),
                )
            };
            front.frontend.set_vring_kick(0, &not_an_eventfd).is_err()
        },
        |front| {
            let area = vhost::vhost_user::message::VhostUserInflight::new(1 << 40, 0, 1, SIZE);
            let file = tempfile::tempfile().unwrap();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            vhost::vhost_user::VhostUserFrontend::set_inflight_fd(&mut front.frontend, &area, fd).is_err()
        },
    ];
    let served = served();
    for message in messages {
        let mut vm = Vm::new(SIZE);
        let mut front = vm.connect(served.socket());
        assert!(message(&mut front), "it was obeyed");
        drop(front);
        let front = vm.connect(served.socket());
        assert_alive(&front, &mut vm);
    }
    served.stop();
}

#[test]
fn bytes_that_are_no_message() {
    use std::io::Write;
    let served = served();
    for garbage in [&b""[..], b"x", &[0xff; 12], &[0; 4096]] {
        let mut stream = std::os::unix::net::UnixStream::connect(served.socket()).unwrap();
        // The device may have hung up already.
        let _ = stream.write_all(garbage);
        drop(stream);
        let mut vm = Vm::new(SIZE);
        let front = vm.connect(served.socket());
        assert_alive(&front, &mut vm);
    }
    served.stop();
}

#[derive(Clone, Debug)]
struct AnyDescriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

fn any_descriptor() -> impl Strategy<Value = AnyDescriptor> {
    let addr = prop_oneof![
        60 => FREE..FREE + 0x4000,
        // The rings themselves, the end of memory and what lies beyond.
        1 => 0..FREE,
        5 => MEMORY_LEN as u64 - 600..MEMORY_LEN as u64 + 600,
        3 => any::<u64>(),
    ];
    let len = prop_oneof![3 => 1..40u32, 2 => Just(16), 3 => Just(512), 1 => 0..1u32, 1 => any::<u32>()];
    let flags = prop_oneof![4 => 0..4u16, 1 => 0..8u16, 1 => any::<u16>()];
    let next = prop_oneof![8 => 3..SIZE, 1 => any::<u16>()];
    (addr, len, flags, next).prop_map(|(addr, len, flags, next)| AnyDescriptor { addr, len, flags, next })
}

/// Random tables and memory; every chain comes back exactly once, and the queue serves on.
#[test]
fn any_descriptor_table_is_survived() {
    let served = served();
    let table = prop::collection::vec(any_descriptor(), usize::from(SIZE) - 3);
    let memory = prop::collection::vec(prop_oneof![3 => 0..16u8, 1 => any::<u8>()], 64);
    let heads = prop::sample::subsequence((3..SIZE).collect::<Vec<_>>(), 1..8);
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    runner
        .run(&(table, memory, heads), |(table, memory, heads)| {
            // Writable descriptors may point into the rings: a new guest for each case.
            let mut vm = Vm::new(SIZE);
            let front = vm.connect(served.socket());
            for (i, byte) in memory.iter().enumerate() {
                vm.put(FREE + i as u64 * 8, *byte);
            }
            for (i, d) in table.iter().enumerate() {
                vm.descriptor(i as u16 + 3, d.addr, d.len, d.flags, d.next);
            }
            let aims_at_rings = |d: &AnyDescriptor| d.addr < FREE;
            let rings_may_change = table.iter().any(aims_at_rings);
            for head in &heads {
                vm.submit(*head);
            }
            front.kick();
            if !rings_may_change {
                let mut returned: Vec<_> = heads.iter().map(|_| front.completion(&mut vm).0 as u16).collect();
                returned.sort_unstable();
                prop_assert_eq!(returned, heads);
                assert_alive(&front, &mut vm);
            }
            Ok(())
        })
        .unwrap();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    assert_alive(&front, &mut vm);
    served.stop();
}
