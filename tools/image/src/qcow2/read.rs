//! Reads the disk, from its start to its end.
//!
//! A good file refers to each of its bytes at most once. What is read is counted, so that a small file cannot claim to
//! be a large one by naming the same clusters over and over.

use std::ops::Range;
use std::path::Path;

use super::compressed::unpack;
use super::entry::{Packed, Place};
use super::header::{Backing, Header};
use super::map::Map;
use crate::error::Result;
use crate::file::ReadFile;
use crate::limits::{FREE_EXPANSION, MAX_EXPANSION};
use crate::{Chain, Image};

pub(crate) struct Qcow2Image {
    file: ReadFile,
    header: Header,
    map: Map,
    backing: Option<Image>,
    /// From where to where the backing file is known to have only zeros.
    empty_below: Range<u64>,
    /// The cluster unpacked last, and where it was packed.
    unpacked: Option<(Packed, Vec<u8>)>,
    /// Bytes of the file that were used for data.
    used: u64,
    /// Bytes of clusters that were unpacked, and what they were packed in.
    expanded: u64,
    packed: u64,
    /// They may have any proportion.
    any_expansion: bool,
}

impl Qcow2Image {
    pub fn open(file: ReadFile, chain: &mut Chain) -> Result<Qcow2Image> {
        let header = Header::read(&file)?;
        let backing = match &header.backing {
            None => None,
            Some(backing) => Some(open_backing(&file, backing, chain)?),
        };
        let map = Map::read(&file, &header)?;
        let any_expansion = chain.any_expansion;
        let (empty_below, unpacked, used, expanded, packed) = (0..0, None, 0, 0, 0);
        Ok(Qcow2Image { file, header, map, backing, empty_below, unpacked, used, expanded, packed, any_expansion })
    }

    pub fn size(&self) -> u64 {
        self.header.size
    }

    pub fn next_data(&mut self, from: u64) -> Result<Option<u64>> {
        let below = self.next_below(from)?;
        let mut at = from;
        while at < below.min(self.header.size) {
            let (place, end) = self.find(at)?;
            if matches!(place, Place::At(_) | Place::Compressed(_)) {
                return Ok(Some(at));
            }
            at = end;
        }
        // What the backing file has may be hidden here by zeros; that is found when it is read.
        Ok((below < self.header.size).then_some(below))
    }

    /// Where the backing file has data, at `from` or after it; its end is at the end of everything.
    fn next_below(&mut self, from: u64) -> Result<u64> {
        if !self.empty_below.contains(&from) {
            let next = match &mut self.backing {
                Some(backing) if from < backing.size() => backing.next_data(from)?,
                _ => None,
            };
            self.empty_below = from..next.unwrap_or(u64::MAX);
        }
        Ok(self.empty_below.end)
    }

    pub fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.header.size) {
            return self.file.refused(format!("its disk ends at {}", self.header.size));
        }
        let mut at = offset;
        let end = offset + into.len() as u64;
        while at < end {
            let (place, mut until) = self.find(at)?;
            // Clusters that follow each other in the file are read together.
            while let Place::At(start) = place
                && until < end
            {
                let (next, next_until) = self.find(until)?;
                if next != Place::At(start + (until - at)) {
                    break;
                }
                until = next_until;
            }
            let piece = &mut into[(at - offset) as usize..(until.min(end) - offset) as usize];
            self.read_piece(place, at, piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn find(&mut self, offset: u64) -> Result<(Place, u64)> {
        let found = self.map.find(&self.file, &self.header, offset)?;
        self.check_used(0)?;
        Ok(found)
    }

    fn read_piece(&mut self, place: Place, offset: u64, into: &mut [u8]) -> Result<()> {
        match place {
            Place::Zero => into.fill(0),
            Place::Nowhere => self.read_backing(offset, into)?,
            Place::At(at) => {
                self.check_used(into.len() as u64)?;
                self.file.read(at, into, "a cluster")?;
            }
            Place::Compressed(packed) => {
                let within = (offset % self.header.cluster_size()) as usize;
                let cluster = self.unpacked(packed)?;
                into.copy_from_slice(&cluster[within..within + into.len()]);
            }
        }
        Ok(())
    }

    fn read_backing(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        into.fill(0);
        let Some(backing) = &mut self.backing else { return Ok(()) };
        // A file is read forwards: what is known to be empty is not looked at again.
        let known = if self.empty_below.contains(&offset) { self.empty_below.end - offset } else { 0 };
        let there = backing.size().saturating_sub(offset).min(into.len() as u64);
        match there > known {
            true => backing.read(offset + known, &mut into[known as usize..there as usize]),
            false => Ok(()),
        }
    }

    fn unpacked(&mut self, packed: Packed) -> Result<&[u8]> {
        if self.unpacked.as_ref().is_none_or(|(known, _)| *known != packed) {
            let size = self.header.cluster_size() as usize;
            let mut cluster = self.unpacked.take().map_or_else(|| vec![0; size], |(_, cluster)| cluster);
            let mut bytes = vec![0; packed.len as usize];
            let len = self.file.read_some(packed.offset, &mut bytes)?;
            match unpack(self.header.compression, &bytes[..len], &mut cluster) {
                Ok(used) => {
                    self.check_used(used)?;
                    self.check_expansion(used, size as u64)?;
                }
                Err(why) => return self.file.damaged(format!("compressed cluster at {}: {why}", packed.offset)),
            }
            self.unpacked = Some((packed, cluster));
        }
        Ok(self.unpacked.as_ref().map_or(&[], |(_, cluster)| cluster))
    }

    /// Counts what was unpacked: a small file is not to fill a cluster by surprise.
    fn check_expansion(&mut self, packed: u64, unpacked: u64) -> Result<()> {
        self.packed += packed;
        self.expanded += unpacked;
        let most = self.packed.saturating_mul(MAX_EXPANSION).max(FREE_EXPANSION);
        if self.expanded <= most || self.any_expansion {
            return Ok(());
        }
        self.file.refused(format!(
            "it unpacks to more than {MAX_EXPANSION} times its size, which no ordinary disk does: --allow-expansion takes it \
             all the same"
        ))
    }

    /// Counts bytes of the file that are used, tables included.
    fn check_used(&mut self, bytes: u64) -> Result<()> {
        self.used += bytes;
        if self.used + self.map.bytes_read() > self.file.len {
            return self.file.damaged("it names the same clusters several times");
        }
        Ok(())
    }
}

fn open_backing(file: &ReadFile, backing: &Backing, chain: &mut Chain) -> Result<Image> {
    let name = &backing.name;
    if !chain.allowed {
        return file.refused(format!(
            "it is completed by a backing file, '{name}': `qemu-img convert` makes one file of both, and \
             --allow-backing reads one that is in the image's own folder"
        ));
    }
    let Some(format) = backing.format else {
        return file.refused(format!("it does not say of which format its backing file '{name}' is"));
    };
    if name.contains(':') {
        return file.refused(format!("its backing file '{name}' is not the name of a file"));
    }
    let folder = file.path.parent().unwrap_or(Path::new("."));
    Image::open_in(&folder.join(name), Some(format), chain)
}
