use super::*;

fn samples() -> Vec<Record> {
    let chunk = ChunkId(0x0102_0304_0506_0708);
    let (version, seq) = (Version(5), Seq::new(Epoch(3), 9));
    let entry = BlockEntry { block: 16_383, kind: BlockKind::Data, version, seq, crc: 0xdead_beef };
    let moved = Moved { chunk, block: 7, version, seq, crc: 0xdead_beef, from: 77 };
    let crcs = Crcs::of(&[1; 8192]);
    let new = NewReplica { volume: VolumeId(1), chunk, replica: ReplicaId(2), config: ConfigNo(3), adopted: Epoch(4) };
    vec![
        Record::Write { chunk, kind: BlockKind::Data, version, seq, block: 4, count: 2, crcs },
        Record::Write { chunk, kind: BlockKind::Zero, version, seq, block: 4, count: 200, crcs: Crcs::none() },
        Record::Repair { chunk, epoch: Epoch(4), entries: vec![entry, BlockEntry::absent(3)] },
        Record::Create { new, damaged: false },
        Record::Delete { chunk, replica: ReplicaId(2) },
        Record::Adopt { epoch: Epoch(4), chunks: vec![chunk, ChunkId(9)] },
        Record::Fence { volume: VolumeId(1), fence: Fence(4) },
        Record::Config { chunk, config: ConfigNo(5) },
        Record::ClearDamaged { chunk },
        Record::Move { blocks: vec![moved] },
        Record::Lost { blocks: vec![moved, moved] },
        Record::Create { new, damaged: true },
        Record::Commit { points: vec![CommitPoint { chunk, replica: ReplicaId(2), seq }] },
        Record::Prune { chunk, drops: vec![Dropped { block: 7, version, seq }] },
        Record::Seal { seals: vec![Seal { chunk, replica: ReplicaId(2), version }] },
        Record::Gone { chunk, epoch: Epoch(4), entries: vec![entry] },
    ]
}

fn encoded(records: &[Record]) -> Vec<u8> {
    let mut buf = vec![0; records.iter().map(Record::encoded_len).sum()];
    let mut rest = &mut buf[..];
    for r in records {
        rest = r.encode(rest);
    }
    assert!(rest.is_empty(), "encoded_len is exact");
    buf
}

#[test]
fn records_survive_encoding() {
    let records = samples();
    let buf = encoded(&records);
    assert_eq!(Record::decode_all(&buf, 16, 4), Some(records));
    assert_eq!(Record::decode_all(&buf, 15, 4), None);
    assert_eq!(Record::decode_all(&buf, 16, 5), None);
}

#[test]
fn no_truncation_or_byte_makes_decoding_panic() {
    for r in samples() {
        let buf = encoded(&[r]);
        for i in 0..buf.len() {
            assert_eq!(Record::decode(&mut &buf[..i]), None);
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = buf.clone();
                bad[i] ^= flip;
                let _ = Record::decode(&mut &bad[..]);
            }
        }
    }
}

#[test]
fn golden_write() {
    let hex: String = encoded(&samples()[..1]).iter().map(|b| format!("{b:02x}")).collect();
    let expected = [
        "01010000",
        "24000000", // kind Write, sub Data, 36 bytes
        "0807060504030201",
        "0900000000030000", // chunk, seq 3.9
        "05000000",
        "04000000",
        "02000000", // version, block, count
        "7f6b1842",
        "7f6b1842", // CRC-32C of 4096 bytes of 1, twice
    ];
    assert_eq!(hex, expected.concat());
}

#[test]
fn golden_commit() {
    let hex: String = encoded(&samples()[12..13]).iter().map(|b| format!("{b:02x}")).collect();
    let expected = [
        "0b000000",
        "18000000", // kind Commit, 24 bytes
        "0807060504030201",
        "0200000000000000",
        "0900000000030000", // chunk, replica, seq 3.9
    ];
    assert_eq!(hex, expected.concat());
}

#[test]
fn golden_gone() {
    let hex: String = encoded(&samples()[15..]).iter().map(|b| format!("{b:02x}")).collect();
    let expected = [
        "0e000000",
        "28000000", // kind Gone, 40 bytes
        "0807060504030201",
        "04000000",
        "01000000", // chunk, epoch, count
        "0900000000030000",
        "05000000",
        "efbeadde",
        "ff3f0000",
        "01000000", // seq 3.9, version, CRC, block, kind
    ];
    assert_eq!(hex, expected.concat());
}

#[test]
fn golden_prune_and_seal() {
    let hex: String = encoded(&samples()[13..15]).iter().map(|b| format!("{b:02x}")).collect();
    let expected = [
        "0c000000",
        "20000000", // kind Prune, 32 bytes
        "0807060504030201",
        "01000000",
        "00000000", // chunk, count
        "0900000000030000",
        "05000000",
        "07000000", // seq 3.9, version, block
        "0d000000",
        "14000000", // kind Seal, 20 bytes
        "0807060504030201",
        "0200000000000000",
        "05000000", // chunk, replica, version
    ];
    assert_eq!(hex, expected.concat());
}
