use super::*;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

const S: Source = Source { volume: VolumeId(7), version: Version(3), index: 1 };
const BLOCK: u64 = BLOCK_SIZE as u64;

fn cache() -> SharedBlocks {
    SharedBlocks::new(64 << 20).unwrap()
}

fn data(stamp: u32) -> Content {
    Content::Data(stamp.to_le_bytes().repeat(BLOCK_SIZE / 4).into())
}

fn stamp(content: &Content) -> Option<u32> {
    match content {
        Content::Data(data) => Some(u32::from_le_bytes(data[..4].try_into().unwrap())),
        _ => None,
    }
}

fn look(cache: &SharedBlocks, source: Source, blocks: Range<u32>) -> LookUp {
    cache.look_up(source, std::slice::from_ref(&blocks))
}

/// What a claim's reader would find: each block's own number.
fn read(claim: &Claim) -> Vec<Content> {
    claim.blocks().map(data).collect()
}

/// The numbers of blocks that were looked up: known, claimed, waited for.
fn told(found: &LookUp) -> (Vec<u32>, Vec<Range<u32>>, Vec<Range<u32>>) {
    let claims = found.claims.iter().map(Claim::blocks).collect();
    (found.known.iter().map(|(b, _)| *b).collect(), claims, found.waits.iter().map(Wait::blocks).collect())
}

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
    let waker = Waker::from(woken.clone());
    pin!(future).poll(&mut Context::from_waker(&waker))
}

