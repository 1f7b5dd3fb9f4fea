//! Tells the front end that the configuration space has changed, over the channel that it opened for that.
//!
//! Crate `vhost` takes the front end's `SET_BACKEND_REQ_FD` but has no way to send a configuration change over what came
//! with it. So the message is looked at before the crate takes it from the socket, and its descriptor kept; it is used
//! only after the crate has accepted the message, and with it checked that the descriptor is a stream socket.
//!
//! A notice is sent without waiting and without an answer. Where it cannot be sent (the front end does not read its
//! channel) nothing is lost but the notice: the next request for the configuration is answered with what is true.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recv, recvmsg, send};

use crate::message::HEADER_LEN;

/// A front end's message that brings the channel.
const SET_BACKEND_REQ_FD: u32 = 21;
/// Our message: `VHOST_USER_BACKEND_CONFIG_CHANGE_MSG`, protocol version 1, no answer wanted, nothing follows.
const CONFIG_CHANGE: [u32; 3] = [2, 1, 0];

/// A channel of the front end's, for messages that it has not asked for.
pub(crate) struct NoticeChannel(OwnedFd);

impl NoticeChannel {
    /// Looks at the next message, which has come whole, without taking it. If it brings a channel, that is returned; it must not be used
    /// before the message was accepted.
    pub fn peek(connection: BorrowedFd<'_>) -> Option<NoticeChannel> {
        let mut header = [0; HEADER_LEN];
        let got = recv(connection.as_raw_fd(), &mut header, MsgFlags::MSG_PEEK).ok()?;
        // A header that has not come whole is no message of a front end that wants to be told anything.
        let brings_one = got == HEADER_LEN && header[..4] == SET_BACKEND_REQ_FD.to_ne_bytes();
        if brings_one { receive_descriptor(connection).map(NoticeChannel) } else { None }
    }

    /// Tells that the configuration has changed; whether that was possible.
    pub fn config_changed(&self) -> bool {
        let message: Vec<u8> = CONFIG_CHANGE.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.0.as_fd().as_raw_fd(), &message, flags).is_ok_and(|sent| sent == message.len())
    }
}

/// Descriptors in one message, at most: the kernel's SCM_MAX_FD. With room for fewer, those that were copied before it ran
/// out would be nobody's.
const MAX_DESCRIPTORS: usize = 253;

/// A copy of the descriptor that comes with the next message, which stays where it is; of several, none.
fn receive_descriptor(connection: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut header = [0; HEADER_LEN];
    let mut data = [IoSliceMut::new(&mut header)];
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(connection.as_raw_fd(), &mut data, Some(&mut control), flags).ok()?;
    let mut received = Vec::new();
    for part in message.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else knows them.
            received.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if received.len() == 1 { received.pop() } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;

    fn say(stream: &UnixStream, request: u32, descriptor: Option<&UnixStream>) {
        let message: Vec<u8> = [request, 1, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let descriptors: Vec<_> = descriptor.iter().map(|stream| stream.as_raw_fd()).collect();
        let control: &[ControlMessage<'_>] =
            if descriptors.is_empty() { &[] } else { &[ControlMessage::ScmRights(&descriptors)] };
        let data = [std::io::IoSlice::new(&message)];
        sendmsg::<()>(stream.as_raw_fd(), &data, control, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn a_channel_is_found_and_its_message_stays() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        say(&theirs, 1, Some(&near));
        assert!(NoticeChannel::peek(ours.as_fd()).is_none(), "another message's descriptor is none of ours");
        ours.read_exact(&mut [0; HEADER_LEN]).unwrap();
        say(&theirs, SET_BACKEND_REQ_FD, None);
        assert!(NoticeChannel::peek(ours.as_fd()).is_none(), "no descriptor came");
        ours.read_exact(&mut [0; HEADER_LEN]).unwrap();
        say(&theirs, SET_BACKEND_REQ_FD, Some(&near));
        drop(near);
        let channel = NoticeChannel::peek(ours.as_fd()).expect("a channel");
        let mut message = [0; HEADER_LEN];
        ours.read_exact(&mut message).unwrap();
        assert_eq!(message[..4], SET_BACKEND_REQ_FD.to_ne_bytes());
        assert!(channel.config_changed());
        far.read_exact(&mut message).unwrap();
        assert_eq!(message[..4], CONFIG_CHANGE[0].to_ne_bytes());
        drop(far);
        assert!(!channel.config_changed(), "nobody is there any more");
    }

    #[test]
    fn a_front_end_that_does_not_read_costs_nothing_but_its_notices() {
        let (_far, near) = UnixStream::pair().unwrap();
        let channel = NoticeChannel(near.into());
        let mut left = 1_000_000;
        while channel.config_changed() && left > 0 {
            left -= 1;
        }
        assert!(left > 0, "a full channel is noticed");
    }
}
