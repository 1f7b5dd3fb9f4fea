//! Disks that fail, hang, and are put back: what one does concerns no other.

use super::*;
use levee_core::ports::Runtime;
use levee_core::store::StoreError;
use levee_core::sync::Event;
use std::cell::Cell;
use std::io;

/// A disk that can be made to hang: no write or sync ends until it is let go.
#[derive(Clone)]
struct Hanging {
    disk: MemDisk,
    hangs: Rc<Cell<bool>>,
    changed: Event,
    /// Bytes that are being read by reads of more than a block, and the most there ever were.
    reading: Rc<Cell<usize>>,
    most: Rc<Cell<usize>>,
}

impl Hanging {
    fn hang(&self, hangs: bool) {
        self.hangs.set(hangs);
        self.changed.notify();
    }

    async fn pass(&self) {
        while self.hangs.get() {
            self.changed.listen().await;
        }
    }
}

impl Disk for Hanging {
    type WriteBuf = Vec<u8>;
    type ReadBuf = Vec<u8>;

    fn alloc(&self, len: usize) -> Vec<u8> {
        self.disk.alloc(len)
    }

    async fn write(&self, pos: u64, buf: Vec<u8>) -> io::Result<()> {
        self.pass().await;
        self.disk.write(pos, buf).await
    }

    async fn read(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let counted = if len > BLOCK_SIZE { len } else { 0 };
        self.reading.set(self.reading.get() + counted);
        self.most.set(self.most.get().max(self.reading.get()));
        let read = self.disk.read(pos, len).await;
        self.reading.set(self.reading.get() - counted);
        read
    }

    async fn sync(&self) -> io::Result<()> {
        self.pass().await;
        self.disk.sync().await
    }
}

/// A service with two disks that epoch 1 has fenced; chunks 1 and 2 are on the first, 3 and 4 on the second.
async fn two_disks(rt: &TestRuntime, first: MemDisk) -> (Service<Hanging>, [Hanging; 2]) {
    let second = MemDisk::new(DISK_SIZE, 2);
    store::format(&second, DISK_SIZE, 2, [8; 16]).await.unwrap();
    let hanging = |disk| Hanging {
        disk,
        hangs: Rc::default(),
        changed: Event::new(),
        reading: Rc::default(),
        most: Rc::default(),
    };
    let disks = [hanging(first), hanging(second)];
    let shards = [open_disk(rt, &disks[0]).await, open_disk(rt, &disks[1]).await];
    let service =
        ReplicaService::new(rt.clone(), [DiskId(1), DiskId(2)].into_iter().zip(shards).collect::<BTreeMap<_, _>>());
    ask(rt, &service, fence(1)).await;
    for chunk in 1..=4 {
        let create = Request::Create { target: on(chunk, 1), adopted: true };
        assert_eq!(ask(rt, &service, (create, Bytes::new())).await, Reply::Done);
    }
    (service, disks)
}

fn on(chunk: u64, epoch: u32) -> Target {
    Target { disk: DiskId(if chunk < 3 { 1 } else { 2 }), ..target(chunk, epoch) }
}

fn write_on(chunk: u64, epoch: u32, counter: u64) -> (Request, Bytes) {
    let (mut request, data) = write(chunk, epoch, counter);
    if let Request::Write { target, .. } = &mut request {
        *target = on(chunk, epoch);
    }
    (request, data)
}

/// The disks of a fence that was answered, and the chunks there.
fn told(service: &Service<Hanging>, epoch: u32, reply: Reply) -> (Vec<u32>, Vec<u64>) {
    let Reply::Fenced { disks, .. } = reply else { panic!("not fenced: {reply:?}") };
    let chunks = disks.iter().flat_map(|disk| held(service, epoch, *disk)).map(|r| r.chunk.0).collect();
    (disks.iter().map(|d| d.0).collect(), chunks)
}

/// Spoils the log's batch that made the chunk's replica.
fn lose_creation(disk: &MemDisk, chunk: u64) {
    let creates = |b: &[u8]| b.starts_with(b"LVBA") && b[64] == 3 && b[80..88] == chunk.to_le_bytes();
    let pos = (0..DISK_SIZE).step_by(BLOCK_SIZE).find(|p| creates(&disk.peek(*p, 100))).expect("stored");
    disk.flip_bit(pos + 80, 0);
}

