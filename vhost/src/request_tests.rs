//! The parser, fed by hand and with arbitrary chains.

use proptest::prelude::*;

use super::*;

const CAPACITY: u64 = 1 << 20;
const MEMORY: usize = 1 << 16;
const STATUS: Segment = Segment { addr: GuestAddress(0x8000), len: 1, writable: true };

fn memory(kind: u32, sector: u64) -> GuestRegions {
    let mem = GuestRegions::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
    mem.write_obj(kind.to_le(), GuestAddress(0)).unwrap();
    mem.write_obj(sector.to_le(), GuestAddress(8)).unwrap();
    mem
}

fn segment(addr: u64, len: u32, writable: bool) -> Segment {
    Segment { addr: GuestAddress(addr), len, writable }
}

fn refused(parsed: Result<Request, Refusal>) -> (u32, bool) {
    let refusal = parsed.unwrap_err();
    (u32::from(refusal.status), refusal.status_at.is_some())
}

#[test]
fn header_split_and_data_in_its_last_piece() {
    let mem = memory(VIRTIO_BLK_T_OUT, 4);
    let chain = [segment(0, 7, false), segment(7, 9 + 500, false), segment(0x3000, 12, false), STATUS];
    let request = parse(&mem, &chain, CAPACITY).unwrap();
    assert_eq!(request.piece.operation, Operation::Write { offset: 2048, len: 512 });
    assert_eq!(request.piece.data, [segment(16, 500, false), segment(0x3000, 12, false)]);
    assert_eq!(request.status_at, STATUS.addr);
}

#[test]
fn status_is_the_last_byte_of_the_data() {
    let mem = memory(VIRTIO_BLK_T_IN, 1);
    let chain = [segment(0, 16, false), segment(0x2000, 512, true), segment(0x4000, 513, true)];
    let request = parse(&mem, &chain, CAPACITY).unwrap();
    assert_eq!(request.piece.operation, Operation::Read { offset: 512, len: 1024 });
    assert_eq!(request.piece.data, [segment(0x2000, 512, true), segment(0x4000, 512, true)]);
    assert_eq!(request.status_at, GuestAddress(0x4200));
}

#[test]
fn refusals() {
    let header = segment(0, 16, false);
    let read = memory(VIRTIO_BLK_T_IN, CAPACITY / 512 - 1);
    let parse_read = |chain: &[Segment]| parse(&read, chain, CAPACITY);
    let data = |len| segment(0x2000, len, true);
    assert!(parse_read(&[header, data(512), STATUS]).is_ok());
    let io_error = (VIRTIO_BLK_S_IOERR, true);
    assert_eq!(refused(parse_read(&[header, data(1024), STATUS])), io_error, "beyond the end");
    assert_eq!(refused(parse_read(&[header, data(100), STATUS])), io_error, "unaligned");
    assert_eq!(refused(parse_read(&[segment(0, 15, false), data(512), STATUS])), io_error, "short header");
    assert_eq!(refused(parse_read(&[STATUS, header, STATUS])), io_error, "order");
    assert_eq!(refused(parse_read(&[header, segment(u64::MAX - 3, 512, true), STATUS])), io_error, "overflow");
    assert_eq!(refused(parse_read(&[header, data(u32::MAX), STATUS])), io_error, "too long");
    assert_eq!(refused(parse_read(&[header, data(512), header])), (VIRTIO_BLK_S_IOERR, false), "no status");
    assert_eq!(refused(parse_read(&[])), (VIRTIO_BLK_S_IOERR, false), "empty");
    assert_eq!(refused(parse_read(&[header, segment(MEMORY as u64, 1, true)])), (VIRTIO_BLK_S_IOERR, false));
    let wraps = memory(VIRTIO_BLK_T_OUT, u64::MAX / 512 + 1);
    assert_eq!(refused(parse(&wraps, &[header, segment(0x2000, 512, false), STATUS], CAPACITY)), io_error);
    let unknown = memory(77, 0);
    assert_eq!(refused(parse(&unknown, &[header, STATUS], CAPACITY)), (VIRTIO_BLK_S_UNSUPP, true));
}

fn parse_range(kind: u32, sector: u64, sectors: u32, flags: u32, capacity: u64) -> Result<Operation, u32> {
    let mem = memory(kind, 0);
    mem.write_obj(sector.to_le(), GuestAddress(0x100)).unwrap();
    mem.write_obj(sectors.to_le(), GuestAddress(0x108)).unwrap();
    mem.write_obj(flags.to_le(), GuestAddress(0x10c)).unwrap();
    parse(&mem, &[segment(0, 16, false), segment(0x100, 16, false), STATUS], capacity)
        .map(|request| request.piece.operation)
        .map_err(|refusal| u32::from(refusal.status))
}

