//! One core's shards of all disks: recovered at the start, watched, given up when they fail, and taken back into
//! service when the disk works again.
//!
//! A shard that failed holds an unknown end of its log; what it acknowledged is durable. Recovering it is what a
//! restart of the daemon would do, and is tried a few times in place, when nothing of the old shard is on its way to
//! the disk any more.

use super::watched::{Watch, Watched};
use crate::links::core_of_shard;
use crate::ports::{GlommioDisk, GlommioRuntime};
use levee_core::load::{Rates, Totals};
use levee_core::ports::{Disk as _, Runtime};
use levee_core::replica::DiskShards;
use levee_core::store::{self, LargestIds, Options, RecoveryReport, Shard, Superblock, Usage};
use levee_proto::api::{DiskLoad, Load};
use levee_proto::{BLOCK_SIZE, ChunkId, DiskId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tracing::{error, info, warn};

pub type DaemonDisk = Watched<GlommioDisk, GlommioRuntime>;
type DaemonShard = Shard<DaemonDisk, GlommioRuntime>;
pub(super) type ServedShards = DiskShards<DaemonDisk, GlommioRuntime>;

/// An operation that takes longer is never going to end: the disk is given up.
pub const STALLED: Duration = Duration::from_secs(30);
/// Between two looks at the end of each disk.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Before a failed shard is first tried again; then twice as long each time.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Attempts to take a shard back into service, since the daemon's start: four minutes of them.
const MAX_ATTEMPTS: u32 = 8;
/// A disk that is removed may take so long to write out what it owes; then it is given up.
const CLOSING: Duration = Duration::from_secs(10);
/// Attempts before the disk is reported as failed, and what was on it made anew elsewhere.
const PATIENCE: u32 = 3;

/// All shards of one core.
pub struct Shards {
    rt: GlommioRuntime,
    core: u16,
    cores: usize,
    /// By position. The position of a disk that was removed is not used again.
    disks: RefCell<BTreeMap<usize, Rc<DiskOfCore>>>,
}

struct DiskOfCore {
    path: PathBuf,
    /// `None`: it could not be used when the daemon started.
    superblock: Option<Superblock>,
    /// This core's, by number.
    mine: BTreeMap<u16, Slot>,
    removed: Cell<bool>,
}

struct Slot {
    rates: Cell<Rates>,
    standing: RefCell<Standing>,
    attempts: Rc<RefCell<Attempts>>,
}

/// The newest incarnation of a shard.
struct Standing {
    /// `None`: it could not be recovered when the daemon started.
    shard: Option<(DaemonShard, DaemonDisk)>,
    /// Why it is out of service, if it is.
    out: Option<String>,
}

/// Attempts to take a shard back into service.
#[derive(Clone, Copy, Default)]
struct Attempts {
    made: u32,
    /// When the next one is due; `None`: there is nothing to attempt.
    due: Option<Duration>,
    /// An attempt is being made, or the failed shard has not ended yet.
    under_way: bool,
    /// The outage has lasted too long, or is not one to wait for: it is to be reported.
    lasting: bool,
}

impl Attempts {
    fn failed(&mut self, now: Duration) {
        let pause = RETRY_AFTER * 2u32.pow(self.made.min(MAX_ATTEMPTS));
        self.due = (self.made < MAX_ATTEMPTS).then(|| now + pause);
        self.lasting |= self.made >= PATIENCE;
    }

    fn begin(&mut self) {
        (self.made, self.due, self.under_way) = (self.made + 1, None, true);
    }
}

/// A core's share of a disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskShare {
    /// Bytes that may hold live data.
    pub capacity: u64,
    /// Bytes of live data.
    pub used: u64,
    /// Why the disk cannot be used, if it cannot.
    pub failed: Option<String>,
    /// What it did lately.
    pub load: DiskLoad,
    pub totals: Totals,
    pub shards: Vec<ShardReport>,
}

/// How one shard does.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardReport {
    pub number: u16,
    pub in_service: bool,
    /// As last known.
    pub usage: Option<Usage>,
    pub oldest_io: Duration,
    pub read_errors: u32,
    /// Since the shard was last recovered, and lately.
    pub totals: Totals,
    pub load: Load,
}