/// Makes the disk's shards fail, those of chunks 1 and 2.
async fn fail_first(rt: &TestRuntime, service: &Service<Hanging>, disk: &Hanging) {
    for chunk in [1, 2] {
        disk.disk.fail_write(0);
        assert_eq!(status(&ask(rt, service, write_on(chunk, 1, 100)).await), Status::Io);
    }
    assert_eq!(service.failed_disks().iter().map(|f| f.0).collect::<Vec<_>>(), [DiskId(1)]);
}

#[test]
fn a_failed_disk_fails_alone() {
    test(1, async |rt, disk| {
        let (service, disks) = two_disks(&rt, disk).await;
        assert_eq!(told(&service, 1, ask(&rt, &service, fence(1)).await), (vec![1, 2], vec![1, 2, 3, 4]));
        // One shard is enough.
        disks[0].disk.fail_write(0);
        assert_eq!(status(&ask(&rt, &service, write_on(1, 1, 1)).await), Status::Io);
        assert_eq!(told(&service, 2, ask(&rt, &service, fence(2)).await), (vec![2], vec![3, 4]));
        assert_eq!(status(&ask(&rt, &service, write_on(3, 2, 1)).await), Status::Ok);
        let read =
            Request::Read { target: on(1, 2), block: 5, count: 1, view: View::of(Version::FIRST), reconcile: true };
        let create = Request::Create { target: on(1, 2), adopted: false };
        let list = Request::List { target: on(1, 2), from: 0, from_version: Version::MAX, max: 1, above: Seq::ZERO };
        for request in [read, create, list] {
            assert_eq!(status(&ask(&rt, &service, (request, Bytes::new())).await), Status::Io);
        }
        // The disk's other shard works, but what it holds was not told.
        assert_eq!(status(&ask(&rt, &service, write_on(2, 2, 1)).await), Status::FenceFirst);
        assert_eq!(status(&ask(&rt, &service, write_on(1, 1, 2)).await), Status::Fenced);
        let replicas = [1, 3].map(|n| (on(n, 2).disk, ChunkId(n), ReplicaId(n))).to_vec();
        let adopt = |replicas| (Request::Adopt { volume: VOLUME, epoch: Epoch(2), replicas }, Bytes::new());
        assert_eq!(status(&ask(&rt, &service, adopt(replicas.clone())).await), Status::Io);
        assert_eq!(status(&ask(&rt, &service, adopt(replicas[1..].to_vec())).await), Status::Ok);
        let gone = service.delete(DiskId(1), ChunkId(1), ReplicaId(1)).await;
        assert!(matches!(gone, Err(StoreError::Failed(_))), "{gone:?}");
    });
}

#[test]
fn a_disk_opened_again_is_to_be_fenced_first() {
    test(2, async |rt, disk| {
        let (service, disks) = two_disks(&rt, disk).await;
        assert_eq!(status(&ask(&rt, &service, write_on(1, 1, 1)).await), Status::Ok);
        fail_first(&rt, &service, &disks[0]).await;
        ask(&rt, &service, fence(2)).await;
        let old = service.remove_disk(DiskId(1)).expect("was there");
        assert_eq!(status(&ask(&rt, &service, write_on(1, 2, 1)).await), Status::Io);
        assert_eq!(service.delete(DiskId(1), ChunkId(1), ReplicaId(1)).await, Err(StoreError::NoSuchDisk(DiskId(1))));
        assert_eq!(told(&service, 2, ask(&rt, &service, fence(2)).await), (vec![2], vec![3, 4]));
        for shard in old.mine.values() {
            assert!(matches!(shard.close().await, Err(StoreError::Failed(_))));
        }
        let again = open_disk(&rt, &disks[0]).await;
        assert!(service.replace_disk(DiskId(1), again).is_none());
        // It does not know of epoch 2, but the other disk does.
        assert_eq!(status(&ask(&rt, &service, fence(1)).await), Status::Fenced);
        assert_eq!(status(&ask(&rt, &service, write_on(1, 1, 2)).await), Status::Fenced);
        assert_eq!(status(&ask(&rt, &service, write_on(1, 2, 1)).await), Status::FenceFirst);
        assert_eq!(status(&ask(&rt, &service, write_on(3, 2, 1)).await), Status::Ok);
        assert_eq!(told(&service, 2, ask(&rt, &service, fence(2)).await), (vec![1, 2], vec![1, 2, 3, 4]));
        assert_eq!(status(&ask(&rt, &service, write_on(1, 2, 1)).await), Status::Ok);
        assert!(service.failed_disks().is_empty());
    });
}

