//! The guest's memory as the front end shares it.
//!
//! Owned by the protocol thread, which replaces the whole map at each change; executors take a snapshot
//! for as long as they copy. A region is only mapped if its file is as long as the region: an access
//! beyond a file's end would kill the daemon, and with it the volumes of other guests.

use std::fs::File;

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vhost::vhost_user::{Error, Result};
use vm_memory::{
    GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

use crate::limits::MAX_MEMORY_REGIONS;

/// Guest memory whose map may be replaced while it is used.
pub(crate) type GuestMemory = GuestMemoryAtomic<GuestMemoryMmap<()>>;

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
}

impl MemoryMap {
    pub fn new() -> Self {
        MemoryMap { memory: GuestMemoryAtomic::new(GuestMemoryMmap::new()), mappings: Vec::new() }
    }

    pub fn memory(&self) -> GuestMemory {
        self.memory.clone()
    }

    /// Replaces all regions.
    pub fn replace(&mut self, regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        if regions.len() != files.len() || regions.len() > MAX_MEMORY_REGIONS {
            return Err(Error::InvalidParam);
        }
        let mut mapped = regions.iter().zip(files).map(|(r, f)| map(r, f)).collect::<Result<Vec<_>>>()?;
        mapped.sort_by_key(GuestMemoryRegion::start_addr);
        self.publish(GuestMemoryMmap::from_regions(mapped).map_err(invalid)?)?;
        self.mappings = regions.iter().map(Mapping::of).collect();
        Ok(())
    }

    /// Adds one region.
    pub fn add(&mut self, region: &VhostUserMemoryRegion, file: File) -> Result<()> {
        if self.mappings.len() >= MAX_MEMORY_REGIONS {
            return Err(Error::InvalidOperation("too many memory regions"));
        }
        let mapped = map(region, file)?;
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

    fn publish(&self, memory: GuestMemoryMmap<()>) -> Result<()> {
        self.memory.lock().map_err(|_| Error::BackendInternalError)?.replace(memory);
        Ok(())
    }
}

fn map(region: &VhostUserMemoryRegion, file: File) -> Result<GuestRegionMmap<()>> {
    let end = region.mmap_offset.checked_add(region.memory_size).ok_or(Error::InvalidParam)?;
    if file.metadata().map_err(Error::ReqHandlerError)?.len() < end {
        return Err(Error::InvalidOperation("a memory region reaches beyond the end of its file"));
    }
    let mapping = region.mmap_region(file)?;
    GuestRegionMmap::new(mapping, GuestAddress(region.guest_phys_addr)).ok_or(Error::InvalidParam)
}

fn invalid<E: std::error::Error + Send + Sync + 'static>(error: E) -> Error {
    Error::ReqHandlerError(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn translates_add_remove() {
        let mut map = MemoryMap::new();
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
        let mut map = MemoryMap::new();
        let regions =
            [VhostUserMemoryRegion::new(0x8000, 0x1000, 0x1000, 0), VhostUserMemoryRegion::new(0, 0x1000, 0x9000, 0)];
        map.replace(&regions, vec![file(0x1000), file(0x1000)]).unwrap();
        assert_eq!(map.translate(0x1004).unwrap(), 0x8004);
    }

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let region = VhostUserMemoryRegion::new(0, 0x2000, 0, 0);
        assert!(MemoryMap::new().add(&region, file(0x1fff)).is_err());
    }
}
