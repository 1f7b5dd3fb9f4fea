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

fn view() -> View {
    View { version: Version(9), hidden: vec![(Version(2), Version(3)), (Version(5), Version(5))] }
}

fn hello() -> Hello {
    let caller = Caller { node: NodeId(1), core: 4, incarnation: [3; 16] };
    Hello { cluster: [9; 16], caller, to: NodeId(2), core: 3 }
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
        (Request::Hello(hello()), 0),
        (Request::Enter { ticket: Ticket(1 << 60) }, 0),
        (Request::Fence { volume: VolumeId(1), era: Era(0), epoch: Epoch(5), disks: vec![DiskId(7), DiskId(2)] }, 0),
        (Request::Fence { volume: VolumeId(1), era: Era(9), epoch: Epoch::MAX, disks: vec![] }, 0),
        (Request::Replicas { volume: VolumeId(1), epoch: Epoch(5), disk: DiskId(7), after: ChunkId(9), max: 4096 }, 0),
        (Request::Create { target: target(), adopted: true }, 0),
        (write(BlockKind::Data, Crcs::of(&data)), data.len()),
        (write(BlockKind::Zero, Crcs::none()), 0),
        (
            Request::Read {
                target: target(),
                block: 0,
                count: MAX_BLOCKS,
                view: View::of(Version(7)),
                reconcile: true,
            },
            0,
        ),
        (Request::Read { target: target(), block: 4, count: 1, view: view(), reconcile: false }, 0),
        (
            Request::ReadVersions { target: target(), block: 4, count: 2, from_version: Version::MAX, reconcile: true },
            0,
        ),
        (Request::List { target: target(), from: 0, from_version: Version(8), max: 10, above: Seq::ZERO }, 0),
        (Request::Repair { target: target(), scope: Scope::Gone, entries: vec![entry(1)] }, 0),
        (
            Request::Repair { target: target(), scope: Scope::Named, entries: vec![entry(1), BlockEntry::absent(2)] },
            BLOCK_SIZE,
        ),
        (Request::Repair { target: target(), scope: versions(), entries: vec![entry(1)] }, BLOCK_SIZE),
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

fn versions() -> Scope {
    Scope::Versions { block: 1, count: 7, first: Version(2), last: Version::MAX }
}

/// What concerns snapshots alone.
fn version_requests() -> Vec<Request> {
    let (volume, chunk, replica, disk) = (VolumeId(1), ChunkId(2), ReplicaId(3), DiskId(4));
    let replicas = vec![(disk, chunk, replica), (disk, ChunkId(7), ReplicaId(8))];
    vec![
        Request::Prune {
            volume,
            epoch: Epoch(5),
            keep: vec![view(), View::of(Version(4))],
            replicas: replicas.clone(),
        },
        Request::Seal { volume, epoch: Epoch(5), version: Version(6), replicas },
        Request::ReadShared { volume, chunk, replica, disk, view: view(), block: 9, count: 3 },
        Request::Presence { volume, chunk, replica, disk, view: View::of(Version(1)) },
        Request::PresentData { volume, chunk, replica, disk, view: view() },
        Request::Tally { target: target(), views: vec![view(), View::of(Version(4))] },
    ]
}

fn tally() -> Reply {
    let (entries, data) = (vec![0xf0; PRESENCE_LEN].into(), vec![0x70; PRESENCE_LEN].into());
    Reply::Tally { stored: 1 << 24, alone: vec![7, 0, 9], entries, data }
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
        sealed: Version(4),
    };
    vec![
        (kind::HELLO, Reply::Hello { max_requests: 1, max_bytes: 2, ticket: Ticket(3) }, 0),
        (kind::FENCE, Reply::Fenced { disks: vec![DiskId(1), DiskId(2)], gaps: vec![DiskId(2)] }, 0),
        (kind::REPLICAS, Reply::Replicas { replicas: vec![summary; 3], more: true }, 0),
        (kind::WRITE, Reply::Done, 0),
        (kind::READ, Reply::Read { entries: vec![entry(1), BlockEntry::absent(2)] }, BLOCK_SIZE),
        (kind::LIST, Reply::List { entries: vec![entry(1)], more: true }, 0),
        (kind::READ_SHARED, Reply::Read { entries: vec![entry(1)] }, BLOCK_SIZE),
        (kind::READ_VERSIONS, Reply::ReadVersions { entries: vec![entry(1); 300], more: true }, 300 * BLOCK_SIZE),
        (kind::PRUNE, Reply::Pruned { dropped: 1 << 40 }, 0),
        (kind::SEAL, Reply::Done, 0),
        (kind::PRESENCE, Reply::Presence { bits: vec![0xa5; PRESENCE_LEN].into() }, 0),
        (kind::PRESENT_DATA, Reply::PresentData { bits: vec![0x5a; PRESENCE_LEN].into() }, 0),
        (kind::TALLY, tally(), 0),
        (kind::SCAN, Reply::Scan { digest, data: 9, blocks: 3, bad: vec![1, 2] }, 0),
        (kind::WRITE, Reply::error(Status::Fenced, "epoch 4 is below 5"), 0),
    ]
}