/// A shard, by the position of its disk and its number.
pub type Place = (usize, u16);

impl Shards {
    /// Recovers this core's shards. One that cannot be is out of service; the others go on.
    pub async fn open(disks: Vec<(PathBuf, Option<Superblock>)>, core: u16, cores: usize) -> Shards {
        let shards = Shards { rt: GlommioRuntime, core, cores, disks: RefCell::default() };
        for (position, (path, superblock)) in disks.into_iter().enumerate() {
            let disk = shards.open_disk(path, superblock).await;
            shards.disks.borrow_mut().insert(position, Rc::new(disk));
        }
        shards
    }

    async fn open_disk(&self, path: PathBuf, superblock: Option<Superblock>) -> DiskOfCore {
        let mut mine = BTreeMap::new();
        let numbers = 0..superblock.as_ref().map_or(0, |s| s.shards);
        for number in numbers.filter(|n| core_of_shard(*n, self.cores) == self.core) {
            let superblock = superblock.as_ref().expect("there are numbers");
            mine.insert(number, self.first_slot(&path, superblock, number).await);
        }
        DiskOfCore { path, superblock, mine, removed: Cell::new(false) }
    }

    /// Takes one more disk while the daemon runs; the bytes that this core's shards of it may hold. One that cannot be recovered
    /// is not taken.
    pub async fn add(&self, position: usize, path: PathBuf, superblock: Superblock) -> Result<u64, String> {
        let disk = Rc::new(self.open_disk(path, Some(superblock)).await);
        let out = disk.mine.values().find_map(|slot| slot.standing.borrow().out.clone());
        if let Some(why) = out {
            disk.close().await;
            return Err(why);
        }
        let capacity = disk.report().capacity;
        self.disks.borrow_mut().insert(position, disk);
        Ok(capacity)
    }

    /// Lets go of a disk: its shards are closed, in good order if it works.
    pub async fn remove(&self, position: usize) {
        let disk = self.disks.borrow_mut().remove(&position);
        if let Some(disk) = disk {
            disk.close().await;
        }
    }

    /// Looks at what the disks have done since the last look, `passed` ago.
    pub fn sample(&self, passed: Duration) {
        for ((_, number), disk) in self.places() {
            disk.mine[&number].sample(passed);
        }
    }

    async fn first_slot(&self, path: &Path, superblock: &Superblock, number: u16) -> Slot {
        let mut attempts = Attempts::default();
        let standing = match recover(path, superblock, number).await {
            Ok((shard, disk, report)) => {
                match report.is_clean() {
                    true => info!("disk {}, shard {number}: {report}", path.display()),
                    false => error!("disk {}, shard {number}: {report}", path.display()),
                }
                Standing { shard: Some((shard, disk)), out: None }
            }
            Err(why) => {
                error!("disk {}, shard {number}: {why}; going on without it", path.display());
                attempts.failed(self.rt.now());
                attempts.lasting = true;
                Standing { shard: None, out: Some(why) }
            }
        };
        Slot { rates: Cell::default(), standing: RefCell::new(standing), attempts: Rc::new(RefCell::new(attempts)) }
    }

    /// All shards, each with the disk that it is on.
    fn places(&self) -> Vec<(Place, Rc<DiskOfCore>)> {
        let disks = self.disks.borrow();
        let of = |(i, disk): (&usize, &Rc<DiskOfCore>)| {
            let (i, disk) = (*i, disk.clone());
            let numbers: Vec<u16> = disk.mine.keys().copied().collect();
            numbers.into_iter().map(move |number| ((i, number), disk.clone()))
        };
        disks.iter().flat_map(of).collect()
    }

    /// What the core's replicas live on, by the ids of the disks.
    pub fn in_service(&self, ids: &BTreeMap<usize, DiskId>) -> BTreeMap<DiskId, ServedShards> {
        ids.iter().filter_map(|(position, id)| Some((*id, self.of_disk(*position)?))).collect()
    }

