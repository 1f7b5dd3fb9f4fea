use super::*;

fn target() -> Target {
    Target {
        volume: VolumeId(1),
        chunk: ChunkId(2),
        replica: ReplicaId(3),
        disk: DiskId(4),
        epoch: Epoch(5),
        config: ConfigNo(6),
    }
}

fn entry(block: u32) -> BlockEntry {
    BlockEntry { block, kind: BlockKind::Data, version: Version(1), seq: Seq::new(Epoch(5), 9), crc: 77 }
}

fn requests() -> Vec<(Request, usize)> {
    let data = vec![7u8; 2 * BLOCK_SIZE];
    let seq = Seq::new(Epoch(5), 1);
    let write = |kind, crcs| Request::Write {
        target: target(),
        kind,
        version: Version::FIRST,
        seq,
        block: BLOCKS_PER_CHUNK - 2,
        count: 2,
        crcs,
    };
    vec![
        (Request::Hello { cluster: [9; 16], from: NodeId(1), to: NodeId(2), core: 3 }, 0),
        (Request::Fence { volume: VolumeId(1), epoch: Epoch(5), disks: vec![DiskId(7), DiskId(2)] }, 0),
        (Request::Create { target: target(), adopted: true }, 0),
        (write(BlockKind::Data, Crcs::of(&data)), data.len()),
        (write(BlockKind::Zero, Crcs::none()), 0),
        (Request::Read { target: target(), block: 0, count: MAX_BLOCKS, reconcile: true }, 0),
        (Request::List { target: target(), from: 0, max: 10, above: Seq::ZERO }, 0),
        (Request::Repair { target: target(), entries: vec![entry(1), BlockEntry::absent(2)] }, BLOCK_SIZE),
        (
            Request::Adopt {
                volume: VolumeId(1),
                epoch: Epoch(5),
                replicas: vec![(DiskId(1), ChunkId(2), ReplicaId(3))],
            },
            0,
        ),
        (
            Request::Commit {
                volume: VolumeId(1),
                epoch: Epoch(5),
                points: vec![(DiskId(1), ChunkId(2), ReplicaId(3), Seq::new(Epoch(5), 8))],
            },
            0,
        ),
        (Request::Scan { target: target(), block: 3, count: 8 }, 0),
        (Request::Ping, 0),
    ]
}

fn replies() -> Vec<(u16, Reply, usize)> {
    let mut digest = Digest::default();
    digest.add(&entry(1));
    let summary = ReplicaSummary {
        chunk: ChunkId(2),
        replica: ReplicaId(3),
        config: ConfigNo(1),
        adopted: Epoch(5),
        damaged: true,
        digest,
        entries: 1,
        max_seq: Seq::new(Epoch(5), 9),
        commit: Seq::new(Epoch(5), 7),
    };
    vec![
        (kind::HELLO, Reply::Hello { max_requests: 1, max_bytes: 2 }, 0),
        (
            kind::FENCE,
            Reply::Fenced { disks: vec![DiskId(1), DiskId(2)], replicas: vec![summary; 3], gaps: vec![DiskId(2)] },
            0,
        ),
        (kind::WRITE, Reply::Done, 0),
        (kind::READ, Reply::Read { entries: vec![entry(1), BlockEntry::absent(2)] }, BLOCK_SIZE),
        (kind::LIST, Reply::List { entries: vec![entry(1)], more: true }, 0),
        (kind::SCAN, Reply::Scan { digest, data: 7, blocks: 3, bad: vec![1, 2] }, 0),
        (kind::WRITE, Reply::error(Status::Fenced, "epoch 4 is below 5"), 0),
    ]
}

#[test]
fn messages_survive_a_round_trip_and_no_prefix_decodes() {
    for (request, data_len) in requests() {
        let mut meta = vec![];
        request.encode(&mut meta);
        assert_eq!(Request::decode(request.kind(), meta.clone().into(), data_len), Ok(request.clone()));
        for cut in 0..meta.len() {
            let short = Bytes::copy_from_slice(&meta[..cut]);
            assert!(Request::decode(request.kind(), short, data_len).is_err(), "{request:?} cut at {cut}");
        }
        assert!(Request::decode(request.kind(), meta.into(), data_len + 1).is_err());
    }
    for (kind, reply, data_len) in replies() {
        let mut meta = vec![];
        reply.encode(&mut meta);
        let back = Reply::decode(kind | REPLY_BIT, reply.status() as u16, meta.into(), data_len);
        assert_eq!(back, Ok(reply));
    }
}

#[test]
fn lists_are_bounded_before_they_are_allocated() {
    let mut meta = vec![];
    Request::Adopt { volume: VolumeId(1), epoch: Epoch(1), replicas: vec![] }.encode(&mut meta);
    let n = meta.len();
    meta[n - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Request::decode(kind::ADOPT, meta.into(), 0), Err(Malformed("list too long")));
}

#[test]
fn ranges_stay_within_a_chunk() {
    for (block, count) in [(0, 0), (BLOCKS_PER_CHUNK, 1), (u32::MAX, 2), (0, MAX_BLOCKS + 1)] {
        let mut meta = vec![];
        Request::Read { target: target(), block, count, reconcile: false }.encode(&mut meta);
        assert_eq!(Request::decode(kind::READ, meta.into(), 0), Err(Malformed("block range")));
    }
}

#[test]
fn header_bytes_are_fixed() {
    let h = FrameHeader::new(kind::PING, 0x0102_0304_0506_0708, Status::Ok, b"", 0);
    let golden = [
        0x4c, 0x45, 0x56, 0x45, 1, 0, 10, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0,
    ];
    assert_eq!(&h.as_bytes()[..36], &golden);
    assert_eq!(FrameHeader::parse(h.as_bytes()).unwrap().id.get(), 0x0102_0304_0506_0708);
}

#[test]
fn any_flipped_bit_of_a_header_is_noticed() {
    let h = FrameHeader::new(kind::WRITE, 7, Status::Ok, b"meta", 4096);
    for bit in 0..HEADER_LEN * 8 {
        let mut bytes = h.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(FrameHeader::parse(&bytes).is_err(), "bit {bit}");
    }
    assert!(h.check_meta(b"meta").is_ok());
    assert!(h.check_meta(b"mete").is_err());
}

#[test]
fn digest_is_independent_of_order_and_sees_every_field() {
    let (mut a, mut b) = (Digest::default(), Digest::default());
    a.add(&entry(1));
    a.add(&entry(2));
    b.add(&entry(2));
    b.add(&entry(3));
    b.add(&entry(1));
    b.remove(&entry(3));
    assert_eq!(a, b);
    let base = entry(1);
    let variants = [
        BlockEntry { block: 2, ..base },
        BlockEntry { kind: BlockKind::Zero, ..base },
        BlockEntry { version: Version(2), ..base },
        BlockEntry { seq: Seq(base.seq.0 + 1), ..base },
        BlockEntry { crc: 78, ..base },
    ];
    for v in variants {
        assert_ne!(Digest::hash(&v), Digest::hash(&base));
    }
    assert_eq!(Digest::hash(&BlockEntry::absent(1)), 0);
}
