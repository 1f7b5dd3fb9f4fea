//! A disk in memory, with a volatile cache and faults.

use super::{TestRng, TestRuntime};
use crate::ports::{Disk, Runtime};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;
const PAGE: usize = levee_proto::BLOCK_SIZE;
/// What Linux says of a sector that cannot be read.
const EIO: i32 = 5;

/// What happens, when power fails, to writes that no sync has made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashStyle {
    /// All are lost.
    LoseAll,
    /// All that had completed are there.
    KeepAll,
    /// Each 512-byte sector of each write, completed or still in flight, is there or not, in any order.
    Random,
}

/// A sparse disk that reads as zeros where nothing was written. Clones are handles to the same disk.
///
/// Writes land when they complete and survive [`MemDisk::crash`] for certain only after a sync that
/// began later. Every operation takes a few turns of the executor, or, on a disk with a pace, some time, so that
/// operations overlap.
#[derive(Clone)]
pub struct MemDisk(Rc<RefCell<State>>);

/// Content of one page; shared with forks until one changes it. `None`: zeros.
type Page = Option<Rc<[u8; PAGE]>>;

struct State {
    size: u64,
    /// What is zero is left out.
    pages: BTreeMap<u64, Rc<[u8; PAGE]>>,
    /// Cannot be read until they are written.
    bad: BTreeSet<u64>,
    /// Completed, not yet durable, in order of completion.
    unsynced: Vec<Landed>,
    /// Begun, not completed.
    in_flight: BTreeMap<u64, Flight>,
    next_id: u64,
    rng: TestRng,
    counts: Counts,
    faults: Faults,
    pace: Option<Pace>,
}

/// A write: the first page's number, and its pages.
#[derive(Clone)]
struct Flight {
    first: u64,
    pages: Vec<Page>,
}

#[derive(Clone)]
struct Landed {
    id: u64,
    new: Flight,
    old: Vec<Page>,
    /// A sync that covered it failed: no later sync makes it durable, as on Linux.
    doomed: bool,
}

/// How long operations take.
struct Pace {
    rt: TestRuntime,
    least: Duration,
    most: Duration,
    /// None completes before.
    stalled_until: Duration,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    reads: u64,
    writes: u64,
    syncs: u64,
    bytes_written: u64,
}

#[derive(Default)]
struct Faults {
    /// Fail the n-th write from now on (0 is the next), and so on.
    write: Option<u64>,
    sync: Option<u64>,
    read: Option<u64>,
    /// Flip a bit in what the n-th read from now on returns; the disk itself is sound.
    flip_read: Option<u64>,
    /// Operations that still begin before the power fails.
    power: Option<u64>,
    off: bool,
    space: Option<Space>,
}

impl Faults {
    /// Nothing strikes any more; the file system below stays as full as it is.
    fn clear(&mut self) {
        *self = Faults { space: self.space.take(), ..Faults::default() };
    }
}

/// What may still be written where nothing was written before.
struct Space {
    /// Pages.
    left: u64,
    /// Pages below have their room.
    from: u64,
    taken: BTreeSet<u64>,
}