    /// The shards of one disk. None if one of them was never recovered: nobody may take its replicas for ones that do
    /// not exist. A shard that has failed since is among them, and says so to whoever asks it.
    pub fn of_disk(&self, position: usize) -> Option<ServedShards> {
        let disk = self.disks.borrow().get(&position).cloned()?;
        let shard = |(number, slot): (&u16, &Slot)| Some((*number, slot.standing.borrow().shard.clone()?.0));
        let mine = disk.mine.iter().map(shard).collect::<Option<BTreeMap<_, _>>>()?;
        Some(DiskShards { total: disk.superblock.as_ref()?.shards, mine })
    }

    /// Looks for shards that have failed; whether there are new ones. Says so once.
    pub fn look(&self) -> bool {
        let mut found = false;
        for ((_, number), disk) in self.places() {
            found |= disk.mine[&number].look(&disk.path, number, self.rt.now());
        }
        found
    }

    /// Asks every disk whether it is still there, unless it owes an answer already.
    pub fn probe(&self) {
        for ((_, number), disk) in self.places() {
            let standing = disk.mine[&number].standing.borrow();
            let Some((_, watched)) = standing.shard.as_ref().filter(|_| standing.out.is_none()) else { continue };
            let (watched, last) = (watched.clone(), disk.superblock.as_ref().map(last_block).unwrap_or_default());
            if watched.watch().failed().is_none() && watched.oldest() < PROBE_EVERY {
                glommio::spawn_local(async move { watched.probe(last).await }).detach();
            }
        }
    }

    /// Shards that are to be tried again now.
    pub fn due(&self) -> Vec<Place> {
        let now = self.rt.now();
        let due = |((_, number), disk): &(Place, Rc<DiskOfCore>)| disk.mine[number].is_due(now);
        self.places().into_iter().filter(due).map(|(place, _)| place).collect()
    }

    /// Recovers a failed shard; whether it is back. The replicas on it are to be served anew then.
    pub async fn try_again(&self, place: Place) -> bool {
        let Some(disk) = self.disks.borrow().get(&place.0).cloned() else { return false };
        let slot = &disk.mine[&place.1];
        slot.attempts.borrow_mut().begin();
        let superblock = disk.superblock.as_ref().expect("it has shards");
        let back = recover_soundly(&disk.path, superblock, place.1).await;
        slot.attempts.borrow_mut().under_way = false;
        let show = format!("disk {}, shard {}", disk.path.display(), place.1);
        match back {
            Ok((shard, _)) if disk.removed.get() => {
                let _ = shard.close().await;
                false
            }
            Ok(recovered) => {
                info!("{show}: it works again and is back in service");
                slot.attempts.borrow_mut().lasting = false;
                *slot.standing.borrow_mut() = Standing { shard: Some(recovered), out: None };
                true
            }
            Err(why) => {
                slot.attempts.borrow_mut().failed(self.rt.now());
                let due = slot.attempts.borrow().due;
                match due {
                    Some(_) => warn!("{show}: still out of service: {why}"),
                    None => error!("{show}: stays out of service: {why}; replace the disk, or start the daemon again"),
                }
                slot.standing.borrow_mut().out = Some(why);
                false
            }
        }
    }

    /// How the core's share of each disk does.
    pub fn report(&self) -> BTreeMap<usize, DiskShare> {
        self.disks.borrow().iter().map(|(position, disk)| (*position, disk.report())).collect()
    }

    /// What the core's replicas on a disk take: those of chunks from `from` on, by chunk, at most `max`.
    pub fn replica_sizes(&self, position: usize, from: ChunkId, max: usize) -> Vec<store::ReplicaBytes> {
        let Some(disk) = self.disks.borrow().get(&position).cloned() else { return vec![] };
        let of = |slot: &Slot| Some(slot.standing.borrow().shard.as_ref()?.0.replica_bytes(from, max));
        let mut all: Vec<_> = disk.mine.values().filter_map(of).flatten().collect();
        all.sort_by_key(|r| r.chunk);
        all.truncate(max);
        all
    }

    /// The largest ids on all disks.
    pub fn largest_ids(&self) -> LargestIds {
        let disks = self.disks.borrow();
        let slots = disks.values().flat_map(|disk| disk.mine.values());
        let of = |slot: &Slot| slot.standing.borrow().shard.as_ref().map(|(shard, _)| shard.largest_ids());
        slots.filter_map(of).fold(LargestIds::default(), LargestIds::with)
    }

