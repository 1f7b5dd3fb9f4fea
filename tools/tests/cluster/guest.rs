//! What a virtual machine does to its disk: plain requests, and verified load in the background.

use crate::cluster::PATIENCE;
use levee_frontend::{Completion, FrontEnd, FrontEndOptions, Operation, Shape, Tag};
use levee_perf::torture::{self, Control, Options, Report};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const BLOCK: usize = 4096;
/// Bytes of one request.
pub const REQUEST: usize = 64 << 10;
const TICK: Duration = Duration::from_millis(20);

/// A guest with one queue. Every request must succeed.
pub struct Guest {
    front: FrontEnd,
    in_flight: BTreeSet<usize>,
}

impl Guest {
    pub fn connect(socket: &Path) -> Guest {
        let options = FrontEndOptions { socket: socket.to_path_buf(), queues: 1, max_data: 64 << 10 };
        Guest { front: FrontEnd::connect(options).unwrap(), in_flight: BTreeSet::new() }
    }

    /// Waits until the disk has so many bytes.
    pub fn until_capacity(&mut self, capacity: u64) {
        let begun = Instant::now();
        while self.front.config().capacity != capacity {
            self.wait(begun);
        }
    }

    /// Writes the pattern of each block of a range, [`REQUEST`] bytes at a time.
    pub fn write(&mut self, offset: u64, len: u64) {
        for at in (offset..offset + len).step_by(REQUEST) {
            self.begin_write(at);
        }
        self.finish();
    }

    /// Begins to write [`REQUEST`] bytes of the pattern, once there is a free slot.
    pub fn begin_write(&mut self, offset: u64) {
        let first = offset / BLOCK as u64;
        let data: Vec<u8> = (first..first + (REQUEST / BLOCK) as u64).flat_map(pattern).collect();
        self.begin_write_of(offset, &data);
    }

    /// Begins to write the pattern of one block.
    pub fn begin_block(&mut self, offset: u64) {
        self.begin_write_of(offset, &pattern(offset / BLOCK as u64));
    }

    /// Writes the same byte all over a range, [`REQUEST`] bytes at a time.
    pub fn fill(&mut self, range: std::ops::Range<u64>, byte: u8) {
        for at in range.clone().step_by(REQUEST) {
            let len = (range.end - at).min(REQUEST as u64);
            self.begin_write_of(at, &vec![byte; len as usize]);
        }
        self.finish();
    }

    fn begin_write_of(&mut self, offset: u64, data: &[u8]) {
        let begun = Instant::now();
        let tag = loop {
            match self.front.free_slot(0) {
                Some(tag) => break tag,
                None => self.wait(begun),
            }
        };
        self.front.put_data(tag, 0, data);
        self.submit(tag, Operation::Write { offset, len: data.len() });
    }

    /// Tries for some time to have one block written, by a disk that may not be there; whether it was.
    pub fn try_write(&mut self, time: Duration) -> bool {
        let tag = self.front.free_slot(0).expect("nothing is in flight");
        self.front.submit(tag, Operation::Write { offset: 0, len: BLOCK }, Shape::default());
        self.front.kick();
        let (begun, mut done) = (Instant::now(), Vec::new());
        while done.is_empty() && begun.elapsed() < time {
            // A connection that ends at once is tried again.
            let _ = self.front.poll(TICK, &mut done);
        }
        !done.is_empty()
    }

