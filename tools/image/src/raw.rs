//! Raw files: the disk's bytes as they are, with holes where nothing was ever written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::content::data_runs;
use crate::error::{Error, Result};
use crate::file::ReadFile;
use crate::limits::{MAX_SIZE, RAW_BLOCK};

pub(crate) struct RawImage {
    file: ReadFile,
}

impl RawImage {
    pub fn open(file: ReadFile) -> Result<RawImage> {
        if file.len > MAX_SIZE {
            return file.refused(format!("{} bytes are more than the largest volume has", file.len));
        }
        Ok(RawImage { file })
    }

    pub fn size(&self) -> u64 {
        self.file.len
    }

    /// Where data begins, at `from` or after it.
    pub fn next_data(&self, from: u64) -> Result<Option<u64>> {
        if from >= self.file.len {
            return Ok(None);
        }
        match lseek(&self.file.file, from as i64, Whence::SeekData) {
            Ok(at) => Ok(Some((at as u64).max(from)).filter(|at| *at < self.file.len)),
            Err(Errno::ENXIO) => Ok(None),
            // Not every file system and device knows its holes.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Some(from)),
            Err(e) => Err(self.file.io("cannot be read", e.into())),
        }
    }

    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        self.file.read(offset, into, "data")
    }
}

/// Writes a raw file; blocks of zeros become holes.
pub(crate) struct RawWriter {
    file: File,
    path: PathBuf,
}

impl RawWriter {
    pub fn create(file: File, path: &Path, size: u64) -> Result<RawWriter> {
        let writer = RawWriter { file, path: path.to_owned() };
        writer.file.set_len(size).map_err(|e| writer.failed(e))?;
        Ok(writer)
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Io { path: self.path.clone(), what: "cannot be written", source }
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        for run in data_runs(bytes, RAW_BLOCK) {
            let at = offset + run.start as u64;
            self.file.write_all_at(&bytes[run], at).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| self.failed(e))
    }
}
