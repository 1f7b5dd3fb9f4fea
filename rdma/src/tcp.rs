//! The only file that touches a socket: connecting, listening, gathered sends, reads.
//!
//! glommio's `write` sends one buffer per system call, and its listener shares ports silently; so sends
//! gather on the raw descriptor, and the listening socket is made by the standard library. glommio
//! still does all the waiting.

use crate::frame::Batch;
use crate::limits::{MAX_ADDRESSES, MAX_PIECES, TCP_USER_TIMEOUT};
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, Shutdown, sockopt};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::pin::Pin;

/// A connected socket, shared by the task that reads and the task that writes.
///
/// The inner cell is borrowed only while glommio polls, never across a wait or a callback.
pub(crate) struct Stream {
    socket: RefCell<TcpStream>,
    fd: RawFd,
    /// Asked for at the start: a connection that has ended no longer tells.
    peer: Option<SocketAddr>,
}

/// The addresses that `address` (`HOST:PORT`) stands for. Names are looked up on another thread.
pub(crate) async fn resolve(address: String) -> io::Result<Vec<SocketAddr>> {
    if let Ok(addr) = address.parse() {
        return Ok(vec![addr]);
    }
    let look_up = move || address.to_socket_addrs().map(|all| all.take(MAX_ADDRESSES).collect());
    glommio::executor().spawn_blocking(look_up).await
}

impl Stream {
    /// Connects to the first of `addresses` that answers.
    pub async fn connect(addresses: &[SocketAddr]) -> io::Result<Stream> {
        let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(socket) => return Stream::new(socket),
                Err(e) => error = e.into(),
            }
        }
        Err(error)
    }

    pub fn new(socket: TcpStream) -> io::Result<Stream> {
        let fd = socket.as_raw_fd();
        socket.set_nodelay(true)?;
        let peer = socket.peer_addr().ok();
        let stream = Stream { socket: RefCell::new(socket), fd, peer };
        nix::fcntl::fcntl(stream.fd(), nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        socket::setsockopt(&stream.fd(), sockopt::TcpUserTimeout, &(TCP_USER_TIMEOUT.as_millis() as u32))?;
        Ok(stream)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `socket`, which lives as long as `self`.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Reads what is there into `room`; 0 at the end of the stream.
    pub async fn read(&self, room: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *self.socket.borrow_mut()).poll_read(cx, room)).await
    }

    /// Sends the whole batch, in as few system calls as its pieces and the socket's buffer allow.
    pub async fn send(&self, batch: &mut Batch) -> io::Result<()> {
        while !batch.is_sent() {
            let sent = match self.send_now(batch) {
                Ok(n) => n,
                Err(Errno::EINTR) => 0,
                // The socket is full: glommio waits for room, and fills it with one piece.
                Err(Errno::EAGAIN) => self.send_piece(batch.first_piece()).await?,
                Err(e) => return Err(e.into()),
            };
            batch.advance(sent);
        }
        Ok(())
    }

    fn send_now(&self, batch: &Batch) -> nix::Result<usize> {
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let n = batch.pieces(&mut pieces);
        socket::sendmsg::<()>(self.fd, &pieces[..n], &[], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL, None)
    }

    async fn send_piece(&self, piece: &[u8]) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *self.socket.borrow_mut()).poll_write(cx, piece)).await
    }

    /// Ends the connection both ways; whoever waits on it wakes up with an error or the end.
    pub fn shutdown(&self) {
        // It may have ended by itself already.
        let _ = socket::shutdown(self.fd, Shutdown::Both);
    }

    /// Ends the own direction, once what was sent is delivered.
    pub fn finish(&self) {
        let _ = socket::shutdown(self.fd, Shutdown::Write);
    }

    /// The other end, for a person.
    pub fn peer(&self) -> String {
        self.peer.map_or_else(|| "unknown address".into(), |a| a.to_string())
    }
}

/// A listening socket.
pub(crate) struct Listener {
    socket: TcpListener,
    fd: RawFd,
    pub address: SocketAddr,
}

impl Listener {
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let listener = std::net::TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let fd = listener.into_raw_fd();
        // SAFETY: `fd` is an open listening socket that nobody else owns any more.
        let socket = unsafe { TcpListener::from_raw_fd(fd) };
        Ok(Listener { socket, fd, address })
    }

    pub async fn accept(&self) -> io::Result<TcpStream> {
        Ok(self.socket.accept().await?)
    }

    /// Stops listening, so that the port is free even while an `accept` is pending in the kernel.
    pub fn shutdown(&self) {
        let _ = socket::shutdown(self.fd, Shutdown::Both);
    }
}
