//! Serves a device at a socket: its protocol thread and the link from there to the executor.
//!
//! One thread per device speaks the protocol, one connection after the other, each with a new handler. When a
//! connection ends its queues are stopped before the next is accepted. The executor only ever waits for the thread
//! asynchronously; the thread may wait for the executor.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::device::BlockDevice;
use crate::handler::{Device, Handler};
use crate::limits::{MAX_QUEUE_SIZE, MAX_QUEUES};
use crate::notice::NoticeChannel;
use crate::queue::{self, Pace, Start};
use crate::socket::{ServeError, Socket};
use crate::vring::Stopping;

/// How a device is served.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where front ends connect.
    pub socket: PathBuf,
    /// Queues offered.
    pub queues: u16,
    /// The largest queue accepted, a power of two.
    pub queue_size: u16,
    /// How long a queue without work keeps looking at its ring before it sleeps until the guest kicks it. Saves the
    /// guest the kick and the queue the wake-up, at the price of the processor time. Zero: sleep at once.
    pub poll: Duration,
    /// How long requests in flight are waited for after the connection was lost. What is not completed then stays in
    /// flight for the next connection, which submits it again.
    pub drain: Duration,
}

impl ServerConfig {
    /// The defaults, at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        ServerConfig {
            socket: socket.into(),
            queues: 4,
            queue_size: MAX_QUEUE_SIZE,
            poll: Duration::from_micros(40),
            drain: Duration::from_secs(2),
        }
    }

    fn check(&self) -> Result<(), ServeError> {
        if !(1..=MAX_QUEUES).contains(&self.queues) {
            return Err(ServeError::Config("the number of queues must be between 1 and 64"));
        }
        if !self.queue_size.is_power_of_two() || self.queue_size > MAX_QUEUE_SIZE {
            return Err(ServeError::Config("the queue size must be a power of two up to 1024"));
        }
        Ok(())
    }
}

/// What the executor and the protocol thread both see.
pub(crate) struct Shared {
    /// Bytes.
    pub capacity: AtomicU64,
    pub writeback: AtomicBool,
    stopping: AtomicBool,
    /// Wakes the thread while it waits for a connection.
    wake: EventFd,
    connection: Mutex<Option<UnixStream>>,
    /// Where this connection's front end wants to be told of changes.
    notices: Mutex<Option<NoticeChannel>>,
}

