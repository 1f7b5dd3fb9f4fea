//! Serves a device at a socket: its protocol thread and the link from there to the executor.
//!
//! One thread per device speaks the protocol, one connection after the other, each with a new handler. When a
//! connection ends its queues are stopped before the next is accepted. The executor only ever waits for the thread
//! asynchronously; the thread may wait for the executor.
//!
//! A device has one front end. Whoever is connected keeps it until it goes, does not get its first message, or one that it
//! has begun, across in [`MESSAGE_TIME`], or is found to be hostile; whoever else connects meanwhile is turned away at once.

use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use vhost::vhost_user::{BackendReqHandler, Error};

use crate::device::BlockDevice;
use crate::fair::{Budget, Share};
use crate::front_end::{Connected, FrontEnd};
use crate::handler::{Device, Handler};
use crate::limits::{HANGUP_CHECK, MAX_QUEUE_SIZE, MAX_QUEUES, MESSAGE_POLL, MESSAGE_TIME, OFFENCE_PAUSE};
use crate::log::{LogLimit, limited};
use crate::message;
use crate::notice::NoticeChannel;
use crate::queue::{self, Pace, Start};
use crate::socket::{Access, ServeError, Socket};
use crate::vring::Stopping;

/// How a device is served.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where front ends connect.
    pub socket: PathBuf,
    /// Who may.
    pub access: Access,
    /// Queues offered.
    pub queues: u16,
    /// The largest queue accepted, a power of two.
    pub queue_size: u16,
    /// How long a queue without work keeps looking at its ring before it sleeps until the guest kicks it. Saves the
    /// guest the kick and the queue the wake-up, at the price of the processor time. Zero: sleep at once.
    pub poll: Duration,
    /// How long requests in flight are waited for when the front end stops a queue or the connection is lost. What is not
    /// completed then stays in flight for the next start, which submits it again.
    pub drain: Duration,
    /// Memory for the data of requests in flight, bytes: of this device, reads and writes apart.
    pub memory: u64,
    /// The same of all devices of the executor together.
    pub memory_of_all: u64,
    /// Called, on any thread, when a front end has come, started or gone.
    pub changed: Arc<dyn Fn() + Send + Sync>,
}

impl ServerConfig {
    /// The defaults, at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        ServerConfig {
            socket: socket.into(),
            access: Access::default(),
            queues: MAX_QUEUES,
            queue_size: MAX_QUEUE_SIZE,
            poll: Duration::from_micros(40),
            drain: Duration::from_secs(2),
            memory: 16 << 20,
            memory_of_all: 256 << 20,
            changed: Arc::new(|| {}),
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
    /// The front end has stopped the executor: it is not let in again at once.
    offended: AtomicBool,
    /// Wakes the thread while it waits for a connection.
    wake: EventFd,
    connection: Mutex<Option<UnixStream>>,
    front_end: Mutex<FrontEnd>,
    changed: Arc<dyn Fn() + Send + Sync>,
    pub log: Arc<LogLimit>,
    /// Where this connection's front end wants to be told of changes.
    notices: Mutex<Option<NoticeChannel>>,
}

