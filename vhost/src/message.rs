//! Looks at messages before crate `vhost` takes them from the socket.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

/// Bytes of a message's header: request, flags, size of what follows.
pub(crate) const HEADER_LEN: usize = 12;
/// Bytes that may follow; crate `vhost` refuses more when it sees the header.
const MAX_BODY_LEN: usize = 0x1000;

/// Whether the next message has come whole and can be answered without waiting. A connection that has ended, and a header
/// that will be refused, is a message too.
pub(crate) fn is_whole(connection: BorrowedFd<'_>) -> bool {
    let mut events = [PollFd::new(connection, PollFlags::POLLIN | PollFlags::POLLOUT)];
    let events = match poll(&mut events, PollTimeout::ZERO) {
        Ok(_) => events[0].revents().unwrap_or(PollFlags::empty()),
        Err(_) => return false,
    };
    if events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
        return true;
    }
    let mut header = [0; HEADER_LEN];
    let got = recv(connection.as_raw_fd(), &mut header, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).unwrap_or(0);
    if got < HEADER_LEN || !events.contains(PollFlags::POLLOUT) {
        return false;
    }
    let body = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]) as usize;
    body > MAX_BODY_LEN || waiting(connection) >= HEADER_LEN + body
}

/// Bytes that can be read.
fn waiting(connection: BorrowedFd<'_>) -> usize {
    let mut waiting = 0;
    // SAFETY: the request writes one int to where it is told to.
    let failed = unsafe { libc::ioctl(connection.as_raw_fd(), libc::FIONREAD, &raw mut waiting) } < 0;
    if failed { 0 } else { usize::try_from(waiting).unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn header(body: u32) -> Vec<u8> {
        [1, 1, body].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
    }

    #[test]
    fn a_message_is_whole_when_its_last_byte_is_there() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let whole = || is_whole(ours.as_fd());
        let message = [header(3), b"abc".to_vec()].concat();
        for byte in &message {
            assert!(!whole());
            theirs.write_all(&[*byte]).unwrap();
        }
        assert!(whole());
    }

    #[test]
    fn what_is_no_message_is_left_to_be_refused() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&header(u32::MAX)).unwrap();
        assert!(is_whole(ours.as_fd()));
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[1]).unwrap();
        drop(theirs);
        assert!(is_whole(ours.as_fd()), "nothing more will come");
    }

    #[test]
    fn a_peer_that_does_not_read_its_answers_waits() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        while (&ours).write(&[0; 4096]).is_ok() {}
        theirs.write_all(&header(0)).unwrap();
        assert!(!is_whole(ours.as_fd()));
    }
}
