//! One ring as the protocol thread sees it: set up by messages, run by an executor.
//!
//! A ring runs while it has been kicked off (a kick descriptor was given) and is enabled. Starting hands it to the
//! executor; stopping waits until the executor has let go of it, so that after [`Vring::stop`] nothing touches guest
//! memory on its behalf.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vhost::vhost_user::{Error, Result};
use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::QueueT;
use vm_memory::GuestAddressSpace;

use crate::call::Call;
use crate::eventfd::is_eventfd;
use crate::guard::Breakage;
use crate::inflight::{InflightQueue, InflightRegion};
use crate::limits::{HANGUP_CHECK, UNTRACKED_DRAIN};
use crate::memory::GuestMemory;
use crate::queue::{Control, Start};
use crate::ring::Ring;
use crate::server::Shared;

/// Where queues to be started go.
pub(crate) type Starter = async_channel::Sender<Start>;

/// How long to wait for requests in flight when a ring is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// Until all are completed, or for the drain time: the front end waits for it, and with it its guest. Without an
    /// in-flight region for longer: what is not completed then is lost.
    Drain,
    /// For the drain time: the front end has gone.
    Abandon,
}

struct Running {
    control: Arc<Control>,
    ended: Receiver<()>,
    /// Whether the front end keeps what is in flight.
    tracked: bool,
}

/// What all rings of a connection share.
#[derive(Clone)]
pub(crate) struct Link {
    pub memory: GuestMemory,
    pub breakage: Breakage,
    pub starter: Starter,
    /// Tells whether the front end has gone.
    pub connection: Arc<OwnedFd>,
    pub shared: Arc<Shared>,
    /// How long requests in flight are waited for when a ring is stopped.
    pub drain: Duration,
}

pub(crate) struct Vring {
    name: String,
    ring: VringMutex<GuestMemory>,
    call: Arc<Call>,
    kick: Option<OwnedFd>,
    started: bool,
    enabled: bool,
    running: Option<Running>,
    link: Link,
}

impl Vring {
    pub fn new(name: String, max_size: u16, link: Link) -> Result<Self> {
        let ring = VringMutex::new(link.memory.clone(), max_size).map_err(invalid)?;
        let (call, kick, running) = (Arc::default(), None, None);
        Ok(Vring { name, ring, call, kick, started: false, enabled: false, running, link })
    }

    /// Whether an executor serves it.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Descriptors of the ring.
    pub fn set_size(&mut self, size: u32) -> Result<()> {
        self.check_stopped()?;
        let size = u16::try_from(size).map_err(|_| Error::InvalidParam)?;
        self.ring.get_mut().get_queue_mut().try_set_size(size).map_err(invalid)
    }

    /// Guest addresses of the ring's parts.
    pub fn set_addresses(&mut self, descriptors: u64, available: u64, used: u64) -> Result<()> {
        self.check_stopped()?;
        self.ring.set_queue_info(descriptors, available, used).map_err(invalid)
    }

    /// Index of the first entry to take.
    pub fn set_base(&mut self, base: u32) -> Result<()> {
        self.check_stopped()?;
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.ring.set_queue_next_avail(base);
        Ok(())
    }

    pub fn set_event_idx(&mut self, on: bool) -> Result<()> {
        self.check_stopped()?;
        self.ring.set_queue_event_idx(on);
        Ok(())
    }

    /// The descriptor for completions; may change while the ring runs.
    pub fn set_call(&mut self, file: Option<File>) -> Result<()> {
        check_eventfd(file.as_ref())?;
        self.call.set(file);
        if let Some(running) = &self.running {
            // What was completed before there was a descriptor, or while it changed, has not been signalled.
            running.control.signal();
        }
        Ok(())
    }