#[test]
fn messages_survive_a_round_trip_and_no_prefix_decodes() {
    for (request, data_len) in requests().into_iter().chain(version_requests().into_iter().map(|r| (r, 0))) {
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
        Request::Read { target: target(), block, count, view: View::of(Version(1)), reconcile: false }
            .encode(&mut meta);
        assert_eq!(Request::decode(kind::READ, meta.into(), 0), Err(Malformed("block range")));
    }
}

fn hex(request: &Request) -> String {
    let mut meta = vec![];
    request.encode(&mut meta);
    meta.iter().map(|b| format!("{b:02x}")).collect()
}

const TARGET: &str = "010000000000000002000000000000000300000000000000040000000500000006000000";

#[test]
fn bytes_of_reads_and_scopes_are_fixed() {
    let read = Request::Read { target: target(), block: 4, count: 1, view: view(), reconcile: true };
    // Block, count; version, two ranges; reconcile.
    let expected = ["04000000", "01000000", "09000000", "02", "02000000", "03000000", "05000000", "05000000", "01"];
    assert_eq!(hex(&read), [TARGET, &expected.concat()].concat());
    let repair = Request::Repair { target: target(), scope: versions(), entries: vec![] };
    // Scope: block, count, first and last version; entries.
    let expected = ["01", "01000000", "07000000", "02000000", "ffffffff", "00000000"];
    assert_eq!(hex(&repair), [TARGET, &expected.concat()].concat());
}

#[test]
fn bytes_of_requests_about_snapshots_are_fixed() {
    let (replicas, view) =
        ("02000000040000000200000000000000030000000000000004000000070000000000000008000000", "00000000");
    let hidden = "090000000202000000030000000500000005000000";
    let expected = [
        ["010000000000000005000000", "02000000", hidden, "0400000000", replicas, view].concat(),
        ["010000000000000005000000", "06000000", replicas, view].concat(),
        ["010000000000000002000000000000000300000000000000", "04000000", hidden, "0900000003000000"].concat(),
        ["010000000000000002000000000000000300000000000000", "04000000", "0100000000"].concat(),
        ["010000000000000002000000000000000300000000000000", "04000000", hidden].concat(),
        [TARGET, "02000000", hidden, "0400000000"].concat(),
    ];
    let found: Vec<String> = version_requests().iter().map(hex).collect();
    assert_eq!(found, expected);
}

#[test]
fn views_out_of_order_are_refused() {
    let bad = View { version: Version(9), hidden: vec![(Version(5), Version(5)), (Version(2), Version(3))] };
    let mut meta = vec![];
    Request::Read { target: target(), block: 4, count: 1, view: bad, reconcile: true }.encode(&mut meta);
    assert_eq!(Request::decode(kind::READ, meta.into(), 0), Err(Malformed("view")));
}

