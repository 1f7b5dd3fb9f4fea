//! Versions at a replica: views, listings, repairs, pruning, seals, and reads by anybody.

use super::*;
use levee_proto::wire::{BlockEntry, Scope};

fn seq(epoch: u32, counter: u64) -> Seq {
    Seq::new(Epoch(epoch), counter)
}

fn content(n: u8) -> Vec<u8> {
    vec![n; BLOCK_SIZE]
}

/// Content `n` for a block of chunk 1.
fn write_at(version: u32, counter: u64, block: u32, n: u8) -> (Request, Bytes) {
    let data = Bytes::from(content(n));
    let crcs = Crcs::of(&data);
    let (kind, version, seq) = (BlockKind::Data, Version(version), seq(1, counter));
    (Request::Write { target: target(1, 1), kind, version, seq, block, count: 1, crcs }, data)
}

fn data(version: u32, seq: Seq, block: u32, n: u8) -> BlockEntry {
    BlockEntry { block, kind: BlockKind::Data, version: Version(version), seq, crc: crc32c::crc32c(&content(n)) }
}

fn named() -> (DiskId, ChunkId, ReplicaId) {
    (DiskId(1), ChunkId(1), ReplicaId(1))
}

fn view(version: u32, hidden: &[(u32, u32)]) -> View {
    View { version: Version(version), hidden: hidden.iter().map(|(a, b)| (Version(*a), Version(*b))).collect() }
}

/// The answer, and the first byte of each of its blocks.
async fn get(rt: &TestRuntime, service: &Service, request: Request) -> (Reply, Vec<u8>) {
    use levee_core::ports::Runtime as _;
    let answered: Rc<RefCell<Option<(Reply, Bytes)>>> = Rc::default();
    let answer = answered.clone();
    service.handle(request, Bytes::new(), Box::new(move |reply, data| *answer.borrow_mut() = Some((reply, data))));
    rt.sleep(Duration::from_secs(2)).await;
    let (reply, data) = answered.take().expect("answered");
    (reply, data.chunks_exact(BLOCK_SIZE).map(|b| b[0]).collect())
}

/// Blocks 5 and 6 of chunk 1, in three versions and two.
async fn with_versions(rt: &TestRuntime, disk: &MemDisk) -> Service {
    let service = in_use(rt, disk).await;
    for (version, counter, block, n) in [(1, 1, 5, 10), (3, 3, 5, 30), (2, 2, 5, 20), (1, 4, 6, 11), (3, 5, 6, 31)] {
        assert_eq!(ask(rt, &service, write_at(version, counter, block, n)).await, Reply::Done);
    }
    service
}

async fn listed(rt: &TestRuntime, service: &Service) -> Vec<(u32, u32)> {
    let (from_version, max, above) = (Version::MAX, 100, Seq::ZERO);
    let list = Request::List { target: target(1, 1), from: 0, from_version, max, above };
    let (Reply::List { entries, more: false }, _) = get(rt, service, list).await else { panic!("no listing") };
    entries.iter().map(|e| (e.block, e.version.0)).collect()
}

async fn commit(rt: &TestRuntime, service: &Service, counter: u64) {
    let points = vec![(DiskId(1), ChunkId(1), ReplicaId(1), seq(1, counter))];
    let commit = Request::Commit { volume: VOLUME, epoch: Epoch(1), points };
    assert_eq!(ask(rt, service, (commit, Bytes::new())).await, Reply::Done);
}

#[test]
fn a_view_reads_the_newest_entry_that_it_sees() {
    test(1, async |rt, disk| {
        let service = with_versions(&rt, &disk).await;
        let read = async |view: View| {
            let read = Request::Read { target: target(1, 1), block: 5, count: 3, view, reconcile: false };
            let (Reply::Read { entries }, data) = get(&rt, &service, read).await else { panic!("not read") };
            assert_eq!(entries[2], BlockEntry::absent(7));
            (entries[0].version.0, entries[1].version.0, data)
        };
        assert_eq!(read(view(9, &[])).await, (3, 3, vec![30, 31]));
        assert_eq!(read(view(2, &[])).await, (2, 1, vec![20, 11]), "late older writes are at their place");
        assert_eq!(read(view(4, &[(2, 3)])).await, (1, 1, vec![10, 11]));
        assert_eq!(read(view(4, &[(1, 1), (3, 3)])).await, (2, 0, vec![20]));
        assert_eq!(status(&ask(&rt, &service, write_at(0, 9, 5, 1)).await), Status::Invalid);
    });
}

