//! The two ends of a ring on the executor: taking requests from it and publishing their completions.
//!
//! Owns the order of the steps that make a crash survivable (see [`crate::inflight`]): a request is marked before it
//! leaves [`Ring::take`], and unmarked in [`Ring::publish`] after the used ring shows it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestAddressSpace};

use crate::call::{Call, CallError, Signalled};
use crate::chain::{self, Walk};
use crate::guard::Breakage;
use crate::inflight::{InflightError, InflightQueue};
use crate::limits::{MAX_BATCH, MAX_BATCH_DESCRIPTORS};
use crate::memory::{GuestMemory, GuestRegions};
use crate::request::{self, Refusal, Request};

/// A ring that cannot be served on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The ring is outside guest memory, or its index makes no sense.
    Ring(virtio_queue::Error),
    Inflight(InflightError),
    /// A head that the ring does not have.
    Head(u16),
    /// More requests in flight than the ring has descriptors.
    Overcommitted,
    /// The guest's kicks cannot be waited for.
    Kick(String),
    /// The guest cannot be told of completions.
    Call(CallError),
    /// Guest memory, or the in-flight region, is not there any more.
    Memory,
}

impl Broken {
    /// Whether all of the connection is as broken as the ring.
    pub fn ends_connection(&self) -> bool {
        matches!(self, Broken::Memory | Broken::Call(_))
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Ring(e) => write!(f, "the ring is broken: {e}"),
            Broken::Inflight(e) => write!(f, "{e}"),
            Broken::Head(head) => write!(f, "the guest submitted descriptor {head}, which the ring does not have"),
            Broken::Overcommitted => f.write_str("the guest submitted a request again before it was completed"),
            Broken::Kick(e) => write!(f, "the kick descriptor failed: {e}"),
            Broken::Call(e) => write!(f, "{e}"),
            Broken::Memory => f.write_str(
                "memory that the front end shares is gone: its file was shortened, or its file system or the machine's huge \
                 pages are used up",
            ),
        }
    }
}

impl From<virtio_queue::Error> for Broken {
    fn from(e: virtio_queue::Error) -> Self {
        Broken::Ring(e)
    }
}

impl From<InflightError> for Broken {
    fn from(e: InflightError) -> Self {
        Broken::Inflight(e)
    }
}

/// A chain taken from the ring.
pub(crate) struct Taken {
    pub head: u16,
    pub request: Result<Request, Refusal>,
}

/// Chains taken from the ring together.
#[derive(Default)]
pub(crate) struct Batch {
    pub taken: Vec<Taken>,
    /// What reading them took.
    pub descriptors: usize,
    /// Kept for its memory.
    walk: Walk,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.taken.len() >= MAX_BATCH || self.descriptors >= MAX_BATCH_DESCRIPTORS
    }

    fn read(&mut self, mem: &GuestRegions, table: GuestAddress, size: u16, head: u16, capacity: u64) {
        let request = match chain::walk(mem, table, size, head, &mut self.walk) {
            Ok(()) => request::parse(mem, &self.walk.segments, capacity),
            Err(e) => Err(Refusal::unanswerable(e.why())),
        };
        self.descriptors += self.walk.descriptors;
        self.taken.push(Taken { head, request });
    }
}

/// A chain to be returned to the guest.
pub(crate) struct Completion {
    pub head: u16,
    /// Bytes written to the chain's memory, with the status.
    pub written: u32,
}

/// A ring, its memory and its in-flight tracking.
pub(crate) struct Ring {
    pub vring: VringMutex<GuestMemory>,
    pub memory: GuestMemory,
    /// Of the memory and the in-flight region. Nothing that was read from a broken one is acted upon.
    pub breakage: Breakage,
    pub inflight: Option<InflightQueue>,
    pub call: Arc<Call>,
}

impl Ring {
    pub fn size(&self) -> usize {
        usize::from(self.vring.get_ref().get_queue().size())
    }

    /// Positions the ring where the previous daemon, or an empty ring, left it, and returns the heads of the requests that
    /// were in flight then, in their order.
    pub fn resume(&self) -> Result<Vec<u16>, Broken> {
        let mem = self.memory.memory();
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        let used_idx = queue.used_idx(&*mem, Ordering::Acquire)?.0;
        queue.set_next_used(used_idx);
        let Some(inflight) = &self.inflight else { return Ok(Vec::new()) };
        let Some(heads) = inflight.resume(queue.size(), used_idx)? else { return Ok(Vec::new()) };
        // As many were completed as the used index says, and what was taken beyond that is in flight.
        queue.set_next_avail(used_idx.wrapping_add(heads.len() as u16));
        self.check_memory()?;
        Ok(heads)
    }

    /// Reads requests that were in flight into `batch`, as many as make one.
    pub fn read_resumed(&self, heads: &mut impl Iterator<Item = u16>, capacity: u64, batch: &mut Batch) {
        let mem = self.memory.memory();
        let state = self.vring.get_ref();
        let (table, size) = (GuestAddress(state.get_queue().desc_table()), state.get_queue().size());
        while !batch.is_full()
            && let Some(head) = heads.next()
        {
            batch.read(&mem, table, size, head, capacity);
        }
    }

    /// Takes what the guest made available into `batch`; more than `most` requests is more than it can have.
    pub fn take(&self, most: usize, capacity: u64, batch: &mut Batch) -> Result<(), Broken> {
        let mem = self.memory.memory();
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        let (table, size) = (GuestAddress(queue.desc_table()), queue.size());
        let mut available = queue.iter(&*mem)?;
        while !batch.is_full() {
            let Some(chain) = available.next() else { break };
            let head = chain.head_index();
            self.check_memory()?;
            if head >= size {
                return Err(Broken::Head(head));
            }
            if batch.taken.len() == most {
                return Err(Broken::Overcommitted);
            }
            if let Some(inflight) = &self.inflight {
                inflight.submitted(head)?;
            }
            batch.read(&mem, table, size, head, capacity);
        }
        self.check_memory()
    }

    /// Returns chains to the guest, and signals it once if it wants to know; how that went.
    pub fn publish(&self, completions: &[Completion]) -> Result<Signalled, Broken> {
        let mem = self.memory.memory();
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        self.check_memory()?;
        for Completion { head, written } in completions {
            if let Some(inflight) = &self.inflight {
                inflight.completing(*head)?;
            }
            queue.add_used(&*mem, *head, *written)?;
            // A completion that the guest cannot see stays in flight.
            self.check_memory()?;
            if let Some(inflight) = &self.inflight {
                inflight.completed(*head, queue.next_used())?;
            }
        }
        if queue.needs_notification(&*mem)? {
            return self.call.signal().map_err(Broken::Call);
        }
        Ok(Signalled::Done)
    }

    pub fn check_memory(&self) -> Result<(), Broken> {
        if self.breakage.is_broken() { Err(Broken::Memory) } else { Ok(()) }
    }

    /// Asks for kicks; `true` if there is already something to take.
    pub fn enable_kicks(&self) -> Result<bool, Broken> {
        Ok(self.vring.enable_notification()?)
    }

    /// Asks for no kicks.
    pub fn disable_kicks(&self) -> Result<(), Broken> {
        Ok(self.vring.disable_notification()?)
    }
}
