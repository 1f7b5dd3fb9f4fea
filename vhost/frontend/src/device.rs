//! The front end as its users see it: submit, poll, and a connection that mends itself.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::layout::Layout;
use crate::limits::{MAX_QUEUES, MAX_SLOT_DATA, RECONNECT_PAUSE, SLOT_DESCRIPTORS, SLOTS_PER_QUEUE};
use crate::memory::GuestMemory;
use crate::request::{Operation, STATUS_NONE, Shape, link};
use crate::ring::{DESC_INDIRECT, Descriptor, Ring};
use crate::session::{DeviceConfig, F_EVENT_IDX, F_INDIRECT, Guest, Inflight, Session};

/// How many polls of busy queues there may be before the daemon's own messages are looked at.
const NOTICES_EVERY: u32 = 256;

#[derive(Clone, Debug)]
pub struct FrontEndOptions {
    pub socket: PathBuf,
    pub queues: usize,
    /// Most data of one request, bytes: whole pages. Guest memory holds as much for each slot.
    pub max_data: usize,
}

/// Names a request from submission to completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    pub queue: usize,
    pub slot: usize,
}

/// A finished request. Its slot is free again once the completion was handed out, but its data buffer
/// stays as it is until the next submission.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub tag: Tag,
    /// virtio-blk status: 0 is success.
    pub status: u8,
}

/// How one loss of the daemon went, as the guest saw it.
#[derive(Clone, Copy, Debug)]
pub struct Reconnect {
    /// From the loss to the new connection.
    pub away: Duration,
    /// From the new connection, its handshake included, to the first completion that came over it.
    pub first_completion: Option<Duration>,
}

struct Queue {
    ring: Ring,
    slots: Vec<Option<Operation>>,
    free: Vec<usize>,
}

/// A virtual machine's view of one disk.
pub struct FrontEnd {
    options: FrontEndOptions,
    layout: Layout,
    memory: GuestMemory,
    queues: Vec<Queue>,
    inflight: Option<Inflight>,
    session: Option<Session>,
    features: u64,
    config: DeviceConfig,
    lost_at: Instant,
    connected_at: Instant,
    next_attempt: Instant,
    last_error: Option<String>,
    reconnects: Vec<Reconnect>,
    /// Polls until the daemon's own messages are looked at next, however busy the queues are.
    until_notices: u32,
}

impl FrontEnd {
    /// Connects for the first time: a daemon must be there.
    pub fn connect(options: FrontEndOptions) -> Result<FrontEnd> {
        ensure!((1..=MAX_QUEUES).contains(&options.queues), "the number of queues must be 1 to {MAX_QUEUES}");
        ensure!(
            (4096..=MAX_SLOT_DATA).contains(&options.max_data) && options.max_data.is_multiple_of(4096),
            "the most data of a request must be whole pages up to {MAX_SLOT_DATA} bytes"
        );
        let layout = Layout::new(options.queues, options.max_data);
        let memory = GuestMemory::new(layout.size())?;
        let queues: Vec<Queue> = (0..options.queues)
            .map(|queue| Queue {
                ring: Ring::new(&layout, queue),
                slots: vec![None; SLOTS_PER_QUEUE],
                free: (0..SLOTS_PER_QUEUE).rev().collect(),
            })
            .collect();
        let mut inflight = None;
        let guest = Guest { memory: &memory, layout: &layout, queues: options.queues };
        let session = Session::open(&options.socket, &guest, &mut inflight, &vec![0; options.queues])?;
        let now = Instant::now();
        Ok(FrontEnd {
            layout,
            queues,
            inflight,
            features: session.features,
            config: session.config,
            session: Some(session),
            memory,
            options,
            lost_at: now,
            connected_at: now,
            next_attempt: now,
            last_error: None,
            reconnects: Vec::new(),
            until_notices: NOTICES_EVERY,
        })
    }

    /// What the device last said about itself; its capacity may grow while it is in use.
    pub fn config(&self) -> DeviceConfig {
        self.config
    }

    /// Every loss of the daemon so far.
    pub fn reconnects(&self) -> &[Reconnect] {
        &self.reconnects
    }

    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Whether daemons hand over what is in flight: without it a restart may lose or repeat requests.
    pub fn tracks_inflight(&self) -> bool {
        self.inflight.is_some()
    }

    /// Why the last attempt to connect failed.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// A free slot of a queue, if there is one. Nothing is taken until [`FrontEnd::submit`].
    pub fn free_slot(&self, queue: usize) -> Option<Tag> {
        self.queues[queue].free.last().map(|slot| Tag { queue, slot: *slot })
    }