#[test]
fn all_versions_are_listed_and_read_from_any_position() {
    test(1, async |rt, disk| {
        let service = with_versions(&rt, &disk).await;
        assert_eq!(listed(&rt, &service).await, [(5, 3), (5, 2), (5, 1), (6, 3), (6, 1)]);
        let list = |from, version, max, above| Request::List {
            target: target(1, 1),
            from,
            from_version: Version(version),
            max,
            above,
        };
        let (reply, _) = get(&rt, &service, list(5, 2, 2, Seq::ZERO)).await;
        let entries = vec![data(2, seq(1, 2), 5, 20), data(1, seq(1, 1), 5, 10)];
        assert_eq!(reply, Reply::List { entries, more: true });
        let (reply, _) = get(&rt, &service, list(5, 0, 9, seq(1, 4))).await;
        assert_eq!(reply, Reply::List { entries: vec![data(3, seq(1, 5), 6, 31)], more: false });
        let read = |block, count, version, reconcile| Request::ReadVersions {
            target: target(1, 1),
            block,
            count,
            from_version: Version(version),
            reconcile,
        };
        let (reply, bytes) = get(&rt, &service, read(5, 2, 2, false)).await;
        let Reply::ReadVersions { entries, more: false } = reply else { panic!("{reply:?}") };
        let keys: Vec<_> = entries.iter().map(|e| (e.block, e.version.0)).collect();
        assert_eq!((keys, bytes), (vec![(5, 2), (5, 1), (6, 3), (6, 1)], vec![20, 10, 31, 11]));
        let (reply, bytes) = get(&rt, &service, read(5, 1, 9, true)).await;
        let Reply::ReadVersions { entries, more: false } = reply else { panic!("{reply:?}") };
        assert_eq!((entries.len(), bytes), (3, vec![30, 20, 10]));
    });
}

#[test]
fn a_long_chain_is_read_in_pieces() {
    test(1, async |rt, disk| {
        let service = in_use(&rt, &disk).await;
        let writes: Vec<_> = (1..=600).map(|v| send(&service, write_at(v, u64::from(v), 5, v as u8), || {})).collect();
        assert_eq!(ask(&rt, &service, write_at(1, 1000, 6, 1)).await, Reply::Done);
        assert!(writes.iter().all(|w| *w.borrow() == Some(Reply::Done)));
        let (mut found, mut at, mut calls) = (vec![], (5, Version::MAX), 0);
        loop {
            let (target, count) = (target(1, 1), 7 - at.0);
            let read = Request::ReadVersions { target, block: at.0, count, from_version: at.1, reconcile: false };
            let (Reply::ReadVersions { entries, more }, bytes) = get(&rt, &service, read).await else { panic!() };
            assert!(entries.len() <= 256 && entries.iter().zip(&bytes).all(|(e, b)| e.version.0 as u8 == *b));
            found.extend(entries.iter().map(|e| (e.block, e.version.0)));
            at = entries.last().map_or(at, |e| (e.block, Version(e.version.0 - 1)));
            calls += 1;
            if !more {
                break;
            }
        }
        let expected: Vec<_> = (1..=600).rev().map(|v| (5, v)).chain([(6, 1)]).collect();
        assert_eq!((found, calls), (expected, 3));
        let scan = Request::Scan { target: target(1, 1), block: 0, count: 100 };
        let (Reply::Scan { data, blocks, bad, .. }, _) = get(&rt, &service, scan).await else { panic!("not scanned") };
        assert_eq!((data, blocks, bad), (601, 601, vec![]));
    });
}

#[test]
fn a_repair_with_a_scope_leaves_nothing_else_of_older_epochs_there() {
    test(1, async |rt, disk| {
        let service = with_versions(&rt, &disk).await;
        ask(&rt, &service, fence(2)).await;
        let (_, bytes) = write_at(1, 1, 5, 22);
        let late = |version, counter| {
            let (kind, crcs) = (BlockKind::Zero, Crcs::none());
            let (version, seq) = (Version(version), seq(2, counter));
            (Request::Write { target: target(1, 2), kind, version, seq, block: 6, count: 1, crcs }, Bytes::new())
        };
        assert_eq!(ask(&rt, &service, late(4, 1)).await, Reply::Done);
        let scope = Scope::Versions { block: 5, count: 2, first: Version(2), last: Version::MAX };
        let entries = vec![data(2, seq(1, 7), 5, 22)];
        let repair = Request::Repair { target: target(1, 2), scope, entries };
        assert_eq!(ask(&rt, &service, (repair, bytes)).await, Reply::Done);
        let (from_version, max, above) = (Version::MAX, 100, Seq::ZERO);
        let list = Request::List { target: target(1, 2), from: 0, from_version, max, above };
        let (Reply::List { entries, .. }, _) = get(&rt, &service, list.clone()).await else { panic!("no listing") };
        let found: Vec<_> = entries.iter().map(|e| (e.block, e.version.0, e.seq)).collect();
        let expected = [(5, 2, seq(1, 7)), (5, 1, seq(1, 1)), (6, 4, seq(2, 1)), (6, 1, seq(1, 4))];
        assert_eq!(found, expected, "what this epoch wrote stays, and what is out of scope");
        // One entry by its version, and a whole block.
        let absent = vec![BlockEntry { version: Version(1), ..BlockEntry::absent(6) }, BlockEntry::absent(5)];
        let repair = Request::Repair { target: target(1, 2), scope: Scope::Named, entries: absent };
        assert_eq!(ask(&rt, &service, (repair, Bytes::new())).await, Reply::Done);
        let (Reply::List { entries, .. }, _) = get(&rt, &service, list).await else { panic!("no listing") };
        assert_eq!(entries.iter().map(|e| (e.block, e.version.0)).collect::<Vec<_>>(), [(6, 4)]);
    });
}

