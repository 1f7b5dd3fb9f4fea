//! Writes wait for as long as the disk is full. They keep nothing else from being served, and take a bounded amount of
//! memory however many there are.

use crate::common::Served;
use crate::common::front::{DISCARD, FLUSH, FREE, Front, READ, Vm, WRITE_OUT};
use crate::common::held::{CAPACITY, Desk, Verdict};
use levee_vhost::limits::{PIECE_LEN, SECTOR_SIZE};

const SIZE: u16 = 128;
/// Writes of one piece that fit the budget, and many more of them.
const FIT: usize = 8;
const WRITES: u16 = 3 * FIT as u16;
/// Each request's header and status; the data of the large ones is the same for all.
const HEADERS: u64 = FREE;
const DATA: u64 = FREE + 0x10_0000;

fn header(head: u16) -> u64 {
    HEADERS + u64::from(head) * 0x1000
}

/// Makes a large write available, told apart by its sector.
fn submit_write(vm: &mut Vm, number: u16) {
    let head = number * 3;
    vm.request(head, header(head), WRITE_OUT, u64::from(number), PIECE_LEN as u32);
    vm.descriptor(head + 1, DATA, PIECE_LEN as u32, crate::common::front::NEXT, head + 2);
    vm.submit(head);
}

/// Submits a small request with the ring's last descriptors, and waits for it.
fn serve(front: &Front, vm: &mut Vm, kind: u32, len: u32) {
    let head = SIZE - 3;
    let status = vm.request(head, header(head), kind, 0, len);
    if kind == DISCARD {
        vm.put(header(head) + 0x100, 0u64.to_le());
        vm.put(header(head) + 0x108, (CAPACITY / SECTOR_SIZE) as u32);
        vm.put(header(head) + 0x10c, 0u32);
    }
    vm.submit(head);
    front.kick();
    assert_eq!(front.completion(vm).0, u32::from(head), "kind {kind}");
    assert_eq!(vm.byte(status), 0, "kind {kind}");
}

#[test]
fn waiting_writes_keep_nothing_else_waiting() {
    let mut vm = Vm::new(SIZE);
    let desk = Desk::new(Verdict::HoldWrites);
    let served = Served::start_with(
        {
            let desk = desk.clone();
            move || desk.disk()
        },
        |config| config.memory = FIT as u64 * PIECE_LEN,
    );
    let front = vm.connect(served.socket());
    (0..WRITES).for_each(|number| submit_write(&mut vm, number));
    front.kick();
    desk.wait_for_writes(FIT);
    for _ in 0..3 {
        serve(&front, &mut vm, READ, 512);
        serve(&front, &mut vm, DISCARD, 16);
        serve(&front, &mut vm, FLUSH, 0);
    }
    assert_eq!(desk.writes().len(), FIT, "the others wait in the queue, without their data");

    // There is space again: all of them are carried out, in their order.
    desk.decide(Verdict::Complete);
    let mut heads: Vec<u32> = (0..WRITES).map(|_| front.completion(&mut vm).0).collect();
    heads.sort_unstable();
    assert!(heads.into_iter().eq((0..WRITES).map(|number| u32::from(number) * 3)));
    let order: Vec<u64> = desk.writes().iter().map(|(sector, _)| *sector).collect();
    assert!(order.into_iter().eq(0..u64::from(WRITES)));
    drop(front);
    served.stop();
}

/// A connection that ends leaves also those in flight that have not reached the disk; the next takes all of them up.
#[test]
fn writes_that_wait_in_the_queue_are_resumed() {
    let mut vm = Vm::new(SIZE);
    let desk = Desk::new(Verdict::HoldWrites);
    let served = Served::start_with(
        {
            let desk = desk.clone();
            move || desk.disk()
        },
        |config| {
            config.memory = FIT as u64 * PIECE_LEN;
            config.drain = std::time::Duration::ZERO;
        },
    );
    let front = vm.connect(served.socket());
    (0..WRITES).for_each(|number| submit_write(&mut vm, number));
    front.kick();
    desk.wait_for_writes(FIT);
    drop(front);

    let front = vm.connect(served.socket());
    desk.wait_for_writes(2 * FIT);
    assert_eq!(vm.used_idx(), 0);
    desk.decide(Verdict::Complete);
    for _ in 0..WRITES {
        front.completion(&mut vm);
    }
    let second: Vec<u64> = desk.writes()[FIT..].iter().map(|(sector, _)| *sector).collect();
    assert!(second.into_iter().eq(0..u64::from(WRITES)));
    drop(front);
    served.stop();
}
