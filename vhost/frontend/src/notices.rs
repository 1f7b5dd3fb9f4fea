//! What the daemon says unasked, over a channel of its own: that the configuration space has changed.
//!
//! The channel is a socket pair whose other end was given to the daemon. Reading never blocks; what the daemon says is
//! bounded, and an unknown message is refused where an answer is wanted.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};

use crate::limits::{MAX_MESSAGE, MAX_NOTICES};
use crate::message::{FLAG_NEED_REPLY, FLAG_REPLY, HEADER_LEN, VERSION};

/// `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`.
const CONFIG_CHANGE: u32 = 2;
const DONE: u64 = 0;
const REFUSED: u64 = 1;

/// The front end's end of the channel.
pub struct Notices {
    stream: UnixStream,
    /// Bytes of a message that has not come whole yet.
    pending: Vec<u8>,
    ended: bool,
}

impl Notices {
    /// A new channel, and the end for the daemon.
    pub fn pair() -> Result<(Notices, UnixStream)> {
        let (stream, theirs) = UnixStream::pair().context("cannot create a channel for the daemon's messages")?;
        stream.set_nonblocking(true).context("cannot set up the channel for the daemon's messages")?;
        Ok((Notices { stream, pending: Vec::new(), ended: false }, theirs))
    }

    /// What to wait for; nothing once the daemon has closed its end.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended).then(|| self.stream.as_fd())
    }

    /// Takes what has come. True if the configuration space has changed.
    pub fn take(&mut self) -> Result<bool> {
        let mut changed = false;
        for _ in 0..MAX_NOTICES {
            self.receive()?;
            let Some((kind, wants_reply)) = self.next_message()? else { break };
            changed |= kind == CONFIG_CHANGE;
            if wants_reply {
                self.answer(kind)?;
            }
        }
        Ok(changed)
    }

    fn receive(&mut self) -> Result<()> {
        let mut bytes = [0; 256];
        while !self.ended && self.pending.len() < HEADER_LEN + MAX_MESSAGE {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(n) => self.pending.extend_from_slice(&bytes[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // The daemon is gone; the main connection tells as well.
                Err(_) => self.ended = true,
            }
        }
        Ok(())
    }

    /// Kind of the first message that is there whole, and whether it wants an answer.
    fn next_message(&mut self) -> Result<Option<(u32, bool)>> {
        let word = |at: usize| self.pending.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
        let (Some(kind), Some(flags), Some(size)) = (word(0), word(4), word(8)) else { return Ok(None) };
        let size = size as usize;
        ensure!(size <= MAX_MESSAGE, "the daemon's message {kind} has {size} bytes, more than {MAX_MESSAGE}");
        if self.pending.len() < HEADER_LEN + size {
            return Ok(None);
        }
        self.pending.drain(..HEADER_LEN + size);
        Ok(Some((kind, flags & FLAG_NEED_REPLY != 0)))
    }

    fn answer(&mut self, kind: u32) -> Result<()> {
        let outcome = if kind == CONFIG_CHANGE { DONE } else { REFUSED };
        let mut reply = Vec::with_capacity(HEADER_LEN + 8);
        for word in [kind, VERSION | FLAG_REPLY, 8] {
            reply.extend_from_slice(&word.to_ne_bytes());
        }
        reply.extend_from_slice(&outcome.to_ne_bytes());
        self.stream.write_all(&reply).context("cannot answer a message of the daemon")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u32, flags: u32, payload: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            [kind, VERSION | flags, payload as u32].iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.resize(HEADER_LEN + payload, 0xee);
        bytes
    }

    #[test]
    fn messages_come_in_pieces_and_in_lumps() {
        let (mut notices, mut daemon) = Notices::pair().unwrap();
        assert!(!notices.take().unwrap());
        let change = message(CONFIG_CHANGE, 0, 0);
        daemon.write_all(&change[..5]).unwrap();
        assert!(!notices.take().unwrap());
        daemon.write_all(&change[5..]).unwrap();
        daemon.write_all(&message(77, 0, 100)).unwrap();
        assert!(notices.take().unwrap());
        assert!(!notices.take().unwrap());
    }

    #[test]
    fn answers_are_given_where_they_are_wanted() {
        let (mut notices, mut daemon) = Notices::pair().unwrap();
        for (kind, outcome) in [(CONFIG_CHANGE, DONE), (6, REFUSED)] {
            daemon.write_all(&message(kind, FLAG_NEED_REPLY, 0)).unwrap();
            assert_eq!(notices.take().unwrap(), kind == CONFIG_CHANGE);
            let mut reply = [0; HEADER_LEN + 8];
            daemon.read_exact(&mut reply).unwrap();
            assert_eq!(reply[..4], kind.to_ne_bytes());
            assert_eq!(reply[HEADER_LEN..], outcome.to_ne_bytes());
        }
    }

    #[test]
    fn a_message_out_of_bounds_is_an_error_and_an_end_is_none() {
        let (mut notices, mut daemon) = Notices::pair().unwrap();
        daemon.write_all(&message(1, 0, MAX_MESSAGE + 1)[..HEADER_LEN]).unwrap();
        assert!(notices.take().is_err());
        let (mut notices, daemon) = Notices::pair().unwrap();
        drop(daemon);
        assert!(!notices.take().unwrap());
        assert!(notices.fd().is_none());
    }
}
