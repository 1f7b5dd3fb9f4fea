use super::watched::{BAD_PLACES_PERIOD, MAX_BAD_PLACES, Watched};
use bytes::Bytes;
use levee_core::load::Totals;
use levee_core::ports::{Disk, Runtime};
use levee_core::store::{self, NewReplica, Options, Shard, Superblock};
use levee_core::testing::{MemDisk, TestRuntime};
use levee_proto::wire::{BlockKind, Crcs};
use levee_proto::{BLOCK_SIZE, ChunkId, ConfigNo, Epoch, ReplicaId, Seq, Version, View, VolumeId};
use std::time::Duration;

const SIZE: u64 = 256 << 20;

fn watched(rt: &TestRuntime) -> (MemDisk, Watched<MemDisk, TestRuntime>) {
    let mem = MemDisk::new(SIZE, 1);
    (mem.clone(), Watched::new(mem, rt.clone()))
}

fn block() -> Vec<u8> {
    vec![7; BLOCK_SIZE]
}

#[test]
fn a_disk_that_works_is_only_counted() {
    let rt = TestRuntime::new(1);
    let (_, disk) = watched(&rt);
    rt.block_on(async {
        disk.write(0, block()).await.unwrap();
        disk.write_durable(4096, block()).await.unwrap();
        disk.sync().await.unwrap();
        assert_eq!(disk.read(4096, BLOCK_SIZE).await.unwrap(), block());
    });
    assert!(disk.watch().failed().is_none() && !disk.watch().is_busy());
    assert_eq!(disk.watch().read_errors(), 0);
    let block = BLOCK_SIZE as u64;
    assert_eq!(disk.watch().totals(), Totals { reads: 1, writes: 2, read_bytes: block, write_bytes: 2 * block });
}

#[test]
fn the_first_failed_write_or_sync_ends_it() {
    for fail in [|d: &MemDisk| d.fail_write(0), |d: &MemDisk| d.fail_sync(0)] {
        let rt = TestRuntime::new(1);
        let (mem, disk) = watched(&rt);
        fail(&mem);
        rt.block_on(async {
            assert!(disk.write_durable(0, block()).await.is_err());
            let (reads, writes) = (mem.reads(), mem.writes());
            let why = disk.read(0, BLOCK_SIZE).await.unwrap_err().to_string();
            assert!(why.contains("given up") && why.contains("injected"), "{why}");
            assert!(disk.write(0, block()).await.is_err() && disk.sync().await.is_err());
            assert_eq!((mem.reads(), mem.writes()), (reads, writes), "nothing reaches the disk any more");
        });
    }
}

#[test]
fn bad_sectors_are_forgiven_and_only_many_in_a_short_time_end_it() {
    let rt = TestRuntime::new(1);
    let (mem, disk) = watched(&rt);
    let read = async |block: u64| disk.read(block * BLOCK_SIZE as u64, BLOCK_SIZE).await;
    rt.block_on(async {
        (0..3 * MAX_BAD_PLACES as u64).for_each(|block| mem.make_unreadable(block * BLOCK_SIZE as u64));
        // One, however often.
        for n in 1..=1000 {
            assert!(read(0).await.is_err() && disk.watch().read_errors() == n);
        }
        // Many, over a long time.
        for block in 0..2 * MAX_BAD_PLACES as u64 {
            rt.sleep(BAD_PLACES_PERIOD / MAX_BAD_PLACES as u32 * 2).await;
            assert!(read(block).await.is_err());
        }
        assert!(disk.watch().failed().is_none() && !disk.has_failed());
        rt.sleep(BAD_PLACES_PERIOD).await;
        for block in 0..MAX_BAD_PLACES as u64 {
            assert!(disk.watch().failed().is_none() && read(block).await.is_err());
        }
    });
    assert!(disk.has_failed() && disk.watch().failed().unwrap().contains("blocks could not be read"));
}

#[test]
fn a_disk_that_has_become_smaller_is_given_up_at_once() {
    let rt = TestRuntime::new(1);
    let (_, disk) = watched(&rt);
    assert!(rt.block_on(disk.read(SIZE, BLOCK_SIZE)).is_err());
    assert!(disk.watch().failed().unwrap().contains("smaller"));
}