#[test]
fn header_bytes_are_fixed() {
    let h = FrameHeader::new(kind::PING, 0x0102_0304_0506_0708, Status::Ok, b"", 0);
    let golden = [
        0x4c, 0x45, 0x56, 0x45, 2, 0, 10, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
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

#[test]
fn tallies_are_for_some_views_and_not_too_many() {
    let asked = |views: usize| {
        let mut meta = vec![];
        let request = Request::Tally { target: target(), views: vec![View::of(Version(1)); views] };
        request.encode(&mut meta);
        Request::decode(request.kind(), meta.into(), 0).is_ok()
    };
    assert_eq!([0, 1, MAX_KEEP, MAX_KEEP + 1].map(asked), [false, true, true, false]);
}

#[test]
fn extensions_of_a_hello_are_passed_over_if_they_may_be() {
    let with = |extensions: &[(u16, u16, &[u8])]| {
        let mut meta = vec![];
        Request::Hello(hello()).encode(&mut meta);
        for (kind, len, value) in extensions {
            meta.extend(kind.to_le_bytes().iter().chain(&len.to_le_bytes()).chain(*value));
        }
        Request::decode(HELLO, meta.into(), 0)
    };
    let known = Ok(Request::Hello(hello()));
    assert_eq!(with(&[]), known);
    assert_eq!(with(&[(EXTENSION_OPTIONAL | 1, 3, b"abc"), (EXTENSION_OPTIONAL | 2, 0, b"")]), known);
    assert_eq!(with(&[(1, 3, b"abc")]), Err(Malformed("extension that this daemon does not know")));
    assert_eq!(with(&[(EXTENSION_OPTIONAL, 4, b"abc")]), Err(Malformed("short extension")));
    assert_eq!(
        with(&[(EXTENSION_OPTIONAL, 0, b"".as_slice()); MAX_EXTENSIONS + 1]),
        Err(Malformed("too many extensions"))
    );
}

#[test]
fn what_nobody_can_have_been_given_is_not_decoded() {
    let t = target();
    let targets = [
        Target { volume: VolumeId(0), ..t },
        Target { volume: VolumeId(u64::MAX), ..t },
        Target { chunk: ChunkId(0), ..t },
        Target { chunk: ChunkId(MAX_ID + 1), ..t },
        Target { replica: ReplicaId(u64::MAX), ..t },
        Target { disk: DiskId(0), ..t },
        Target { epoch: Epoch(0), ..t },
        Target { epoch: Epoch(Epoch::MAX.0 + 1), ..t },
    ];
    let absurd = targets.map(|target| Request::Create { target, adopted: true });
    let fence =
        |volume, epoch| Request::Fence { volume: VolumeId(volume), era: Era(0), epoch: Epoch(epoch), disks: vec![] };
    let write = |version| Request::Write {
        target: t,
        kind: BlockKind::Zero,
        version,
        seq: Seq::new(Epoch(5), 1),
        block: 0,
        count: 1,
        crcs: Crcs::none(),
    };
    let zero = BlockEntry { kind: BlockKind::Zero, crc: 0, ..entry(1) };
    let repair = |entry| Request::Repair { target: t, scope: Scope::Named, entries: vec![entry] };
    let seal = |version| Request::Seal { volume: VolumeId(1), epoch: Epoch(5), version, replicas: vec![] };
    let others = [
        fence(0, 5),
        fence(1, 0),
        write(Version(0)),
        write(Version::MAX),
        repair(BlockEntry { version: Version::MAX, ..zero }),
        repair(BlockEntry { version: Version(0), ..zero }),
        repair(BlockEntry { seq: Seq::ZERO, ..zero }),
        repair(BlockEntry { crc: 1, ..zero }),
        seal(Version(0)),
        seal(Version::MAX),
    ];
    let decode = |request: &Request| {
        let mut meta = vec![];
        request.encode(&mut meta);
        Request::decode(request.kind(), meta.into(), 0)
    };
    for request in absurd.iter().chain(&others) {
        assert!(decode(request).is_err(), "{request:?}");
    }
    for request in [fence(1, 5), write(Version(1)), repair(zero), repair(BlockEntry::absent(3)), seal(Version(1))] {
        assert_eq!(decode(&request), Ok(request));
    }
}
