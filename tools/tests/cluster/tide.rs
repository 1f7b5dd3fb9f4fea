//! A guest that numbers its writes, so that of a copy of the disk can be told which moment it shows.
//!
//! Write number n is begun only when all up to n - [`DEPTH`] are answered. So a disk that holds n holds these as well, if it
//! is what the guest's disk was at any one moment: that is checked sector by sector.

use crate::cluster::{Cluster, PATIENCE};
use crate::guest::{BLOCK, Guest, REQUEST};
use levee_frontend::{Completion, FrontEnd, FrontEndOptions, Operation, Shape};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where it writes, in units of [`REQUEST`] bytes, one after the other. Odd, so that each sees every kind of write.
const PLACES: u64 = 251;
/// Bytes from the start of the disk that it may write.
pub const REACH: u64 = PLACES * REQUEST as u64;
/// Writes after which every sector was overwritten at least once.
pub const ROUND: u64 = 8 * PLACES;
const DEPTH: u64 = 16;
const SECTOR: usize = 512;
const SECTORS: u64 = (REQUEST / SECTOR) as u64;
const MAGIC: &[u8; 8] = b"A sector";
const TICK: Duration = Duration::from_millis(20);

/// What write `number` does to which sectors of its place.
struct Step {
    place: u64,
    sectors: Range<u64>,
    discards: bool,
}

impl Step {
    fn of(number: u64) -> Step {
        let block = number / 8 % (REQUEST / BLOCK) as u64 * 8;
        let (sectors, discards) = match number % 8 {
            0..4 => (0..SECTORS, false),
            4 | 5 => (block..block + 8, false),
            // Parts of two blocks.
            6 => (6..9, false),
            _ => (64..96, true),
        };
        Step { place: number % PLACES, sectors, discards }
    }

    fn operation(&self) -> Operation {
        let offset = self.place * REQUEST as u64 + self.sectors.start * SECTOR as u64;
        let len = (self.sectors.end - self.sectors.start) * SECTOR as u64;
        match self.discards {
            true => Operation::Discard { offset, len },
            false => Operation::Write { offset, len: len as usize },
        }
    }

    fn data(&self, number: u64) -> Vec<u8> {
        self.sectors.clone().flat_map(|sector| stamped(number, self.place * SECTORS + sector)).collect()
    }

    /// What its sectors hold afterwards.
    fn value(&self, number: u64) -> u64 {
        if self.discards { 0 } else { number }
    }
}

fn stamped(number: u64, sector: u64) -> [u8; SECTOR] {
    let mut bytes = [number as u8 ^ sector as u8; SECTOR];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes[16..24].copy_from_slice(&sector.to_le_bytes());
    bytes
}

/// The write that a sector was written by; 0: it is empty.
#[track_caller]
fn identify(bytes: &[u8], sector: u64) -> u64 {
    if bytes.iter().all(|b| *b == 0) {
        return 0;
    }
    let number = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    assert!(bytes == stamped(number, sector), "sector {sector} holds {:?}...", &bytes[..32]);
    number
}

/// How far it has come.
#[derive(Default)]
struct Marks {
    begun: AtomicU64,
    /// All up to this one are answered.
    answered: AtomicU64,
    stop: AtomicBool,
}

/// The guest, on a thread of its own.
pub struct Tide {
    marks: Arc<Marks>,
    thread: Option<JoinHandle<()>>,
    socket: PathBuf,
}

impl Tide {
    pub fn start(socket: &Path) -> Tide {
        let marks = Arc::new(Marks::default());
        let (theirs, path) = (marks.clone(), socket.to_path_buf());
        let thread = std::thread::spawn(move || Writer::connect(&path, theirs).run());
        Tide { marks, thread: Some(thread), socket: socket.to_path_buf() }
    }

    /// Lets so many more writes be answered.
    #[track_caller]
    pub fn progress(&self, writes: u64) {
        let until = self.answered() + writes;
        let begun = Instant::now();
        while self.answered() < until {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended && begun.elapsed() < PATIENCE, "the guest does not go on");
            std::thread::sleep(TICK);
        }
    }

    pub fn answered(&self) -> u64 {
        self.marks.answered.load(Ordering::SeqCst)
    }

    pub fn begun(&self) -> u64 {
        self.marks.begun.load(Ordering::SeqCst)
    }

    /// Takes a snapshot while it writes.
    #[track_caller]
    pub fn snapshot(&self, cluster: &Cluster, name: &str) -> Moment {
        let answered = self.answered();
        let taken = cluster.ok(&["snapshot", "create", name, "--timeout", "60s"]);
        assert_eq!(taken["snapshots"][0]["state"], "done", "{taken}");
        Moment { answered, begun: self.begun() }
    }

    /// Ends it and reads everything back; the moment that its disk shows from now on.
    #[track_caller]
    pub fn finish(mut self) -> Moment {
        self.marks.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("finished once").join().unwrap();
        let moment = Moment { answered: self.answered(), begun: self.begun() };
        assert_eq!(moment.answered, moment.begun);
        let mut guest = Guest::connect(&self.socket);
        moment.check(&guest.contents(REACH));
        guest.close();
        moment
    }
}

