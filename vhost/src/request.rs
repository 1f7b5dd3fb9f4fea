//! Turns the pieces of a descriptor chain into a virtio-blk request.
//!
//! Nothing the guest wrote is trusted: every length, direction, address and range is checked here, once,
//! so that what comes out can be given to the disk. The header may be split over descriptors; the status
//! is the last writable byte.

use bytes::Bytes;
use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Address, Bytes as _, GuestAddress, GuestMemoryBackend};

use crate::chain::Segment;
use crate::fair::{Cost, Lane};
use crate::limits::{MAX_DISCARD_SECTORS, MAX_REQUEST_LEN, MAX_WRITE_ZEROES_SECTORS, SECTOR_SIZE, SERIAL_LEN};
use crate::memory::GuestRegions;

/// `struct virtio_blk_req` up to its data.
const HEADER_LEN: usize = 16;
/// `struct virtio_blk_discard_write_zeroes`.
const RANGE_LEN: usize = 16;
/// The only flag of a range: write-zeroes may unmap.
const RANGE_UNMAP: u32 = 1;

/// What the guest wants done. Offsets and lengths are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read { offset: u64, len: usize },
    Write { offset: u64, len: usize },
    Flush,
    Discard { offset: u64, len: u64 },
    WriteZeroes { offset: u64, len: u64, unmap: bool },
    GetId,
}

/// Something to be done, and the memory that it is done with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub operation: Operation,
    /// Where the data is, or goes to.
    pub data: Vec<Segment>,
}

impl Piece {
    /// What its first `most` bytes take while the disk has them; `None` if it takes nothing.
    pub fn cost(&self, most: u64) -> Option<Cost> {
        match self.operation {
            Operation::Read { len, .. } => Some(Cost { lane: Lane::Read, bytes: most.min(len as u64) }),
            Operation::Write { len, .. } => Some(Cost { lane: Lane::Write, bytes: most.min(len as u64) }),
            Operation::Discard { .. } | Operation::WriteZeroes { .. } => {
                Some(Cost { lane: Lane::Other, bytes: most / 4 })
            }
            Operation::Flush | Operation::GetId => None,
        }
    }

    /// Cuts the piece after `most` bytes of data, and returns what follows.
    pub fn split_off(&mut self, most: u64) -> Option<Piece> {
        let most = most as usize;
        let rest = match &mut self.operation {
            Operation::Read { offset, len } if *len > most => {
                let rest = Operation::Read { offset: *offset + most as u64, len: *len - most };
                *len = most;
                rest
            }
            Operation::Write { offset, len } if *len > most => {
                let rest = Operation::Write { offset: *offset + most as u64, len: *len - most };
                *len = most;
                rest
            }
            _ => return None,
        };
        Some(Piece { operation: rest, data: split_segments(&mut self.data, most) })
    }
}

/// Cuts `data`, which is longer, after `most` bytes, and returns what follows.
fn split_segments(data: &mut Vec<Segment>, most: usize) -> Vec<Segment> {
    let mut left = most;
    let whole = data.iter().take_while(|segment| {
        let fits = segment.len as usize <= left;
        left -= if fits { segment.len as usize } else { 0 };
        fits
    });
    let whole = whole.count();
    let mut rest = data.split_off(whole);
    if left > 0
        && let Some(first) = rest.first_mut()
    {
        data.push(Segment { len: left as u32, ..*first });
        first.addr = first.addr.unchecked_add(left as u64);
        first.len -= left as u32;
    }
    rest
}

/// A request that may be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// All of it.
    pub piece: Piece,
    /// Where the status byte goes to.
    pub status_at: GuestAddress,
}

impl Request {
    /// Whether it would change what is on the disk.
    pub fn is_change(&self) -> bool {
        use Operation::*;
        matches!(self.piece.operation, Write { .. } | Discard { .. } | WriteZeroes { .. })
    }

    /// That it cannot be carried out.
    pub fn refused(&self, why: &'static str) -> Refusal {
        Refusal { status_at: Some(self.status_at), status: VIRTIO_BLK_S_IOERR as u8, why }
    }
}

/// A request that is answered without being carried out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Where the status byte goes to, if the chain has room for one.
    pub status_at: Option<GuestAddress>,
    pub status: u8,
    pub why: &'static str,
}

impl Refusal {
    /// A chain without a place for a status.
    pub fn unanswerable(why: &'static str) -> Self {
        Refusal { status_at: None, status: VIRTIO_BLK_S_IOERR as u8, why }
    }
}

