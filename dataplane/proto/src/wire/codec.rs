//! The fields that messages are made of: written one after the other, and read with every length and range checked.

use super::{BlockEntry, BlockKind, Decoded, MAX_BLOCKS, Malformed, Scope, Target};
use crate::ids::*;
use crate::units::BLOCKS_PER_CHUNK;
use crate::view::View;
use bytes::Bytes;

/// Writes little-endian fields one after the other.
pub(super) struct Out<'a>(pub &'a mut Vec<u8>);

impl Out<'_> {
    pub fn u8(&mut self, v: u8) -> &mut Self {
        self.0.push(v);
        self
    }
    pub fn u16(&mut self, v: u16) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub fn u64(&mut self, v: u64) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }
    pub fn target(&mut self, t: &Target) -> &mut Self {
        self.u64(t.volume.0).u64(t.chunk.0).u64(t.replica.0).u32(t.disk.0).u32(t.epoch.0).u32(t.config.0)
    }
    pub fn view(&mut self, v: &View) -> &mut Self {
        self.u32(v.version.0).u8(v.hidden.len() as u8);
        for (first, last) in &v.hidden {
            self.u32(first.0).u32(last.0);
        }
        self
    }
    pub fn views(&mut self, list: &[View]) -> &mut Self {
        self.u32(list.len() as u32);
        for v in list {
            self.view(v);
        }
        self
    }
    pub fn scope(&mut self, s: &Scope) -> &mut Self {
        match s {
            Scope::Named => self.u8(0),
            Scope::Gone => self.u8(2),
            Scope::Versions { block, count, first, last } => {
                self.u8(1).u32(*block).u32(*count).u32(first.0).u32(last.0)
            }
        }
    }
    pub fn replicas(&mut self, list: &[(DiskId, ChunkId, ReplicaId)]) {
        self.u32(list.len() as u32);
        for (disk, chunk, replica) in list {
            self.u32(disk.0).u64(chunk.0).u64(replica.0);
        }
    }
    pub fn entry(&mut self, e: &BlockEntry) {
        self.u64(e.seq.0).u32(e.version.0).u32(e.crc).u32(e.block).u32(e.kind as u32);
    }
    pub fn entries(&mut self, list: &[BlockEntry]) {
        self.u32(list.len() as u32);
        list.iter().for_each(|e| self.entry(e));
    }
}

/// Reads little-endian fields; every read is checked against the end.
pub(super) struct In(pub Bytes);

impl In {
    pub fn take<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (head, _) = self.0.split_first_chunk::<N>().ok_or(Malformed("short message"))?;
        let head = *head;
        let _ = self.0.split_to(N);
        Ok(head)
    }
    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.take::<1>()?[0])
    }
    pub fn u16(&mut self) -> Decoded<u16> {
        Ok(u16::from_le_bytes(self.take()?))
    }
    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    pub fn bool(&mut self) -> Decoded<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("flag")),
        }
    }
    pub fn epoch(&mut self) -> Decoded<Epoch> {
        let e = Epoch(self.u32()?);
        if e > Epoch::MAX { Err(Malformed("epoch out of range")) } else { Ok(e) }
    }
    pub fn target(&mut self) -> Decoded<Target> {
        Ok(Target {
            volume: VolumeId(self.u64()?),
            chunk: ChunkId(self.u64()?),
            replica: ReplicaId(self.u64()?),
            disk: DiskId(self.u32()?),
            epoch: self.epoch()?,
            config: ConfigNo(self.u32()?),
        })
    }
    pub fn block_kind(&mut self) -> Decoded<BlockKind> {
        BlockKind::from_code(self.u8()?).ok_or(Malformed("block kind"))
    }
    pub fn range(&mut self) -> Decoded<(u32, u32)> {
        let (block, count) = (self.u32()?, self.u32()?);
        match block.checked_add(count) {
            Some(end) if end <= BLOCKS_PER_CHUNK && (1..=MAX_BLOCKS).contains(&count) => Ok((block, count)),
            _ => Err(Malformed("block range")),
        }
    }
    pub fn view(&mut self) -> Decoded<View> {
        let (version, n) = (Version(self.u32()?), self.u8()?);
        let range = |i: &mut In| Ok((Version(i.u32()?), Version(i.u32()?)));
        let hidden = (0..n).map(|_| range(self)).collect::<Decoded<_>>()?;
        let view = View { version, hidden };
        if view.is_valid() { Ok(view) } else { Err(Malformed("view")) }
    }
    pub fn scope(&mut self) -> Decoded<Scope> {
        match self.u8()? {
            0 => return Ok(Scope::Named),
            1 => {}
            2 => return Ok(Scope::Gone),
            _ => return Err(Malformed("scope")),
        }
        let (block, count) = (self.u32()?, self.u32()?);
        let (first, last) = (Version(self.u32()?), Version(self.u32()?));
        match block.checked_add(count) {
            Some(end) if end <= BLOCKS_PER_CHUNK && first <= last => Ok(Scope::Versions { block, count, first, last }),
            _ => Err(Malformed("scope")),
        }
    }
    pub fn replicas(&mut self, max: usize) -> Decoded<Vec<(DiskId, ChunkId, ReplicaId)>> {
        self.list(20, max, |i| Ok((DiskId(i.u32()?), ChunkId(i.u64()?), ReplicaId(i.u64()?))))
    }
    pub fn entry(&mut self) -> Decoded<BlockEntry> {
        let (seq, version, crc, block, kind) = (self.u64()?, self.u32()?, self.u32()?, self.u32()?, self.u32()?);
        let kind = u8::try_from(kind).ok().and_then(BlockKind::from_code).ok_or(Malformed("block kind"))?;
        if block >= BLOCKS_PER_CHUNK {
            return Err(Malformed("block out of range"));
        }
        Ok(BlockEntry { block, kind, version: Version(version), seq: Seq(seq), crc })
    }
    /// A counted list of items of `size` bytes; the count is checked before anything is allocated.
    pub fn list<T>(&mut self, size: usize, max: usize, mut item: impl FnMut(&mut In) -> Decoded<T>) -> Decoded<Vec<T>> {
        let n = self.u32()? as usize;
        if n > max || n.saturating_mul(size) > self.0.len() {
            return Err(Malformed("list too long"));
        }
        (0..n).map(|_| item(self)).collect()
    }
    pub fn end<T>(self, value: T) -> Decoded<T> {
        if self.0.is_empty() { Ok(value) } else { Err(Malformed("trailing bytes")) }
    }
}
