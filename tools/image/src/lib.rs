//! Disk images in files: raw and qcow2, read from their first byte to their last, and written the same way.
//!
//! ```text
//!  file ──▶ Image: size, next_data, read ──▶ whoever fills a volume
//!  file ◀── Writer: write in ascending order, finish ◀── whoever reads one
//! ```
//!
//! An image file may come from anybody. Every number in it is checked and bounded before it is used; a wrong one is an
//! error that names the file and what is wrong, never a panic, a large allocation, a long loop, or data from elsewhere
//! in the file system. Only what a disk reads as matters here: internal snapshots, bitmaps and refcounts are not looked
//! at.
#![forbid(unsafe_code)]

mod content;
mod error;
mod file;
mod foreign;
pub mod limits;
mod qcow2;
mod raw;

use std::fs::File;
use std::path::{Path, PathBuf};

pub use content::{Checksum, data_runs, is_zero};
pub use error::{Error, Result};

use file::ReadFile;
use qcow2::{Qcow2Image, Qcow2Writer};
use raw::{RawImage, RawWriter};

/// How a disk lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Raw,
    Qcow2,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
        }
    }

    /// What the end of a file's name says. Disks named `.img` come in either.
    pub fn of_name(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "raw" => Some(Format::Raw),
            "qcow2" | "qcow" => Some(Format::Qcow2),
            _ => None,
        }
    }
}

/// What may be opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// None: a file that begins as qcow2 files do is one; any other is raw, unless it is known to be something else or its name
    /// says so.
    pub format: Option<Format>,
    /// Also images that are completed by backing files in the same folder or below it.
    pub allow_backing: bool,
    /// Also compressed images that unpack to more than [`limits::MAX_EXPANSION`] times what they take.
    pub allow_expansion: bool,
}

/// A disk in a file, opened for reading.
pub struct Image(Kind);

enum Kind {
    Raw(RawImage),
    Qcow2(Box<Qcow2Image>),
}

impl Image {
    pub fn open(path: &Path, options: OpenOptions) -> Result<Image> {
        let mut chain =
            Chain { folder: None, allowed: options.allow_backing, any_expansion: options.allow_expansion, files: 0 };
        Image::open_in(path, options.format, &mut chain)
    }

    fn open_in(path: &Path, format: Option<Format>, chain: &mut Chain) -> Result<Image> {
        let file = ReadFile::open(path)?;
        chain.enter(&file)?;
        let asked = format.is_some();
        let format = match format {
            Some(format) => format,
            None if qcow2::is_qcow2(&file)? => Format::Qcow2,
            None => {
                foreign::check(&file)?;
                Format::Raw
            }
        };
        if chain.files == 1 && !asked && Format::of_name(path).is_some_and(|named| named != format) {
            let (named, found) = (Format::of_name(path).map_or("", Format::name), format.name());
            return file.refused(format!(
                "its name says that it is {named}, its content that it is {found}: --format {found} takes it as what it is"
            ));
        }
        Ok(Image(match format {
            Format::Raw => Kind::Raw(RawImage::open(file)?),
            Format::Qcow2 => Kind::Qcow2(Box::new(Qcow2Image::open(file, chain)?)),
        }))
    }

    pub fn format(&self) -> Format {
        match self.0 {
            Kind::Raw(_) => Format::Raw,
            Kind::Qcow2(_) => Format::Qcow2,
        }
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        match &self.0 {
            Kind::Raw(image) => image.size(),
            Kind::Qcow2(image) => image.size(),
        }
    }

    /// The first place at `from` or after it where the disk may hold anything but zeros.
    pub fn next_data(&mut self, from: u64) -> Result<Option<u64>> {
        match &mut self.0 {
            Kind::Raw(image) => image.next_data(from),
            Kind::Qcow2(image) => image.next_data(from),
        }
    }

    /// Reads a range of the disk, which must lie within it.
    ///
    /// A disk is read once, from its start to its end: a qcow2 file that refers to its own bytes more often than it has
    /// them is taken for damaged.
    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        match &mut self.0 {
            Kind::Raw(image) => image.read(offset, into),
            Kind::Qcow2(image) => image.read(offset, into),
        }
    }
}

/// The files that one image is made of, as far as they are open.
pub(crate) struct Chain {
    /// Where backing files may be: the first file's folder.
    folder: Option<PathBuf>,
    allowed: bool,
    any_expansion: bool,
    files: usize,
}

impl Chain {
    fn enter(&mut self, file: &ReadFile) -> Result<()> {
        self.files += 1;
        if self.files > limits::MAX_CHAIN {
            return file.refused(format!("its chain of backing files has more than {} files", limits::MAX_CHAIN));
        }
        let real = std::fs::canonicalize(&file.path).map_err(|e| file.io("cannot be found", e))?;
        match &self.folder {
            None => self.folder = real.parent().map(Path::to_owned),
            Some(folder) if !real.starts_with(folder) => {
                let folder = folder.display();
                return file.refused(format!("a backing file outside of the image's folder {folder} is not read"));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// A disk that is being written to a file, in ascending order.
pub struct Writer(Sink);

enum Sink {
    Raw(RawWriter),
    Qcow2(Box<Qcow2Writer>),
}

impl Writer {
    /// Begins an image of `size` bytes in a new file that is open for writing and empty; `path` is for messages.
    pub fn create(file: File, path: &Path, format: Format, size: u64) -> Result<Writer> {
        Ok(Writer(match format {
            Format::Raw => Sink::Raw(RawWriter::create(file, path, size)?),
            Format::Qcow2 => Sink::Qcow2(Box::new(Qcow2Writer::create(file, path, size)?)),
        }))
    }

    /// Writes what is not zero of the bytes at `offset`, a multiple of 64 KiB not before the end of what was written
    /// last. All but the disk's last bytes come as multiples of 64 KiB.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        match &mut self.0 {
            Sink::Raw(writer) => writer.write(offset, bytes),
            Sink::Qcow2(writer) => writer.write(offset, bytes),
        }
    }

    /// Completes the file and makes it durable. Without this a qcow2 file is not one.
    pub fn finish(self) -> Result<()> {
        match self.0 {
            Sink::Raw(writer) => writer.finish(),
            Sink::Qcow2(writer) => writer.finish(),
        }
    }
}
