//! The guest's memory as the front end shares it.
//!
//! Owned by the protocol thread, which replaces the whole map at each change; executors take a snapshot
//! for as long as they copy. Regions are mapped as [`crate::guard`] says: their files belong to the front end.

use std::fs::File;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vhost::vhost_user::{Error, Result};
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

use crate::guard::{self, Breakage, Guard, MapError};
use crate::limits::MAX_MEMORY_REGIONS;

/// The regions of guest memory at one time.
pub(crate) type GuestRegions = GuestMemoryMmap<Guard>;

/// Guest memory whose map may be replaced while it is used.
pub(crate) type GuestMemory = GuestMemoryAtomic<GuestRegions>;

/// Where the front end sees a region in its own address space: ring addresses are given in it.
#[derive(Clone, Copy)]
struct Mapping {
    user_addr: u64,
    guest_addr: u64,
    len: u64,
}

impl Mapping {
    fn of(region: &VhostUserMemoryRegion) -> Self {
        Mapping { user_addr: region.user_addr, guest_addr: region.guest_phys_addr, len: region.memory_size }
    }
}

/// The memory map of one connection.
pub(crate) struct MemoryMap {
    memory: GuestMemory,
    mappings: Vec<Mapping>,
    breakage: Breakage,
}

impl MemoryMap {
    /// An empty map, of a connection whose memory has broken when `breakage` says so.
    pub fn new(breakage: Breakage) -> Self {
        MemoryMap { memory: GuestMemoryAtomic::new(GuestRegions::new()), mappings: Vec::new(), breakage }
    }

    pub fn memory(&self) -> GuestMemory {
        self.memory.clone()
    }

    /// Replaces all regions.
    pub fn replace(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        if regions.len() != files.len() || regions.len() > MAX_MEMORY_REGIONS {
            return Err(Error::InvalidParam);
        }
        let mut mapped = regions.iter().zip(files).map(|(r, f)| self.map(r, &f)).collect::<Result<Vec<_>>>()?;
        mapped.sort_by_key(GuestMemoryRegion::start_addr);
        self.publish(GuestRegions::from_regions(mapped).map_err(invalid)?)?;
        self.mappings = regions.iter().map(Mapping::of).collect();
        Ok(())
    }

    /// Adds one region.
    pub fn add(&mut self, region: &VhostUserMemoryRegion, file: File) -> Result<()> {
        if self.mappings.len() >= MAX_MEMORY_REGIONS {
            return Err(Error::InvalidOperation("too many memory regions"));
        }
        let mapped = self.map(region, &file)?;
        let memory = self.memory.memory().insert_region(mapped.into()).map_err(invalid)?;
        self.publish(memory)?;
        self.mappings.push(Mapping::of(region));
        Ok(())
    }

    /// Removes one region. Requests in flight that still need it fail.
    pub fn remove(&mut self, region: &VhostUserMemoryRegion) -> Result<()> {
        let at = GuestAddress(region.guest_phys_addr);
        let (memory, _) = self.memory.memory().remove_region(at, region.memory_size).map_err(invalid)?;
        self.publish(memory)?;
        self.mappings.retain(|m| m.guest_addr != at.0);
        Ok(())
    }

    /// The guest address of an address in the front end's own space.
    pub fn translate(&self, user_addr: u64) -> Result<u64> {
        self.mappings
            .iter()
            .find_map(|m| {
                let offset = user_addr.checked_sub(m.user_addr)?;
                (offset < m.len).then_some(m.guest_addr + offset)
            })
            .ok_or(Error::InvalidParam)
    }

    fn map(&self, region: &VhostUserMemoryRegion, file: &File) -> Result<GuestRegionMmap<Guard>> {
        let len = usize::try_from(region.memory_size).map_err(|_| Error::InvalidParam)?;
        let mapping = guard::map(file, region.mmap_offset, len, &self.breakage).map_err(refused)?;
        GuestRegionMmap::new(mapping, GuestAddress(region.guest_phys_addr)).ok_or(Error::InvalidParam)
    }

    fn publish(&self, memory: GuestRegions) -> Result<()> {
        self.memory.lock().map_err(|_| Error::BackendInternalError)?.replace(memory);
        Ok(())
    }
}

fn refused(error: MapError) -> Error {
    Error::ReqHandlerError(std::io::Error::other(format!("a memory region is refused: {error}")))
}

fn invalid<E: std::error::Error + Send + Sync + 'static>(error: E) -> Error {
    Error::ReqHandlerError(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    fn file(len: u64) -> File {
        let file = File::from(memfd_create(c"memory", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn translates_add_remove() {
        let mut map = MemoryMap::new(Breakage::default());
        let low = VhostUserMemoryRegion::new(0, 0x2000, 0x70000, 0);
        let high = VhostUserMemoryRegion::new(0x10_0000, 0x1000, 0x90000, 0x1000);
        map.add(&high, file(0x2000)).unwrap();
        map.add(&low, file(0x2000)).unwrap();
        assert_eq!(map.translate(0x70010).unwrap(), 0x10);
        assert_eq!(map.translate(0x90fff).unwrap(), 0x10_0fff);
        assert!(map.translate(0x91000).is_err());
        assert!(map.add(&low, file(0x2000)).is_err(), "overlap");
        map.remove(&low).unwrap();
        assert!(map.remove(&low).is_err());
        assert!(map.translate(0x70010).is_err());
    }

    #[test]
    fn replaces_in_any_order() {
        let mut map = MemoryMap::new(Breakage::default());
        let regions =
            [VhostUserMemoryRegion::new(0x8000, 0x1000, 0x1000, 0), VhostUserMemoryRegion::new(0, 0x1000, 0x9000, 0)];
        map.replace(&regions, vec![file(0x1000), file(0x1000)]).unwrap();
        assert_eq!(map.translate(0x1004).unwrap(), 0x8004);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let region = VhostUserMemoryRegion::new(0, 0x2000, 0, 0);
        assert!(MemoryMap::new(Breakage::default()).add(&region, file(0x1fff)).is_err());
    }
}