    /// Closes the shards in good order.
    pub async fn close(&self) {
        let disks: Vec<_> = self.disks.borrow().values().cloned().collect();
        for disk in disks {
            disk.close_shards().await;
        }
        info!("core {}: shards closed", self.core);
    }
}

impl Slot {
    fn look(&self, path: &Path, number: u16, now: Duration) -> bool {
        let Some(shard) = self.newly_failed(path, number, now) else { return false };
        let attempts = self.attempts.clone();
        // Begun while nothing here is borrowed: it may be done at once.
        let end = async move {
            // Nothing of it may be written any more before it is recovered.
            let _ = shard.close().await;
            attempts.borrow_mut().under_way = false;
        };
        glommio::spawn_local(end).detach();
        true
    }

    /// Takes the shard out of service if it has failed since the last look.
    fn newly_failed(&self, path: &Path, number: u16, now: Duration) -> Option<DaemonShard> {
        let standing = &mut *self.standing.borrow_mut();
        let (shard, disk) = standing.shard.as_ref().filter(|_| standing.out.is_none())?;
        let watch = disk.watch();
        let stalled = disk.oldest() > STALLED;
        if stalled {
            watch.fail(&format!("an operation has not completed for {} seconds", STALLED.as_secs()));
        }
        let why = watch.failed().map(|why| why.to_string()).or_else(|| shard.failed().map(|e| e.to_string()))?;
        error!("disk {}, shard {number} failed: {why}; out of service, other copies are used", path.display());
        standing.out = Some(why);
        let attempts = &mut *self.attempts.borrow_mut();
        attempts.failed(now);
        attempts.lasting |= stalled;
        attempts.under_way = true;
        Some(shard.clone())
    }

    fn sample(&self, passed: Duration) {
        if let Some((_, disk)) = &self.standing.borrow().shard {
            let mut rates = self.rates.get();
            rates.sample(disk.watch().totals(), passed);
            self.rates.set(rates);
        }
    }

    fn is_due(&self, now: Duration) -> bool {
        let attempts = self.attempts.borrow();
        let busy = self.standing.borrow().shard.as_ref().is_some_and(|(_, disk)| disk.watch().is_busy());
        !attempts.under_way && !busy && attempts.due.is_some_and(|due| due <= now)
    }

    fn report(&self, number: u16) -> ShardReport {
        let standing = self.standing.borrow();
        let disk = standing.shard.as_ref().map(|(_, disk)| disk);
        let watch = disk.map(DaemonDisk::watch);
        let load = match standing.out.is_none() {
            true => self.rates.get().load(),
            false => Load::default(),
        };
        ShardReport {
            number,
            load,
            totals: watch.map(Watch::totals).unwrap_or_default(),
            in_service: standing.out.is_none(),
            usage: standing.shard.as_ref().map(|(shard, _)| shard.usage()),
            oldest_io: disk.map(DaemonDisk::oldest).unwrap_or_default(),
            read_errors: watch.map(Watch::read_errors).unwrap_or_default(),
        }
    }
}

impl DiskOfCore {
    fn report(&self) -> DiskShare {
        let shards: Vec<_> = self.mine.iter().map(|(number, slot)| slot.report(*number)).collect();
        let sum = |of: fn(&Usage) -> u64| shards.iter().filter_map(|s| s.usage.as_ref().map(of)).sum();
        let lasting = |slot: &&Slot| slot.attempts.borrow().lasting;
        let failed = self.mine.values().filter(lasting).find_map(|slot| slot.standing.borrow().out.clone());
        let load = DiskLoad {
            load: shards.iter().fold(Load::default(), |sum, s| sum.plus(&s.load)),
            oldest_io_us: shards.iter().map(|s| s.oldest_io.as_micros() as u64).max().unwrap_or(0),
        };
        let totals = shards.iter().fold(Totals::default(), |sum, s| sum.plus(&s.totals));
        DiskShare { capacity: sum(|u| u.capacity), used: sum(|u| u.used), failed, load, totals, shards }
    }

