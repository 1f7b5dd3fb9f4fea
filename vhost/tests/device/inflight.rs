//! A guest that outlives connections and daemons: no request is lost, repeated or taken out of order.

use std::time::Duration;

use crate::common::Served;
use crate::common::front::{FREE, READ, Vm, WRITE_OUT};
use crate::common::held::{Desk, Verdict};
use vhost::VhostBackend;

/// Heads in the order they are submitted: not the order of their numbers.
const HEADS: [u16; 4] = [9, 0, 6, 3];

fn area(head: u16) -> u64 {
    FREE + u64::from(head) * 0x1000
}

/// Makes one write per head available, to sector `head`, of bytes `head`.
fn submit_writes(vm: &mut Vm, heads: &[u16]) {
    for &head in heads {
        vm.request(head, area(head), WRITE_OUT, u64::from(head), 512);
        vm.put(area(head) + 0x100, [head as u8; 8]);
        vm.submit(head);
    }
}

fn expected(heads: &[u16]) -> Vec<(u64, u8)> {
    heads.iter().map(|head| (u64::from(*head), *head as u8)).collect()
}

fn completed_heads(front: &crate::common::front::Front, vm: &mut Vm, count: usize) -> Vec<u32> {
    let mut heads: Vec<_> = (0..count).map(|_| front.completion(vm).0).collect();
    heads.sort_unstable();
    heads
}

/// A daemon shuts down with requests at the disk, the next takes them up in their order, before newer ones.
#[test]
fn the_next_daemon_resumes_in_order() {
    let mut vm = Vm::new(16);
    let first = Desk::new(Verdict::Wait);
    let served = Served::start({
        let desk = first.clone();
        move || desk.disk()
    });
    let front = vm.connect(served.socket());
    submit_writes(&mut vm, &HEADS);
    front.kick();
    first.wait_for_writes(4);
    assert_eq!(first.writes(), expected(&HEADS));
    first.decide(Verdict::Stop);
    served.stop();
    assert_eq!(vm.used_idx(), 0, "nothing was completed");
    drop(front);

    // The guest goes on meanwhile.
    submit_writes(&mut vm, &[12]);
    let second = Desk::new(Verdict::Complete);
    let served = Served::start({
        let desk = second.clone();
        move || desk.disk()
    });
    let front = vm.connect(served.socket());
    assert_eq!(completed_heads(&front, &mut vm, 5), [0, 3, 6, 9, 12]);
    assert_eq!(second.writes(), expected(&[9, 0, 6, 3, 12]));
    for head in HEADS {
        assert_eq!(vm.byte(area(head) + 0x80), 0, "status");
    }

    // Nothing is left to be resumed by a third.
    drop(front);
    served.stop();
    let third = Desk::new(Verdict::Complete);
    let served = Served::start({
        let desk = third.clone();
        move || desk.disk()
    });
    let front = vm.connect(served.socket());
    submit_writes(&mut vm, &[1]);
    front.kick();
    assert_eq!(front.completion(&mut vm).0, 1);
    assert_eq!(third.writes(), expected(&[1]));
    served.stop();
}

/// The connection breaks while the disk is stuck: the requests are left behind, dropped, and then submitted again by the next
/// connection.
#[test]
fn a_lost_connection_leaves_requests_in_flight() {
    let mut vm = Vm::new(16);
    let desk = Desk::new(Verdict::Wait);
    let served = Served::start_with(
        {
            let desk = desk.clone();
            move || desk.disk()
        },
        |config| config.drain = Duration::ZERO,
    );
    let front = vm.connect(served.socket());
    submit_writes(&mut vm, &HEADS);
    vm.request(12, area(12), READ, 0, 512);
    vm.submit(12);
    front.kick();
    desk.wait_for_writes(4);
    drop(front);

    let front = vm.connect(served.socket());
    desk.wait_for_writes(8);
    let writes = desk.writes();
    assert_eq!(writes[..4], expected(&HEADS));
    assert_eq!(writes[4..], expected(&HEADS));
    assert_eq!(vm.used_idx(), 0);
    assert_eq!(desk.most_writes(), 4, "the disk still had those of the old connection");
    desk.decide(Verdict::Complete);
    assert_eq!(completed_heads(&front, &mut vm, 5), [0, 3, 6, 9, 12]);
    // Only one generation may show.
    submit_writes(&mut vm, &[1]);
    front.kick();
    assert_eq!(front.completion(&mut vm).0, 1);
    assert_eq!(vm.used_idx(), 6);
    assert_eq!(vm.byte(area(12) + 0x100), 0x5a, "the read has brought its data");
    served.stop();
}

/// GET_VRING_BASE is answered only when everything taken has been completed.
#[test]
fn stopping_a_ring_drains_it() {
    let mut vm = Vm::new(16);
    let desk = Desk::new(Verdict::Wait);
    let served = Served::start({
        let desk = desk.clone();
        move || desk.disk()
    });
    let front = vm.connect(served.socket());
    submit_writes(&mut vm, &HEADS);
    front.kick();
    desk.wait_for_writes(4);
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| front.stop_ring());
        std::thread::sleep(Duration::from_millis(20));
        assert!(!stopped.is_finished(), "the disk still has the requests");
        desk.decide(Verdict::Complete);
        assert_eq!(stopped.join().unwrap(), 4);
    });
    assert_eq!(vm.used_idx(), 4);
    served.stop();
}

/// A front end that goes away while its ring is drained does not block the device.
#[test]
fn a_front_end_may_leave_during_a_drain() {
    let mut vm = Vm::new(16);
    let desk = Desk::new(Verdict::Wait);
    let served = Served::start_with(
        {
            let desk = desk.clone();
            move || desk.disk()
        },
        |config| config.drain = Duration::ZERO,
    );
    let front = vm.connect(served.socket());
    submit_writes(&mut vm, &HEADS);
    front.kick();
    desk.wait_for_writes(4);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| front.frontend.get_vring_base(0));
        std::thread::sleep(Duration::from_millis(20));
        front.hang_up();
        assert!(stop.join().unwrap().is_err());
    });
    drop(front);
    let front = vm.connect(served.socket());
    desk.wait_for_writes(8);
    desk.decide(Verdict::Complete);
    assert_eq!(completed_heads(&front, &mut vm, 4), [0, 3, 6, 9]);
    served.stop();
}
