//! Measures a vhost-user-blk device with random 4 KiB requests on one queue.
//!
//! `ring_bench SOCKET read|write DEPTH SECONDS`; an interrupt-driven client, as a guest is.

#[path = "../tests/device/common/mod.rs"]
mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::driver::Guest;

const LEN: usize = 4096;

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, socket, direction, depth, seconds] = &arguments[..] else {
        eprintln!("usage: ring_bench SOCKET read|write DEPTH SECONDS");
        std::process::exit(2);
    };
    let (Ok(depth), Ok(seconds)) = (depth.parse::<usize>(), seconds.parse()) else {
        eprintln!("DEPTH and SECONDS are numbers; DEPTH is at most 32");
        std::process::exit(2);
    };
    let mut guest = Guest::connect(Path::new(socket), 1);
    let blocks = u64::from(guest.config.capacity) / 8;
    let queue = &mut guest.queues[0];
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut submit = |queue: &mut common::driver::GuestQueue, slot| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let offset = seed % blocks * LEN as u64;
        if direction == "write" { queue.submit_write(offset, LEN, slot) } else { queue.submit_read(offset, LEN, slot) }
    };
    for slot in 0..depth {
        submit(queue, slot);
    }
    queue.notify();
    let (started, time) = (Instant::now(), Duration::from_secs(seconds));
    let mut done = 0u64;
    while started.elapsed() < time {
        for (slot, result) in queue.completed() {
            assert_eq!(result, 0, "a request failed");
            done += 1;
            submit(queue, slot);
        }
        queue.notify();
    }
    let rate = done as f64 / started.elapsed().as_secs_f64();
    println!("{direction} depth {depth}: {rate:.0} per second, {:.1} us each", 1e6 * depth as f64 / rate);
}