    /// Closes the shards for good: the disk is taken away.
    async fn close(&self) {
        self.removed.set(true);
        let give_up = async {
            glommio::timer::sleep(CLOSING).await;
            for slot in self.mine.values() {
                if let Some((_, disk)) = &slot.standing.borrow().shard {
                    disk.watch().fail("it was removed");
                }
            }
            std::future::pending().await
        };
        futures_lite::future::or(self.close_shards(), give_up).await;
    }

    async fn close_shards(&self) {
        for (number, slot) in &self.mine {
            let shard = slot.standing.borrow().shard.as_ref().map(|(shard, _)| shard.clone());
            let Some(shard) = shard else { continue };
            if let Err(e) = shard.close().await {
                warn!(
                    "disk {}, shard {number} was not closed cleanly: {e}; it recovers at the next start",
                    self.path.display()
                );
            }
        }
    }
}

fn last_block(superblock: &Superblock) -> u64 {
    (superblock.size - 1) / BLOCK_SIZE as u64 * BLOCK_SIZE as u64
}

/// Opens the disk, if it is at this path: names of devices shift.
async fn open(path: &Path, superblock: &Superblock) -> Result<GlommioDisk, String> {
    let disk = GlommioDisk::open(path).await.map_err(|e| format!("it cannot be opened: {e}"))?;
    let there = store::read_superblock(&disk).await.map_err(|e| format!("its superblock cannot be read: {e}"))?;
    match there.disk_uuid == superblock.disk_uuid {
        true => Ok(disk),
        false => Err(format!("another disk is at {} now", path.display())),
    }
}

async fn recover(
    path: &Path,
    superblock: &Superblock,
    number: u16,
) -> Result<(DaemonShard, DaemonDisk, RecoveryReport), String> {
    let disk = Watched::new(open(path, superblock).await?, GlommioRuntime);
    let opened = Shard::open(disk.clone(), GlommioRuntime, superblock, number, Options::default()).await;
    let (shard, report) = opened.map_err(|e| e.to_string())?;
    Ok((shard, disk, report))
}

