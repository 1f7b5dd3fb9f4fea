//! Signals completions to the guest.
//!
//! The descriptor is shared with the front end, which can fill its counter and change its flags at any time: a write to a
//! full counter that blocks would stop the executor for as long as the front end likes. So a descriptor that blocks is
//! written to by a worker of the kernel's, and whether it does is looked at before each write. Who changes that between
//! the look and the write stops the executor until its watchdog interrupts it, and is found out by that.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::eventfd::on_executor;

/// Why the guest cannot be told of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// The descriptor was made to block the executor.
    Blocked,
    System(Errno),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Blocked => f.write_str("the call descriptor was made to block while it was written to"),
            CallError::System(e) => write!(f, "the call descriptor cannot be written to: {e}"),
        }
    }
}

/// How a signal was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signalled {
    Done,
    /// It has to be given by [`Call::signal_slowly`].
    WouldBlock,
}

/// Where the guest is told of completions, if it wants to be.
#[derive(Default)]
pub(crate) struct Call(Mutex<Option<OwnedFd>>);

impl Call {
    /// Signals at `file`, an eventfd, from now on.
    pub fn set(&self, file: Option<File>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = file.map(OwnedFd::from);
    }

    pub fn signal(&self) -> Result<Signalled, CallError> {
        let Some(fd) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(Signalled::Done) };
        let flags = fcntl(fd.as_fd(), FcntlArg::F_GETFL).map_err(CallError::System)?;
        if !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK) {
            return Ok(Signalled::WouldBlock);
        }
        match nix::unistd::write(fd, &1u64.to_ne_bytes()) {
            // A full counter says already that there is something to see.
            Ok(_) | Err(Errno::EAGAIN) => Ok(Signalled::Done),
            Err(Errno::EINTR) => Err(CallError::Blocked),
            Err(e) => Err(CallError::System(e)),
        }
    }

    /// Signals without keeping the executor, for as long as it takes. May be dropped.
    pub async fn signal_slowly(&self) {
        let copy = {
            let fd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            fd.as_ref().and_then(|fd| fd.try_clone().ok())
        };
        let Some(copy) = copy else { return };
        let event = on_executor(copy);
        // A failure is the front end's doing and loss.
        let _ = event.write_at(1u64.to_ne_bytes().to_vec(), 0).await;
        let _ = event.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventfd::is_eventfd;
    use nix::sys::eventfd::{EfdFlags, EventFd};

    #[test]
    fn a_full_counter_is_no_error_and_a_blocking_descriptor_is_not_written_to() {
        let call = Call::default();
        assert_eq!(call.signal(), Ok(Signalled::Done));
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap();
        let file = File::from(event.as_fd().try_clone_to_owned().unwrap());
        assert!(is_eventfd(&file).unwrap());
        call.set(Some(file));
        assert_eq!(call.signal(), Ok(Signalled::Done));
        assert_eq!(event.read().unwrap(), 1);
        event.write(u64::MAX - 1).unwrap();
        assert_eq!(call.signal(), Ok(Signalled::Done));
        fcntl(event.as_fd(), FcntlArg::F_SETFL(OFlag::O_RDWR)).unwrap();
        assert_eq!(call.signal(), Ok(Signalled::WouldBlock));
    }
}
