//! Writes a version 3 image in one pass.
//!
//! ```text
//!  header | L1 table | data and L2 tables as they come … | refcount blocks | refcount table
//! ```
//! Every cluster from the first to the last is used exactly once, so all refcounts are one. The header is written last:
//! a file whose writing broke off is no image.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::entry::COPIED;
use super::header::{MAGIC, V3_LEN};
use crate::content::data_runs;
use crate::error::{Error, Result};
use crate::limits::{MAX_L1_BYTES, MAX_SIZE};

const CLUSTER_BITS: u32 = 16;
const CLUSTER: usize = 1 << CLUSTER_BITS;
/// Entries of a second-level table.
const L2_ENTRIES: usize = CLUSTER / 8;
/// Refcounts of 16 bits, as a power of two of bits.
const REFCOUNT_ORDER: u32 = 4;
const REFCOUNTS_PER_BLOCK: u64 = CLUSTER as u64 / 2;

// The largest disk's table is one that can be read.
const _: () = assert!(MAX_SIZE / (L2_ENTRIES * CLUSTER) as u64 * 8 <= MAX_L1_BYTES);

pub(crate) struct Qcow2Writer {
    file: File,
    path: PathBuf,
    size: u64,
    l1: Vec<u64>,
    /// Index and entries of the second-level table that is being filled.
    l2: Option<(usize, Vec<u64>)>,
    /// Clusters of the file that are in use.
    clusters: u64,
    /// Where the next bytes of the disk may begin.
    at: u64,
}

impl Qcow2Writer {
    pub fn create(file: File, path: &Path, size: u64) -> Result<Qcow2Writer> {
        let path = path.to_owned();
        if size > MAX_SIZE {
            return Err(Error::Refused {
                path,
                why: format!("a disk of {size} bytes is larger than the largest volume"),
            });
        }
        let l1 = vec![0; size.div_ceil((L2_ENTRIES * CLUSTER) as u64) as usize];
        let clusters = 1 + clusters_of(l1.len() as u64 * 8);
        Ok(Qcow2Writer { file, path, size, l1, l2: None, clusters, at: 0 })
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset + bytes.len() as u64;
        let whole = offset.is_multiple_of(CLUSTER as u64) && (end.is_multiple_of(CLUSTER as u64) || end == self.size);
        if !whole || offset < self.at || end > self.size {
            let why = format!("{} bytes at {offset} do not follow what was written up to {}", bytes.len(), self.at);
            return Err(Error::Refused { path: self.path.clone(), why });
        }
        self.at = end;
        for run in data_runs(bytes, CLUSTER) {
            self.append_run(offset + run.start as u64, &bytes[run])?;
        }
        Ok(())
    }

    /// Appends clusters of data; those of one second-level table at a time.
    fn append_run(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut cluster = offset / CLUSTER as u64;
        let mut left = bytes;
        while !left.is_empty() {
            let (index, first) = ((cluster / L2_ENTRIES as u64) as usize, (cluster % L2_ENTRIES as u64) as usize);
            self.turn_to(index)?;
            let count = left.len().div_ceil(CLUSTER).min(L2_ENTRIES - first);
            let (piece, rest) = left.split_at(left.len().min(count * CLUSTER));
            let start = self.append(piece)?;
            if let Some((_, table)) = &mut self.l2 {
                for (i, entry) in table[first..first + count].iter_mut().enumerate() {
                    *entry = (start + (i * CLUSTER) as u64) | COPIED;
                }
            }
            (cluster, left) = (cluster + count as u64, rest);
        }
        Ok(())
    }

    /// Fills the second-level table `index` from now on; the one before is written.
    fn turn_to(&mut self, index: usize) -> Result<()> {
        if self.l2.as_ref().is_none_or(|(current, _)| *current != index) {
            self.end_table()?;
            self.l2 = Some((index, vec![0; L2_ENTRIES]));
        }
        Ok(())
    }

    fn end_table(&mut self) -> Result<()> {
        if let Some((index, table)) = self.l2.take() {
            self.l1[index] = self.append(&big_endian(&table))? | COPIED;
        }
        Ok(())
    }

    /// Puts bytes into clusters at the file's end. Says where.
    fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let start = self.clusters * CLUSTER as u64;
        self.put(start, bytes)?;
        self.clusters += clusters_of(bytes.len() as u64);
        Ok(start)
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, at).map_err(|e| self.failed(e))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Io { path: self.path.clone(), what: "cannot be written", source }
    }

    pub fn finish(mut self) -> Result<()> {
        self.end_table()?;
        self.put(CLUSTER as u64, &big_endian(&self.l1))?;
        let (table_offset, table_clusters) = self.write_refcounts()?;
        self.file.set_len(self.clusters * CLUSTER as u64).map_err(|e| self.failed(e))?;
        self.file.sync_all().map_err(|e| self.failed(e))?;
        self.put(0, &self.header(table_offset, table_clusters))?;
        self.file.sync_all().map_err(|e| self.failed(e))
    }

    /// Appends refcount blocks and their table, which count themselves too.
    fn write_refcounts(&mut self) -> Result<(u64, u64)> {
        let (mut blocks, mut table) = (0, 0);
        loop {
            let total = self.clusters + blocks + table;
            let wanted = total.div_ceil(REFCOUNTS_PER_BLOCK);
            if wanted == blocks {
                break;
            }
            (blocks, table) = (wanted, clusters_of(wanted * 8));
        }
        let total = self.clusters + blocks + table;
        let mut offsets = Vec::new();
        for block in 0..blocks {
            let used = (total - block * REFCOUNTS_PER_BLOCK).min(REFCOUNTS_PER_BLOCK) as usize;
            let mut bytes = 1u16.to_be_bytes().repeat(used);
            bytes.resize(CLUSTER, 0);
            offsets.push(self.append(&bytes)?);
        }
        Ok((self.append(&big_endian(&offsets))?, table))
    }

    fn header(&self, refcount_table: u64, refcount_clusters: u64) -> Vec<u8> {
        let mut h = Vec::with_capacity(V3_LEN + 8);
        let word = |h: &mut Vec<u8>, v: u64| h.extend_from_slice(&(v as u32).to_be_bytes());
        let long = |h: &mut Vec<u8>, v: u64| h.extend_from_slice(&v.to_be_bytes());
        word(&mut h, MAGIC.into());
        word(&mut h, 3);
        long(&mut h, 0); // no backing file
        word(&mut h, 0);
        word(&mut h, CLUSTER_BITS.into());
        long(&mut h, self.size);
        word(&mut h, 0); // not encrypted
        word(&mut h, self.l1.len() as u64);
        long(&mut h, CLUSTER as u64);
        long(&mut h, refcount_table);
        word(&mut h, refcount_clusters);
        word(&mut h, 0); // no snapshots
        long(&mut h, 0);
        h.resize(h.len() + 24, 0); // no features of any kind
        word(&mut h, REFCOUNT_ORDER.into());
        word(&mut h, V3_LEN as u64);
        h.resize(V3_LEN + 8, 0); // the end of the header's extensions
        h
    }
}

fn clusters_of(bytes: u64) -> u64 {
    bytes.div_ceil(CLUSTER as u64)
}

fn big_endian(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
