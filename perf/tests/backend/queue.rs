//! One virtqueue of the test daemon, with in-flight tracking as the vhost-user specification has it.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{Fault, Shared};

const SIZE: u16 = 256;

/// Whether the queue goes on.
pub enum Outcome {
    Idle,
    Crash,
}

#[derive(Default)]
pub struct Queue {
    pub kick: Option<File>,
    pub call: Option<File>,
    pub enabled: bool,
    pub base: u16,
    desc: u64,
    avail: u64,
    used: u64,
    next_avail: u16,
    counter: u64,
    /// Heads taken up and not completed, in order of submission.
    taken: Vec<u16>,
}

#[derive(Clone, Copy)]
struct Piece {
    address: u64,
    len: usize,
    writable: bool,
}

/// What came of a request.
struct Done {
    /// Bytes written to guest memory.
    written: u32,
    /// Complete a request that is not in flight instead.
    stranger: bool,
}

type Memory = GuestMemoryMmap;

fn get_u16(m: &Memory, at: u64) -> u16 {
    m.load::<u16>(GuestAddress(at), Ordering::SeqCst).unwrap()
}

fn put_u16(m: &Memory, at: u64, value: u16) {
    m.store(value, GuestAddress(at), Ordering::SeqCst).unwrap();
}

fn bytes<const N: usize>(m: &Memory, at: u64) -> [u8; N] {
    let mut b = [0; N];
    m.read_slice(&mut b, GuestAddress(at)).unwrap();
    b
}

/// In-flight mark of a head within its queue's region.
fn mark(region: u64, head: u16) -> u64 {
    region + 16 + 16 * u64::from(head)
}

impl Queue {
    pub fn addresses(&mut self, desc: u64, avail: u64, used: u64) {
        (self.desc, self.avail, self.used) = (desc, avail, used);
    }

    /// Takes up what the daemon before left in flight.
    pub fn resume(&mut self, memory: &Memory, inflight: &Memory, region: u64, forget: bool) {
        let used = get_u16(memory, self.used + 2);
        assert_eq!(self.base, used, "the front end restarts at the used index");
        if get_u16(inflight, region + 14) != used {
            // The last completion was published, but its mark not taken away.
            put_u16(inflight, mark(region, get_u16(inflight, region + 12)), 0);
            put_u16(inflight, region + 14, used);
        }
        let marked = (0..SIZE).filter(|head| bytes::<1>(inflight, mark(region, *head)) == [1]);
        let mut heads: Vec<(u64, u16)> =
            marked.map(|head| (u64::from_le_bytes(bytes(inflight, mark(region, head) + 8)), head)).collect();
        heads.sort();
        self.next_avail = used.wrapping_add(heads.len() as u16);
        self.counter = heads.last().map_or(0, |(counter, _)| counter + 1);
        self.taken = if forget { Vec::new() } else { heads.into_iter().map(|(_, head)| head).collect() };
    }

    /// Takes up new requests and completes them, the newest first where several wait.
    pub fn run(
        &mut self,
        memory: &Memory,
        inflight: &Memory,
        region: u64,
        shared: &Shared,
        completed: &mut u64,
    ) -> Outcome {
        if let Some(kick) = &mut self.kick {
            // Empty where the queue was not kicked.
            let _ = kick.read(&mut [0; 8]);
        }
        loop {
            self.take_new(memory, inflight, region);
            if self.taken.is_empty() {
                put_u16(memory, self.used + 4 + 8 * u64::from(SIZE), self.next_avail);
                if get_u16(memory, self.avail + 2) == self.next_avail {
                    return Outcome::Idle;
                }
                continue;
            }
            let head = self.pick(memory);
            let crash = shared.crash_after > 0 && *completed >= shared.crash_after;
            let Some(done) = self.execute(memory, head, shared, crash) else { return Outcome::Crash };
            if crash {
                // Done, but not said: the next daemon has to do it again.
                return Outcome::Crash;
            }
            self.complete(memory, inflight, region, head, done);
            *completed += 1;
        }
    }

    fn take_new(&mut self, memory: &Memory, inflight: &Memory, region: u64) {
        while self.next_avail != get_u16(memory, self.avail + 2) {
            let head = get_u16(memory, self.avail + 4 + 2 * u64::from(self.next_avail % SIZE));
            inflight.write_slice(&self.counter.to_le_bytes(), GuestAddress(mark(region, head) + 8)).unwrap();
            inflight.write_slice(&[1], GuestAddress(mark(region, head))).unwrap();
            self.counter += 1;
            self.next_avail = self.next_avail.wrapping_add(1);
            self.taken.push(head);
        }
    }

    /// The newest request that overlaps no older one: a device may reorder, but not what conflicts.
    fn pick(&mut self, memory: &Memory) -> u16 {
        let ranges: Vec<_> = self.taken.iter().map(|head| self.range(memory, *head)).collect();
        let apart = |a: &std::ops::Range<usize>, b: &std::ops::Range<usize>| a.end <= b.start || b.end <= a.start;
        let free = |at: &usize| ranges[..*at].iter().all(|older| apart(older, &ranges[*at]));
        let at = (0..ranges.len()).rev().find(free).unwrap_or(0);
        self.taken.remove(at)
    }

