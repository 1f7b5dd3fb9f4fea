//! A well-behaved guest over the real socket.

use std::time::Duration;

use crate::common::Served;
use crate::common::driver::Guest;
use crate::common::ram::RamDisk;

const CAPACITY: usize = 16 << 20;

fn served() -> Served {
    Served::start(|| RamDisk::new(CAPACITY))
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed * 31 + i * 7 + (i >> 9)) as u8).collect()
}

#[test]
fn the_guest_learns_what_the_disk_is() {
    let served = served();
    let guest = Guest::connect(served.socket(), 1);
    assert_eq!(u64::from(guest.config.capacity), CAPACITY as u64 / 512);
    assert_eq!(u32::from(guest.config.blk_size), 512);
    assert_eq!(guest.config.physical_block_exp, 3);
    assert_eq!(u16::from(guest.config.num_queues), 64);
    assert_eq!(guest.config.writeback, 1);
    drop(guest);
    served.stop();
}

#[test]
fn data_comes_back() {
    let served = served();
    let mut guest = Guest::connect(served.socket(), 1);
    let queue = &mut guest.queues[0];
    queue.write(512, &pattern(1, 65536));
    queue.write(CAPACITY as u64 - 4096, &pattern(2, 4096));
    queue.submit_flush();
    assert_eq!(queue.result(), 0);
    assert_eq!(queue.read(512, 65536), pattern(1, 65536));
    assert_eq!(queue.read(CAPACITY as u64 - 4096, 4096), pattern(2, 4096));
    queue.submit_read(CAPACITY as u64 - 512, 1024, 0);
    assert_ne!(queue.result(), 0, "beyond the end");
    served.stop();
}

#[test]
fn zeroes_and_discards() {
    let served = served();
    let mut guest = Guest::connect(served.socket(), 1);
    let queue = &mut guest.queues[0];
    queue.write(0, &pattern(3, 16384));
    queue.submit_write_zeroes(4096, 4096, true);
    assert_eq!(queue.result(), 0);
    queue.submit_write_zeroes(512, 512, false);
    assert_eq!(queue.result(), 0);
    queue.submit_discard(8192, 4096);
    assert_eq!(queue.result(), 0);
    let mut expected = pattern(3, 16384);
    expected[512..1024].fill(0);
    expected[4096..12288].fill(0);
    assert_eq!(queue.read(0, 16384), expected);
    queue.submit_discard(CAPACITY as u64, 512);
    assert_ne!(queue.result(), 0, "beyond the end");
    served.stop();
}

/// Each queue keeps many requests in flight over its own part of the disk; without polling and with.
#[test]
fn many_requests_on_many_queues() {
    for poll in [Duration::ZERO, Duration::from_micros(50)] {
        let served = Served::start_with(|| RamDisk::new(CAPACITY), |config| config.poll = poll);
        let mut guest = Guest::connect(served.socket(), 4);
        std::thread::scope(|scope| {
            for (index, queue) in guest.queues.iter_mut().enumerate() {
                scope.spawn(move || {
                    const DEPTH: usize = 16;
                    const LEN: usize = 8192;
                    let offset = |slot: usize| ((index * DEPTH + slot) * LEN) as u64;
                    for round in 0..20 {
                        let content = |slot: usize| pattern(round * 1000 + index * 100 + slot, LEN);
                        for slot in 0..DEPTH {
                            queue.fill(slot, &content(slot));
                            queue.submit_write(offset(slot), LEN, slot);
                        }
                        complete_all(queue, DEPTH);
                        for slot in 0..DEPTH {
                            queue.fill(slot, &[0; LEN]);
                            queue.submit_read(offset(slot), LEN, slot);
                        }
                        complete_all(queue, DEPTH);
                        for slot in 0..DEPTH {
                            assert_eq!(queue.content(slot, LEN), content(slot));
                        }
                    }
                });
            }
        });
        served.stop();
    }
}

fn complete_all(queue: &mut crate::common::driver::GuestQueue, count: usize) {
    queue.notify();
    let mut done = 0;
    while done < count {
        for (_, result) in queue.completed() {
            assert_eq!(result, 0);
            done += 1;
        }
    }
}

#[test]
fn a_guest_comes_back_after_a_disconnect() {
    let served = served();
    for round in 0..5 {
        let mut guest = Guest::connect(served.socket(), 2);
        if round > 0 {
            assert_eq!(guest.queues[1].read(0, 4096), pattern(round - 1, 4096));
        }
        guest.queues[0].write(0, &pattern(round, 4096));
    }
    served.stop();
}

#[test]
fn a_second_server_at_the_same_socket_is_refused() {
    use levee_vhost::{ServeError, ServerConfig, serve};
    let served = served();
    let config = ServerConfig::new(served.socket());
    let refused = glommio::LocalExecutorBuilder::default()
        .preempt_timer(Duration::from_secs(60))
        .spawn(|| async move { serve(std::rc::Rc::new(RamDisk::new(4096)), config).await.err() })
        .unwrap()
        .join()
        .unwrap();
    assert!(matches!(refused, Some(ServeError::InUse(_))));
    // The attempt has not disturbed the first.
    let mut guest = Guest::connect(served.socket(), 1);
    guest.queues[0].write(0, &pattern(9, 512));
    served.stop();
}
