//! A front end that takes away what it shares, or uses it against the daemon: it hurts nobody but itself.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::common::Served;
use crate::common::front::{FREE, Front, INDIRECT, NEXT, READ, Vm, WRITE, WRITE_OUT};
use crate::common::held::{Desk, Verdict};
use crate::common::ram::RamDisk;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use vhost::VhostBackend;
use vmm_sys_util::eventfd::EventFd;

const SIZE: u16 = 16;
const CAPACITY: usize = 16 << 20;
const HEADER: u64 = FREE;

fn served() -> Served {
    Served::start(|| RamDisk::new(CAPACITY))
}

fn submit(front: &Front, vm: &mut Vm, kind: u32, len: u32) {
    vm.request(0, HEADER, kind, 0, len);
    vm.submit(0);
    front.kick();
}

fn assert_served(served: &Served) {
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    submit(&front, &mut vm, WRITE_OUT, 512);
    front.completion(&mut vm);
    assert_eq!(vm.byte(HEADER + 0x80), 0);
}

fn wait_for_end(front: &Front) {
    // SAFETY: the descriptor is open for as long as the front end lives.
    let connection = unsafe { std::os::fd::BorrowedFd::borrow_raw(front.frontend.as_raw_fd()) };
    crate::common::wait_readable(connection);
}

/// The header or data of requests in flight is gone when it is looked at: the disk is not written to, and the connection
/// ends.
#[test]
fn memory_that_is_taken_away() {
    let served = served();
    for (kind, left) in [(READ, HEADER), (WRITE_OUT, HEADER), (READ, HEADER + 0x1000), (WRITE_OUT, HEADER + 0x1000)] {
        let mut vm = Vm::new(SIZE);
        let front = vm.connect(served.socket());
        vm.put(HEADER + 0x1000, [0xeeu8; 16]);
        vm.request(0, HEADER, kind, 0, 512);
        vm.descriptor(1, HEADER + 0x1000, 512, NEXT | if kind == READ { WRITE } else { 0 }, 2);
        vm.submit(0);
        vm.file.set_len(left).unwrap();
        front.kick();
        wait_for_end(&front);
        drop(front);
        assert_served(&served);
    }
    served.stop();
}

/// Not even the rings are there any more.
#[test]
fn rings_that_are_taken_away() {
    let served = served();
    let vm = {
        let mut vm = Vm::new(SIZE);
        let front = vm.connect(served.socket());
        vm.file.set_len(0).unwrap();
        front.kick();
        wait_for_end(&front);
        vm
    };
    drop(vm);
    assert_served(&served);
    served.stop();
}

#[test]
fn a_call_descriptor_that_blocks() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    front.call.write(u64::MAX - 1).unwrap();
    // SAFETY: the descriptor is open for as long as `front` lives.
    let call = unsafe { std::os::fd::BorrowedFd::borrow_raw(front.call.as_raw_fd()) };
    for (completed, flags) in [(1, OFlag::O_NONBLOCK), (2, OFlag::empty()), (3, OFlag::empty())] {
        fcntl(call, FcntlArg::F_SETFL(OFlag::O_RDWR | flags)).unwrap();
        submit(&front, &mut vm, READ, 512);
        crate::common::wait_until("a full counter keeps nothing from being completed", || vm.used_idx() == completed);
    }
    assert_eq!(front.call.read().unwrap(), u64::MAX - 1);
    crate::common::wait_readable(call);
    front.call.write(u64::MAX - 2).unwrap();
    submit(&front, &mut vm, READ, 512);
    crate::common::wait_until("completed", || vm.used_idx() == 4);
    front.frontend.set_vring_call(0, &EventFd::new(0).unwrap()).unwrap();
    submit(&front, &mut vm, READ, 512);
    crate::common::wait_until("completed", || vm.used_idx() == 5);
    assert_eq!(front.stop_ring(), 5);
    drop(front);
    assert_served(&served);
    served.stop();
}

/// The front end takes back every count of its kick: the queue still ends when it is to.
#[test]
fn kicks_that_are_stolen() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    let kick = front.kick.try_clone().unwrap();
    std::thread::spawn(move || while kick.read().is_ok() {});
    assert_eq!(front.stop_ring(), 0);
    drop(front);
    assert_served(&served);
    served.stop();
}