    fn pieces(&self, memory: &Memory, head: u16) -> Vec<Piece> {
        let (mut table, mut at, mut pieces) = (self.desc, head, Vec::new());
        loop {
            let d = bytes::<16>(memory, table + 16 * u64::from(at));
            let address = u64::from_le_bytes(d[..8].try_into().unwrap());
            let len = u32::from_le_bytes(d[8..12].try_into().unwrap()) as usize;
            let (flags, next) = (u16::from_le_bytes([d[12], d[13]]), u16::from_le_bytes([d[14], d[15]]));
            if flags & 4 != 0 {
                (table, at) = (address, 0);
                continue;
            }
            pieces.push(Piece { address, len, writable: flags & 2 != 0 });
            if flags & 1 == 0 {
                return pieces;
            }
            at = next;
        }
    }

    fn range(&self, memory: &Memory, head: u16) -> std::ops::Range<usize> {
        let pieces = self.pieces(memory, head);
        let header = bytes::<16>(memory, pieces[0].address);
        let data: usize = pieces[1..pieces.len() - 1].iter().map(|p| p.len).sum();
        let (sector, len) = match header[0] {
            11 | 13 => {
                let range = bytes::<16>(memory, pieces[1].address);
                let sectors = u32::from_le_bytes(range[8..12].try_into().unwrap());
                (u64::from_le_bytes(range[..8].try_into().unwrap()), sectors as usize * 512)
            }
            _ => (u64::from_le_bytes(header[8..].try_into().unwrap()), data),
        };
        let start = sector as usize * 512;
        start..start + len
    }

    /// Does the request; nothing comes of it where a crash strikes before.
    fn execute(&self, memory: &Memory, head: u16, shared: &Shared, crash: bool) -> Option<Done> {
        if crash && shared.crashes.load(Ordering::SeqCst).is_multiple_of(2) {
            return None;
        }
        let pieces = self.pieces(memory, head);
        let range = self.range(memory, head);
        let status = pieces.last().unwrap();
        let data = &pieces[1..pieces.len() - 1];
        let kind = bytes::<16>(memory, pieces[0].address)[0];
        let mut disk = shared.disk.lock().unwrap();
        let mut done = Done { written: 1, stranger: false };
        let mut status_byte = 0u8;
        match kind {
            0 => {
                let mut at = range.start;
                for piece in data {
                    assert!(piece.writable);
                    memory.write_slice(&disk[at..at + piece.len], GuestAddress(piece.address)).unwrap();
                    at += piece.len;
                }
                done.written += range.len() as u32;
            }
            1 => (status_byte, done.stranger) = write(memory, data, range, &mut disk, shared),
            4 => {}
            11 => {
                // Whole blocks only, as the configuration says.
                let (start, end) = (range.start.next_multiple_of(4096), range.end / 4096 * 4096);
                disk[start..end.max(start)].fill(0);
            }
            13 => disk[range].fill(0),
            _ => status_byte = 2,
        }
        memory.write_slice(&[status_byte], GuestAddress(status.address)).unwrap();
        Some(done)
    }

    fn complete(&mut self, memory: &Memory, inflight: &Memory, region: u64, head: u16, done: Done) {
        let index = get_u16(memory, self.used + 2);
        let entry = self.used + 4 + 8 * u64::from(index % SIZE);
        let id = u32::from(head) + u32::from(done.stranger);
        memory.write_slice(&id.to_le_bytes(), GuestAddress(entry)).unwrap();
        memory.write_slice(&done.written.to_le_bytes(), GuestAddress(entry + 4)).unwrap();
        put_u16(inflight, region + 12, head);
        put_u16(memory, self.used + 2, index.wrapping_add(1));
        inflight.write_slice(&[0], GuestAddress(mark(region, head))).unwrap();
        put_u16(inflight, region + 14, index.wrapping_add(1));
        if let Some(call) = &mut self.call {
            // A full counter means that the call is pending already.
            let _ = call.write(&1u64.to_ne_bytes());
        }
    }
}

/// A write, right or wrong. Its status, and whether a stranger is to be completed for it.
fn write(m: &Memory, data: &[Piece], range: std::ops::Range<usize>, disk: &mut [u8], shared: &Shared) -> (u8, bool) {
    let number = shared.next_write();
    let mut content = vec![0; range.len()];
    let mut at = 0;
    for piece in data {
        assert!(!piece.writable);
        m.read_slice(&mut content[at..at + piece.len], GuestAddress(piece.address)).unwrap();
        at += piece.len;
    }
    let mut start = range.start;
    // Again and again: a single bad write may be overwritten before anybody looks.
    let due = |first: u64| number >= first && (number - first).is_multiple_of(20);
    match shared.fault {
        Fault::LoseWrite(n) if due(n) => return (0, false),
        Fault::FailWrite(n) if due(n) => return (1, false),
        Fault::CompleteStranger(n) if due(n) => return (0, true),
        Fault::CorruptWrite(n) if due(n) => content[4000] ^= 1,
        Fault::MisplaceWrite(n) if due(n) => start = if start >= 4096 { start - 4096 } else { start + 4096 },
        _ => {}
    }
    let end = (start + content.len()).min(disk.len());
    disk[start..end].copy_from_slice(&content[..end - start]);
    (0, false)
}
