//! The bytes on the disk, fixed: a change of any of these is a new format version.

use crate::store::checkpoint::{decode_replicas, encode_part};
use crate::store::index::Index;
use crate::store::layout::*;
use crate::store::record::Record;
use crate::store::root::{LogPosition, Root};
use crate::store::segments::SegmentTable;
use crate::store::superblock::format_as;
use crate::store::*;
use crate::testing::{MemDisk, TestRuntime};
use levee_proto::wire::{BlockKind, Crcs};
use levee_proto::{ChunkId, ConfigNo, Epoch, ReplicaId, Seq, Version, VolumeId};
use zerocopy::IntoBytes;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn geometry() -> ShardGeometry {
    let disk_uuid = *b"0123456789abcdef";
    ShardGeometry { disk_uuid, shard: 2, start: 1 << 20, segment_size: 4 << 20, segments: 20 }
}

const UUID: &str = "30313233343536373839616263646566";

#[test]
fn superblock() {
    let (rt, disk) = (TestRuntime::new(1), MemDisk::new(64 << 20, 1));
    let sb = Superblock::with_layout(64 << 20, 1, *b"0123456789abcdef", 2 << 20, 20);
    rt.block_on(format_as(&disk, &sb)).expect("formats");
    let expected = [
        "4c4556454544534b",
        "01000000",
        "00002000",
        UUID, // magic, version, segment size
        "00000000000000000000000000000000",
        "0100000000000000",
        "0000000400000000", // cluster, sequence, size
        "00000000",
        "00000000",
        "14000000",
        "0100",
        "0000", // disk, node, segments, shards
        "CRC",
    ];
    check(&disk.peek(0, 84), &expected);
    assert_eq!(disk.peek(0, 4096), disk.peek(4096, 4096));
}

/// Compares all but the last four bytes, and these with the CRC of `covered`.
fn check(bytes: &[u8], expected: &[&str]) {
    let body = &bytes[..bytes.len() - 4];
    assert_eq!(hex(body), expected[..expected.len() - 1].concat());
    assert_eq!(bytes[bytes.len() - 4..], crc32c::crc32c(body).to_le_bytes());
}

#[test]
fn segment_header() {
    let h = SegmentHeader::new(&geometry(), SegmentUse::Log, 5, 77);
    let expected = ["4c45564545534547", UUID, "0500000000000000", "4d00000000000000", "0200", "0100", "CRC"];
    check(h.as_bytes(), &expected);
    let mut block = h.as_bytes().to_vec();
    assert!(SegmentHeader::parse(&geometry(), &block).is_some());
    block[30] ^= 1;
    assert!(SegmentHeader::parse(&geometry(), &block).is_none());
}

#[test]
fn batch_header() {
    let mut buf = vec![0; 4096];
    let id = BatchId { generation: 5, number: 77, first_record: 900 };
    BatchHeader::seal(&geometry(), id, 0, 0, 8192, &mut buf);
    let expected = [
        "4c564241",
        "0200",
        "0000",
        UUID,
        "0500000000000000",
        "4d00000000000000", // magic, shard, generation, number
        "8403000000000000",
        "00000000",
        "00000000",
        "00200000", // first record, records, their length, data
        "CRC",
    ];
    check(&buf[..64], &expected);
    let other = ShardGeometry { shard: 3, ..geometry() };
    assert!(BatchHeader::peek(&geometry(), &buf, 12_288).is_some());
    assert!(BatchHeader::peek(&geometry(), &buf, 12_287).is_none());
    assert!(BatchHeader::peek(&other, &buf, 12_288).is_none());
}

#[test]
fn piece_header() {
    let mut buf = vec![0; 4096];
    PieceHeader::seal(&geometry(), 6, 3, 2, 0, &mut buf);
    let expected = ["4c564350", "0200", "0200", UUID, "0600000000000000", "03000000", "00000000", "CRC"];
    check(&buf[..44], &expected);
}

#[test]
fn replica_in_a_checkpoint() {
    let new = NewReplica {
        volume: VolumeId(1),
        chunk: ChunkId(2),
        replica: ReplicaId(3),
        config: ConfigNo(4),
        adopted: Epoch(5),
    };
    let mut index = Index::default();
    let mut ledger = SegmentTable::new(20, 1024);
    index.apply(&Record::Create { new, damaged: false }, 900, 0, &mut ledger);
    let crcs = Crcs::of(&[1; 8192]);
    let (chunk, version, seq) = (ChunkId(2), Version(1), Seq::new(Epoch(5), 9));
    let write = |kind, block, count, crcs| Record::Write { chunk, kind, version, seq, block, count, crcs };
    index.apply(&write(BlockKind::Data, 7, 2, crcs), 901, 77, &mut ledger);
    index.apply(&write(BlockKind::Zero, 100, 50, Crcs::none()), 902, 0, &mut ledger);
    let point = CommitPoint { chunk, replica: ReplicaId(3), seq };
    index.apply(&Record::Commit { points: vec![point] }, 903, 0, &mut ledger);
    let mut bytes = Vec::new();
    assert_eq!(encode_part(index.get(chunk).expect("there"), None, &mut bytes), None);
    let expected = [
        "0100000000000000",
        "0200000000000000",
        "0300000000000000",
        "8403000000000000", // volume, chunk, replica, creating record
        "04000000",
        "05000000",
        "0900000000050000", // config, adopted, commit point 5.9
        "00000000",
        "30000000", // flags, bytes of runs
        "0700",
        "0200",
        "4d000000",
        "01000000",
        "0900000000050000", // block, count, location, version, seq
        "7f6b1842",
        "7f6b1842", // CRCs
        "6400",
        "3200",
        "feffffff",
        "01000000",
        "0900000000050000", // zeros
    ];
    assert_eq!(hex(&bytes), expected.concat());
    let decoded = decode_replicas(&bytes, 20 * 1024).expect("well-formed");
    assert_eq!(decoded[0].replica.meta(), index.get(chunk).expect("there").meta());
}

#[test]
fn root() {
    let replay = LogPosition { segment: 3, generation: 5, offset: 8192, next_batch: 77, next_record: 900 };
    let mut root = Root {
        sequence: 9,
        checkpoint: 6,
        replay,
        pieces: 4,
        first_entries: 2,
        checkpoint_len: 65_536,
        log_gap: false,
        segments: vec![],
    };
    let expected = [
        "4c45564545524f54",
        UUID,
        "0900000000000000",
        "0600000000000000", // magic, sequence, checkpoint
        "0500000000000000",
        "4d00000000000000",
        "8403000000000000", // replay: generation, batch, record
        "0000010000000000",
        "03000000",
        "00200000", // length, replay: segment, offset
        "04000000",
        "02000000",
        "00000000",
        "0200",
        "0000", // pieces, first of entries, segments, shard
        "CRC",
    ];
    check(&root.encode(&geometry()), &expected);
    root.segments = vec![7, 8];
    root.log_gap = true;
    let bytes = root.encode(&geometry());
    assert_eq!((hex(&bytes[94..96]), hex(&bytes[100..])), ("0100".into(), "0700000008000000".into()));
    assert_eq!(Root::decode(&geometry(), &bytes), Some(root));
}