#[test]
fn a_block_is_read_by_one_and_known_to_all() {
    let cache = cache();
    let mut first = cache.look_up(S, &[0..4, 8..9]);
    assert_eq!(told(&first), (vec![], vec![0..4, 8..9], vec![]));
    let mut second = look(&cache, S, 2..10);
    assert_eq!(told(&second), (vec![], vec![4..8, 9..10], vec![2..4, 8..9]));
    let woken = Arc::new(Woken::default());
    assert!(poll(&mut second.waits[0], &woken).is_pending());
    let claim = first.claims.remove(0);
    let contents = read(&claim);
    claim.fulfil(contents);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let Poll::Ready(Some(contents)) = poll(&mut second.waits[0], &woken) else { panic!("it has ended") };
    assert_eq!(contents.iter().map(stamp).collect::<Vec<_>>(), [Some(2), Some(3)]);
    let third = look(&cache, S, 0..9);
    assert_eq!(told(&third), (vec![0, 1, 2, 3], vec![], vec![4..8, 8..9]));
    assert_eq!(third.known.iter().map(|(_, c)| stamp(c)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
    let report = cache.report();
    assert_eq!((report.hits, report.misses, report.waits), (4, 10, 8));
}

#[test]
fn sources_are_told_apart() {
    let cache = cache();
    cache.put(S, 5, &[data(5)]);
    for other in [Source { volume: VolumeId(8), ..S }, Source { version: Version(4), ..S }, Source { index: 2, ..S }] {
        let found = look(&cache, other, 5..6);
        assert_eq!(told(&found), (vec![], vec![5..6; 1], vec![]));
    }
    // What is known of a chunk as a whole is no block of it, nor of the next one.
    assert!(cache.look_up_presence(S).known.is_empty());
    let claim = cache.look_up_presence(S).claims.pop().unwrap();
    claim.fulfil(vec![Content::Presence(Arc::default())]);
    assert_eq!(told(&cache.look_up_presence(S)).0, [PRESENCE]);
    assert!(look(&cache, S, BLOCKS_PER_CHUNK - 1..BLOCKS_PER_CHUNK).known.is_empty());
}

#[test]
fn what_is_absent_is_not_zero() {
    let cache = cache();
    let entries = [BlockEntry::absent(3), BlockEntry { kind: BlockKind::Zero, ..BlockEntry::absent(4) }];
    cache.put(S, 3, &Content::of(&entries, &[]));
    let known = look(&cache, S, 3..5).known;
    assert!(matches!(known[..], [(3, Content::Absent), (4, Content::Zero)]));
}

#[test]
fn a_few_known_blocks_do_not_part_a_read() {
    let cache = cache();
    cache.put(S, 10, &[data(10), data(11)]);
    cache.put(S, 40, &vec![data(0); GAP as usize + 1]);
    let found = look(&cache, S, 0..60);
    assert_eq!(found.known.len(), 11);
    assert_eq!(told(&found).1, [0..40, 49..60]);
    drop(found);
    // But one that somebody else reads does.
    let other = look(&cache, S, 20..21);
    let found = look(&cache, S, 0..30);
    assert_eq!((told(&found).1, told(&found).2), (vec![0..20, 21..30], vec![20..21; 1]));
    drop(other);
}

#[test]
fn when_a_reader_gives_up_one_of_those_who_wait_goes_on() {
    let cache = cache();
    let woken = Arc::new(Woken::default());
    let first = look(&cache, S, 0..4);
    let mut waits: Vec<Wait> = (0..3).flat_map(|_| look(&cache, S, 0..4).waits).collect();
    assert!(waits.iter_mut().all(|w| poll(w, &woken).is_pending()));
    // One that is dropped is not woken, and its waker is given back at once.
    waits.pop();
    assert_eq!(Arc::strong_count(&woken), 3);
    drop(first);
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    assert!(waits.iter_mut().all(|w| matches!(poll(w, &woken), Poll::Ready(None))));
    let found: Vec<_> = waits.iter().map(|w| cache.look_up(S, &[w.blocks()])).collect();
    assert_eq!(told(&found[0]), (vec![], vec![0..4; 1], vec![]));
    assert_eq!(told(&found[1]), (vec![], vec![], vec![0..4; 1]));
    drop((found, waits));
    assert_eq!((Arc::strong_count(&woken), cache.report().bytes), (1, 0));
}

#[test]
fn one_of_those_who_wait_too_long_takes_the_readers_place() {
    let cache = cache();
    let slow = look(&cache, S, 0..4).claims.pop().unwrap();
    let mut waits: Vec<Wait> = (0..3).flat_map(|_| look(&cache, S, 1..3).waits).collect();
    let claim = cache.supersede(S, &waits[0]).unwrap();
    assert_eq!(claim.blocks(), 0..4);
    assert!(cache.supersede(S, &waits[1]).is_none());
    let mut next = look(&cache, S, 1..3).waits.pop().unwrap();
    // Whoever still waits for the slow one gets its answer; it ends nothing but its own reading.
    let woken = Arc::new(Woken::default());
    assert!(poll(&mut waits[2], &woken).is_pending() && poll(&mut next, &woken).is_pending());
    drop(slow);
    assert!(matches!(poll(&mut waits[2], &woken), Poll::Ready(None)) && poll(&mut next, &woken).is_pending());
    assert_eq!(told(&look(&cache, S, 0..4)).2, [0..4; 1]);
    let contents = read(&claim);
    claim.fulfil(contents);
    assert!(matches!(poll(&mut next, &woken), Poll::Ready(Some(_))));
    assert_eq!(told(&look(&cache, S, 0..4)), (vec![0, 1, 2, 3], vec![], vec![]));
    assert!(cache.supersede(S, &next).is_none());
}

#[test]
fn no_more_is_held_than_there_is_room_for() {
    let capacity = 100 * BLOCK * SHELVES as u64;
    let cache = SharedBlocks::new(capacity).unwrap();
    let mut most = 0;
    for index in 0..200 {
        let source = Source { index, ..S };
        for block in (0..64).step_by(16) {
            let found = look(&cache, source, block..block + 16);
            for claim in found.claims {
                let contents = read(&claim);
                claim.fulfil(contents);
            }
            // Blocks without data need room as well.
            cache.put(source, 1000, &vec![Content::Absent; 24]);
            most = most.max(cache.report().bytes);
        }
    }
    assert!(most <= capacity && most > capacity * 9 / 10, "{most} of {capacity}");
    assert!(SharedBlocks::new(0).is_none());
    // Room for nothing is no harm.
    let tiny = SharedBlocks::new(SHELVES as u64).unwrap();
    let claim = look(&tiny, S, 0..1).claims.pop().unwrap();
    let mut wait = look(&tiny, S, 0..1).waits.pop().unwrap();
    claim.fulfil(vec![data(0)]);
    assert!(matches!(poll(&mut wait, &Arc::default()), Poll::Ready(Some(_))));
    assert_eq!((tiny.report().bytes, told(&look(&tiny, S, 0..1)).1.len()), (0, 1));
}

#[test]
fn what_is_read_once_leaves_the_rest_alone() {
    let key = |block| Key { source: S, block };
    let mut kept = Kept::new(100 * (BLOCK + 200));
    for block in 0..50 {
        kept.put(key(block), data(block));
        assert!(kept.get(&key(block)).is_some());
    }
    for block in 1000..3000 {
        kept.put(key(block), data(block));
    }
    assert!((0..50).all(|block| kept.get(&key(block)).is_some()));
    // What was forgotten not long ago and is wanted again stays.
    assert!(kept.get(&key(2900)).is_none());
    kept.put(key(2900), data(2900));
    for block in 3000..3100 {
        kept.put(key(block), data(block));
    }
    assert!(kept.get(&key(2900)).is_some() && kept.get(&key(3000)).is_none());
    // What nobody reads any more makes room.
    for block in 5000..6000 {
        for _ in 0..2 {
            kept.put(key(block), data(block));
            kept.get(&key(block));
        }
    }
    assert!((0..50).all(|block| kept.get(&key(block)).is_none()));
}

/// Wakes a thread that waits.
struct Parked(std::thread::Thread);

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Parked(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

/// Reads as gateways do, some of which give up; returns how many blocks it has seen.
fn reader(cache: &SharedBlocks, seed: u64) -> u64 {
    let mut rng = crate::testing::TestRng::new(seed);
    let mut seen = 0;
    for _ in 0..500 {
        let start = rng.below(100) as u32;
        let mut runs = vec![start..start + 1 + rng.below(20) as u32; 1];
        while !runs.is_empty() {
            let LookUp { known, claims, waits } = cache.look_up(S, &runs);
            known.iter().for_each(|(block, content)| assert_eq!(stamp(content), Some(*block)));
            seen += known.len() as u64;
            for claim in claims {
                if rng.one_in(10) {
                    continue;
                }
                let contents = read(&claim);
                std::thread::yield_now();
                claim.fulfil(contents);
            }
            runs.clear();
            for wait in waits {
                let blocks = wait.blocks();
                match block_on(wait) {
                    Some(contents) => blocks.zip(&contents).for_each(|(b, c)| assert_eq!(stamp(c), Some(b))),
                    None => runs.push(blocks),
                }
            }
        }
    }
    seen
}

#[test]
fn threads_share_and_nobody_is_left_waiting() {
    // Room for about half of what is read.
    let cache = SharedBlocks::new(60 * BLOCK * SHELVES as u64).unwrap();
    let cache = &cache;
    let seen: u64 = std::thread::scope(|scope| {
        let begin = |seed| scope.spawn(move || reader(cache, seed));
        let readers: Vec<_> = (0..4).map(begin).collect();
        readers.into_iter().map(|r| r.join().unwrap()).sum()
    });
    assert_eq!(cache.report().hits, seen);
    assert!(look(cache, S, 0..120).waits.is_empty(), "nothing is being read");
}