#[test]
fn a_disk_that_may_have_forgotten_replicas_says_so() {
    test(5, async |rt, disk| {
        let (service, disks) = two_disks(&rt, disk).await;
        assert_eq!(status(&ask(&rt, &service, write_on(1, 1, 1)).await), Status::Ok);
        // As by a crash: nothing but the log remembers.
        service.remove_disk(DiskId(1)).expect("was there");
        let crashed = disks[0].disk.fork(CrashStyle::LoseAll, 1);
        lose_creation(&crashed, 1);
        let again = Hanging { disk: crashed, ..disks[0].clone() };
        let superblock = store::read_superblock(&again).await.unwrap();
        let mut mine = BTreeMap::new();
        for n in 0..2 {
            let (shard, report) =
                Shard::open(again.clone(), rt.clone(), &superblock, n, Options::default()).await.unwrap();
            assert_eq!(report.log_gap, n == 1, "{report}");
            mine.insert(n, shard);
        }
        service.replace_disk(DiskId(1), DiskShards { total: 2, mine });
        let fenced = async || match ask(&rt, &service, fence(2)).await {
            Reply::Fenced { disks, gaps } => {
                assert_eq!(disks, [DiskId(1), DiskId(2)]);
                assert_eq!(gaps, [DiskId(1)]);
                held(&service, 2, DiskId(1)).iter().map(|r| (r.chunk.0, r.damaged)).collect()
            }
            other => panic!("not fenced: {other:?}"),
        };
        let told: Vec<(u64, bool)> = fenced().await;
        assert_eq!(told, [(2, false)]);
        let create = |chunk, adopted| {
            let target = Target { disk: DiskId(1), ..on(chunk, 2) };
            (Request::Create { target, adopted }, Bytes::new())
        };
        for (chunk, adopted) in [(1, false), (5, true), (6, false)] {
            assert_eq!(ask(&rt, &service, create(chunk, adopted)).await, Reply::Done);
        }
        let told: Vec<(u64, bool)> = fenced().await;
        assert_eq!(told, [(1, true), (2, false), (5, false), (6, false)], "the other shard has forgotten nothing");
        let replicas = vec![(DiskId(1), ChunkId(1), ReplicaId(1))];
        let adopt = Request::Adopt { volume: VOLUME, epoch: Epoch(2), replicas };
        assert_eq!(ask(&rt, &service, (adopt, Bytes::new())).await, Reply::Done);
        let told: Vec<(u64, bool)> = fenced().await;
        assert!(told.contains(&(1, false)));
    });
}

#[test]
fn a_disk_that_hangs_does_not_hold_up_the_fence_of_others() {
    test(3, async |rt, disk| {
        let (service, disks) = two_disks(&rt, disk).await;
        disks[0].hang(true);
        let fenced = send(&service, fence(2), || {});
        // It might only be slow.
        rt.sleep(Duration::from_secs(30)).await;
        assert!(fenced.borrow().is_none());
        rt.sleep(Duration::from_secs(10)).await;
        assert_eq!(told(&service, 2, fenced.take().expect("answered without it")), (vec![2], vec![3, 4]));
        assert_eq!(status(&ask(&rt, &service, write_on(3, 2, 1)).await), Status::Ok);
        assert_eq!(status(&ask(&rt, &service, write_on(1, 2, 1)).await), Status::FenceFirst);
        disks[0].hang(false);
        // The fence is durable now, but nobody was told what the disk holds.
        assert_eq!(status(&ask(&rt, &service, write_on(1, 2, 1)).await), Status::FenceFirst);
        assert_eq!(told(&service, 2, ask(&rt, &service, fence(2)).await), (vec![1, 2], vec![1, 2, 3, 4]));
        assert_eq!(status(&ask(&rt, &service, write_on(1, 2, 1)).await), Status::Ok);
    });
}

