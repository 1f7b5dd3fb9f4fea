//! The fields that messages are made of: written one after the other, and read with every length and range checked.

use super::{
    BlockEntry, BlockKind, Decoded, EXTENSION_OPTIONAL, Hello, MAX_BLOCKS, MAX_EXTENSIONS, Malformed, Scope, Target,
};
use crate::callers::Caller;
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
    pub fn hello(&mut self, h: &Hello) {
        self.0.extend_from_slice(&h.cluster);
        self.0.extend_from_slice(&h.caller.incarnation);
        self.u32(h.caller.node.0).u16(h.caller.core).u32(h.to.0).u16(h.core);
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
    pub fn hello(&mut self) -> Decoded<Hello> {
        let (cluster, incarnation) = (self.take()?, self.take()?);
        let caller = Caller { node: NodeId(self.u32()?), core: self.u16()?, incarnation };
        let hello = Hello { cluster, caller, to: NodeId(self.u32()?), core: self.u16()? };
        self.extensions()?;
        Ok(hello)
    }
    /// Passes over what may be passed over: none is known yet.
    pub fn extensions(&mut self) -> Decoded<()> {
        for _ in 0..MAX_EXTENSIONS {
            if self.0.is_empty() {
                return Ok(());
            }
            let (kind, len) = (self.u16()?, usize::from(self.u16()?));
            if kind & EXTENSION_OPTIONAL == 0 {
                return Err(Malformed("extension that this daemon does not know"));
            }
            if len > self.0.len() {
                return Err(Malformed("short extension"));
            }
            let _ = self.0.split_to(len);
        }
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("too many extensions")) }
    }
    /// An epoch that somebody can have.
    pub fn real_epoch(&mut self) -> Decoded<Epoch> {
        let e = self.epoch()?;
        if e == Epoch(0) { Err(Malformed("epoch of nobody")) } else { Ok(e) }
    }
    /// An id of something that can be.
    fn id(&mut self) -> Decoded<u64> {
        match self.u64()? {
            id @ 1..=MAX_ID => Ok(id),
            _ => Err(Malformed("id out of range")),
        }
    }
    pub fn volume(&mut self) -> Decoded<VolumeId> {
        Ok(VolumeId(self.id()?))
    }
    pub fn chunk(&mut self) -> Decoded<ChunkId> {
        Ok(ChunkId(self.id()?))
    }
    pub fn replica(&mut self) -> Decoded<ReplicaId> {
        Ok(ReplicaId(self.id()?))
    }
    pub fn disk(&mut self) -> Decoded<DiskId> {
        let disk = self.u32()?;
        if disk == 0 { Err(Malformed("id out of range")) } else { Ok(DiskId(disk)) }
    }
    /// A version that something can be written at.
    pub fn real_version(&mut self) -> Decoded<Version> {
        let v = Version(self.u32()?);
        if (Version::FIRST..Version::MAX).contains(&v) { Ok(v) } else { Err(Malformed("version out of range")) }
    }
    pub fn target(&mut self) -> Decoded<Target> {
        Ok(Target {
            volume: self.volume()?,
            chunk: self.chunk()?,
            replica: self.replica()?,
            disk: self.disk()?,
            epoch: self.real_epoch()?,
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
        self.list(20, max, |i| Ok((i.disk()?, i.chunk()?, i.replica()?)))
    }
    pub fn entry(&mut self) -> Decoded<BlockEntry> {
        let (seq, version, crc, block, kind) = (self.u64()?, self.u32()?, self.u32()?, self.u32()?, self.u32()?);
        let kind = u8::try_from(kind).ok().and_then(BlockKind::from_code).ok_or(Malformed("block kind"))?;
        if block >= BLOCKS_PER_CHUNK {
            return Err(Malformed("block out of range"));
        }
        Ok(BlockEntry { block, kind, version: Version(version), seq: Seq(seq), crc })
    }
    /// An entry that is to be stored; one that says that there is nothing may be about all versions.
    pub fn real_entry(&mut self) -> Decoded<BlockEntry> {
        let e = self.entry()?;
        let is_gone = e.kind == BlockKind::Absent;
        let written = e.version >= Version::FIRST && e.seq > Seq::ZERO;
        let has_crc = e.kind == BlockKind::Data || e.crc == 0;
        let is_real = e.version < Version::MAX && has_crc && (is_gone || written);
        if is_real { Ok(e) } else { Err(Malformed("entry that cannot be")) }
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