/// Counts a fault down; true when it strikes, which disarms it.
fn strikes(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0) => {
            *countdown = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

impl MemDisk {
    /// An empty disk of `size` bytes; `seed` decides how long operations take and what a crash tears.
    pub fn new(size: u64, seed: u64) -> MemDisk {
        assert_eq!(size % PAGE as u64, 0, "size is whole blocks");
        MemDisk(Rc::new(RefCell::new(State {
            size,
            pages: BTreeMap::new(),
            bad: BTreeSet::new(),
            unsynced: Vec::new(),
            in_flight: BTreeMap::new(),
            next_id: 0,
            rng: TestRng::new(seed),
            counts: Counts::default(),
            faults: Faults::default(),
            pace: None,
        })))
    }

    /// From now on each operation takes between `least` and `most` of `rt`'s time.
    pub fn set_pace(&self, rt: &TestRuntime, least: Duration, most: Duration) {
        let mut s = self.0.borrow_mut();
        let stalled_until = s.pace.as_ref().map_or(Duration::ZERO, |p| p.stalled_until);
        s.pace = Some(Pace { rt: rt.clone(), least, most, stalled_until });
    }

    /// No operation completes for `time`. Only on a disk with a pace.
    pub fn stall(&self, time: Duration) {
        if let Some(pace) = &mut self.0.borrow_mut().pace {
            pace.stalled_until = pace.rt.now() + time;
        }
    }

    /// Bytes on the disk.
    pub fn size(&self) -> u64 {
        self.0.borrow().size
    }

    /// An independent disk with the content that this one would have after `style` of crash now.
    pub fn fork(&self, style: CrashStyle, seed: u64) -> MemDisk {
        let s = self.0.borrow();
        let copy = MemDisk(Rc::new(RefCell::new(State {
            size: s.size,
            pages: s.pages.clone(),
            bad: s.bad.clone(),
            unsynced: s.unsynced.clone(),
            in_flight: s.in_flight.clone(),
            next_id: s.next_id,
            rng: TestRng::new(seed),
            counts: Counts::default(),
            faults: Faults::default(),
            pace: None,
        })));
        copy.crash(style);
        copy
    }

    /// Power fails and comes back: what was not durable goes as `style` says, faults are cleared.
    /// Drop the tasks that used the disk first ([`TestRuntime::abort_all`], [`TestRuntime::kill`]).
    pub fn crash(&self, style: CrashStyle) {
        let s = &mut *self.0.borrow_mut();
        let landed = std::mem::take(&mut s.unsynced);
        let flying = std::mem::take(&mut s.in_flight);
        s.faults.clear();
        if style == CrashStyle::KeepAll {
            return;
        }
        for w in landed.iter().rev() {
            s.put(w.new.first, &w.old);
        }
        if style == CrashStyle::LoseAll {
            return;
        }
        let mut writes: Vec<Flight> = landed.into_iter().map(|w| w.new).collect();
        writes.extend(flying.into_values());
        while !writes.is_empty() {
            let i = s.rng.index(writes.len());
            let write = writes.swap_remove(i);
            s.land_torn(&write);
        }
    }

    /// The process dies but the machine lives: completed writes stay, those in flight land or not.
    pub fn kill(&self) {
        let s = &mut *self.0.borrow_mut();
        s.faults.clear();
        for (id, write) in std::mem::take(&mut s.in_flight) {
            if s.rng.one_in(2) {
                s.land(id, write);
            }
        }
    }

    /// The `after`-th write from now (0: the next) fails, having landed in part.
    pub fn fail_write(&self, after: u64) {
        self.0.borrow_mut().faults.write = Some(after);
    }

    /// The `after`-th sync from now fails, and what it should have made durable is not made so
    /// by a later one either.
    pub fn fail_sync(&self, after: u64) {
        self.0.borrow_mut().faults.sync = Some(after);
    }

    /// The `after`-th read from now fails.
    pub fn fail_read(&self, after: u64) {
        self.0.borrow_mut().faults.read = Some(after);
    }

    /// The `after`-th read from now returns a flipped bit; the disk itself is sound.
    pub fn flip_read(&self, after: u64) {
        self.0.borrow_mut().faults.flip_read = Some(after);
    }

    /// The file system below has room for so many bytes more; what lies below `from` has its room already. `None`: for everything.
    pub fn limit_space(&self, from: u64, bytes: Option<u64>) {
        let faults = &mut self.0.borrow_mut().faults;
        let taken = faults.space.take().map(|space| space.taken).unwrap_or_default();
        let space = |bytes: u64| Space { left: bytes / PAGE as u64, from: from / PAGE as u64, taken };
        faults.space = bytes.map(space);
    }

    /// No fault that was armed strikes any more, and nothing stalls.
    pub fn clear_faults(&self) {
        let mut s = self.0.borrow_mut();
        s.faults.clear();
        if let Some(pace) = &mut s.pace {
            pace.stalled_until = Duration::ZERO;
        }
    }

    /// Power fails when `operations` more have begun: none completes any more. Follow with
    /// [`MemDisk::crash`].
    pub fn power_off_after(&self, operations: u64) {
        self.0.borrow_mut().faults.power = Some(operations);
    }

    /// Whether [`MemDisk::power_off_after`] has struck.
    pub fn is_off(&self) -> bool {
        self.0.borrow().faults.off
    }

    /// Flips one bit (0 to 7) of the stored byte at `pos`.
    pub fn flip_bit(&self, pos: u64, bit: u8) {
        self.edit(pos, 1, |b| b[0] ^= 1 << bit);
    }

    /// From now on the page at `pos` cannot be read, until it is written: a bad sector, which the disk then replaces.
    pub fn make_unreadable(&self, pos: u64) {
        self.0.borrow_mut().bad.insert(pos / PAGE as u64);
    }

    /// Positions of the pages that cannot be read, in order.
    pub fn unreadable_pages(&self) -> Vec<u64> {
        self.0.borrow().bad.iter().map(|page| page * PAGE as u64).collect()
    }

    /// Changes stored bytes behind everyone's back.
    pub fn edit(&self, pos: u64, len: usize, change: impl FnOnce(&mut [u8])) {
        let s = &mut *self.0.borrow_mut();
        let (first, last) = (pos / PAGE as u64, (pos + len as u64).div_ceil(PAGE as u64));
        let mut bytes = s.get(first * PAGE as u64, (last - first) as usize * PAGE);
        let at = (pos - first * PAGE as u64) as usize;
        change(&mut bytes[at..at + len]);
        let pages = paged(&bytes);
        s.put(first, &pages);
    }

    /// The stored bytes, without an operation.
    pub fn peek(&self, pos: u64, len: usize) -> Vec<u8> {
        let first = pos / PAGE as u64 * PAGE as u64;
        let end = (pos + len as u64).next_multiple_of(PAGE as u64);
        let bytes = self.0.borrow().get(first, (end - first) as usize);
        bytes[(pos - first) as usize..][..len].to_vec()
    }

    /// Positions of the pages that are not zero, in order.
    pub fn used_pages(&self) -> Vec<u64> {
        self.0.borrow().pages.keys().map(|page| page * PAGE as u64).collect()
    }

    /// Reads begun so far.
    pub fn reads(&self) -> u64 {
        self.0.borrow().counts.reads
    }

    /// Writes begun so far.
    pub fn writes(&self) -> u64 {
        self.0.borrow().counts.writes
    }

    /// Syncs begun so far.
    pub fn syncs(&self) -> u64 {
        self.0.borrow().counts.syncs
    }

    /// Bytes of the writes begun so far.
    pub fn bytes_written(&self) -> u64 {
        self.0.borrow().counts.bytes_written
    }

    /// Takes as long as an operation does, and for ever if the power is off.
    async fn delay(&self) {
        let (turns, pause) = {
            let s = &mut *self.0.borrow_mut();
            if strikes(&mut s.faults.power) {
                s.faults.off = true;
            }
            (1 + s.rng.below(3), s.pause())
        };
        match pause {
            Some((rt, time)) => rt.sleep(time).await,
            None => {
                for _ in 0..turns {
                    yield_now().await;
                }
            }
        }
        if self.is_off() {
            std::future::pending::<()>().await;
        }
    }
}

impl Disk for MemDisk {
    type WriteBuf = Vec<u8>;
    type ReadBuf = Vec<u8>;

    fn is_thin(&self) -> bool {
        self.0.borrow().faults.space.is_some()
    }

    fn alloc(&self, len: usize) -> Vec<u8> {
        assert_eq!(len % PAGE, 0, "buffers are whole blocks");
        vec![0xa5; len]
    }

    async fn write(&self, pos: u64, buf: Vec<u8>) -> io::Result<()> {
        let (id, fail) = {
            let s = &mut *self.0.borrow_mut();
            s.check_range(pos, buf.len())?;
            s.counts.writes += 1;
            s.counts.bytes_written += buf.len() as u64;
            s.next_id += 1;
            let id = s.next_id;
            let flight = Flight { first: pos / PAGE as u64, pages: paged(&buf) };
            let fits = s.faults.space.as_mut().is_none_or(|space| space.take(flight.range()));
            s.in_flight.insert(id, flight);
            (
                id,
                if fits {
                    strikes(&mut s.faults.write).then_some(io::ErrorKind::Other)
                } else {
                    Some(io::ErrorKind::StorageFull)
                },
            )
        };
        drop(buf);
        self.delay().await;
        let s = &mut *self.0.borrow_mut();
        let Some(write) = s.in_flight.remove(&id) else { return Err(io::Error::other("disk was reset")) };
        if let Some(kind) = fail {
            s.land_torn(&write);
            return Err(io::Error::new(kind, "injected write error"));
        }
        s.land(id, write);
        Ok(())
    }

    async fn read(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let (fail, flip) = {
            let s = &mut *self.0.borrow_mut();
            s.check_range(pos, len)?;
            s.counts.reads += 1;
            (strikes(&mut s.faults.read), strikes(&mut s.faults.flip_read))
        };
        self.delay().await;
        if fail {
            return Err(io::Error::other("injected read error"));
        }
        let s = &mut *self.0.borrow_mut();
        let pages = pos / PAGE as u64..(pos + len as u64) / PAGE as u64;
        if s.bad.range(pages).next().is_some() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let mut bytes = s.get(pos, len);
        if flip {
            let at = s.rng.index(len);
            bytes[at] ^= 1 << s.rng.below(8);
        }
        Ok(bytes)
    }

    async fn sync(&self) -> io::Result<()> {
        let (covered, fail) = {
            let s = &mut *self.0.borrow_mut();
            s.counts.syncs += 1;
            // By id: another sync may shorten the list meanwhile.
            (s.unsynced.iter().map(|w| w.id).collect::<Vec<u64>>(), strikes(&mut s.faults.sync))
        };
        self.delay().await;
        self.0.borrow_mut().end_sync(&covered, fail)
    }
}

impl Space {
    /// Whether there is room for these pages; they have it from now on.
    fn take(&mut self, pages: std::ops::Range<u64>) -> bool {
        let new: Vec<u64> = pages.filter(|page| *page >= self.from && !self.taken.contains(page)).collect();
        let fits = new.len() as u64 <= self.left;
        if fits {
            self.left -= new.len() as u64;
            self.taken.extend(new);
        }
        fits
    }
}

impl Flight {
    fn range(&self) -> std::ops::Range<u64> {
        self.first..self.first + self.pages.len() as u64
    }
}

impl State {
    fn check_range(&self, pos: u64, len: usize) -> io::Result<()> {
        assert!(pos.is_multiple_of(PAGE as u64) && len.is_multiple_of(PAGE) && len > 0, "unaligned I/O: {pos}+{len}");
        match pos.checked_add(len as u64) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the disk")),
        }
    }

    /// How long this operation takes, if the disk has a pace.
    fn pause(&mut self) -> Option<(TestRuntime, Duration)> {
        let pace = self.pace.as_ref()?;
        let span = (pace.most - pace.least).as_nanos() as u64;
        let time = pace.least + Duration::from_nanos(self.rng.below(span + 1));
        let stalled = pace.stalled_until.saturating_sub(pace.rt.now());
        Some((pace.rt.clone(), time.max(stalled)))
    }

    fn land(&mut self, id: u64, new: Flight) {
        let old = new.range().map(|page| self.pages.get(&page).cloned()).collect();
        self.put(new.first, &new.pages);
        if !self.bad.is_empty() {
            self.bad.retain(|page| !new.range().contains(page));
        }
        self.unsynced.push(Landed { id, new, old, doomed: false });
    }

    /// Makes the covered writes durable, or dooms them.
    fn end_sync(&mut self, covered: &[u64], fail: bool) -> io::Result<()> {
        if fail {
            self.unsynced.iter_mut().filter(|w| covered.contains(&w.id)).for_each(|w| w.doomed = true);
            return Err(io::Error::other("injected sync error"));
        }
        let durable = |w: &Landed| covered.contains(&w.id) && !w.doomed;
        let ranges: Vec<_> = self.unsynced.iter().filter(|w| durable(w)).map(|w| w.new.range()).collect();
        let overwritten = |w: &Landed| {
            let mine = w.new.range();
            ranges.iter().any(|r| r.start < mine.end && mine.start < r.end)
        };
        let gone = |w: &Landed| durable(w) || (w.doomed && overwritten(w));
        self.unsynced.retain(|w| !gone(w));
        Ok(())
    }

    fn land_torn(&mut self, write: &Flight) {
        // Besides sectors at random: all, none, and a clean front part, which are the likely ones.
        let style = self.rng.below(4);
        let sectors = (write.pages.len() * PAGE / SECTOR) as u64;
        let front = self.rng.below(sectors + 1);
        for (i, (page, number)) in write.pages.iter().zip(write.range()).enumerate() {
            let mut torn = bytes_of(self.pages.get(&number));
            let new = bytes_of(page.as_ref());
            for at in (0..PAGE).step_by(SECTOR) {
                let keep = match style {
                    0 => true,
                    1 => ((i * PAGE + at) / SECTOR) < front as usize,
                    2 => self.rng.one_in(2),
                    _ => false,
                };
                if keep {
                    torn[at..at + SECTOR].copy_from_slice(&new[at..at + SECTOR]);
                }
            }
            self.put(number, &paged(&torn[..]));
        }
    }

    /// Whole pages.
    fn get(&self, pos: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let first = pos / PAGE as u64;
        for (number, page) in self.pages.range(first..first + (len / PAGE) as u64) {
            let at = (number - first) as usize * PAGE;
            out[at..at + PAGE].copy_from_slice(&page[..]);
        }
        out
    }

    fn put(&mut self, first: u64, pages: &[Page]) {
        for (page, number) in pages.iter().zip(first..) {
            match page {
                Some(page) => self.pages.insert(number, page.clone()),
                None => self.pages.remove(&number),
            };
        }
    }
}

