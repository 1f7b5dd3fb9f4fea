//! The device configuration space: `struct virtio_blk_config` of the virtio specification, 5.2.4.

use crate::limits;

/// Bytes of the configuration space, up to and with the write-zeroes fields.
const CONFIG_LEN: usize = 60;
/// Where the guest switches between write-back and write-through.
pub(crate) const WRITEBACK_OFFSET: u32 = 32;

/// What the guest can read about the device.
pub(crate) struct DeviceConfig {
    /// Bytes.
    pub capacity: u64,
    pub queues: u16,
    pub writeback: bool,
}

impl DeviceConfig {
    fn encode(&self) -> [u8; CONFIG_LEN] {
        let block_sectors = 1u16 << limits::PHYSICAL_BLOCK_EXP;
        let mut space = Space::default();
        space.put(&(self.capacity / limits::SECTOR_SIZE).to_le_bytes());
        space.put(&limits::MAX_SEGMENT_LEN.to_le_bytes());
        space.put(&limits::MAX_SEGMENTS.to_le_bytes());
        space.put(&[0; 4]); // geometry: not offered
        space.put(&(limits::SECTOR_SIZE as u32).to_le_bytes());
        space.put(&[limits::PHYSICAL_BLOCK_EXP, 0]); // and no offset of the first aligned block
        space.put(&block_sectors.to_le_bytes()); // smallest I/O without read-modify-write
        space.put(&0u32.to_le_bytes()); // optimal I/O size: none stands out
        space.put(&[u8::from(self.writeback), 0]);
        space.put(&self.queues.to_le_bytes());
        space.put(&limits::MAX_DISCARD_SECTORS.to_le_bytes());
        space.put(&limits::MAX_RANGES.to_le_bytes());
        space.put(&u32::from(block_sectors).to_le_bytes()); // alignment of useful discards
        space.put(&limits::MAX_WRITE_ZEROES_SECTORS.to_le_bytes());
        space.put(&limits::MAX_RANGES.to_le_bytes());
        space.put(&[1, 0, 0, 0]); // write-zeroes may unmap
        space.bytes
    }

    /// The bytes at `offset`; those beyond the fields known here read as zero.
    pub fn read(&self, offset: u32, len: u32) -> Vec<u8> {
        let space = self.encode();
        (u64::from(offset)..u64::from(offset) + u64::from(len))
            .map(|at| space.get(at as usize).copied().unwrap_or(0))
            .collect()
    }
}

struct Space {
    bytes: [u8; CONFIG_LEN],
    used: usize,
}

impl Default for Space {
    fn default() -> Self {
        Space { bytes: [0; CONFIG_LEN], used: 0 }
    }
}

impl Space {
    fn put(&mut self, field: &[u8]) {
        self.bytes[self.used..self.used + field.len()].copy_from_slice(field);
        self.used += field.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_puts_them() {
        let space = DeviceConfig { capacity: 1 << 30, queues: 4, writeback: true }.encode();
        let u32_at = |at: usize| u32::from_le_bytes(space[at..at + 4].try_into().unwrap());
        assert_eq!(u64::from_le_bytes(space[0..8].try_into().unwrap()), 1 << 21);
        assert_eq!(u32_at(8), limits::MAX_SEGMENT_LEN);
        assert_eq!(u32_at(12), 126);
        assert_eq!(u32_at(20), 512);
        assert_eq!(space[24], 3);
        assert_eq!(space[WRITEBACK_OFFSET as usize], 1);
        assert_eq!(u16::from_le_bytes(space[34..36].try_into().unwrap()), 4);
        assert_eq!(u32_at(36), limits::MAX_DISCARD_SECTORS);
        assert_eq!(u32_at(48), limits::MAX_WRITE_ZEROES_SECTORS);
        assert_eq!(space[56], 1);
    }

    #[test]
    fn reads_beyond_the_end_are_zero() {
        let config = DeviceConfig { capacity: 512, queues: 1, writeback: false };
        assert_eq!(config.read(0, 60), config.encode());
        assert_eq!(config.read(56, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(config.read(u32::MAX, 2), [0, 0]);
    }

    /// A guest that keeps to the announced limits never meets the bound on a request's length.
    const _: () = assert!(limits::MAX_SEGMENTS as u64 * limits::MAX_SEGMENT_LEN as u64 <= limits::MAX_REQUEST_LEN);
}