/// The guest is not kept waiting for the disk when its front end stops the queue; what is in flight comes back with it.
#[test]
fn a_queue_is_stopped_while_the_disk_answers_nothing() {
    let desk = Desk::new(Verdict::HoldWrites);
    let served = Served::start_with(
        {
            let desk = desk.clone();
            move || desk.disk()
        },
        |config| config.drain = Duration::from_millis(10),
    );
    let mut vm = Vm::new(SIZE);
    let mut front = vm.connect(served.socket());
    submit(&front, &mut vm, WRITE_OUT, 512);
    desk.wait_for_writes(1);
    assert_eq!(front.stop_ring(), 1);
    assert_eq!(vm.used_idx(), 0);
    desk.decide(Verdict::Complete);
    vm.start_ring(&mut front);
    front.kick();
    assert_eq!(front.completion(&mut vm), (0, 1));
    drop(front);
    served.stop();
}

#[test]
fn who_comes_second_is_turned_away() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    for _ in 0..3 {
        let mut second = UnixStream::connect(served.socket()).unwrap();
        assert_eq!(second.read(&mut [0; 16]).unwrap_or(0), 0, "it was answered");
    }
    submit(&front, &mut vm, READ, 512);
    front.completion(&mut vm);
    drop(front);
    assert_served(&served);
    served.stop();
}

#[test]
fn who_says_nothing_does_not_keep_the_disk() {
    let served = served();
    let silent = UnixStream::connect(served.socket()).unwrap();
    crate::common::wait_readable(silent.as_fd());
    let mut halting = UnixStream::connect(served.socket()).unwrap();
    halting.write_all(&[1]).unwrap();
    crate::common::wait_readable(halting.as_fd());
    assert_served(&served);
    served.stop();
}

/// Descriptors come with messages that want none, or more than they want.
#[test]
fn descriptors_that_nobody_asked_for() {
    let served = served();
    let event = EventFd::new(0).unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for request in [21u32, 1, 5, 12, 13, 31, 34, 37, 99] {
        for count in [1, 2, 3, 33, 253] {
            let stream = UnixStream::connect(served.socket()).unwrap();
            let message: Vec<u8> = [request, 1, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
            let descriptors = vec![event.as_raw_fd(); count];
            let data = [std::io::IoSlice::new(&message)];
            let control = [ControlMessage::ScmRights(&descriptors)];
            sendmsg::<()>(stream.as_raw_fd(), &data, &control, MsgFlags::empty(), None).unwrap();
            drop(stream);
        }
    }
    assert_served(&served);
    let since = Instant::now();
    while open() > before {
        assert!(since.elapsed() < Duration::from_secs(60), "{before} descriptors were open before, now {}", open());
        std::thread::sleep(Duration::from_millis(10));
    }
    served.stop();
}

/// A driver that did not accept a limit of segments may send any: firmware does.
#[test]
fn a_request_as_large_as_its_guest_likes() {
    let served = served();
    let mut vm = Vm::new(SIZE);
    let front = vm.connect(served.socket());
    let pattern = |at: u64| (at / 4096) as u8 | 1;
    let (data, len) = (HEADER + 0x100, 12 << 20);
    (0..len).step_by(16).for_each(|at| vm.put(data + at, [pattern(at); 16]));
    submit(&front, &mut vm, WRITE_OUT, len as u32);
    assert_eq!(front.completion(&mut vm), (0, 1));
    assert_eq!(vm.byte(HEADER + 0x80), 0);
    // Read back through an indirect table of pieces of odd lengths.
    let (table, pieces) = (HEADER + 0x2000 + len, 1000);
    (0..len).step_by(16).for_each(|at| vm.put(data + at, [0u8; 16]));
    vm.put(HEADER, READ.to_le());
    let put = |index: u64, addr, len, flags| {
        let next = index as u16 + 1;
        vm.put(table + index * 16, virtio_queue::desc::split::Descriptor::new(addr, len, flags, next));
    };
    put(0, HEADER, 16, NEXT);
    let each = len / pieces - 7;
    (0..pieces - 1).for_each(|i| put(1 + i, data + i * each, each as u32, NEXT | WRITE));
    put(pieces, data + (pieces - 1) * each, (len - (pieces - 1) * each) as u32, NEXT | WRITE);
    put(pieces + 1, HEADER + 0x80, 1, WRITE);
    vm.descriptor(5, table, (pieces as u32 + 2) * 16, INDIRECT, 0);
    vm.submit(5);
    front.kick();
    assert_eq!(front.completion(&mut vm), (5, len as u32 + 1));
    assert_eq!(vm.byte(HEADER + 0x80), 0);
    assert!((0..len).step_by(509).all(|at| vm.byte(data + at) == pattern(at)));
    drop(front);
    served.stop();
}
