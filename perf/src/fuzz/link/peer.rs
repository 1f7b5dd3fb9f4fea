//! A connection to the link port: as much of a link as an attacker needs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};

use anyhow::{Context, Result};
use bytes::Bytes;
use levee_proto::wire::{FrameHeader, HEADER_LEN, Hello, Reply, Request, Status};
use zerocopy::IntoBytes;

use crate::limits::FUZZ_PATIENCE;

pub struct Peer(TcpStream);

/// A request as it goes over a link.
pub fn frame(id: u64, request: &Request, data: &Bytes) -> Vec<u8> {
    let mut meta = vec![];
    request.encode(&mut meta);
    let header = FrameHeader::new(request.kind(), id, Status::Ok, &meta, data.len());
    [header.as_bytes(), &meta, data].concat()
}

impl Peer {
    /// A link that the other end has taken.
    pub fn connect(address: &str, hello: &Hello) -> Result<Peer> {
        let mut peer = Peer(connect(address)?);
        let mut ticket = None;
        peer.0.write_all(&frame(0, &Request::Hello(hello.clone()), &Bytes::new()))?;
        peer.hear(|_, kind, status, meta, data_len| {
            if let Ok(Reply::Hello { ticket: given, .. }) = Reply::decode(kind, status, meta, data_len) {
                ticket = Some(given);
            }
            true
        });
        let ticket = ticket.with_context(|| format!("{address} does not take a hello"))?;
        peer.0.write_all(&frame(0, &Request::Enter { ticket }, &Bytes::new()))?;
        Ok(peer)
    }

    /// Sends so many requests and hears their answers. Whether the link is still open.
    pub fn talk(&mut self, bytes: &[u8], requests: usize, mut heard: impl FnMut(u64, u16, u16, Bytes, usize)) -> bool {
        let mut left = requests;
        self.0.write_all(bytes).is_ok()
            && self.hear(|id, kind, status, meta, data_len| {
                heard(id, kind, status, meta, data_len);
                left -= 1;
                left == 0
            })
    }

    /// Reads frames until `heard` says that this was the last one; false if there is none within the time allowed.
    fn hear(&mut self, mut heard: impl FnMut(u64, u16, u16, Bytes, usize) -> bool) -> bool {
        loop {
            let mut head = [0; HEADER_LEN];
            if self.0.read_exact(&mut head).is_err() {
                return false;
            }
            let Ok(header) = FrameHeader::parse(&head) else { return false };
            let (meta_len, data_len) = (header.meta_len.get() as usize, header.data_len.get() as usize);
            let mut body = vec![0; meta_len + data_len];
            if self.0.read_exact(&mut body).is_err() {
                return false;
            }
            body.truncate(meta_len);
            let (id, kind, status) = (header.id.get(), header.kind.get(), header.status.get());
            if heard(id, kind, status, body.into(), data_len) {
                return true;
            }
        }
    }

    /// Sends bytes over a new connection, and reads until the other end has had enough.
    pub fn knock(address: &str, bytes: &[u8]) -> Result<()> {
        Peer(connect(address)?).end_with(bytes);
        Ok(())
    }

    /// Sends the last bytes, and reads until the other end has had enough.
    pub fn end_with(mut self, bytes: &[u8]) {
        // It may close before it has everything.
        let _ = self.0.write_all(bytes).and_then(|()| self.0.shutdown(Shutdown::Write));
        let _ = self.0.read_to_end(&mut vec![]);
    }
}

fn connect(address: &str) -> Result<TcpStream> {
    let to = address.to_socket_addrs()?.next().context("no address")?;
    let stream =
        TcpStream::connect_timeout(&to, FUZZ_PATIENCE).with_context(|| format!("{address} does not listen"))?;
    stream.set_read_timeout(Some(FUZZ_PATIENCE))?;
    stream.set_write_timeout(Some(FUZZ_PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
