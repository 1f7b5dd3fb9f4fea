//! Where each part of the disk is: the tables of both levels, of the second one at a time.

use super::entry::{Place, l1_entry, l2_entry};
use super::header::{Header, u64_at};
use crate::error::{Error, Result};
use crate::file::ReadFile;

pub struct Map {
    /// First level: where the tables of the second lie.
    tables: Vec<Option<u64>>,
    /// Index and content of the second-level table looked at last.
    table: Option<(usize, Vec<u8>)>,
    /// Bytes of tables that were read.
    read: u64,
}

impl Map {
    pub fn read(file: &ReadFile, header: &Header) -> Result<Map> {
        let mut bytes = vec![0; header.l1_entries as usize * 8];
        file.read(header.l1_offset, &mut bytes, "the first-level table")?;
        let tables = bytes.chunks_exact(8).map(|entry| l1_entry(header, u64_at(entry, 0)));
        let tables = tables.collect::<std::result::Result<_, _>>().map_err(|why| damaged(file, why))?;
        Ok(Map { tables, table: None, read: 0 })
    }

    /// Bytes of second-level tables that were read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// Where the disk's byte at `offset` is, and up to which offset that holds for those that follow.
    pub fn find(&mut self, file: &ReadFile, header: &Header, offset: u64) -> Result<(Place, u64)> {
        let span = header.l2_span();
        let index = (offset / span) as usize;
        let Some(Some(table)) = self.tables.get(index).copied() else {
            return Ok((Place::Nowhere, (index as u64 + 1) * span));
        };
        let table = self.load(file, header, index, table)?;
        let (cluster, within) = (offset % span / header.cluster_size(), offset % header.cluster_size());
        let at = (cluster * header.entry_len()) as usize;
        let bitmap = if header.extended { u64_at(table, at + 8) } else { 0 };
        let found = l2_entry(header, u64_at(table, at), bitmap, within).map_err(|why| damaged(file, why));
        found.map(|(place, end)| (place, offset - within + end))
    }

    fn load(&mut self, file: &ReadFile, header: &Header, index: usize, at: u64) -> Result<&[u8]> {
        if self.table.as_ref().is_none_or(|(loaded, _)| *loaded != index) {
            let mut bytes = self.table.take().map_or_else(Vec::new, |(_, bytes)| bytes);
            bytes.resize(header.cluster_size() as usize, 0);
            file.read(at, &mut bytes, "a second-level table")?;
            self.read += header.cluster_size();
            self.table = Some((index, bytes));
        }
        Ok(self.table.as_ref().map_or(&[], |(_, bytes)| bytes))
    }
}

fn damaged(file: &ReadFile, why: String) -> Error {
    Error::Damaged { path: file.path.clone(), why }
}