#[test]
fn ranges() {
    const DISCARD: u32 = VIRTIO_BLK_T_DISCARD;
    const ZEROES: u32 = VIRTIO_BLK_T_WRITE_ZEROES;
    assert_eq!(parse_range(DISCARD, 8, 16, 0, CAPACITY), Ok(Operation::Discard { offset: 4096, len: 8192 }));
    assert_eq!(parse_range(DISCARD, 8, 16, 1, CAPACITY), Err(VIRTIO_BLK_S_UNSUPP));
    assert_eq!(
        parse_range(ZEROES, 1, 3, 1, CAPACITY),
        Ok(Operation::WriteZeroes { offset: 512, len: 1536, unmap: true })
    );
    assert_eq!(parse_range(ZEROES, 1, 3, 2, CAPACITY), Err(VIRTIO_BLK_S_UNSUPP));
    assert_eq!(parse_range(ZEROES, 0, MAX_WRITE_ZEROES_SECTORS + 1, 0, u64::MAX), Err(VIRTIO_BLK_S_IOERR));
    assert_eq!(parse_range(DISCARD, 2047, 2, 0, CAPACITY), Err(VIRTIO_BLK_S_IOERR));
    assert_eq!(parse_range(DISCARD, u64::MAX, 1, 0, u64::MAX), Err(VIRTIO_BLK_S_IOERR));
}

#[test]
fn scatter_fills_exactly() {
    let mem = memory(0, 0);
    let data = [segment(0x100, 3, true), segment(0x200, 5, true)];
    let pieces: [&[u8]; 3] = [b"ab", b"cdef", b"gh"];
    assert_eq!(scatter(&mem, &data, pieces), Some(8));
    assert_eq!(gather(&mem, &data, 8).unwrap(), "abcdefgh");
    assert_eq!(scatter(&mem, &data, [&b"too short"[..7]]), None);
    assert_eq!(scatter(&mem, &data, [&b"too long."[..]]), None);
    assert_eq!(gather(&mem, &data, 9), None);
}

#[test]
fn serial_is_cut_and_padded() {
    let mem = memory(0, 0);
    let data = [segment(0x100, 4, true), segment(0x200, 30, true)];
    assert_eq!(scatter_serial(&mem, &data, "a serial number that is far too long"), Some(20));
    assert_eq!(gather(&mem, &data, 34).unwrap()[..21], *b"a serial number that\0");
    assert_eq!(scatter_serial(&mem, &data[..1], "xy"), Some(4));
    assert_eq!(gather(&mem, &data[..1], 4).unwrap(), "xy\0\0");
}

fn any_segment() -> impl Strategy<Value = Segment> {
    let addr = prop_oneof![4 => 0..MEMORY as u64 + 64, 1 => any::<u64>()];
    let len = prop_oneof![4 => 1..2000u32, 1 => Just(512), 1 => 1..=u32::MAX];
    (addr, len, any::<bool>()).prop_map(|(addr, len, writable)| segment(addr, len, writable))
}

proptest! {
    /// Whatever the chain, what the parser lets through is within the disk, the memory and the bounds.
    #[test]
    fn what_is_accepted_is_sound(
        mut chain in prop::collection::vec(any_segment(), 0..8),
        sort in any::<bool>(),
        kind in prop_oneof![Just(0u32), Just(1), Just(4), Just(8), Just(11), Just(13), any::<u32>()],
        sector in prop_oneof![0..3000u64, any::<u64>()],
    ) {
        if sort {
            chain.sort_by_key(|s| s.writable);
            chain.insert(0, segment(0, 16, false));
        }
        let mem = memory(kind, sector);
        let Ok(request) = parse(&mem, &chain, CAPACITY) else { return Ok(()) };
        prop_assert!(mem.check_address(request.status_at).is_some());
        for s in &request.piece.data {
            prop_assert!(mem.check_range(s.addr, s.len as usize));
        }
        match request.piece.operation {
            Operation::Read { offset, len } | Operation::Write { offset, len } => {
                prop_assert!(offset + len as u64 <= CAPACITY);
                prop_assert_eq!(len, request.piece.data.iter().map(|s| s.len as usize).sum::<usize>());
            }
            Operation::Discard { offset, len } | Operation::WriteZeroes { offset, len, .. } => {
                prop_assert!(offset + len <= CAPACITY);
            }
            Operation::Flush | Operation::GetId => {}
        }
    }
}