impl Drop for Tide {
    fn drop(&mut self) {
        // After a failure: the daemons go next, so the thread ends with the process.
        self.marks.stop.store(true, Ordering::SeqCst);
    }
}

struct Writer {
    front: FrontEnd,
    marks: Arc<Marks>,
    /// By slot, which write it is.
    in_flight: BTreeMap<usize, u64>,
    /// When the last answer came.
    heard: Instant,
}

impl Writer {
    fn connect(socket: &Path, marks: Arc<Marks>) -> Writer {
        let options = FrontEndOptions { socket: socket.to_path_buf(), queues: 1, max_data: REQUEST };
        let front = FrontEnd::connect(options).unwrap();
        Writer { front, marks, in_flight: BTreeMap::new(), heard: Instant::now() }
    }

    fn run(mut self) {
        let mut next = 1;
        loop {
            let stops = self.marks.stop.load(Ordering::SeqCst);
            while !stops && next - self.answered(next) <= DEPTH {
                self.begin(next);
                next += 1;
            }
            if self.in_flight.is_empty() {
                return self.front.close().unwrap();
            }
            self.take_answers();
            self.marks.answered.store(self.answered(next), Ordering::SeqCst);
        }
    }

    /// All up to it are answered.
    fn answered(&self, next: u64) -> u64 {
        self.in_flight.values().min().map_or(next, |oldest| *oldest) - 1
    }

    fn begin(&mut self, number: u64) {
        let step = Step::of(number);
        let tag = self.front.free_slot(0).expect("a slot is free for each write in flight");
        if !step.discards {
            self.front.put_data(tag, 0, &step.data(number));
        }
        // Before anybody can see it.
        self.marks.begun.store(number, Ordering::SeqCst);
        self.front.submit(tag, step.operation(), Shape::default());
        self.front.kick();
        self.in_flight.insert(tag.slot, number);
    }

    fn take_answers(&mut self) {
        assert!(self.heard.elapsed() < PATIENCE, "{} writes are not answered", self.in_flight.len());
        let mut done: Vec<Completion> = Vec::new();
        self.front.poll(TICK, &mut done).unwrap();
        for completion in done {
            assert_eq!(completion.status, 0, "the device failed a request");
            self.in_flight.remove(&completion.tag.slot);
            self.heard = Instant::now();
        }
    }
}

/// When a copy of the disk was made: all of `answered` is in it, and nothing after `begun`.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub answered: u64,
    pub begun: u64,
}

impl Moment {
    /// Checks that these bytes are what the disk was at one moment between the two.
    #[track_caller]
    pub fn check(&self, disk: &[u8]) {
        let (disk, beyond) = disk.split_at(REACH as usize);
        assert!(beyond.iter().all(|b| *b == 0), "data where nothing was written");
        let sectors = disk.chunks_exact(SECTOR);
        let found: Vec<u64> = sectors.enumerate().map(|(i, bytes)| identify(bytes, i as u64)).collect();
        let newest = found.iter().copied().max().unwrap_or(0);
        assert!(newest <= self.begun, "write {newest} was begun after {self:?}");
        let moment = Moment { answered: self.answered.max(newest.saturating_sub(DEPTH)), ..*self };
        for (place, found) in found.chunks_exact(SECTORS as usize).enumerate() {
            moment.check_place(place as u64, found);
        }
    }

    #[track_caller]
    fn check_place(&self, place: u64, found: &[u64]) {
        let mut certain = vec![0; found.len()];
        let mut possible: Vec<(Range<u64>, u64)> = Vec::new();
        for number in (1..=self.begun).filter(|n| n % PLACES == place) {
            let step = Step::of(number);
            if number > self.answered {
                possible.push((step.sectors.clone(), step.value(number)));
                continue;
            }
            let Range { start, end } = step.sectors;
            certain[start as usize..end as usize].fill(step.value(number));
        }
        for (sector, (found, certain)) in found.iter().zip(certain).enumerate() {
            let may_be = || possible.iter().any(|(range, v)| range.contains(&(sector as u64)) && v == found);
            assert!(
                *found == certain || may_be(),
                "sector {sector} of place {place} is of write {found}, not {certain} ({self:?}; later ones: {possible:?})"
            );
        }
    }
}