fn paged(bytes: &[u8]) -> Vec<Page> {
    let page = |bytes: &[u8]| -> Page {
        let content: &[u8; PAGE] = bytes.try_into().ok()?;
        (*content != [0; PAGE]).then(|| Rc::new(*content))
    };
    bytes.chunks(PAGE).map(page).collect()
}

fn bytes_of(page: Option<&Rc<[u8; PAGE]>>) -> [u8; PAGE] {
    page.map_or([0; PAGE], |p| **p)
}

fn yield_now() -> impl Future<Output = ()> {
    struct YieldNow(bool);
    impl Future for YieldNow {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            if self.0 {
                return Poll::Ready(());
            }
            self.0 = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
    YieldNow(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRuntime;

    fn filled(disk: &MemDisk, byte: u8) -> Vec<u8> {
        let mut buf = disk.alloc(PAGE);
        buf.fill(byte);
        buf
    }

    #[test]
    fn synced_writes_survive_and_unsynced_ones_tear() {
        let mut torn = 0;
        for seed in 0..40 {
            let (rt, disk) = (TestRuntime::new(seed), MemDisk::new(1 << 20, seed));
            rt.block_on(async {
                disk.write(0, filled(&disk, 1)).await.unwrap();
                disk.sync().await.unwrap();
                disk.write(0, filled(&disk, 2)).await.unwrap();
            });
            assert_eq!(disk.fork(CrashStyle::LoseAll, seed).peek(0, PAGE), filled(&disk, 1));
            assert_eq!(disk.fork(CrashStyle::KeepAll, seed).peek(0, PAGE), filled(&disk, 2));
            let after = disk.fork(CrashStyle::Random, seed).peek(0, PAGE);
            assert!(after.iter().all(|b| *b == 1 || *b == 2));
            torn += u32::from(after.contains(&1) && after.contains(&2));
        }
        assert!(torn > 0);
    }

    #[test]
    fn faults_strike_once_where_told() {
        let (rt, disk) = (TestRuntime::new(3), MemDisk::new(1 << 20, 3));
        disk.fail_write(1);
        disk.fail_sync(0);
        disk.fail_read(0);
        rt.block_on(async {
            assert!(disk.write(0, filled(&disk, 1)).await.is_ok());
            assert!(disk.write(0, filled(&disk, 1)).await.is_err());
            assert!(disk.write(0, filled(&disk, 1)).await.is_ok());
            assert!(disk.sync().await.is_err() && disk.sync().await.is_ok());
            assert!(disk.read(0, PAGE).await.is_err() && disk.read(0, PAGE).await.is_ok());
            assert!(disk.read(1 << 20, PAGE).await.is_err());
        });
        disk.make_unreadable(PAGE as u64);
        rt.block_on(async {
            assert!(disk.read(0, PAGE).await.is_ok() && disk.read(0, 2 * PAGE).await.is_err());
            assert!(disk.read(PAGE as u64, PAGE).await.is_err(), "again and again");
            assert!(disk.write(PAGE as u64, filled(&disk, 2)).await.is_ok());
            assert!(disk.read(PAGE as u64, PAGE).await.is_ok() && disk.unreadable_pages().is_empty());
        });
        disk.power_off_after(0);
        let off = disk.clone();
        assert!(rt.run_until(disk.sync(), || off.is_off()).is_none());
        assert_eq!((disk.writes(), disk.reads(), disk.syncs()), (4, 6, 3));
    }
}