    /// The status of one request, whatever it is.
    pub fn status_of(&mut self, operation: Operation) -> u8 {
        let tag = self.front.free_slot(0).expect("nothing is in flight");
        self.front.submit(tag, operation, Shape::default());
        self.front.kick();
        let (begun, mut done) = (Instant::now(), Vec::new());
        while done.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{operation:?} is not answered");
            self.front.poll(TICK, &mut done).unwrap();
        }
        done[0].status
    }

    pub fn discard(&mut self, offset: u64, len: u64) {
        let tag = self.front.free_slot(0).expect("the guest has a free slot");
        self.submit(tag, Operation::Discard { offset, len });
        let begun = Instant::now();
        while self.in_flight.contains(&tag.slot) {
            self.wait(begun);
        }
    }

    /// Reads a range and compares each block with its pattern.
    #[track_caller]
    pub fn check(&mut self, offset: u64, len: u64) {
        for at in (offset..offset + len).step_by(REQUEST) {
            let read = self.read(at, REQUEST);
            for (block, found) in (at / BLOCK as u64..).zip(read.chunks_exact(BLOCK)) {
                assert!(found == pattern(block), "block {block} reads as {:?}...", &found[..16]);
            }
        }
    }

    #[track_caller]
    pub fn check_zeroes(&mut self, offset: u64, len: u64) {
        for at in (offset..offset + len).step_by(REQUEST) {
            assert!(self.read(at, REQUEST).iter().all(|b| *b == 0), "data at {at}");
        }
    }

    /// All that the disk holds up to there.
    pub fn contents(&mut self, len: u64) -> Vec<u8> {
        (0..len).step_by(REQUEST).flat_map(|at| self.read(at, REQUEST)).collect()
    }

    fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let tag = self.front.free_slot(0).expect("nothing is in flight");
        self.submit(tag, Operation::Read { offset, len });
        self.finish();
        let mut data = vec![0; len];
        self.front.take_data(tag, 0, &mut data);
        data
    }

    fn submit(&mut self, tag: Tag, operation: Operation) {
        self.front.submit(tag, operation, Shape::default());
        self.front.kick();
        self.in_flight.insert(tag.slot);
    }

    /// Waits until nothing is in flight.
    pub fn finish(&mut self) {
        let begun = Instant::now();
        while self.in_flight() > 0 {
            self.wait(begun);
        }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes completions until none has come for `quiet`; whether something is still in flight.
    pub fn is_stuck_for(&mut self, quiet: Duration) -> bool {
        let (mut since, mut before) = (Instant::now(), self.in_flight());
        while self.in_flight() > 0 && since.elapsed() < quiet {
            self.poll();
            if self.in_flight() != before {
                (since, before) = (Instant::now(), self.in_flight());
            }
        }
        self.in_flight() > 0
    }

    fn wait(&mut self, begun: Instant) {
        assert!(begun.elapsed() < PATIENCE, "{} requests are not answered", self.in_flight());
        self.poll();
    }

    fn poll(&mut self) {
        let mut done: Vec<Completion> = Vec::new();
        self.front.poll(TICK, &mut done).unwrap();
        for completion in done {
            assert_eq!(completion.status, 0, "the device failed a request");
            self.in_flight.remove(&completion.tag.slot);
        }
    }

    /// Shuts down in good order.
    pub fn close(self) {
        self.front.close().unwrap();
    }
}

/// What a block holds: its number is in every byte, so that it cannot be mistaken for another.
pub fn pattern(block: u64) -> [u8; BLOCK] {
    let mut bytes = [(block as u8).wrapping_mul(31) | 1; BLOCK];
    bytes[..8].copy_from_slice(b"A block:");
    bytes[8..16].copy_from_slice(&block.to_le_bytes());
    bytes
}

/// Verified load on a thread of its own, over a part of the volume that begins at its start.
pub struct Load {
    control: Arc<Control>,
    thread: Option<JoinHandle<anyhow::Result<Report>>>,
}

impl Load {
    pub fn start(socket: &Path, size: u64, seed: u64, state: Option<PathBuf>) -> Load {
        let control = Arc::new(Control::default());
        let options = Options {
            socket: socket.to_path_buf(),
            time: Duration::MAX,
            seed,
            depth: 16,
            queues: 2,
            size_limit: size,
            unit: BLOCK,
            fresh: true,
            discard_may_keep: false,
            state,
            stall_limit: PATIENCE,
        };
        let theirs = control.clone();
        Load { control, thread: Some(std::thread::spawn(move || torture::run(&options, &theirs))) }
    }

    /// Lets so many more requests complete.
    #[track_caller]
    pub fn progress(&self, requests: u64) {
        let until = self.control.completions() + requests;
        let begun = Instant::now();
        while self.control.completions() < until {
            let ended = self.thread.as_ref().is_none_or(|thread| thread.is_finished());
            assert!(!ended && begun.elapsed() < PATIENCE, "the load does not go on");
            std::thread::sleep(TICK);
        }
    }

    /// Ends the load and reads everything back. Nothing may be lost, wrong or failed.
    #[track_caller]
    pub fn finish(mut self) -> Report {
        self.control.stop();
        let report = self.thread.take().expect("finished once").join().unwrap().unwrap();
        assert!(report.ok(), "{report:?}");
        report
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // After a failure: the daemons go next, so the thread ends with the process.
        self.control.stop();
    }
}
