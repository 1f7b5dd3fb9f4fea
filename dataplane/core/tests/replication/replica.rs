//! What a replica answers, request by request.

mod disks;
mod poison;
mod versions;

use bytes::Bytes;
use levee_core::ports::Disk;
use levee_core::replica::{DiskShards, ReplicaService};
use levee_core::store::{self, Options, Shard};
use levee_core::testing::{CrashStyle, MemDisk, TestRuntime};
use levee_proto::wire::{BlockEntry, BlockKind, Crcs, ReplicaSummary, Reply, Request, Scope, Status, Target};
use levee_proto::{BLOCK_SIZE, ChunkId, ConfigNo, DiskId, Epoch, Era, ReplicaId, Seq, Version, View, VolumeId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

const DISK_SIZE: u64 = 256 << 20;
const VOLUME: VolumeId = VolumeId(1);
type Service<D = MemDisk> = ReplicaService<D, TestRuntime>;

/// All shards of a disk.
async fn open_disk<D: Disk + Clone>(rt: &TestRuntime, disk: &D) -> DiskShards<D, TestRuntime> {
    let superblock = store::read_superblock(disk).await.unwrap();
    let mut mine = BTreeMap::new();
    for n in 0..superblock.shards {
        let (shard, report) = Shard::open(disk.clone(), rt.clone(), &superblock, n, Options::default()).await.unwrap();
        assert!(report.is_clean());
        mine.insert(n, shard);
    }
    DiskShards { total: superblock.shards, mine }
}

/// A service on all of the disk's shards.
async fn open(rt: &TestRuntime, disk: &MemDisk) -> Service {
    ReplicaService::new(rt.clone(), BTreeMap::from([(DiskId(1), open_disk(rt, disk).await)]))
}

fn test(seed: u64, story: impl AsyncFnOnce(TestRuntime, MemDisk)) {
    let (rt, disk) = (TestRuntime::new(seed), MemDisk::new(DISK_SIZE, seed));
    rt.block_on(async {
        store::format(&disk, DISK_SIZE, 2, [7; 16]).await.unwrap();
        story(rt.clone(), disk).await;
    });
    rt.abort_all();
}

fn target(chunk: u64, epoch: u32) -> Target {
    Target {
        volume: VOLUME,
        chunk: ChunkId(chunk),
        replica: ReplicaId(chunk),
        disk: DiskId(1),
        epoch: Epoch(epoch),
        config: ConfigNo::FIRST,
    }
}

fn write(chunk: u64, epoch: u32, counter: u64) -> (Request, Bytes) {
    let data = Bytes::from(vec![epoch as u8; BLOCK_SIZE]);
    let request = Request::Write {
        target: target(chunk, epoch),
        kind: BlockKind::Data,
        version: Version::FIRST,
        seq: Seq::new(Epoch(epoch), counter),
        block: 5,
        count: 1,
        crcs: Crcs::of(&data),
    };
    (request, data)
}

fn fence(epoch: u32) -> (Request, Bytes) {
    fence_disks(epoch, &[1, 2])
}

fn fence_disks(epoch: u32, disks: &[u32]) -> (Request, Bytes) {
    let disks = disks.iter().copied().map(DiskId).collect();
    (Request::Fence { volume: VOLUME, era: Era(0), epoch: Epoch(epoch), disks }, Bytes::new())
}

/// What is on a disk, for an epoch that has fenced it, page by page.
fn held<D: Disk>(service: &Service<D>, epoch: u32, disk: DiskId) -> Vec<ReplicaSummary> {
    let mut all = vec![];
    loop {
        let after = all.last().map_or(ChunkId(0), |r: &ReplicaSummary| r.chunk);
        let request = Request::Replicas { volume: VOLUME, epoch: Epoch(epoch), disk, after, max: 1 };
        match send(service, (request, Bytes::new()), || {}).take() {
            Some(Reply::Replicas { replicas, more }) => {
                assert!(replicas.len() == 1 || (replicas.is_empty() && !more), "{replicas:?}");
                all.extend(replicas);
                if !more {
                    return all;
                }
            }
            other => panic!("not told: {other:?}"),
        }
    }
}

/// What is on the first disk when an epoch has fenced it.
async fn fenced<D: Disk>(rt: &TestRuntime, service: &Service<D>, epoch: u32) -> Vec<ReplicaSummary> {
    assert_eq!(status(&ask(rt, service, fence(epoch)).await), Status::Ok, "not fenced");
    held(service, epoch, DiskId(1))
}

type Answered = Rc<RefCell<Option<Reply>>>;

fn send<D: Disk>(
    service: &Service<D>,
    (request, data): (Request, Bytes),
    on_answer: impl FnOnce() + 'static,
) -> Answered {
    let answered = Answered::default();
    let answer = answered.clone();
    service.handle(
        request,
        data,
        Box::new(move |reply, _| {
            *answer.borrow_mut() = Some(reply);
            on_answer();
        }),
    );
    answered
}

async fn ask<D: Disk>(rt: &TestRuntime, service: &Service<D>, request: (Request, Bytes)) -> Reply {
    use levee_core::ports::Runtime as _;
    let answered = send(service, request, || {});
    rt.sleep(Duration::from_secs(2)).await;
    answered.take().expect("answered")
}

fn status(reply: &Reply) -> Status {
    match reply {
        Reply::Error { status, .. } => *status,
        _ => Status::Ok,
    }
}

/// A service that epoch 1 has fenced, with a chunk on each shard.
async fn in_use(rt: &TestRuntime, disk: &MemDisk) -> Service {
    let service = open(rt, disk).await;
    ask(rt, &service, fence(1)).await;
    for chunk in 1..=2 {
        let create = Request::Create { target: target(chunk, 1), adopted: true };
        assert_eq!(ask(rt, &service, (create, Bytes::new())).await, Reply::Done);
    }
    service
}

#[test]
fn a_fence_is_answered_behind_every_earlier_write_and_outlives_a_crash() {
    for seed in 0..20 {
        test(seed, async move |rt, disk| {
            let service = in_use(&rt, &disk).await;
            let writes = [send(&service, write(1, 1, 1), || {}), send(&service, write(2, 1, 1), || {})];
            // Power fails in the moment of the answer.
            let after: Rc<RefCell<Option<MemDisk>>> = Rc::default();
            let (at_answer, live) = (after.clone(), disk.clone());
            let answered = send(&service, fence(2), move || {
                *at_answer.borrow_mut() = Some(live.fork(CrashStyle::LoseAll, 1));
            });
            assert_eq!(status(&ask(&rt, &service, write(1, 1, 2)).await), Status::Fenced);
            assert_eq!(answered.take().as_ref().map(status), Some(Status::Ok), "not fenced");
            let replicas = held(&service, 2, DiskId(1));
            assert!(replicas.iter().all(|r| r.entries == 1), "what was accepted is listed: {replicas:?}");
            assert!(writes.iter().all(|w| *w.borrow() == Some(Reply::Done)));
            let after = after.take().unwrap();
            let again = open(&rt, &after).await;
            assert_eq!(status(&ask(&rt, &again, fence(1)).await), Status::Fenced);
            let replicas = fenced(&rt, &again, 2).await;
            assert!(replicas.len() == 2 && replicas.iter().all(|r| r.entries == 1), "{replicas:?}");
        });
    }
}

#[test]
fn a_replica_that_was_made_outlives_a_crash() {
    use levee_core::ports::Runtime as _;
    for seed in 0..10 {
        test(seed, async move |rt, disk| {
            let service = open(&rt, &disk).await;
            ask(&rt, &service, fence(1)).await;
            let after: Rc<RefCell<Option<MemDisk>>> = Rc::default();
            let (at_answer, live) = (after.clone(), disk.clone());
            let create = Request::Create { target: target(1, 1), adopted: true };
            let made = send(&service, (create, Bytes::new()), move || {
                *at_answer.borrow_mut() = Some(live.fork(CrashStyle::LoseAll, 1));
            });
            rt.sleep(Duration::from_secs(2)).await;
            assert_eq!(made.take(), Some(Reply::Done));
            let again = open(&rt, &after.take().unwrap()).await;
            assert_eq!(fenced(&rt, &again, 2).await.len(), 1, "it was made");
        });
    }
}

#[test]
fn the_number_of_a_replica_set_shuts_out_nobody() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        let spent = Target { config: ConfigNo(u32::MAX), ..target(1, 1) };
        let view = View::default();
        let read = Request::Read { target: spent, block: 0, count: 1, view, reconcile: true };
        assert_eq!(status(&ask(&rt, &service, (read, Bytes::new())).await), Status::Ok);
        let (mut request, data) = write(1, 1, 1);
        if let Request::Write { target, .. } = &mut request {
            target.config = spent.config;
        }
        assert_eq!(status(&ask(&rt, &service, (request, data)).await), Status::Ok);
        assert_eq!(status(&ask(&rt, &service, write(1, 1, 2)).await), Status::Ok);
        let replicas = fenced(&rt, &service, 1).await;
        assert!(replicas.iter().all(|r| r.config == ConfigNo::FIRST), "{replicas:?}");
    });
}

