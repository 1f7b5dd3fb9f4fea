//! Event descriptors that a front end hands over.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use glommio::io::BufferedFile;

/// Kicks and calls are eventfds: writing to anything else could block, and reading bring anything.
pub(crate) fn is_eventfd(file: &File) -> io::Result<bool> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(std::fs::read_link(link)?.as_os_str() == "anon_inode:[eventfd]")
}

/// The descriptor as an executor reads and writes it, without waiting.
pub(crate) fn on_executor(event: OwnedFd) -> BufferedFile {
    // SAFETY: `into_raw_fd` gives up the ownership of an open descriptor, which the file takes.
    unsafe { BufferedFile::from_raw_fd(event.into_raw_fd()) }
}