impl Shared {
    fn new(capacity: u64) -> nix::Result<Self> {
        Ok(Shared {
            capacity: AtomicU64::new(capacity),
            writeback: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            connection: Mutex::new(None),
            notices: Mutex::new(None),
        })
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn set_notices(&self, channel: Option<NoticeChannel>) {
        *self.notices.lock().unwrap_or_else(PoisonError::into_inner) = channel;
    }

    /// Has the front end look at the configuration again, if it has said where to tell it.
    pub fn notify(&self) {
        if let Some(channel) = &*self.notices.lock().unwrap_or_else(PoisonError::into_inner)
            && !channel.config_changed()
        {
            tracing::debug!("the front end does not take its notices");
        }
    }

    fn set_connection(&self, connection: Option<UnixStream>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    fn is_connected(&self) -> bool {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Makes the thread end, wherever it waits.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // A counter that is full has woken the thread already.
        let _ = self.wake.write(1);
        self.hang_up();
    }

    fn hang_up(&self) {
        if let Some(connection) = &*self.connection.lock().unwrap_or_else(PoisonError::into_inner) {
            // Fails if the peer was faster.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// A device being served. Dropping it stops the service without waiting.
pub struct ServerHandle {
    shared: Arc<Shared>,
    ended: async_channel::Receiver<()>,
    capacity: Box<dyn Fn() -> u64>,
}

impl ServerHandle {
    /// Ends the service: closes the connection, waits for requests in flight (no longer than the drain time) and
    /// removes the socket file. Requests answered with [`IoError::Stopped`](crate::IoError::Stopped) do not delay it.
    pub async fn stop(self) {
        self.shared.stop();
        // The thread sends nothing; the channel closes when it has ended.
        let _ = self.ended.recv().await;
    }

    /// Whether a front end is connected.
    pub fn is_connected(&self) -> bool {
        self.shared.is_connected()
    }

    /// The device's capacity has changed: whoever asks from now on sees the new one, and a front end that is connected is
    /// told to ask.
    pub fn resized(&self) {
        self.shared.capacity.store((self.capacity)(), Ordering::Release);
        self.shared.notify();
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Serves `device` as configured, on this executor, until the handle is stopped.
pub async fn serve<D: BlockDevice>(device: Rc<D>, config: ServerConfig) -> Result<ServerHandle, ServeError> {
    config.check()?;
    let system = |source| ServeError::System { path: config.socket.clone(), source };
    let shared = Arc::new(Shared::new(device.capacity()).map_err(|e| system(e.into()))?);
    let socket = Socket::listen(&config.socket)?;
    // A start is answered before the next is sent, for each of the queues.
    let (starter, starts) = async_channel::bounded(usize::from(config.queues));
    let (ended_sender, ended) = async_channel::bounded(1);
    let description = Device {
        name: config.socket.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        queues: config.queues,
        queue_size: config.queue_size,
        read_only: device.is_read_only(),
        shared: shared.clone(),
        starter,
    };
    thread::Builder::new()
        .name(format!("vhost-{}", description.name))
        .spawn(move || {
            serve_connections(&socket, &description);
            // The end is told when the file is gone.
            drop(socket);
            drop(ended_sender);
        })
        .map_err(system)?;
    let pace = Pace { poll: config.poll, drain: config.drain };
    let capacity = {
        let device = device.clone();
        Box::new(move || device.capacity())
    };
    glommio::spawn_local(run_queues(starts, device, pace)).detach();
    Ok(ServerHandle { shared, ended, capacity })
}

/// Runs each queue as the protocol thread starts it.
async fn run_queues<D: BlockDevice>(starts: async_channel::Receiver<Start>, device: Rc<D>, pace: Pace) {
    while let Ok(start) = starts.recv().await {
        glommio::spawn_local(queue::run(start, device.clone(), pace)).detach();
    }
}

fn serve_connections(socket: &Socket, device: &Device) {
    while let Some(stream) = accept(socket, &device.shared) {
        if let Err(e) = serve_connection(stream, device) {
            tracing::warn!(device = %device.name, "connection not served: {e}");
        }
        device.shared.set_notices(None);
        device.shared.set_connection(None);
    }
}

/// The next connection; `None` when the service ends.
fn accept(socket: &Socket, shared: &Shared) -> Option<UnixStream> {
    while !shared.is_stopping() {
        let mut events = [
            PollFd::new(socket.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN),
        ];
        let waited = poll(&mut events, PollTimeout::NONE);
        if shared.is_stopping() {
            break;
        }
        match waited.map_err(std::io::Error::from).and_then(|_| socket.listener.accept()) {
            Ok((stream, _)) => return Some(stream),
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}; trying again");
                thread::sleep(crate::limits::HANGUP_CHECK);
            }
        }
    }
    None
}

fn serve_connection(stream: UnixStream, device: &Device) -> Result<(), Error> {
    let clone = || stream.try_clone().map_err(Error::SocketError);
    device.shared.set_connection(Some(clone()?));
    if device.shared.is_stopping() {
        return Ok(());
    }
    let connection = Arc::new(OwnedFd::from(clone()?));
    let handler = Arc::new(Mutex::new(Handler::new(device.clone(), connection.clone())?));
    tracing::info!(device = %device.name, "front end connected");
    let mut messages = BackendReqHandler::from_stream(stream, handler.clone());
    let end = loop {
        let channel = NoticeChannel::peek(connection.as_fd());
        if let Err(e) = messages.handle_request() {
            break e;
        }
        if channel.is_some() {
            device.shared.set_notices(channel);
        }
    };
    // The front end learns at once, and does not wait for an answer while the queues end.
    device.shared.hang_up();
    match end {
        Error::Disconnected => tracing::info!(device = %device.name, "front end disconnected"),
        e => tracing::warn!(device = %device.name, "connection ended: {e}"),
    }
    handler.lock().unwrap_or_else(PoisonError::into_inner).stop_all(Stopping::Abandon);
    Ok(())
}