#[test]
fn only_the_fenced_epoch_is_served_and_from_the_arrival_of_the_fence_on() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        assert_eq!(status(&ask(&rt, &service, write(1, 2, 1)).await), Status::FenceFirst);
        assert_eq!(status(&ask(&rt, &service, write(1, 1, 1)).await), Status::Ok);
        let fenced = send(&service, fence(2), || {});
        let (late, early) = (send(&service, write(1, 1, 2), || {}), send(&service, write(1, 2, 1), || {}));
        assert!(fenced.borrow().is_none(), "not durable yet");
        assert_eq!(late.borrow().as_ref().map(status), Some(Status::Fenced));
        assert_eq!(early.borrow().as_ref().map(status), Some(Status::FenceFirst));
        assert_eq!(status(&ask(&rt, &service, fence(1)).await), Status::Fenced);
        assert_eq!(status(&ask(&rt, &service, write(1, 2, 1)).await), Status::Ok);
    });
}

#[test]
fn who_has_not_fenced_since_a_restart_is_to_fence_first() {
    test(1, async |rt, disk| {
        drop(in_use(&rt, &disk).await);
        let after = disk.fork(CrashStyle::LoseAll, 1);
        let service = open(&rt, &after).await;
        assert_eq!(status(&ask(&rt, &service, write(1, 1, 1)).await), Status::FenceFirst);
        let list =
            Request::List { target: target(1, 1), from: 0, from_version: Version::MAX, max: 1, above: Seq::ZERO };
        assert_eq!(status(&ask(&rt, &service, (list, Bytes::new())).await), Status::FenceFirst);
        ask(&rt, &service, fence(1)).await;
        assert_eq!(status(&ask(&rt, &service, write(1, 1, 1)).await), Status::Ok);
    });
}

