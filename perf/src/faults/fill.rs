//! A volume that is written until the disks are full, and then discarded again.
//!
//! When space is short writes wait, they do not fail, and what frees space goes on: discards are answered while
//! the last writes still wait.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::interrupt;
use crate::limits::{MAX_DATA, SLOTS_PER_QUEUE};
use levee_frontend::{Completion, FrontEnd, FrontEndOptions, Operation, Shape, Tag};

/// Disks count as full when no write was answered for so long.
const QUIET: Duration = Duration::from_secs(2);
/// How long discards may take.
const FREE_LIMIT: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);
/// Writes in flight; the other slots are for discards.
const DEPTH: usize = SLOTS_PER_QUEUE / 2;
/// What discards are cut into where the device would take more, bytes.
const DISCARD: u64 = 16 << 20;

/// A volume that takes space.
pub struct Filler {
    front: FrontEnd,
    /// Bytes from the volume's start that were given to the device.
    submitted: u64,
    in_flight: usize,
    /// Of these, discards.
    discards: HashSet<Tag>,
}

impl Filler {
    pub fn connect(socket: &Path) -> Result<Filler> {
        let front = FrontEnd::connect(FrontEndOptions { socket: socket.into(), queues: 1, max_data: MAX_DATA })?;
        Ok(Filler { front, submitted: 0, in_flight: 0, discards: HashSet::new() })
    }

    /// Writes until nothing is answered any more; answers with how many bytes that took.
    pub fn fill(&mut self) -> Result<u64> {
        let capacity = self.front.config().capacity;
        let mut last_answer = Instant::now();
        while last_answer.elapsed() < QUIET {
            interrupt::check()?;
            while self.in_flight < DEPTH && self.submitted < capacity {
                self.write_next()?;
            }
            ensure!(self.in_flight > 0, "the volume of {capacity} bytes was written without filling the disks");
            if self.turn()? > 0 {
                last_answer = Instant::now();
            }
        }
        Ok(self.submitted)
    }

    /// Lets time pass while the disks are full.
    pub fn hold(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            interrupt::check()?;
            self.turn()?;
        }
        Ok(())
    }

    /// Discards all that was written, but for the writes that still wait. Those are left as they are, as by a
    /// virtual machine that is switched off.
    pub fn free(mut self) -> Result<()> {
        let waiting = (self.in_flight * MAX_DATA) as u64;
        let deadline = Instant::now() + FREE_LIMIT;
        self.discard(0, self.submitted - waiting, deadline)?;
        while !self.discards.is_empty() {
            self.turn_before(deadline)?;
        }
        Ok(())
    }

    fn discard(&mut self, from: u64, to: u64, deadline: Instant) -> Result<()> {
        let step = self.front.config().max_discard.min(DISCARD);
        ensure!(step > 0, "the device offers no discard");
        let mut offset = from;
        while offset < to {
            let Some(tag) = self.front.free_slot(0) else {
                self.turn_before(deadline)?;
                continue;
            };
            let len = step.min(to - offset);
            self.front.submit(tag, Operation::Discard { offset, len }, Shape::default());
            self.in_flight += 1;
            self.discards.insert(tag);
            offset += len;
        }
        Ok(())
    }

    fn write_next(&mut self) -> Result<()> {
        let tag = self.front.free_slot(0).context("no slot is free")?;
        // Data that does not compress, and differs from block to block.
        let word = crate::rng::mix(self.submitted).to_le_bytes();
        self.front.put_data(tag, 0, &word.repeat(MAX_DATA / word.len()));
        self.front.submit(tag, Operation::Write { offset: self.submitted, len: MAX_DATA }, Shape::default());
        self.submitted += MAX_DATA as u64;
        self.in_flight += 1;
        Ok(())
    }

    fn turn_before(&mut self, deadline: Instant) -> Result<()> {
        interrupt::check()?;
        let waiting = self.discards.len();
        ensure!(Instant::now() < deadline, "{waiting} discards were not answered within {} s", FREE_LIMIT.as_secs());
        self.turn().map(drop)
    }

    /// Waits a moment for answers; tells how many came.
    fn turn(&mut self) -> Result<usize> {
        let mut done: Vec<Completion> = Vec::new();
        self.front.kick();
        self.front.poll(TICK, &mut done)?;
        self.in_flight -= done.len();
        for completion in &done {
            self.discards.remove(&completion.tag);
        }
        match done.iter().find(|completion| completion.status != 0) {
            Some(failed) => bail!("the device failed a request of the filling volume with status {}", failed.status),
            None => Ok(done.len()),
        }
    }
}
