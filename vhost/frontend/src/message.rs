//! vhost-user messages over a socket: encoding, file descriptors, answers.

use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::limits::{MAX_MESSAGE, REPLY_TIMEOUT};

/// Requests of a front end, as numbered by the vhost-user specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Request {
    GetFeatures = 1,
    SetFeatures = 2,
    SetOwner = 3,
    SetMemTable = 5,
    SetVringNum = 8,
    SetVringAddr = 9,
    SetVringBase = 10,
    GetVringBase = 11,
    SetVringKick = 12,
    SetVringCall = 13,
    GetProtocolFeatures = 15,
    SetProtocolFeatures = 16,
    GetQueueNum = 17,
    SetVringEnable = 18,
    SetBackendReqFd = 21,
    GetConfig = 24,
    GetInflightFd = 31,
    SetInflightFd = 32,
}

pub const VERSION: u32 = 1;
pub const FLAG_REPLY: u32 = 4;
pub const FLAG_NEED_REPLY: u32 = 8;
/// Bytes of a message before its payload.
pub const HEADER_LEN: usize = 12;

/// Collects a payload's fields in native byte order, as the protocol wants them.
#[derive(Default)]
pub struct Payload(Vec<u8>);

impl Payload {
    pub fn u16(mut self, v: u16) -> Payload {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }
    pub fn u32(mut self, v: u32) -> Payload {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }
    pub fn u64(mut self, v: u64) -> Payload {
        self.0.extend_from_slice(&v.to_ne_bytes());
        self
    }
    pub fn zeros(mut self, n: usize) -> Payload {
        self.0.resize(self.0.len() + n, 0);
        self
    }
}

/// An answer: its payload and the file that came with it.
pub struct Answer {
    request: Request,
    payload: Vec<u8>,
    pub file: Option<File>,
}

impl Answer {
    pub fn bytes(&self, at: usize, len: usize) -> Result<&[u8]> {
        self.payload.get(at..at + len).with_context(|| {
            format!("the daemon's answer to {:?} is too short: {} bytes", self.request, self.payload.len())
        })
    }
    pub fn u64(&self, at: usize) -> Result<u64> {
        Ok(u64::from_ne_bytes(self.bytes(at, 8)?.try_into()?))
    }
}

/// The socket to a daemon. One request at a time.
pub struct Channel {
    stream: UnixStream,
    /// Whether the daemon acknowledges requests that have no answer of their own.
    pub acknowledges: bool,
}

impl Channel {
    pub fn connect(path: &Path) -> Result<Channel> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Channel { stream, acknowledges: false })
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    fn send(&self, request: Request, flags: u32, payload: &Payload, fds: &[RawFd]) -> Result<()> {
        let mut message = Vec::with_capacity(HEADER_LEN + payload.0.len());
        for word in [request as u32, VERSION | flags, payload.0.len() as u32] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        message.extend_from_slice(&payload.0);
        // Messages are far smaller than a socket buffer, so they go out whole or not at all.
        let sent =
            self.stream.send_with_fds(&[&message[..]], fds).with_context(|| format!("cannot send {request:?}"))?;
        ensure!(sent == message.len(), "{request:?} was sent in part only");
        Ok(())
    }

    fn receive(&mut self, request: Request) -> Result<Answer> {
        let context = || format!("no answer to {request:?}");
        let mut header = [0u8; HEADER_LEN];
        // Files come with the first byte of a message.
        let (mut have, file) = self.stream.recv_with_fd(&mut header).with_context(context)?;
        ensure!(have > 0, "the daemon closed the connection instead of answering {request:?}");
        while have < header.len() {
            let n = self.stream.read(&mut header[have..]).with_context(context)?;
            ensure!(n > 0, "the daemon closed the connection within its answer to {request:?}");
            have += n;
        }
        let [code, flags, size] =
            [0, 4, 8].map(|at| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]));
        ensure!(code == request as u32, "the daemon answered {request:?} with an answer to request {code}");
        ensure!(flags & FLAG_REPLY != 0, "the daemon's answer to {request:?} is not marked as one");
        ensure!(
            size as usize <= MAX_MESSAGE,
            "the daemon's answer to {request:?} has {size} bytes, more than {MAX_MESSAGE}"
        );
        let mut payload = vec![0; size as usize];
        self.stream.read_exact(&mut payload).with_context(context)?;
        Ok(Answer { request, payload, file })
    }

    /// Sends a request that has an answer of its own.
    pub fn ask(&mut self, request: Request, payload: Payload, fds: &[RawFd]) -> Result<Answer> {
        self.send(request, 0, &payload, fds)?;
        self.receive(request)
    }

    pub fn ask_u64(&mut self, request: Request) -> Result<u64> {
        self.ask(request, Payload::default(), &[])?.u64(0)
    }

    /// Sends a request without an answer and waits for the acknowledgement where the daemon gives one.
    pub fn tell(&mut self, request: Request, payload: Payload, fds: &[RawFd]) -> Result<()> {
        if !self.acknowledges {
            return self.send(request, 0, &payload, fds);
        }
        self.send(request, FLAG_NEED_REPLY, &payload, fds)?;
        match self.receive(request)?.u64(0)? {
            0 => Ok(()),
            code => bail!("the daemon refused {request:?} (code {code})"),
        }
    }
}