#[test]
fn guests_read_only_what_was_adopted() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        ask(&rt, &service, write(1, 1, 1)).await;
        ask(&rt, &service, fence(2)).await;
        let read = |reconcile| Request::Read {
            target: target(1, 2),
            block: 5,
            count: 1,
            view: View::of(Version::FIRST),
            reconcile,
        };
        assert_eq!(status(&ask(&rt, &service, (read(false), Bytes::new())).await), Status::NotAdopted);
        assert_eq!(status(&ask(&rt, &service, (read(true), Bytes::new())).await), Status::Ok);
        let replicas = vec![(DiskId(1), ChunkId(1), ReplicaId(1))];
        let adopt = Request::Adopt { volume: VOLUME, epoch: Epoch(2), replicas };
        assert_eq!(ask(&rt, &service, (adopt, Bytes::new())).await, Reply::Done);
        assert_eq!(status(&ask(&rt, &service, (read(false), Bytes::new())).await), Status::Ok);
    });
}

#[test]
fn a_commit_point_is_taken_from_who_has_adopted_and_told_at_the_next_fence() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        for n in 1..=3 {
            assert_eq!(ask(&rt, &service, write(1, 1, n)).await, Reply::Done);
        }
        let commit = |epoch, replica, counter| {
            let points = vec![(DiskId(1), ChunkId(1), ReplicaId(replica), Seq::new(Epoch(1), counter))];
            (Request::Commit { volume: VOLUME, epoch: Epoch(epoch), points }, Bytes::new())
        };
        assert_eq!(ask(&rt, &service, commit(1, 1, 2)).await, Reply::Done);
        assert_eq!(status(&ask(&rt, &service, commit(1, 1, 4)).await), Status::Invalid, "it does not hold that");
        assert_eq!(status(&ask(&rt, &service, commit(1, 9, 2)).await), Status::UnknownReplica);
        assert_eq!(status(&ask(&rt, &service, commit(2, 1, 3)).await), Status::FenceFirst);
        let told = async |epoch| {
            let replicas = fenced(&rt, &service, epoch).await;
            replicas.iter().find(|r| r.chunk == ChunkId(1)).map(|r| r.commit)
        };
        assert_eq!(told(2).await, Some(Seq::new(Epoch(1), 2)));
        assert_eq!(status(&ask(&rt, &service, commit(1, 1, 3)).await), Status::Fenced);
        // It may lack what the others have, as long as it has not adopted.
        assert_eq!(ask(&rt, &service, commit(2, 1, 3)).await, Reply::Done);
        assert_eq!(told(2).await, Some(Seq::new(Epoch(1), 2)), "ignored");
        let replicas = vec![(DiskId(1), ChunkId(1), ReplicaId(1))];
        let adopt = Request::Adopt { volume: VOLUME, epoch: Epoch(2), replicas };
        assert_eq!(ask(&rt, &service, (adopt, Bytes::new())).await, Reply::Done);
        assert_eq!(ask(&rt, &service, commit(2, 1, 3)).await, Reply::Done);
        assert_eq!(told(2).await, Some(Seq::new(Epoch(1), 3)));
    });
}