#[test]
fn a_probe_finds_a_disk_that_became_smaller_and_forgives_a_bad_block() {
    let rt = TestRuntime::new(1);
    let (mem, disk) = watched(&rt);
    rt.block_on(async {
        for _ in 0..100 {
            mem.fail_read(0);
            disk.probe(SIZE - BLOCK_SIZE as u64).await;
        }
        assert!(disk.watch().failed().is_none() && disk.watch().read_errors() == 0);
        disk.probe(SIZE).await;
    });
    assert!(disk.watch().failed().unwrap().contains("smaller"));
}

/// Whoever waits for it goes on; the operation itself does too, and is waited for before the place is used anew.
#[test]
fn an_operation_that_does_not_complete_is_let_go_and_remembered() {
    let rt = TestRuntime::new(1);
    let (mem, disk) = watched(&rt);
    mem.power_off_after(0);
    let (watch, judge) = (disk.clone(), rt.clone());
    rt.spawn(async move {
        judge.sleep(Duration::from_secs(31)).await;
        assert!(watch.oldest() >= Duration::from_secs(31));
        watch.watch().fail("it hangs");
        watch.watch().fail("another reason");
    });
    let why = rt.block_on(disk.write(0, block())).unwrap_err().to_string();
    assert!(why.contains("it hangs"), "{why}");
    assert!(disk.watch().is_busy(), "the write may still land");
}

#[test]
fn a_late_operation_ends_the_wait() {
    let rt = TestRuntime::new(1);
    let (_, disk) = watched(&rt);
    let watch = disk.watch().clone();
    rt.spawn(async move { watch.fail("it hangs") });
    rt.block_on(async {
        let _ = disk.write(0, block()).await;
        while disk.watch().is_busy() {
            rt.sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(disk.watch().failed().is_some());
}

const CHUNK: ChunkId = ChunkId(4);

async fn open(rt: &TestRuntime, mem: &MemDisk, sb: &Superblock) -> Shard<Watched<MemDisk, TestRuntime>, TestRuntime> {
    let disk = Watched::new(mem.clone(), rt.clone());
    let (shard, report) = Shard::open(disk, rt.clone(), sb, 0, Options::default()).await.unwrap();
    assert!(report.is_clean(), "{report}");
    shard
}

async fn write(shard: &Shard<Watched<MemDisk, TestRuntime>, TestRuntime>, n: u32) -> bool {
    let data = Bytes::from(vec![n as u8; BLOCK_SIZE]);
    let seq = Seq::new(Epoch(1), u64::from(n));
    shard.write(CHUNK, BlockKind::Data, Version(1), seq, n, 1, Crcs::of(&data), data).await.is_ok()
}

/// A shard whose disk failed once and works again is recovered in place with everything that it acknowledged.
#[test]
fn a_failed_shard_is_opened_again_with_what_it_acknowledged() {
    for seed in 0..40 {
        let rt = TestRuntime::new(seed);
        let mem = MemDisk::new(SIZE, seed);
        rt.clone().block_on(async {
            let sb = store::format(&mem, SIZE, 1, [9; 16]).await.unwrap();
            let shard = open(&rt, &mem, &sb).await;
            let (volume, replica) = (VolumeId(1), ReplicaId(1));
            let new = NewReplica { volume, chunk: CHUNK, replica, config: ConfigNo(1), adopted: Epoch(1) };
            shard.create_replica(new).await.unwrap();
            mem.fail_write(seed / 2);
            let mut acknowledged = vec![];
            for n in 1..=30 {
                if !write(&shard, n).await {
                    break;
                }
                acknowledged.push(n);
            }
            assert!(!write(&shard, 1000).await, "a shard that failed stays failed");
            let again = open(&rt, &mem, &sb).await;
            for n in &acknowledged {
                let (_, data) = again.read(CHUNK, *n, 1, &View::of(Version::MAX)).await.unwrap();
                assert_eq!(data, vec![*n as u8; BLOCK_SIZE]);
            }
            assert!(write(&again, 31).await);
            // The write that failed may have got there, too.
            let [found] = again.replica_bytes(ChunkId(0), 9)[..] else { panic!("there is one replica") };
            let blocks = found.bytes / BLOCK_SIZE as u64 - acknowledged.len() as u64;
            assert!(found.chunk == CHUNK && found.replica == replica && (1..=2).contains(&blocks), "{found:?}");
        });
    }
}
