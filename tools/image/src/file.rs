//! A file that is read at any place, with errors that name it.

use std::fs::File;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

pub(crate) struct ReadFile {
    pub file: File,
    pub path: PathBuf,
    /// Bytes, when it was opened.
    pub len: u64,
}

impl ReadFile {
    pub fn open(path: &Path) -> Result<ReadFile> {
        let failed = |what| move |source| Error::Io { path: path.to_owned(), what, source };
        let kind = std::fs::metadata(path).map_err(failed("cannot be opened"))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::Refused { path: path.to_owned(), why: "this is not a file with an image".into() });
        }
        let mut file = File::open(path).map_err(failed("cannot be opened"))?;
        // Block devices have their size at their end alone.
        let len = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(failed("has no size"))?;
        Ok(ReadFile { file, path: path.to_owned(), len })
    }

    pub fn io(&self, what: &'static str, source: std::io::Error) -> Error {
        Error::Io { path: self.path.clone(), what, source }
    }

    pub fn damaged<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(Error::Damaged { path: self.path.clone(), why: why.into() })
    }

    pub fn refused<T>(&self, why: impl Into<String>) -> Result<T> {
        Err(Error::Refused { path: self.path.clone(), why: why.into() })
    }

    /// Reads `into.len()` bytes that must be there; `what` names them.
    pub fn read(&self, offset: u64, into: &mut [u8], what: &str) -> Result<()> {
        let end = offset.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return self.damaged(format!(
                "{what} at {offset} reaches beyond the file's end at {}: was it copied as a whole?",
                self.len
            ));
        }
        self.file.read_exact_at(into, offset).map_err(|e| self.io("cannot be read", e))
    }

    /// Reads what is there of `into.len()` bytes.
    pub fn read_some(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let there = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        self.file.read_exact_at(&mut into[..there], offset).map_err(|e| self.io("cannot be read", e))?;
        Ok(there)
    }
}
