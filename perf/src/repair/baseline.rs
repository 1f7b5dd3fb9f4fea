//! What a repair is measured against: files that are copied durably.
//!
//! As a repair does it at best: one stream for each node, each with a file to read and one to write, reading ahead of
//! writing. Both go past the page cache in the pieces of the store's largest batches, and each piece is durable when
//! its write returns, as a batch is. The files written are empty and sparse, as new disks are.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::rng::Rng;

/// Bytes that are read and written at a time.
const PIECE: usize = 1 << 20;
/// Buffers of a stream.
const BUFFERS: usize = 4;
/// Of memory and offsets, for direct I/O.
const ALIGNMENT: usize = 4096;

/// Files to copy; they are deleted when it is dropped.
pub struct Baseline {
    dir: PathBuf,
    streams: usize,
    /// Pieces of each file.
    pieces: u64,
}

/// Aligned memory, found within more of it.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    fn new() -> Buffer {
        let memory = vec![0; PIECE + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Buffer { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + PIECE]
    }
}

impl Baseline {
    /// Writes the files: so many, of so many bytes together.
    pub fn prepare(dir: &Path, streams: usize, bytes: u64) -> Result<Baseline> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let pieces = bytes.div_ceil((PIECE * streams) as u64);
        let baseline = Baseline { dir: dir.into(), streams, pieces };
        let (mut rng, mut buffer) = (Rng::new(1), Buffer::new());
        for word in buffer.bytes().chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next_u64().to_le_bytes());
        }
        for stream in 0..streams {
            let path = baseline.source(stream);
            let cannot = || format!("cannot write {}", path.display());
            let file = open(OpenOptions::new().write(true).create(true).truncate(true), 0, &path)?;
            for piece in 0..pieces {
                // No two pieces are alike, so that no layer below can be clever about it.
                buffer.bytes()[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
                file.write_all_at(buffer.bytes(), piece * PIECE as u64).with_context(cannot)?;
            }
            file.sync_all().with_context(cannot)?;
        }
        Ok(baseline)
    }

    /// Copies all files at the same time; bytes per second.
    pub fn measure(&self) -> Result<f64> {
        let files = (0..self.streams).map(|stream| self.open_pair(stream)).collect::<Result<Vec<_>>>()?;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let copy = |(from, to)| scope.spawn(move || copy(&from, &to, self.pieces));
            let streams: Vec<_> = files.into_iter().map(copy).collect();
            for stream in streams {
                stream.join().unwrap_or_else(|_| bail!("a thread that copies panicked"))?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        let took = begun.elapsed();
        for stream in 0..self.streams {
            remove(&self.target(stream))?;
        }
        Ok((self.pieces * (PIECE * self.streams) as u64) as f64 / took.as_secs_f64())
    }

    fn open_pair(&self, stream: usize) -> Result<(File, File)> {
        let from = open(OpenOptions::new().read(true), 0, &self.source(stream))?;
        let path = self.target(stream);
        let to = open(OpenOptions::new().write(true).create(true).truncate(true), libc::O_DSYNC, &path)?;
        to.set_len(self.pieces * PIECE as u64).with_context(|| format!("cannot size {}", path.display()))?;
        Ok((from, to))
    }

    fn source(&self, stream: usize) -> PathBuf {
        self.dir.join(format!("from-{stream}"))
    }

    fn target(&self, stream: usize) -> PathBuf {
        self.dir.join(format!("to-{stream}"))
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        for stream in 0..self.streams {
            let _ = remove(&self.source(stream));
            let _ = remove(&self.target(stream));
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

fn open(options: &mut OpenOptions, flags: i32, path: &Path) -> Result<File> {
    let file = options.custom_flags(libc::O_DIRECT | flags).open(path);
    file.with_context(|| format!("cannot open {} for direct I/O", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot delete {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn copy(from: &File, to: &File, pieces: u64) -> Result<()> {
    let (full, filled) = sync_channel::<Buffer>(BUFFERS);
    let (empty, emptied) = channel();
    (0..BUFFERS).try_for_each(|_| empty.send(Buffer::new()))?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || read(from, pieces, &full, &emptied));
        for piece in 0..pieces {
            // A reader that failed has hung up, and tells why below.
            let Ok(mut buffer) = filled.recv() else { break };
            to.write_all_at(buffer.bytes(), piece * PIECE as u64).context("cannot write a copy")?;
            let _ = empty.send(buffer);
        }
        reader.join().unwrap_or_else(|_| bail!("a thread that reads panicked"))
    })
}

fn read(from: &File, pieces: u64, full: &SyncSender<Buffer>, emptied: &Receiver<Buffer>) -> Result<()> {
    for piece in 0..pieces {
        // A writer that failed has hung up, and tells why itself.
        let Ok(mut buffer) = emptied.recv() else { return Ok(()) };
        from.read_exact_at(buffer.bytes(), piece * PIECE as u64).context("cannot read what is to be copied")?;
        if full.send(buffer).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_copied_whole_and_then_deleted() {
        // Not in a temporary folder of the system: it may be in memory, which has no direct I/O everywhere.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let baseline = Baseline::prepare(&dir.path().join("files"), 2, 5 << 20).unwrap();
        assert_eq!(baseline.pieces, 3);
        let (from, to) = baseline.open_pair(1).unwrap();
        copy(&from, &to, 3).unwrap();
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let (source, target) = (read(baseline.source(1)), read(baseline.target(1)));
        assert_eq!(source.len(), 3 * PIECE);
        assert!(source == target, "the copy differs");
        assert!(source[..PIECE] != source[PIECE..2 * PIECE], "pieces are alike");
        assert!(copy(&from, &to, 4).is_err(), "a source that ends early is an error");
        assert!(baseline.measure().unwrap() > 0.0);
        assert!(!baseline.target(1).exists());
        drop(baseline);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
