//! A file system of one file, which is its root: what is written goes to a backing file, unless the rules say no.
//!
//! Nothing is synced: daemons are killed here, not the machine, and what a dead daemon wrote stays in the
//! kernel's cache of the backing file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::rules::{Access, Rules};

/// How long the kernel may believe in attributes, which never change.
const ATTRIBUTES_VALID: Duration = Duration::from_secs(3600);
const SECTOR: u64 = 512;

pub struct OneFile {
    backing: File,
    size: u64,
    rules: Arc<Rules>,
}

impl OneFile {
    pub fn new(backing: File, rules: Arc<Rules>) -> io::Result<OneFile> {
        let size = backing.metadata()?.len();
        Ok(OneFile { backing, size, rules })
    }

    fn attributes(&self) -> FileAttr {
        FileAttr {
            ino: INodeNo::ROOT,
            size: self.size,
            blocks: self.size / SECTOR,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: FileType::RegularFile,
            perm: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }

    fn read_up_to(&self, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let len = u64::from(size).min(self.size.saturating_sub(offset));
        let mut data = vec![0; len as usize];
        self.backing.read_exact_at(&mut data, offset)?;
        Ok(data)
    }
}

impl Filesystem for OneFile {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without it the kernel carries direct I/O out one at a time.
        config
            .add_capabilities(InitFlags::FUSE_ASYNC_DIO)
            .map_err(|_| io::Error::other("the kernel has no asynchronous direct I/O for FUSE"))
    }

    fn getattr(&self, _request: &Request, _ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&ATTRIBUTES_VALID, &self.attributes());
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Nothing is cached above the backing file: bytes that rot there are seen.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if !self.rules.admit(Access::Read) || !self.rules.is_readable(offset, u64::from(size)) {
            return reply.error(Errno::EIO);
        }
        match self.read_up_to(offset, size) {
            Ok(data) => reply.data(&data),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if !self.rules.admit(Access::Write) {
            return reply.error(Errno::EIO);
        }
        if offset.saturating_add(data.len() as u64) > self.size {
            return reply.error(Errno::ENOSPC);
        }
        match self.backing.write_all_at(data, offset) {
            Ok(()) => {
                self.rules.written(offset, data.len() as u64);
                reply.written(data.len() as u32)
            }
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _request: &Request, _ino: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.rules.admit(Access::Sync) {
            true => reply.ok(),
            false => reply.error(Errno::EIO),
        }
    }
}