    /// Puts data into a free slot's buffer, for a write.
    pub fn put_data(&self, tag: Tag, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.options.max_data, "more data than a slot holds");
        self.memory.write(self.layout.slot(tag.queue, tag.slot).data + at, bytes);
    }

    /// Takes data out of a slot's buffer, after a read.
    pub fn take_data(&self, tag: Tag, at: usize, into: &mut [u8]) {
        assert!(at + into.len() <= self.options.max_data, "more data than a slot holds");
        self.memory.read(self.layout.slot(tag.queue, tag.slot).data + at, into);
    }

    /// Hands a request to the device. `tag` is what [`FrontEnd::free_slot`] gave last for the queue.
    pub fn submit(&mut self, tag: Tag, operation: Operation, shape: Shape) {
        let place = self.layout.slot(tag.queue, tag.slot);
        if let Operation::Read { len, .. } | Operation::Write { len, .. } = operation {
            assert!(len <= self.options.max_data, "more data than a slot holds");
        }
        let queue = &mut self.queues[tag.queue];
        assert_eq!(queue.free.pop(), Some(tag.slot), "the slot is not the free one");
        queue.slots[tag.slot] = Some(operation);
        self.memory.write(place.header, &operation.header());
        self.memory.write(place.status, &[STATUS_NONE]);
        if let Some(range) = operation.range() {
            self.memory.write(place.range, &range);
        }
        if let Operation::Read { len, .. } = operation {
            // Data that the device failed to deliver must not look like an earlier, right answer.
            self.memory.fill(place.data, len, 0xa5);
        }
        let head = tag.slot as u16 * SLOT_DESCRIPTORS;
        let mut chain = operation.chain(&self.layout, &place, shape.pieces);
        if shape.indirect && self.features & F_INDIRECT != 0 {
            link(&mut chain, 0);
            for (index, descriptor) in chain.iter().enumerate() {
                self.memory.write(place.table + 16 * index, &descriptor.to_bytes());
            }
            let address = self.layout.guest_address(place.table);
            let table = Descriptor { address, len: 16 * chain.len() as u32, flags: DESC_INDIRECT, next: 0 };
            queue.ring.set_descriptor(&self.memory, head, table);
        } else {
            link(&mut chain, head);
            for (index, descriptor) in chain.iter().enumerate() {
                queue.ring.set_descriptor(&self.memory, head + index as u16, *descriptor);
            }
        }
        queue.ring.publish(&self.memory, head);
    }

    /// Tells the device about what was submitted, where it wants to be told.
    pub fn kick(&mut self) {
        let event_idx = self.features & F_EVENT_IDX != 0;
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if queue.ring.needs_kick(&self.memory, event_idx)
                && let Some(session) = &self.session
            {
                // A full counter means that the kick is pending already.
                let _ = session.doorbells[index].kick.write(1);
            }
        }
    }

    /// Waits up to `timeout` for completions and appends them to `done`. Connects again where the
    /// daemon is gone; that alone is no error.
    pub fn poll(&mut self, timeout: Duration, done: &mut Vec<Completion>) -> Result<()> {
        self.until_notices -= 1;
        if self.until_notices == 0 {
            self.take_notices()?;
        }
        if self.drain(done)? {
            return Ok(());
        }
        if self.session.is_none() {
            self.try_connect(timeout)?;
            return Ok(());
        }
        let pending = self.queues.iter().any(|queue| queue.ring.arm(&self.memory));
        if !pending && !self.wait(timeout)? {
            // Entries that the daemon published before it went are as good as any.
            self.drain(done)?;
            self.lose();
            return Ok(());
        }
        self.drain(done)?;
        Ok(())
    }

    fn lose(&mut self) {
        self.session = None;
        self.lost_at = Instant::now();
        self.next_attempt = self.lost_at;
    }

    /// Takes the daemon's own messages; learns a new configuration.
    fn take_notices(&mut self) -> Result<()> {
        self.until_notices = NOTICES_EVERY;
        let Some(session) = &mut self.session else { return Ok(()) };
        match session.take_notices() {
            Ok(true) => {
                let config = session.config;
                self.learn(config)
            }
            Ok(false) => Ok(()),
            Err(e) => {
                self.last_error = Some(format!("{e:#}"));
                self.lose();
                Ok(())
            }
        }
    }

    /// A device may grow, and change in nothing else.
    fn learn(&mut self, config: DeviceConfig) -> Result<()> {
        let before = DeviceConfig { capacity: config.capacity, ..self.config };
        if config != before || config.capacity < self.config.capacity {
            bail!("the device has become another one: {config:?} instead of {:?}", self.config);
        }
        self.config = config;
        Ok(())
    }

    /// Sleeps until a queue is called, the daemon says something, the time is over (all true) or the connection is
    /// lost (false).
    fn wait(&mut self, timeout: Duration) -> Result<bool> {
        let Some(session) = &self.session else { return Ok(false) };
        let mut fds = vec![PollFd::new(session.socket(), PollFlags::POLLIN)];
        for doorbell in &session.doorbells {
            fds.push(PollFd::new(doorbell.call.as_fd(), PollFlags::POLLIN));
        }
        fds.extend(session.notices().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e).context("cannot wait for completions"),
        }
        for doorbell in &session.doorbells {
            // Empty where the queue was not called.
            let _ = doorbell.call.read();
        }
        // The daemon says nothing unasked here, so anything on the socket is its end.
        let lost = fds[0].any().unwrap_or(false);
        let said = fds.get(1 + session.doorbells.len()).is_some_and(|fd| fd.any().unwrap_or(false));
        if said && !lost {
            self.take_notices()?;
        }
        Ok(!lost)
    }

    fn try_connect(&mut self, timeout: Duration) -> Result<()> {
        let pause = self.next_attempt.saturating_duration_since(Instant::now());
        if !pause.is_zero() {
            std::thread::sleep(pause.min(timeout));
            if pause > timeout {
                return Ok(());
            }
        }
        self.next_attempt = Instant::now() + RECONNECT_PAUSE;
        let bases: Vec<u16> = self.queues.iter().map(|queue| queue.ring.restart_base(&self.memory)).collect();
        let guest = Guest { memory: &self.memory, layout: &self.layout, queues: self.options.queues };
        let attempt = Instant::now();
        match Session::open(&self.options.socket, &guest, &mut self.inflight, &bases) {
            Ok(session) => self.connected(session, attempt),
            Err(e) => {
                self.last_error = Some(format!("{e:#}"));
                Ok(())
            }
        }
    }

    fn connected(&mut self, session: Session, since: Instant) -> Result<()> {
        if session.features != self.features {
            let (now, before) = (session.features, self.features);
            bail!("the device came back as another one: features {now:#x} instead of {before:#x}");
        }
        self.learn(session.config)?;
        // The daemon may have completed something before the last message was answered.
        self.connected_at = since;
        self.reconnects.push(Reconnect { away: self.connected_at - self.lost_at, first_completion: None });
        self.session = Some(session);
        Ok(())
    }

    /// Takes all finished requests off the used rings. True if there were any.
    fn drain(&mut self, done: &mut Vec<Completion>) -> Result<bool> {
        let before = done.len();
        for index in 0..self.queues.len() {
            while let Some(used) = self.queues[index].ring.pop_used(&self.memory)? {
                done.push(self.finish(index, used.id, used.len)?);
            }
        }
        let any = done.len() > before;
        if any
            && self.session.is_some()
            && let Some(reconnect) = self.reconnects.last_mut()
            && reconnect.first_completion.is_none()
        {
            reconnect.first_completion = Some(self.connected_at.elapsed());
        }
        Ok(any)
    }

    fn finish(&mut self, index: usize, id: u32, len: u32) -> Result<Completion> {
        let queue = &mut self.queues[index];
        let step = u32::from(SLOT_DESCRIPTORS);
        let slot = (id / step) as usize;
        let operation = match queue.slots.get_mut(slot) {
            Some(entry) if id.is_multiple_of(step) => entry.take(),
            _ => None,
        };
        let Some(operation) = operation else {
            bail!("queue {index}: the device completed {id}, which is not the head of a request in flight")
        };
        queue.free.push(slot);
        let tag = Tag { queue: index, slot };
        let [status] = self.memory.read_array::<1>(self.layout.slot(index, slot).status);
        if len > operation.writable() {
            bail!("queue {index}: the device says it wrote {len} bytes for {operation:?}");
        }
        if status == STATUS_NONE {
            bail!("queue {index}: the device completed {operation:?} without a status");
        }
        Ok(Completion { tag, status })
    }

    /// Stops the queues in good order.
    pub fn close(mut self) -> Result<()> {
        match self.session.take() {
            Some(session) => session.close(),
            None => Ok(()),
        }
    }
}