#[test]
fn what_no_view_reads_is_pruned_up_to_the_commit_point() {
    test(1, async |rt, disk| {
        let service = with_versions(&rt, &disk).await;
        let prune = async |epoch, keep: Vec<View>| {
            let prune = Request::Prune { volume: VOLUME, epoch: Epoch(epoch), keep, replicas: vec![named()] };
            ask(&rt, &service, (prune, Bytes::new())).await
        };
        assert_eq!(prune(1, vec![view(3, &[])]).await, Reply::Pruned { dropped: 0 }, "nothing is committed");
        commit(&rt, &service, 4).await;
        assert_eq!(status(&prune(1, vec![]).await), Status::Invalid);
        assert_eq!(status(&prune(2, vec![view(3, &[])]).await), Status::FenceFirst);
        // Of block 6, what hides version 1 is not committed: it may turn out void.
        assert_eq!(prune(1, vec![view(3, &[])]).await, Reply::Pruned { dropped: 2 });
        assert_eq!(listed(&rt, &service).await, [(5, 3), (6, 3), (6, 1)]);
        commit(&rt, &service, 5).await;
        assert_eq!(prune(1, vec![view(3, &[]), view(2, &[])]).await, Reply::Pruned { dropped: 0 });
        // After a rollback to version 2 the head sees nothing of 3; the largest seq is gone, and is still known.
        assert_eq!(prune(1, vec![view(4, &[(3, 3)])]).await, Reply::Pruned { dropped: 2 });
        assert_eq!(listed(&rt, &service).await, [(6, 1)]);
        commit(&rt, &service, 5).await;
        assert_eq!(ask(&rt, &service, write_at(4, 6, 5, 40)).await, Reply::Done);
        ask(&rt, &service, fence(2)).await;
        let stale = prune(1, vec![view(4, &[])]).await;
        assert_eq!(status(&stale), Status::Fenced);
        assert_eq!(prune(2, vec![view(4, &[])]).await, Reply::Pruned { dropped: 0 }, "not adopted");
    });
}

#[test]
fn a_sealed_snapshot_is_read_by_anybody() {
    test(1, async |rt, disk| {
        let service = with_versions(&rt, &disk).await;
        let shared = |version| Request::ReadShared {
            volume: VOLUME,
            chunk: ChunkId(1),
            replica: ReplicaId(1),
            disk: DiskId(1),
            view: view(version, &[]),
            block: 5,
            count: 2,
        };
        let seal = |epoch, version| {
            let (epoch, version, replicas) = (Epoch(epoch), Version(version), vec![named()]);
            (Request::Seal { volume: VOLUME, epoch, version, replicas }, Bytes::new())
        };
        assert_eq!(status(&get(&rt, &service, shared(2)).await.0), Status::NotSealed);
        assert_eq!(ask(&rt, &service, seal(1, 2)).await, Reply::Done);
        assert_eq!(ask(&rt, &service, seal(1, 1)).await, Reply::Done, "it only grows");
        assert_eq!(status(&get(&rt, &service, shared(3)).await.0), Status::NotSealed);
        // After a restart, without any fence.
        let service = open(&rt, &disk.fork(CrashStyle::LoseAll, 1)).await;
        let (reply, bytes) = get(&rt, &service, shared(2)).await;
        let entries = vec![data(2, seq(1, 2), 5, 20), data(1, seq(1, 4), 6, 11)];
        assert_eq!((reply, bytes), (Reply::Read { entries }, vec![20, 11]));
        let (volume, view) = (VOLUME, view(2, &[]));
        let presence = |replica| {
            let (chunk, replica, disk, view) = (ChunkId(1), ReplicaId(replica), DiskId(1), view.clone());
            Request::Presence { volume, chunk, replica, disk, view }
        };
        let (Reply::Presence { bits }, _) = get(&rt, &service, presence(1)).await else { panic!("no presence") };
        assert!(bits[0] == 0b0110_0000 && bits[1..].iter().all(|b| *b == 0));
        assert_eq!(status(&get(&rt, &service, presence(2)).await.0), Status::UnknownReplica);
        let replicas = fenced(&rt, &service, 2).await;
        assert_eq!(replicas.iter().map(|r| r.sealed.0).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(status(&ask(&rt, &service, seal(2, 3)).await), Status::NotAdopted);
        let adopt = Request::Adopt { volume: VOLUME, epoch: Epoch(2), replicas: vec![named()] };
        assert_eq!(ask(&rt, &service, (adopt, Bytes::new())).await, Reply::Done);
        assert_eq!(ask(&rt, &service, seal(2, 3)).await, Reply::Done);
        assert_eq!(status(&get(&rt, &service, shared(3)).await.0), Status::Ok);
    });
}