#[test]
fn a_disk_replaced_while_it_is_fenced_is_not_fenced() {
    test(4, async |rt, disk| {
        let (service, disks) = two_disks(&rt, disk).await;
        let fenced = send(&service, fence(2), || {});
        let second = service.remove_disk(DiskId(2)).expect("was there");
        assert!(service.replace_disk(DiskId(2), second).is_none());
        assert!(fenced.borrow().is_none(), "not durable yet");
        let _ = ask(&rt, &service, write_on(3, 2, 1)).await;
        assert_eq!(told(&service, 2, fenced.take().expect("answered")), (vec![1], vec![1, 2]));
        assert_eq!(status(&ask(&rt, &service, write_on(3, 2, 1)).await), Status::FenceFirst);
        drop(disks);
    });
}

#[test]
fn a_fence_that_names_one_disk_lets_nobody_use_another() {
    test(6, async |rt, disk| {
        let (service, disks) = two_disks(&rt, disk).await;
        for id in [1, 2] {
            let shards = service.remove_disk(DiskId(id)).expect("was there");
            service.replace_disk(DiskId(id), shards);
        }
        // As by a restart: whoever uses the second has not heard what it holds now.
        assert_eq!(told(&service, 1, ask(&rt, &service, fence_disks(1, &[1])).await), (vec![1], vec![1, 2]));
        assert_eq!(status(&ask(&rt, &service, write_on(1, 1, 1)).await), Status::Ok);
        assert_eq!(status(&ask(&rt, &service, write_on(3, 1, 1)).await), Status::FenceFirst);
        // A newer one is refused on none of them, an older one on all; a disk that hangs holds up nobody.
        disks[1].hang(true);
        let first = send(&service, fence_disks(2, &[1]), || {});
        rt.sleep(Duration::from_millis(100)).await;
        assert_eq!(told(&service, 2, first.take().expect("the other disk is waited for")), (vec![1], vec![1, 2]));
        assert_eq!(status(&ask(&rt, &service, write_on(3, 1, 2)).await), Status::Fenced);
        disks[1].hang(false);
        assert_eq!(status(&ask(&rt, &service, write_on(3, 2, 1)).await), Status::FenceFirst);
        assert_eq!(told(&service, 2, ask(&rt, &service, fence_disks(2, &[2])).await), (vec![2], vec![3, 4]));
        assert_eq!(status(&ask(&rt, &service, write_on(3, 2, 1)).await), Status::Ok);
    });
}

#[test]
fn scans_of_a_disk_take_turns() {
    test(6, async |rt, disk| {
        let (service, disks) = two_disks(&rt, disk).await;
        for chunk in [1, 2] {
            let data = Bytes::from(vec![chunk as u8; 200 * BLOCK_SIZE]);
            let request = Request::Write {
                target: on(chunk, 1),
                kind: BlockKind::Data,
                version: Version::FIRST,
                seq: Seq::new(Epoch(1), 1),
                block: 0,
                count: 200,
                crcs: Crcs::of(&data),
            };
            assert_eq!(ask(&rt, &service, (request, data)).await, Reply::Done);
        }
        disks[0].most.set(0);
        let scan = |chunk, block, count| {
            let request = Request::Scan { target: on(chunk, 1), block, count };
            send(&service, (request, Bytes::new()), || {})
        };
        let scans = [scan(1, 0, 300), scan(2, 0, 300), scan(1, 0, 100), scan(1, 190, 50)];
        let read =
            Request::Read { target: on(1, 1), block: 7, count: 1, view: View::of(Version::FIRST), reconcile: false };
        assert_eq!(status(&ask(&rt, &service, (read, Bytes::new())).await), Status::Ok);
        let blocks = scans.map(|s| match s.take() {
            Some(Reply::Scan { blocks, bad, .. }) if bad.is_empty() => blocks,
            other => panic!("{other:?}"),
        });
        assert_eq!(blocks, [200, 200, 100, 10]);
        assert!(disks[0].most.get() <= 32 * BLOCK_SIZE, "{} bytes at once", disks[0].most.get());
    });
}
