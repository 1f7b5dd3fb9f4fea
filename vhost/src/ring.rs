//! The two ends of a ring on the executor: taking requests from it and publishing their completions.
//!
//! Owns the order of the steps that make a crash survivable (see [`crate::inflight`]): a request is marked before it
//! leaves [`Ring::take`], and unmarked in [`Ring::publish`] after the used ring shows it.

use std::fmt;
use std::sync::atomic::Ordering;

use vhost_user_backend::{VringMutex, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, GuestAddressSpace, GuestMemoryMmap};

use crate::chain::{self, Segment};
use crate::inflight::{InflightError, InflightQueue};
use crate::limits::MAX_BATCH;
use crate::memory::GuestMemory;
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
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Ring(e) => write!(f, "the ring is broken: {e}"),
            Broken::Inflight(e) => write!(f, "{e}"),
            Broken::Head(head) => write!(f, "the guest submitted descriptor {head}, which the ring does not have"),
            Broken::Overcommitted => f.write_str("the guest submitted a request again before it was completed"),
            Broken::Kick(e) => write!(f, "the kick descriptor failed: {e}"),
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
    pub inflight: Option<InflightQueue>,
}

impl Ring {
    pub fn size(&self) -> usize {
        usize::from(self.vring.get_ref().get_queue().size())
    }

    /// Positions the ring where the previous daemon, or an empty ring, left it, and returns the requests that were
    /// in flight then, in their order.
    pub fn resume(&self, capacity: u64) -> Result<Vec<Taken>, Broken> {
        let mem = self.memory.memory();
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        let used_idx = queue.used_idx(&*mem, Ordering::Acquire)?.0;
        queue.set_next_used(used_idx);
        let Some(inflight) = &self.inflight else { return Ok(Vec::new()) };
        let Some(heads) = inflight.resume(queue.size(), used_idx)? else { return Ok(Vec::new()) };
        // As many were completed as the used index says, and what was taken beyond that is in flight.
        queue.set_next_avail(used_idx.wrapping_add(heads.len() as u16));
        let table = GuestAddress(queue.desc_table());
        let mut segments = Vec::new();
        Ok(heads.into_iter().map(|head| read(&mem, table, queue.size(), head, capacity, &mut segments)).collect())
    }

    /// Takes what the guest made available into `batch`; more than `most` requests is more than it can have.
    pub fn take(&self, most: usize, capacity: u64, batch: &mut Vec<Taken>) -> Result<(), Broken> {
        let mem = self.memory.memory();
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        let (table, size) = (GuestAddress(queue.desc_table()), queue.size());
        let mut available = queue.iter(&*mem)?;
        let mut segments = Vec::new();
        while batch.len() < MAX_BATCH {
            let Some(chain) = available.next() else { break };
            let head = chain.head_index();
            if head >= size {
                return Err(Broken::Head(head));
            }
            if batch.len() == most {
                return Err(Broken::Overcommitted);
            }
            if let Some(inflight) = &self.inflight {
                inflight.submitted(head)?;
            }
            batch.push(read(&mem, table, size, head, capacity, &mut segments));
        }
        Ok(())
    }

    /// Returns chains to the guest, and signals it once if it wants to know.
    pub fn publish(&self, completions: &[Completion]) -> Result<(), Broken> {
        let mem = self.memory.memory();
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        for Completion { head, written } in completions {
            if let Some(inflight) = &self.inflight {
                inflight.completing(*head)?;
            }
            queue.add_used(&*mem, *head, *written)?;
            if let Some(inflight) = &self.inflight {
                inflight.completed(*head, queue.next_used())?;
            }
        }
        if queue.needs_notification(&*mem)? {
            // A full or closed descriptor already says that there is something to see.
            let _ = state.signal_used_queue();
        }
        Ok(())
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

fn read(
    mem: &GuestMemoryMmap<()>,
    table: GuestAddress,
    size: u16,
    head: u16,
    capacity: u64,
    segments: &mut Vec<Segment>,
) -> Taken {
    let request = match chain::walk(mem, table, size, head, segments) {
        Ok(()) => request::parse(mem, segments, capacity),
        Err(e) => Err(Refusal::unanswerable(e.why())),
    };
    Taken { head, request }
}