/// Recovers a shard that failed in this process: only if its disk is whole and nothing is missing from the log.
async fn recover_soundly(
    path: &Path,
    superblock: &Superblock,
    number: u16,
) -> Result<(DaemonShard, DaemonDisk), String> {
    let probe = open(path, superblock).await?;
    probe.read(last_block(superblock), BLOCK_SIZE).await.map_err(|e| format!("its end cannot be read: {e}"))?;
    let (shard, disk, report) = recover(path, superblock, number).await?;
    let watch = disk.watch();
    if report.is_clean() && watch.failed().is_none() {
        return Ok((shard, disk));
    }
    let why = watch.failed().map_or_else(|| report.to_string(), |why| why.to_string());
    watch.fail("it was not taken back into service");
    // Ends its tasks: it fails at once.
    let _ = shard.close().await;
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::FormatArgs;
    use crate::disks::OwnedDisk;

    const LOOK: Duration = Duration::from_millis(10);

    /// Runs on an executor as the daemon's cores do, with one shard of one disk.
    fn test<F: Future<Output = ()> + 'static>(story: impl FnOnce(Shards) -> F + Send + 'static) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        crate::disks::format(&FormatArgs { path: path.clone(), size: Some(256 << 20), cores: 1, force: false })
            .unwrap();
        let owned = OwnedDisk::open(&path, Duration::ZERO).map_err(|e| e.why).unwrap();
        let disks = vec![(path, Some(owned.superblock.clone()))];
        let core = crate::executor::spawn("test", move || async move { story(Shards::open(disks, 0, 1).await).await });
        core.unwrap().join().unwrap();
    }

    fn live(shards: &Shards) -> (DaemonShard, DaemonDisk) {
        live_of(shards, 0)
    }

    fn live_of(shards: &Shards, position: usize) -> (DaemonShard, DaemonDisk) {
        let disk = shards.disks.borrow()[&position].clone();
        let standing = disk.mine[&0].standing.borrow();
        let (shard, disk) = standing.shard.as_ref().unwrap();
        (shard.clone(), disk.clone())
    }

    async fn until_due(shards: &Shards) {
        while shards.due().is_empty() {
            glommio::timer::sleep(LOOK).await;
        }
    }

    #[test]
    fn a_shard_that_failed_is_recovered_in_place_again_and_again() {
        test(|shards| async move {
            for _ in 0..2 {
                let (shard, disk) = live(&shards);
                assert!(!shards.look() && shards.due().is_empty());
                disk.watch().fail("a test");
                // The shard has ended already when it is looked at, and when it has not.
                let _ = shard.checkpoint().await;
                assert!(shards.look() && !shards.look());
                assert!(!shards.report()[&0].shards[0].in_service);
                assert_eq!(shards.report()[&0].failed, None, "not before it has been tried again");
                until_due(&shards).await;
                assert!(shards.try_again((0, 0)).await);
                assert!(shards.report()[&0].shards[0].in_service);
                assert!(live(&shards).0.checkpoint().await.is_ok());
            }
            shards.close().await;
        });
    }

    #[test]
    fn a_shard_whose_disk_hangs_is_not_recovered_before_the_disk_has_answered() {
        test(|shards| async move {
            let (_, disk) = live(&shards);
            let probe = disk.clone();
            // Begun, and given up before it can complete.
            let read = glommio::spawn_local(async move { probe.probe(0).await });
            disk.watch().fail("a test");
            assert!(shards.look());
            read.await;
            until_due(&shards).await;
            assert!(!disk.watch().is_busy());
            assert!(shards.try_again((0, 0)).await);
            shards.close().await;
        });
    }

    /// Its operations are as old as they are, by whichever clock the core looks at them.
    #[test]
    fn a_disk_that_is_added_or_taken_back_late_is_not_given_up_for_what_it_is_doing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("late");
        crate::disks::format(&FormatArgs { path: path.clone(), size: Some(256 << 20), cores: 1, force: false })
            .unwrap();
        let superblock = OwnedDisk::open(&path, Duration::ZERO).map_err(|e| e.why).unwrap().superblock;
        test(move |shards| async move {
            // The daemon has been up for longer than any operation may take.
            assert!(shards.rt.now() > STALLED);
            shards.add(1, path, superblock).await.unwrap();
            live(&shards).1.watch().fail("a test");
            assert!(shards.look());
            until_due(&shards).await;
            assert!(shards.try_again((0, 0)).await);
            for position in [0, 1] {
                let (_, disk) = live_of(&shards, position);
                let reading = disk.clone();
                let read = glommio::spawn_local(async move { reading.probe(0).await });
                assert!(disk.watch().is_busy() && !shards.look(), "it is read");
                read.await;
                assert!(disk.watch().failed().is_none());
            }
            shards.close().await;
        });
    }

    /// A write of a killed process may end after its descriptors are closed, and with it the open file: until then the disk is not another's.
    #[test]
    fn a_disk_is_in_use_as_long_as_one_open_file_can_still_be_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        crate::disks::format(&FormatArgs { path: path.clone(), size: Some(256 << 20), cores: 1, force: false })
            .unwrap();
        let core = crate::executor::spawn("test", move || async move {
            let take = || OwnedDisk::open(&path, Duration::ZERO);
            let owned = take().map_err(|e| e.why).unwrap();
            let first = GlommioDisk::open(&path).await.unwrap();
            let second = GlommioDisk::open(&path).await.unwrap();
            drop(owned);
            for open in [first, second] {
                assert!(take().is_err_and(|unusable| unusable.in_use));
                drop(open);
            }
            while take().is_err() {
                glommio::timer::sleep(LOOK).await;
            }
            // And whoever has it lets nobody else open it.
            let lock = std::fs::File::open(&path).unwrap();
            let _lock = super::super::lock::exclusively(lock, &path, Duration::ZERO).unwrap();
            assert!(GlommioDisk::open(&path).await.is_err());
        });
        core.unwrap().join().unwrap();
    }

    #[test]
    fn attempts_take_longer_and_longer_and_end() {
        let mut attempts = Attempts::default();
        let mut now = Duration::ZERO;
        attempts.failed(now);
        let mut made = 0;
        while let Some(due) = attempts.due {
            assert!(due - now == RETRY_AFTER * 2u32.pow(made) && attempts.lasting == (made >= PATIENCE));
            (now, made) = (due, made + 1);
            attempts.begin();
            attempts.failed(now);
        }
        assert_eq!(made, MAX_ATTEMPTS);
        assert!(attempts.lasting);
    }
}
