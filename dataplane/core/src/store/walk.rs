//! Walking the batches of a segment, whatever state it is in.

use super::layout::{BatchHeader, ShardGeometry};
use super::limits::*;
use super::record::Record;
use crate::ports::Disk;
use crate::sync::join_all;

/// Reads a segment front to back in large steps.
pub struct Window<'a, D> {
    disk: &'a D,
    geometry: &'a ShardGeometry,
    pub segment: u32,
    /// Where `bytes` begins in the segment.
    start: u32,
    bytes: Vec<u8>,
    /// Blocks that could not be read; zeros stand for them.
    pub unreadable: u32,
}

/// A batch whose header, with its records, is whole.
pub struct FoundBatch {
    pub segment: u32,
    pub generation: u64,
    pub number: u64,
    pub first_record: u64,
    pub records: Vec<Record>,
    /// Bytes into the segment.
    pub offset: u32,
    /// Bytes into the segment.
    pub data_offset: u32,
    pub data_len: u32,
}

impl FoundBatch {
    /// Bytes into the segment.
    pub fn end(&self) -> u32 {
        self.data_offset + self.data_len
    }

    pub fn next_record(&self) -> u64 {
        self.first_record + self.records.len() as u64
    }
}

impl<'a, D: Disk> Window<'a, D> {
    pub fn new(disk: &'a D, geometry: &'a ShardGeometry, segment: u32) -> Window<'a, D> {
        Window { disk, geometry, segment, start: 0, bytes: Vec::new(), unreadable: 0 }
    }

    /// `len` bytes at `offset`, both whole blocks within the segment.
    pub async fn get(&mut self, offset: u32, len: usize) -> &[u8] {
        let held = self.start as usize..self.start as usize + self.bytes.len();
        let at = offset as usize;
        if at < held.start || at + len > held.end {
            let want = len.max(RECOVERY_WINDOW).min(self.geometry.segment_size as usize - at);
            self.load(offset, want).await;
        }
        let from = at - self.start as usize;
        &self.bytes[from..from + len]
    }

    async fn load(&mut self, offset: u32, len: usize) {
        let pos = self.geometry.segment_pos(self.segment) + u64::from(offset);
        self.start = offset;
        self.bytes.clear();
        if let Ok(bytes) = self.disk.read(pos, len).await {
            self.bytes.extend_from_slice(&bytes);
            return;
        }
        // A bad sector should cost its block, not the whole window.
        let places: Vec<usize> = (0..len).step_by(BLOCK).collect();
        for some in places.chunks(SCAN_PARALLEL) {
            let blocks = join_all(some.iter().map(|at| self.disk.read(pos + *at as u64, BLOCK))).await;
            for (at, block) in some.iter().zip(blocks) {
                match block {
                    Ok(block) => self.bytes.extend_from_slice(&block),
                    Err(e) => {
                        tracing::warn!(segment = self.segment, offset = offset as usize + at, "unreadable: {e}");
                        self.bytes.resize(at + BLOCK, 0);
                        self.unreadable += 1;
                    }
                }
            }
        }
    }

    /// The first whole batch at or after `from` whose generation and number `accept` takes, and
    /// whether something else was skipped to find it.
    pub async fn find(&mut self, from: u32, accept: impl Fn(u64, u64) -> bool) -> Option<(FoundBatch, bool)> {
        let mut offset = from;
        while offset + BLOCK as u32 <= self.geometry.segment_size {
            if let Some(found) = self.batch_at(offset, &accept).await {
                return Some((found, offset != from));
            }
            offset += BLOCK as u32;
        }
        None
    }

    async fn batch_at(&mut self, offset: u32, accept: &impl Fn(u64, u64) -> bool) -> Option<FoundBatch> {
        let geometry = self.geometry;
        let room = (geometry.segment_size - offset) as usize;
        let header = BatchHeader::peek(geometry, self.get(offset, BLOCK).await, room)?;
        accept(header.generation.get(), header.number.get()).then_some(())?;
        let data_len = header.data_len.get();
        let bytes = self.get(offset, header.header_len()).await;
        let records = header.records(bytes)?;
        let records = Record::decode_all(records, header.record_count.get(), data_len / BLOCK as u32)?;
        Some(FoundBatch {
            segment: self.segment,
            generation: header.generation.get(),
            number: header.number.get(),
            first_record: header.first_record.get(),
            records,
            offset,
            data_offset: offset + header.header_len() as u32,
            data_len,
        })
    }

    /// Whether all data of a batch matches its checksums.
    pub async fn verify(&mut self, batch: &FoundBatch) -> bool {
        if batch.data_len == 0 {
            return true;
        }
        let data = self.get(batch.data_offset, batch.data_len as usize).await;
        let mut blocks = data.chunks_exact(BLOCK);
        let mut good = true;
        for r in &batch.records {
            r.data_crcs(|crc| good &= blocks.next().is_some_and(|b| crc32c::crc32c(b) == crc));
        }
        good
    }
}