/// A status code and what was wrong.
type Fault = (u32, &'static str);

fn io_error<T>(why: &'static str) -> Result<T, Fault> {
    Err((VIRTIO_BLK_S_IOERR, why))
}

fn unsupported<T>(why: &'static str) -> Result<T, Fault> {
    Err((VIRTIO_BLK_S_UNSUPP, why))
}

/// Reads a request from the pieces of its chain, for a disk of `capacity` bytes.
pub(crate) fn parse(mem: &GuestRegions, chain: &[Segment], capacity: u64) -> Result<Request, Refusal> {
    let Some(status_at) = status_address(mem, chain) else {
        return Err(Refusal::unanswerable("the chain has no room for a status"));
    };
    read_request(mem, chain, capacity, status_at).map_err(|(status, why)| Refusal {
        status_at: Some(status_at),
        status: status as u8,
        why,
    })
}

fn status_address(mem: &GuestRegions, chain: &[Segment]) -> Option<GuestAddress> {
    let last = chain.last().filter(|segment| segment.writable)?;
    let at = last.addr.checked_add(u64::from(last.len) - 1)?;
    mem.check_address(at)
}

fn read_request(
    mem: &GuestRegions,
    chain: &[Segment],
    capacity: u64,
    status_at: GuestAddress,
) -> Result<Request, Fault> {
    let (readable, writable) = chain.split_at(chain.iter().take_while(|s| !s.writable).count());
    if writable.iter().any(|segment| !segment.writable) {
        return io_error("a readable descriptor follows a writable one");
    }
    check_segments(mem, chain)?;
    let mut header = [0; HEADER_LEN];
    let Some(outgoing) = read_front(mem, readable, &mut header) else {
        return io_error("the request header is too short");
    };
    let incoming = without_status(writable);
    let sector = u64::from_le_bytes(field(&header, 8));
    let (operation, data) = match u32::from_le_bytes(field(&header, 0)) {
        VIRTIO_BLK_T_IN => {
            let (offset, len) = data_range(sector, &incoming, capacity)?;
            (Operation::Read { offset, len }, incoming)
        }
        VIRTIO_BLK_T_OUT => {
            let (offset, len) = data_range(sector, &outgoing, capacity)?;
            (Operation::Write { offset, len }, outgoing)
        }
        VIRTIO_BLK_T_FLUSH => (Operation::Flush, Vec::new()),
        VIRTIO_BLK_T_GET_ID => (Operation::GetId, incoming),
        VIRTIO_BLK_T_DISCARD => (discard(mem, &outgoing, capacity)?, Vec::new()),
        VIRTIO_BLK_T_WRITE_ZEROES => (write_zeroes(mem, &outgoing, capacity)?, Vec::new()),
        _ => return unsupported("unknown request type"),
    };
    Ok(Request { piece: Piece { operation, data }, status_at })
}

/// Every piece lies in guest memory, and all together are within bounds.
fn check_segments(mem: &GuestRegions, chain: &[Segment]) -> Result<(), Fault> {
    let mut total = 0u64;
    for segment in chain {
        total += u64::from(segment.len);
        if total > MAX_REQUEST_LEN + (HEADER_LEN + 1) as u64 {
            return io_error("the request is too long");
        }
        let in_memory = segment.addr.checked_add(u64::from(segment.len)).is_some()
            && mem.check_range(segment.addr, segment.len as usize);
        if !in_memory {
            return io_error("a descriptor points outside guest memory");
        }
    }
    Ok(())
}

/// Fills `front` with the first bytes of `segments` and returns what is left, or `None` if they are too short.
fn read_front(mem: &GuestRegions, segments: &[Segment], front: &mut [u8]) -> Option<Vec<Segment>> {
    let mut rest = Vec::with_capacity(segments.len());
    let mut filled = 0;
    for segment in segments {
        let taken = (segment.len as usize).min(front.len() - filled);
        mem.read_slice(&mut front[filled..filled + taken], segment.addr).ok()?;
        filled += taken;
        if taken < segment.len as usize {
            let addr = segment.addr.unchecked_add(taken as u64);
            rest.push(Segment { addr, len: segment.len - taken as u32, ..*segment });
        }
    }
    (filled == front.len()).then_some(rest)
}

/// The writable pieces without their last byte.
fn without_status(writable: &[Segment]) -> Vec<Segment> {
    let mut data = writable.to_vec();
    if let Some(last) = data.last_mut() {
        last.len -= 1;
        if last.len == 0 {
            data.pop();
        }
    }
    data
}

fn data_range(sector: u64, data: &[Segment], capacity: u64) -> Result<(u64, usize), Fault> {
    let len = data.iter().map(|s| u64::from(s.len)).sum::<u64>();
    if len > MAX_REQUEST_LEN {
        return io_error("the request is too long");
    }
    if len % SECTOR_SIZE != 0 {
        return io_error("the data is not a multiple of the sector size");
    }
    let (offset, len) = byte_range(sector, len, capacity)?;
    Ok((offset, len as usize))
}

fn byte_range(sector: u64, len: u64, capacity: u64) -> Result<(u64, u64), Fault> {
    let offset = sector.checked_mul(SECTOR_SIZE);
    let end = offset.and_then(|offset| offset.checked_add(len));
    match (offset, end) {
        (Some(offset), Some(end)) if end <= capacity => Ok((offset, len)),
        _ => io_error("the range lies beyond the end of the disk"),
    }
}

/// One `struct virtio_blk_discard_write_zeroes`.
struct Range {
    offset: u64,
    len: u64,
    flags: u32,
}

fn range(mem: &GuestRegions, data: &[Segment], max_sectors: u32, capacity: u64) -> Result<Range, Fault> {
    let mut bytes = [0; RANGE_LEN];
    match read_front(mem, data, &mut bytes) {
        None => return io_error("the range is too short"),
        Some(rest) if !rest.is_empty() => return io_error("more than one range"),
        Some(_) => {}
    }
    let sectors = u32::from_le_bytes(field(&bytes, 8));
    if sectors > max_sectors {
        return io_error("the range is too long");
    }
    let (offset, len) = byte_range(u64::from_le_bytes(field(&bytes, 0)), u64::from(sectors) * SECTOR_SIZE, capacity)?;
    Ok(Range { offset, len, flags: u32::from_le_bytes(field(&bytes, 12)) })
}

fn discard(mem: &GuestRegions, data: &[Segment], capacity: u64) -> Result<Operation, Fault> {
    let Range { offset, len, flags } = range(mem, data, MAX_DISCARD_SECTORS, capacity)?;
    if flags != 0 {
        return unsupported("a discard has flags");
    }
    Ok(Operation::Discard { offset, len })
}

fn write_zeroes(mem: &GuestRegions, data: &[Segment], capacity: u64) -> Result<Operation, Fault> {
    let Range { offset, len, flags } = range(mem, data, MAX_WRITE_ZEROES_SECTORS, capacity)?;
    if flags & !RANGE_UNMAP != 0 {
        return unsupported("a write-zeroes has unknown flags");
    }
    Ok(Operation::WriteZeroes { offset, len, unmap: flags & RANGE_UNMAP != 0 })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// Copies a write's data out of guest memory; `None` if the memory is gone.
pub(crate) fn gather(mem: &GuestRegions, data: &[Segment], len: usize) -> Option<Bytes> {
    let mut bytes = Vec::with_capacity(len);
    for segment in data {
        mem.write_all_volatile_to(segment.addr, &mut bytes, segment.len as usize).ok()?;
    }
    (bytes.len() == len).then(|| Bytes::from(bytes))
}

/// Copies `pieces` into guest memory and returns how many bytes; `None` if they do not fill `data` exactly or the
/// memory is gone.
pub(crate) fn scatter<'a>(
    mem: &GuestRegions,
    data: &[Segment],
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Option<u32> {
    let mut targets = data.iter();
    let mut target = Segment { addr: GuestAddress(0), len: 0, writable: true };
    let mut copied = 0;
    for mut piece in pieces {
        while !piece.is_empty() {
            if target.len == 0 {
                target = *targets.next()?;
            }
            let n = piece.len().min(target.len as usize);
            mem.write_slice(&piece[..n], target.addr).ok()?;
            piece = &piece[n..];
            target.addr = target.addr.unchecked_add(n as u64);
            target.len -= n as u32;
            copied += n as u32;
        }
    }
    (target.len == 0 && targets.next().is_none()).then_some(copied)
}

/// Writes the serial number, cut or padded with zeroes, as far as the guest made room for it.
pub(crate) fn scatter_serial(mem: &GuestRegions, data: &[Segment], id: &str) -> Option<u32> {
    let mut serial = [0; SERIAL_LEN];
    let len = id.len().min(SERIAL_LEN);
    serial[..len].copy_from_slice(&id.as_bytes()[..len]);
    let mut copied = 0;
    for segment in data {
        let n = (SERIAL_LEN - copied).min(segment.len as usize);
        mem.write_slice(&serial[copied..copied + n], segment.addr).ok()?;
        copied += n;
    }
    Some(copied as u32)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
