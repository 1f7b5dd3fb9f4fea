//! A disk in memory.

use std::cell::RefCell;

use bytes::Bytes;
use levee_vhost::{BlockDevice, IoError};

pub struct RamDisk {
    data: RefCell<Vec<u8>>,
    read_only: bool,
}

impl RamDisk {
    pub fn new(capacity: usize) -> Self {
        RamDisk { data: RefCell::new(vec![0; capacity]), read_only: false }
    }

    /// A disk full of `byte` that nobody may even ask to change.
    pub fn read_only(capacity: usize, byte: u8) -> Self {
        RamDisk { data: RefCell::new(vec![byte; capacity]), read_only: true }
    }

    fn changing(&self) {
        assert!(!self.read_only, "a change has come through to a read-only disk");
    }

    fn fill_with_zeroes(&self, offset: u64, len: u64) {
        self.changing();
        self.data.borrow_mut()[offset as usize..(offset + len) as usize].fill(0);
    }
}

impl BlockDevice for RamDisk {
    fn capacity(&self) -> u64 {
        self.data.borrow().len() as u64
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn id(&self) -> String {
        "ram-disk".to_owned()
    }

    async fn read(&self, offset: u64, len: usize) -> Result<Vec<Bytes>, IoError> {
        Ok(vec![Bytes::copy_from_slice(&self.data.borrow()[offset as usize..offset as usize + len])])
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), IoError> {
        self.changing();
        self.data.borrow_mut()[offset as usize..offset as usize + data.len()].copy_from_slice(&data);
        Ok(())
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), IoError> {
        self.fill_with_zeroes(offset, len);
        Ok(())
    }

    async fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> Result<(), IoError> {
        self.fill_with_zeroes(offset, len);
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }
}
