//! A served volume with many requests in flight.

use super::Job;
use crate::limits::{STALL_NOTICE, TRANSFER_PIECE, TRANSFER_TICK};
use anyhow::{Context, ensure};
use levee_frontend::limits::SLOTS_PER_QUEUE;
use levee_frontend::{Completion, FrontEnd, FrontEndOptions, Operation, Shape, Tag};
use std::path::Path;
use std::time::Instant;

pub struct Device {
    front: FrontEnd,
    /// What each slot was last used for, bytes from the disk's start.
    offsets: [u64; SLOTS_PER_QUEUE],
    in_flight: usize,
    job: Job,
    /// When something was answered last.
    answered: Instant,
}

impl Device {
    pub fn connect(socket: &Path, job: &Job) -> anyhow::Result<Device> {
        let options = FrontEndOptions { socket: socket.to_owned(), queues: 1, max_data: TRANSFER_PIECE };
        let front = FrontEnd::connect(options).context("the volume's socket cannot be used")?;
        Ok(Device { front, offsets: [0; SLOTS_PER_QUEUE], in_flight: 0, job: job.clone(), answered: Instant::now() })
    }

    /// Bytes.
    pub fn capacity(&self) -> u64 {
        self.front.config().capacity
    }

    pub fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// A slot for one more request, if there is one.
    pub fn free_slot(&self) -> Option<Tag> {
        self.front.free_slot(0)
    }

    fn wait_for_slot(&mut self) -> anyhow::Result<Tag> {
        loop {
            if let Some(tag) = self.free_slot() {
                return Ok(tag);
            }
            self.turn()?;
        }
    }

    fn submit(&mut self, tag: Tag, offset: u64, operation: Operation) {
        self.offsets[tag.slot] = offset;
        self.in_flight += 1;
        self.front.submit(tag, operation, Shape::default());
    }

    /// Begins to write at most [`TRANSFER_PIECE`] bytes.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> anyhow::Result<()> {
        let tag = self.wait_for_slot()?;
        self.front.put_data(tag, 0, bytes);
        self.submit(tag, offset, Operation::Write { offset, len: bytes.len() });
        Ok(())
    }

    /// Begins to make a range of any length zero.
    pub fn zero(&mut self, mut offset: u64, end: u64) -> anyhow::Result<()> {
        let most = self.front.config().max_write_zeroes;
        ensure!(most > 0 || offset >= end, "the volume's daemon cannot write zeros");
        while offset < end {
            let len = (end - offset).min(most);
            let tag = self.wait_for_slot()?;
            self.submit(tag, offset, Operation::WriteZeroes { offset, len, unmap: true });
            offset += len;
        }
        Ok(())
    }

    /// Begins to read at most [`TRANSFER_PIECE`] bytes into a slot that is free.
    pub fn read(&mut self, tag: Tag, offset: u64, len: usize) {
        self.submit(tag, offset, Operation::Read { offset, len });
    }

    /// The data of a read that is done.
    pub fn data(&self, tag: Tag, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.front.take_data(tag, 0, &mut bytes);
        bytes
    }

    /// Lets the daemon work, for a moment. What was done: slot, and where on the disk.
    pub fn turn(&mut self) -> anyhow::Result<Vec<(Tag, u64)>> {
        self.job.check()?;
        self.front.kick();
        let mut done: Vec<Completion> = Vec::new();
        self.front.poll(TRANSFER_TICK, &mut done)?;
        self.note_stall(!done.is_empty());
        self.in_flight -= done.len();
        let done = done.into_iter().map(|Completion { tag, status }| {
            let offset = self.offsets[tag.slot];
            ensure!(status == 0, "the volume refused a request at byte {offset} (status {status})");
            Ok((tag, offset))
        });
        done.collect()
    }

    /// A volume whose copies are away makes requests wait, and does not fail them: that has to be seen.
    fn note_stall(&mut self, answered: bool) {
        if answered {
            if self.answered.elapsed() >= STALL_NOTICE {
                self.job.bar.set_message(self.job.title.clone());
            }
            self.answered = Instant::now();
        } else if self.in_flight > 0 && self.answered.elapsed() >= STALL_NOTICE {
            let seconds = self.answered.elapsed().as_secs();
            self.job.bar.set_message(format!("{}: no answer for {seconds} s, waiting", self.job.title));
        }
    }

    /// Waits until everything is answered and durable, and disconnects.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let tag = self.wait_for_slot()?;
        self.submit(tag, 0, Operation::Flush);
        while !self.is_idle() {
            self.turn()?;
        }
        self.front.close().context("the volume's device was not closed in good order")
    }
}
