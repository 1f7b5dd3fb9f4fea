//! Crashes between any two steps, and regions filled by somebody else.

use proptest::prelude::*;

use super::*;

const SIZE: u16 = 8;
const CONTENT: u128 = 7 << 64 | 3;

/// A region as the front end holds it.
struct Kept {
    area: VhostUserInflight,
    file: File,
}

impl Kept {
    fn new() -> Self {
        let (area, file) = InflightRegion::create(2, SIZE, CONTENT).unwrap();
        Kept { area, file }
    }

    fn queue(&self) -> InflightQueue {
        InflightRegion::map(&self.area, &self.file, &Breakage::default(), CONTENT).unwrap().queue(1).unwrap()
    }
}

#[test]
fn a_new_region_holds_nothing() {
    let kept = Kept::new();
    assert_eq!(kept.queue().resume(SIZE, 17).unwrap(), None);
    assert_eq!(kept.queue().resume(SIZE, 17).unwrap(), Some(vec![]));
}

#[test]
fn requests_come_back_in_order_of_submission() {
    let kept = Kept::new();
    let queue = kept.queue();
    queue.resume(SIZE, 0).unwrap();
    for head in [5, 2, 7, 0] {
        queue.submitted(head).unwrap();
    }
    queue.completing(7).unwrap();
    queue.completed(7, 1).unwrap();
    let second = kept.queue();
    assert_eq!(second.resume(SIZE, 1).unwrap(), Some(vec![5, 2, 0]));
    second.submitted(7).unwrap();
    assert_eq!(kept.queue().resume(SIZE, 1).unwrap(), Some(vec![5, 2, 0, 7]));
}

/// The steps of one completion, each of which may be the last before a crash.
#[test]
fn a_crash_at_any_step_of_a_completion() {
    for (steps, in_flight) in [(0, vec![3, 4]), (1, vec![3, 4]), (2, vec![4]), (3, vec![4])] {
        let kept = Kept::new();
        let queue = kept.queue();
        queue.resume(SIZE, 0).unwrap();
        queue.submitted(3).unwrap();
        queue.submitted(4).unwrap();
        let mut ring_used_idx = 0;
        if steps > 0 {
            queue.completing(3).unwrap();
        }
        if steps > 1 {
            ring_used_idx = 1;
        }
        if steps > 2 {
            queue.completed(3, 1).unwrap();
        }
        assert_eq!(kept.queue().resume(SIZE, ring_used_idx).unwrap().unwrap(), in_flight, "after step {steps}");
        assert_eq!(kept.queue().resume(SIZE, ring_used_idx).unwrap().unwrap(), in_flight, "and once more");
    }
}

#[test]
fn a_batch_of_several_is_unmarked() {
    let kept = Kept::new();
    let queue = kept.queue();
    queue.resume(SIZE, u16::MAX).unwrap();
    for head in 0..4 {
        queue.submitted(head).unwrap();
    }
    for head in [2, 0, 3] {
        queue.completing(head).unwrap();
    }
    assert_eq!(kept.queue().resume(SIZE, 2).unwrap(), Some(vec![1]));
}

#[test]
fn geometry_is_checked() {
    let bad = |f: fn(&mut VhostUserInflight)| {
        let Kept { mut area, file } = Kept::new();
        f(&mut area);
        InflightRegion::map(&area, &file, &Breakage::default(), CONTENT).err()
    };
    assert!(bad(|_| {}).is_none());
    assert!(matches!(bad(|a| a.mmap_size -= 1 + TRAILER_LEN as u64), Some(InflightError::Geometry)));
    assert!(matches!(bad(|a| a.mmap_size += 1), Some(InflightError::Geometry)));
    assert!(matches!(bad(|a| a.mmap_offset = u64::MAX), Some(InflightError::Geometry)));
    assert!(matches!(bad(|a| a.queue_size = MAX_QUEUE_SIZE), Some(InflightError::Geometry)));
    assert!(matches!(bad(|a| a.num_queues = u16::MAX), Some(InflightError::Geometry)));
    assert!(InflightRegion::create(0, 8, 0).is_err());
    assert!(InflightRegion::create(1, MAX_QUEUE_SIZE + 1, 0).is_err());
    let Kept { area, .. } = Kept::new();
    let unsealed = tempfile::tempfile().unwrap();
    unsealed.set_len(area.mmap_size).unwrap();
    assert!(matches!(
        InflightRegion::map(&area, &unsealed, &Breakage::default(), CONTENT).err(),
        Some(InflightError::NotSealed)
    ));
}

#[test]
fn an_unknown_layout_is_refused() {
    let kept = Kept::new();
    let queue = kept.queue();
    queue.resume(SIZE, 0).unwrap();
    assert!(queue.resume(SIZE * 2, 0).is_err());
    queue.store(VERSION_AT, 2u16, Relaxed).unwrap();
    assert!(queue.resume(SIZE, 0).is_err());
    assert!(queue.submitted(SIZE).is_err());
    assert!(kept.queue().entry(u16::MAX).is_err());
}

proptest! {
    /// Whatever the region holds, a resume ends, and yields each head of the ring at most once.
    #[test]
    fn any_content_is_survived(words in prop::collection::vec(any::<u16>(), 8 + 8 * SIZE as usize), used in any::<u16>()) {
        let queue = Kept::new().queue();
        for (i, word) in words.iter().enumerate() {
            queue.store(2 * i, *word, Relaxed).unwrap();
        }
        queue.store(VERSION_AT, VERSION, Relaxed).unwrap();
        queue.store(DESC_NUM_AT, SIZE, Relaxed).unwrap();
        let mut heads = queue.resume(SIZE, used).unwrap().unwrap();
        heads.sort_unstable();
        heads.dedup();
        prop_assert!(heads.iter().all(|head| *head < SIZE));
        prop_assert_eq!(queue.resume(SIZE, used).unwrap().unwrap().len(), heads.len());
        queue.submitted(0).unwrap();
    }
}

#[test]
fn a_region_is_of_one_content() {
    let Kept { area, file } = Kept::new();
    let map = |area, content| InflightRegion::map(area, &file, &Breakage::default(), content).err();
    assert!(map(&area, CONTENT).is_none());
    for other in [CONTENT + 1, 8 << 64 | 3, 0] {
        assert!(matches!(map(&area, other), Some(InflightError::OtherContent)));
    }
    // A daemon that knew of no contents made it.
    let older = VhostUserInflight { mmap_size: area.mmap_size - TRAILER_LEN as u64, ..area };
    assert!(map(&older, 0).is_none());
    file.write_all_at(&[0; TRAILER_LEN], older.mmap_size).unwrap();
    assert!(map(&area, 0).is_none());
}