impl Shared {
    fn new(capacity: u64, changed: Arc<dyn Fn() + Send + Sync>) -> nix::Result<Self> {
        Ok(Shared {
            capacity: AtomicU64::new(capacity),
            writeback: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            offended: AtomicBool::new(false),
            wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            connection: Mutex::new(None),
            front_end: Mutex::default(),
            changed,
            log: Arc::default(),
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

    fn front_end(&self) -> MutexGuard<'_, FrontEnd> {
        self.front_end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_connected(&self, connected: Option<Connected>) {
        self.front_end().connected = connected;
        (self.changed)();
    }

    /// Notes whether a guest uses the device.
    fn set_started(&self, started: bool) {
        let before = self.front_end().connected.as_mut().map(|it| std::mem::replace(&mut it.started, started));
        if before.is_some_and(|before| before != started) {
            (self.changed)();
        }
    }

    /// Notes that a front end was turned away.
    fn refused(&self, why: String) {
        {
            let mut front_end = self.front_end();
            front_end.refused += 1;
            front_end.last_refusal = Some(why);
        }
        (self.changed)();
    }

    /// Makes the thread end, wherever it waits.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // A counter that is full has woken the thread already.
        let _ = self.wake.write(1);
        self.hang_up();
    }

    /// Ends the connection of a front end that cannot be served any more; whether it has harmed others.
    pub fn end_connection(&self, offended: bool) {
        self.offended.fetch_or(offended, Ordering::AcqRel);
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

    /// Who is connected.
    pub fn front_end(&self) -> FrontEnd {
        self.shared.front_end().clone()
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
    let shared = Arc::new(Shared::new(device.capacity(), config.changed.clone()).map_err(|e| system(e.into()))?);
    let socket = Socket::listen(&config.socket, config.access)?;
    // A start is answered before the next is sent, for each of the queues.
    let (starter, starts) = async_channel::bounded(usize::from(config.queues));
    let (ended_sender, ended) = async_channel::bounded(1);
    let description = Device {
        name: config.socket.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        queues: config.queues,
        queue_size: config.queue_size,
        read_only: device.is_read_only(),
        content: device.content(),
        shared: shared.clone(),
        starter,
        drain: config.drain,
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
    let share = Share::new(Budget { volume: config.memory, all: config.memory_of_all });
    glommio::spawn_local(run_queues(starts, device, share, pace)).detach();
    Ok(ServerHandle { shared, ended, capacity })
}

/// Runs each queue as the protocol thread starts it.
async fn run_queues<D: BlockDevice>(
    starts: async_channel::Receiver<Start>,
    device: Rc<D>,
    share: Rc<Share>,
    pace: Pace,
) {
    while let Ok(start) = starts.recv().await {
        glommio::spawn_local(queue::run(start, device.clone(), share.clone(), pace)).detach();
    }
}

fn serve_connections(socket: &Socket, device: &Device) {
    while let Some(stream) = next_connection(socket, &device.shared) {
        if let Err(e) = serve_connection(stream, socket, device) {
            limited!(device.shared.log, warn, device = %device.name, "connection not served: {e}");
        }
        device.shared.set_notices(None);
        device.shared.set_connection(None);
        device.shared.set_connected(None);
        if device.shared.offended.swap(false, Ordering::AcqRel) {
            pause(&device.shared);
        }
    }
}

/// Waits before the next connection is served, unless the service ends: what one front end can cost others has a bound in
/// time as well.
fn pause(shared: &Shared) {
    let until = Instant::now() + OFFENCE_PAUSE;
    while !shared.is_stopping() && Instant::now() < until {
        thread::sleep(HANGUP_CHECK);
    }
}

/// The next connection; `None` when the service ends.
fn next_connection(socket: &Socket, shared: &Shared) -> Option<UnixStream> {
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
                limited!(shared.log, warn, "cannot accept a connection: {e}; trying again");
                thread::sleep(HANGUP_CHECK);
            }
        }
    }
    None
}

fn serve_connection(stream: UnixStream, socket: &Socket, device: &Device) -> Result<(), Error> {
    let shared = &device.shared;
    let clone = || stream.try_clone().map_err(Error::SocketError);
    shared.set_connection(Some(clone()?));
    if shared.is_stopping() {
        return Ok(());
    }
    let process = getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid());
    shared.set_connected(Some(Connected { process, since: Instant::now(), started: false }));
    limited!(shared.log, info, device = %device.name, process, "front end connected");
    let connection = Arc::new(OwnedFd::from(clone()?));
    let handler = Arc::new(Mutex::new(Handler::new(device.clone(), connection.clone())?));
    let end = handle_messages(stream, &connection, &handler, socket, device);
    // The front end learns at once, and does not wait for an answer while the queues end.
    shared.hang_up();
    shared.set_connected(None);
    match end {
        End::Disconnected => limited!(shared.log, info, device = %device.name, "front end disconnected"),
        End::Refused(why) => {
            limited!(shared.log, warn, device = %device.name, process, "connection ended: {why}");
            shared.refused(why);
        }
    }
    handler.lock().unwrap_or_else(PoisonError::into_inner).stop_all(Stopping::Abandon);
    Ok(())
}

/// Why a connection ends.
enum End {
    Disconnected,
    Refused(String),
}

fn handle_messages(
    stream: UnixStream,
    connection: &OwnedFd,
    handler: &Arc<Mutex<Handler>>,
    socket: &Socket,
    device: &Device,
) -> End {
    let shared = &device.shared;
    let mut messages = BackendReqHandler::from_stream(stream, handler.clone());
    let mut patience = Some(Instant::now() + MESSAGE_TIME);
    loop {
        if let Err(end) = wait_for_message(connection, socket, device, patience) {
            return end;
        }
        patience = None;
        let channel = NoticeChannel::peek(connection.as_fd());
        match messages.handle_request() {
            Ok(()) => {}
            Err(Error::Disconnected) => return End::Disconnected,
            Err(e) => return End::Refused(e.to_string()),
        }
        if channel.is_some() {
            shared.set_notices(channel);
        }
        let handler = handler.lock().unwrap_or_else(PoisonError::into_inner);
        if handler.is_broken() {
            return End::Refused("memory that the front end shares is gone".into());
        }
        shared.set_started(handler.is_started());
    }
}

/// Returns when there is a message to be handled that has come whole, and room for its answer: crate `vhost` would wait for
/// them without limit. Turns away whoever connects meanwhile.
fn wait_for_message(
    connection: &OwnedFd,
    socket: &Socket,
    device: &Device,
    mut until: Option<Instant>,
) -> Result<(), End> {
    loop {
        let mut events = [
            PollFd::new(connection.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.listener.as_fd(), PollFlags::POLLIN),
        ];
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        // Interrupted, or short of memory: once more.
        let Ok(ready) = poll(&mut events, timeout) else { continue };
        let [message, another] = events.map(|event| event.any().unwrap_or_default());
        if another && !message {
            turn_away(socket, device);
        }
        if left.is_some_and(|left| left.is_zero()) || ready == 0 {
            return Err(End::Refused(format!("a message did not come whole within {MESSAGE_TIME:?}")));
        }
        if message && message::is_whole(connection.as_fd()) {
            return Ok(());
        }
        if message {
            until.get_or_insert(Instant::now() + MESSAGE_TIME);
            thread::sleep(MESSAGE_POLL);
        }
    }
}

/// Closes the connection of a front end that comes while another one has the device.
fn turn_away(socket: &Socket, device: &Device) {
    let process = match socket.listener.accept() {
        Ok((stream, _)) => getsockopt(&stream, PeerCredentials).ok().map(|peer| peer.pid()),
        Err(_) => return thread::sleep(HANGUP_CHECK),
    };
    let held_by = device.shared.front_end().connected.as_ref().and_then(|connected| connected.process);
    let name = |process: Option<i32>| process.map_or_else(|| "unknown".into(), |pid| pid.to_string());
    let why = format!("process {} wanted the disk, which process {} has", name(process), name(held_by));
    limited!(device.shared.log, warn, device = %device.name, "second front end turned away: {why}");
    device.shared.refused(why);
}
