//! A disk over glommio's direct I/O.

use crate::disks::lock;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions, ReadResult};
use levee_core::ports::Disk;
use levee_proto::BLOCK_SIZE;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;

/// A file or block device, opened by one executor. Each executor opens its own.
pub struct GlommioDisk {
    file: DmaFile,
    /// The same, opened so that a write is durable when it completes: one wait where write and fdatasync are
    /// two, and no worker thread of the kernel for the second.
    durable: DmaFile,
    /// Rather than a block device.
    is_file: bool,
}

impl GlommioDisk {
    /// Opens a formatted disk.
    ///
    /// Must be the executor's first file on its device: glommio then tries polled I/O by reading block
    /// 0, and is misled for good if that was never written. On a Levee disk it is the superblock.
    ///
    /// Both open files hold the disk's lock: see [`lock`].
    pub async fn open(path: &Path) -> io::Result<GlommioDisk> {
        let file = OpenOptions::new().read(true).write(true).dma_open(path).await.map_err(io::Error::from)?;
        let durable = OpenOptions::new().write(true).custom_flags(libc::O_DSYNC).dma_open(path).await;
        let is_file = std::fs::metadata(path)?.is_file();
        let disk = GlommioDisk { file, durable: durable.map_err(io::Error::from)?, is_file };
        for file in [&disk.file, &disk.durable] {
            lock::join(file)?;
        }
        // One of the two superblocks may be lost.
        let copies = [disk.read(0, BLOCK_SIZE).await, disk.read(BLOCK_SIZE as u64, BLOCK_SIZE).await];
        if copies.iter().flatten().all(|block| block.iter().all(|b| *b == 0)) {
            let failed = copies.into_iter().find_map(Result::err);
            return Err(failed.unwrap_or_else(|| io::Error::other("direct reads of the disk return nothing")));
        }
        Ok(disk)
    }
}

/// An aligned buffer to write from.
pub struct WriteBuf(DmaBuffer);

impl Deref for WriteBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl DerefMut for WriteBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

impl Disk for GlommioDisk {
    type WriteBuf = WriteBuf;
    type ReadBuf = ReadResult;

    fn is_thin(&self) -> bool {
        self.is_file
    }

    fn alloc(&self, len: usize) -> WriteBuf {
        WriteBuf(self.file.alloc_dma_buffer(len))
    }

    async fn write(&self, pos: u64, buf: WriteBuf) -> io::Result<()> {
        write_all(&self.file, pos, buf).await
    }

    async fn write_durable(&self, pos: u64, buf: WriteBuf) -> io::Result<()> {
        write_all(&self.durable, pos, buf).await
    }

    async fn read(&self, pos: u64, len: usize) -> io::Result<ReadResult> {
        let read = self.file.read_at_aligned(pos, len).await.map_err(io::Error::from)?;
        match read.len() == len {
            true => Ok(read),
            false => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("read {} of {len} bytes at {pos}", read.len()),
            )),
        }
    }

    async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(io::Error::from)
    }
}

async fn write_all(file: &DmaFile, pos: u64, buf: WriteBuf) -> io::Result<()> {
    let len = buf.len();
    match file.write_at(buf.0, pos).await {
        Ok(n) if n == len => Ok(()),
        Ok(n) => Err(io::Error::new(io::ErrorKind::WriteZero, format!("wrote {n} of {len} bytes at {pos}"))),
        Err(e) => Err(e.into()),
    }
}
