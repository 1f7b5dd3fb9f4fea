//! Formatting, recognising and claiming disks.

use crate::store::limits::MIN_DISK_SIZE;
use crate::store::*;
use crate::testing::{MemDisk, TestRuntime};
use levee_proto::{DiskId, NodeId};

#[test]
fn a_disk_is_formatted_claimed_and_recognised() {
    let (rt, disk) = (TestRuntime::new(1), MemDisk::new(1 << 30, 1));
    assert_eq!(rt.block_on(read_superblock(&disk)), Err(FormatError::NotLevee));
    let sb = rt.block_on(format(&disk, disk.size(), 3, [5; 16])).expect("formats");
    assert_eq!(rt.block_on(read_superblock(&disk)), Ok(sb.clone()));
    assert!(!sb.is_claimed());
    let claimed = rt.block_on(claim(&disk, &sb, [9; 16], DiskId(4), NodeId(2))).expect("claims");
    assert_eq!(rt.block_on(read_superblock(&disk)), Ok(claimed.clone()));
    assert_eq!(rt.block_on(claim(&disk, &claimed, [9; 16], DiskId(4), NodeId(2))), Ok(claimed.clone()));
    let other = rt.block_on(claim(&disk, &claimed, [8; 16], DiskId(4), NodeId(2)));
    assert_eq!(other, Err(FormatError::OtherCluster));
    for shard in 0..3 {
        let opened = Shard::open(disk.clone(), rt.clone(), &claimed, shard, Options::default());
        let (_, report) = rt.block_on(opened).expect("opens");
        assert_eq!(report, RecoveryReport::default());
    }
    let none = rt.block_on(Shard::open(disk.clone(), rt.clone(), &claimed, 3, Options::default()));
    assert_eq!(none.err(), Some(StoreError::NoSuchShard(3)));
    rt.abort_all();
}

#[test]
fn either_copy_is_enough() {
    let (rt, disk) = (TestRuntime::new(1), MemDisk::new(1 << 30, 1));
    let sb = rt.block_on(format(&disk, disk.size(), 1, [5; 16])).expect("formats");
    disk.flip_bit(30, 1);
    assert_eq!(rt.block_on(read_superblock(&disk)), Ok(sb.clone()));
    disk.flip_bit(30, 1);
    disk.flip_bit(4096 + 30, 1);
    assert_eq!(rt.block_on(read_superblock(&disk)), Ok(sb));
    disk.flip_bit(30, 1);
    assert_eq!(rt.block_on(read_superblock(&disk)), Err(FormatError::Damaged));
    disk.edit(8, 1, |b| b[0] = 9);
    let newer = FormatError::NewerVersion { found: 9, supported: FORMAT_VERSION };
    assert_eq!(rt.block_on(read_superblock(&disk)), Err(newer));
}

#[test]
fn a_copy_that_is_bad_lost_or_behind_is_written_anew() {
    let (rt, disk) = (TestRuntime::new(1), MemDisk::new(1 << 30, 1));
    let sb = rt.block_on(format(&disk, disk.size(), 1, [5; 16])).expect("formats");
    let old = disk.peek(0, 4096);
    let claimed = rt.block_on(claim(&disk, &sb, [9; 16], DiskId(4), NodeId(2))).expect("claims");
    let (good, writes) = (disk.peek(0, 4096), disk.writes());
    assert_eq!(rt.block_on(mend_superblock(&disk)), Ok((claimed.clone(), None)));
    assert_eq!(disk.writes(), writes, "nothing is wrong");
    let random = |b: &mut [u8]| b.iter_mut().zip(0u32..).for_each(|(b, i)| *b = ((i * 7919) >> 3) as u8);
    let behind = |b: &mut [u8]| b.copy_from_slice(&old);
    let version = |b: &mut [u8]| b[9] = 1;
    let lost = |b: &mut [u8]| b.fill(0);
    type Damage<'a> = (&'a str, &'a dyn Fn(&mut [u8]));
    let damages: [Damage; 4] =
        [("not a Levee disk", &random), ("behind", &behind), ("version", &version), ("not a Levee disk", &lost)];
    for (why, damage) in damages {
        for pos in [0, 4096] {
            disk.edit(pos, 4096, damage);
            let (found, bad) = rt.block_on(mend_superblock(&disk)).expect("one is whole");
            let bad = bad.expect("one is not");
            assert!(found == claimed && bad.pos == pos && bad.stays.is_none(), "{bad:?}");
            assert!(bad.why.contains(why), "{bad:?}");
            assert!(disk.peek(0, 4096) == good && disk.peek(4096, 4096) == good);
        }
    }
    // What cannot be read is written, too; and if that fails the other one still counts.
    disk.fail_read(0);
    let (_, bad) = rt.block_on(mend_superblock(&disk)).expect("one is whole");
    assert!(bad.is_some_and(|bad| bad.pos == 0 && bad.stays.is_none()));
    disk.edit(0, 4096, lost);
    disk.fail_write(0);
    let (found, bad) = rt.block_on(mend_superblock(&disk)).expect("one is whole");
    assert!(found == claimed && bad.is_some_and(|bad| bad.stays.is_some()));
}

#[test]
fn a_newer_copy_is_believed_only_if_it_is_whole() {
    let (rt, disk) = (TestRuntime::new(1), MemDisk::new(1 << 30, 1));
    rt.block_on(format(&disk, disk.size(), 1, [5; 16])).expect("formats");
    disk.edit(0, 84, |b| {
        b[8] = 9;
        let crc = crc32c::crc32c(&b[..80]);
        b[80..].copy_from_slice(&crc.to_le_bytes());
    });
    let newer = FormatError::NewerVersion { found: 9, supported: FORMAT_VERSION };
    assert_eq!(rt.block_on(mend_superblock(&disk)), Err(newer));
}

#[test]
fn sizes_are_checked_and_fit() {
    let too_small = Superblock::plan(MIN_DISK_SIZE - 4096, 1, [0; 16]).expect_err("too small");
    assert!(matches!(too_small, FormatError::TooSmall { .. }));
    assert!(matches!(Superblock::plan(MIN_DISK_SIZE, 64, [0; 16]), Err(FormatError::TooManyShards { .. })));
    assert!(matches!(Superblock::plan(1 << 50, 1, [0; 16]), Err(FormatError::TooFewShards { .. })));
    for (size, shards, segment) in [(256 << 20, 2, 4 << 20), (16 << 30, 2, 16 << 20), (8u64 << 40, 16, 64 << 20)] {
        let sb = Superblock::plan(size, shards, [0; 16]).expect("fits");
        assert_eq!(sb.segment_size, segment);
        let last = sb.shard(shards - 1).expect("exists");
        let end = last.segment_pos(sb.segments);
        assert!(end <= size && end > size - u64::from(shards + 1) * u64::from(segment));
    }
}