#[test]
fn a_fenced_disk_tells_what_it_holds_in_pages_that_changes_do_not_confuse() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        for chunk in [6, 4, 9, 7, 12] {
            let create = Request::Create { target: target(chunk, 1), adopted: true };
            assert_eq!(ask(&rt, &service, (create, Bytes::new())).await, Reply::Done);
        }
        let page = |epoch, after, max| {
            let (volume, disk, after) = (VOLUME, DiskId(1), ChunkId(after));
            let request = Request::Replicas { volume, epoch: Epoch(epoch), disk, after, max };
            match send(&service, (request, Bytes::new()), || {}).take() {
                Some(Reply::Replicas { replicas, more }) => {
                    Ok((replicas.iter().map(|r| r.chunk.0).collect::<Vec<_>>(), more))
                }
                other => Err(other.as_ref().map(status)),
            }
        };
        assert_eq!(page(2, 0, 3), Err(Some(Status::FenceFirst)), "not fenced yet");
        ask(&rt, &service, fence(2)).await;
        assert_eq!(page(1, 0, 3), Err(Some(Status::Fenced)));
        assert_eq!(page(2, 0, 3), Ok((vec![1, 2, 4], true)));
        // What was told goes, what was not comes and goes: the others are told once.
        for chunk in [2, 9] {
            service.delete(DiskId(1), ChunkId(chunk), ReplicaId(chunk)).await.unwrap();
        }
        for chunk in [3, 10] {
            let create = Request::Create { target: target(chunk, 2), adopted: false };
            assert_eq!(ask(&rt, &service, (create, Bytes::new())).await, Reply::Done);
        }
        assert_eq!(page(2, 4, 3), Ok((vec![6, 7, 10], true)));
        assert_eq!(page(2, 10, 3), Ok((vec![12], false)));
        assert_eq!(page(2, 12, 3), Ok((vec![], false)));
        assert_eq!(page(2, 0, 0), Ok((vec![1], true)), "a page has at least one");
        assert_eq!(page(2, u64::MAX, 9), Ok((vec![], false)));
        // A newer fence ends it, and so does another life of the disk.
        ask(&rt, &service, fence(3)).await;
        assert_eq!(page(2, 4, 3), Err(Some(Status::Fenced)));
        let shards = service.remove_disk(DiskId(1)).expect("was there");
        assert_eq!(page(3, 4, 3), Err(Some(Status::Io)));
        service.replace_disk(DiskId(1), shards);
        assert_eq!(page(3, 4, 3), Err(Some(Status::FenceFirst)));
    });
}
