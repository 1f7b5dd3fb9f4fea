//! A request on its way through the disk: begun in pieces, answered when the last one is done.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use vm_memory::{GuestAddress, GuestAddressSpace};

use crate::device::{BlockDevice, IoError};
use crate::fair::{Cost, Work};
use crate::limits::PIECE_LEN;
use crate::memory::GuestRegions;
use crate::queue::Queue;
use crate::request::{self, Operation, Piece, Request};

/// Data and status of a request that was carried out: bytes written to the guest.
pub(crate) type Outcome = Result<u32, IoError>;

/// A request that was taken from the ring and is neither completed nor left to the next daemon.
pub(crate) struct Job<D> {
    queue: Rc<Queue<D>>,
    pub head: u16,
    pub status_at: GuestAddress,
    /// As the guest asked for it.
    pub operation: Operation,
    /// What has not begun.
    rest: RefCell<Option<Piece>>,
    /// Pieces that the disk has.
    running: Cell<usize>,
    outcome: Cell<Outcome>,
}

impl<D: BlockDevice> Job<D> {
    pub fn new(queue: Rc<Queue<D>>, head: u16, request: Request) -> Rc<Self> {
        let Request { piece, status_at } = request;
        let operation = piece.operation;
        let rest = RefCell::new(Some(piece));
        Rc::new(Job { queue, head, status_at, operation, rest, running: Cell::new(0), outcome: Cell::new(Ok(0)) })
    }

    /// Notes how a piece, or the wish to begin one, has ended; answers the request if it was the last.
    fn ended(&self, outcome: Outcome) {
        let all = match (self.outcome.get(), outcome) {
            (Ok(before), Ok(more)) => Ok(before + more),
            // What is not completed goes to the next daemon, whatever else has happened to it.
            (Err(IoError::Stopped), _) | (_, Err(IoError::Stopped)) => Err(IoError::Stopped),
            (Err(IoError::Failed), _) | (_, Err(IoError::Failed)) => Err(IoError::Failed),
        };
        self.outcome.set(all);
        if all.is_err() {
            self.rest.take();
        }
        if self.running.get() == 0 && self.rest.borrow().is_none() {
            self.queue.ended(self, all);
        }
    }
}

impl<D: BlockDevice> Work for Job<D> {
    fn cost(&self) -> Option<Cost> {
        self.rest.borrow().as_ref().and_then(|rest| rest.cost(PIECE_LEN))
    }

    fn begin(self: Rc<Self>) {
        let Some(mut piece) = self.rest.take() else { return };
        let cost = piece.cost(PIECE_LEN);
        self.rest.replace(piece.split_off(PIECE_LEN));
        self.running.set(self.running.get() + 1);
        glommio::spawn_local(async move {
            let queue = &self.queue;
            let outcome = queue.cancel.unless_cancelled(queue.carry_out(&piece)).await;
            self.running.set(self.running.get() - 1);
            self.ended(outcome.unwrap_or(Err(IoError::Stopped)));
            if let Some(cost) = cost {
                queue.share.release(cost);
            }
        })
        .detach();
    }

    fn is_left(&self) -> bool {
        self.queue.is_left()
    }

    fn forget(&self) {
        // One whose last piece has failed is only waiting to be taken out.
        if self.rest.borrow().is_some() {
            self.ended(Err(IoError::Stopped));
        }
    }
}

impl<D: BlockDevice> Queue<D> {
    async fn carry_out(&self, piece: &Piece) -> Outcome {
        match piece.operation {
            Operation::Read { len: 0, .. } | Operation::Write { len: 0, .. } => Ok(0),
            Operation::Discard { len: 0, .. } | Operation::WriteZeroes { len: 0, .. } => Ok(0),
            Operation::Read { offset, len } => {
                let data = self.device.read(offset, len).await?;
                self.copy_to_guest(|mem| request::scatter(mem, &piece.data, data.iter().map(|part| &part[..])))
            }
            Operation::Write { offset, len } => {
                let data = request::gather(&self.ring.memory.memory(), &piece.data, len).ok_or(IoError::Failed)?;
                if self.ring.breakage.is_broken() {
                    return Err(IoError::Stopped);
                }
                self.device.write(offset, data).await.map(|()| 0)
            }
            Operation::Flush => self.device.flush().await.map(|()| 0),
            Operation::Discard { offset, len } => self.device.discard(offset, len).await.map(|()| 0),
            Operation::WriteZeroes { offset, len, unmap } => {
                self.device.write_zeroes(offset, len, unmap).await.map(|()| 0)
            }
            Operation::GetId => self.copy_to_guest(|mem| request::scatter_serial(mem, &piece.data, &self.device.id())),
        }
    }

    /// Copies into guest memory, unless it belongs to somebody else by now.
    fn copy_to_guest(&self, copy: impl FnOnce(&GuestRegions) -> Option<u32>) -> Outcome {
        if self.is_detached() {
            return Err(IoError::Stopped);
        }
        copy(&self.ring.memory.memory()).ok_or(IoError::Failed)
    }
}