    /// Stores the descriptor for kicks and starts the ring with it, if it is enabled.
    pub fn set_kick(&mut self, file: Option<File>, inflight: Option<&InflightRegion>, index: u16) -> Result<()> {
        check_eventfd(file.as_ref())?;
        self.halt(Stopping::Drain);
        self.kick = file.map(OwnedFd::from);
        self.started = true;
        self.update(inflight, index)
    }

    pub fn set_enabled(&mut self, enabled: bool, inflight: Option<&InflightRegion>, index: u16) -> Result<()> {
        self.enabled = enabled;
        self.update(inflight, index)
    }

    fn update(&mut self, inflight: Option<&InflightRegion>, index: u16) -> Result<()> {
        match (self.started && self.enabled, self.running.is_some()) {
            (true, false) => self.start(inflight.and_then(|region| region.queue(index))),
            (false, true) => {
                self.halt(Stopping::Drain);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn start(&mut self, inflight: Option<InflightQueue>) -> Result<()> {
        self.ring.set_queue_ready(true);
        if !self.ring.get_ref().get_queue().is_valid(&*self.link.memory.memory()) {
            return Err(Error::InvalidOperation("a ring lies outside guest memory"));
        }
        let kick = self.kick.as_ref().map(OwnedFd::try_clone).transpose().map_err(Error::ReqHandlerError)?;
        let tracked = inflight.is_some();
        let (ended_sender, ended) = sync_channel(1);
        let control = Arc::new(Control::default());
        let start = Start {
            name: self.name.clone(),
            ring: Ring {
                vring: self.ring.clone(),
                memory: self.link.memory.clone(),
                breakage: self.link.breakage.clone(),
                inflight,
                call: self.call.clone(),
            },
            kick,
            control: control.clone(),
            shared: self.link.shared.clone(),
            ended: ended_sender,
        };
        self.link.starter.send_blocking(start).map_err(|_| Error::BackendInternalError)?;
        self.running = Some(Running { control, ended, tracked });
        Ok(())
    }

    /// Stops the ring for good and returns the index of the next entry to take.
    pub fn stop(&mut self, how: Stopping) -> u16 {
        self.halt(how);
        self.started = false;
        self.enabled = false;
        self.kick = None;
        self.ring.set_queue_ready(false);
        self.call.set(None);
        self.ring.queue_next_avail()
    }

    /// Tells the executor to end without waiting for it.
    pub fn announce_stop(&self, how: Stopping) {
        let Some(running) = &self.running else { return };
        match how {
            Stopping::Drain => running.control.drain(),
            Stopping::Abandon => running.control.abandon(),
        }
    }

    fn halt(&mut self, how: Stopping) {
        self.announce_stop(how);
        let Some(running) = self.running.take() else { return };
        let (since, most) = (Instant::now(), if running.tracked { self.link.drain } else { UNTRACKED_DRAIN });
        // An executor that is gone has let go of the ring as well.
        while let Err(RecvTimeoutError::Timeout) = running.ended.recv_timeout(HANGUP_CHECK) {
            if has_hung_up(&self.link.connection) {
                running.control.abandon();
            } else if how == Stopping::Drain && since.elapsed() >= most {
                running.control.leave();
            }
        }
    }

    fn check_stopped(&self) -> Result<()> {
        match self.running {
            Some(_) => Err(Error::InvalidOperation("a ring cannot be changed while it runs")),
            None => Ok(()),
        }
    }
}

fn check_eventfd(file: Option<&File>) -> Result<()> {
    match file.map(is_eventfd).transpose().map_err(Error::ReqHandlerError)? {
        Some(false) => Err(Error::InvalidOperation("a kick or call descriptor is not an eventfd")),
        _ => Ok(()),
    }
}

fn has_hung_up(connection: &OwnedFd) -> bool {
    let mut events = [PollFd::new(connection.as_fd(), PollFlags::POLLHUP)];
    poll(&mut events, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

fn invalid<E: std::error::Error + Send + Sync + 'static>(error: E) -> Error {
    Error::ReqHandlerError(std::io::Error::other(error))
}
