//! Asks the kernel for an io_uring: settings, containers and security modules may all forbid it, and only it knows.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `struct io_uring_params` of the kernel's ABI: 120 bytes, all zero for a plain ring.
#[repr(C, align(8))]
struct Params([u8; 120]);

pub fn available() -> io::Result<()> {
    let mut params = Params([0; 120]);
    // SAFETY: the kernel reads and writes `params`, which is as large as its structure, and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1u32, &mut params) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now, and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    Ok(())
}
