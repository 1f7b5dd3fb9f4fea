//! The virtio-blk driver loop, one thread per queue, on crate `virtio-driver`.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use virtio_driver::{
    VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkReqBuf, VirtioBlkTransport,
    VirtioFeatureFlags,
};

use super::latency::Latencies;
use super::{LoadOptions, Pattern, Until};
use crate::limits::{LOAD_MAX_DEPTH, LOAD_RING_SIZE, LOAD_STALL, MAX_QUEUES};
use crate::rng::Rng;
use levee_frontend::GuestMemory;

/// A request's buffer and when it was submitted, or due.
type Mark = (usize, Instant);
type Queue = VirtioBlkQueue<'static, Mark>;

fn connect(socket: &Path) -> Result<Box<VirtioBlkTransport>> {
    let features = VirtioFeatureFlags::VERSION_1.bits()
        | VirtioFeatureFlags::RING_EVENT_IDX.bits()
        | VirtioBlkFeatureFlags::MQ.bits()
        | VirtioBlkFeatureFlags::FLUSH.bits();
    let path = socket.to_str().with_context(|| format!("{} is not a path in UTF-8", socket.display()))?;
    let transport = VhostUser::<VirtioBlkConfig, VirtioBlkReqBuf>::new(path, features)
        .with_context(|| format!("cannot use the vhost-user device at {path}"))?;
    Ok(Box::new(transport))
}

/// Bytes of the device behind a socket.
pub fn capacity(socket: &Path) -> Result<u64> {
    config_capacity(&*connect(socket)?)
}

fn config_capacity(transport: &VirtioBlkTransport) -> Result<u64> {
    let config = transport.get_config().context("cannot read the device's configuration")?;
    u64::from(config.capacity).checked_mul(512).context("the device's capacity is out of range")
}

/// Runs the load on all queues; the latencies of all requests and the time it took.
pub fn drive(options: &LoadOptions) -> Result<(Latencies, Duration)> {
    ensure!((1..=MAX_QUEUES).contains(&options.queues), "--queues must be 1 to {MAX_QUEUES}");
    ensure!((1..=LOAD_MAX_DEPTH).contains(&options.depth), "--qd must be 1 to {LOAD_MAX_DEPTH}");
    let mut transport = connect(&options.socket)?;
    let capacity = config_capacity(&*transport)?;
    let area = options.area.unwrap_or(capacity);
    ensure!(area <= capacity, "the device has {capacity} bytes, fewer than the {area} asked for");
    let blocks = area / options.block as u64;
    ensure!(blocks >= options.queues as u64, "the area of {area} bytes is too small for the load");
    let per_queue = options.depth * options.block;
    let memory = GuestMemory::new(options.queues * per_queue)?;
    fill_randomly(&memory, options.queues * per_queue);
    transport
        .map_mem_region(memory.address() as usize, options.queues * per_queue, memory.raw_fd(), 0)
        .context("the device refused the memory for data")?;
    let queues =
        Queue::setup_queues(&mut *transport, options.queues, LOAD_RING_SIZE).context("cannot set up the queues")?;
    let transport = &*transport;
    let started = Instant::now();
    let results: Vec<Result<Latencies>> = std::thread::scope(|scope| {
        let spawn = |(index, queue)| {
            let places = Places::new(options, index, blocks);
            let buffers = memory.address() + (index * per_queue) as u64;
            let pace = options.rate.map(|rate| Pace::new(rate / options.queues as f64, started));
            scope.spawn(move || Worker { options, transport, queue, index, places, buffers, started, pace }.run())
        };
        let threads: Vec<_> = queues.into_iter().enumerate().map(spawn).collect();
        let join =
            |t: std::thread::ScopedJoinHandle<'_, _>| t.join().unwrap_or_else(|_| bail!("a queue's thread panicked"));
        threads.into_iter().map(join).collect()
    });
    let elapsed = started.elapsed();
    let mut all = Latencies::default();
    for result in results {
        all.add(&result?);
    }
    Ok((all, elapsed))
}

/// Data that does not compress, so that no layer below can be clever about it.
fn fill_randomly(memory: &GuestMemory, len: usize) {
    let mut rng = Rng::new(len as u64);
    let mut page = [0; 512];
    for at in (0..len).step_by(page.len()) {
        for word in page.chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next_u64().to_le_bytes());
        }
        memory.write(at, &page);
    }
}

/// Where the requests of one queue go.
struct Places {
    pattern: Pattern,
    block: u64,
    /// The queue's share of the area, in blocks, for sequential patterns; all of it for random ones.
    first: u64,
    blocks: u64,
    next: u64,
    once: bool,
    rng: Rng,
}

impl Places {
    fn new(options: &LoadOptions, queue: usize, blocks: u64) -> Places {
        let (queues, queue) = (options.queues as u64, queue as u64);
        let share = |n: u64| blocks * n / queues;
        let random = options.pattern.is_random();
        let (first, end) = if random { (0, blocks) } else { (share(queue), share(queue + 1)) };
        Places {
            pattern: options.pattern,
            block: options.block as u64,
            first,
            blocks: end - first,
            next: 0,
            once: matches!(options.until, Until::Covered),
            rng: Rng::new(queue + 1),
        }
    }

    /// Offset of the next request, in bytes; none when the area is covered.
    fn next(&mut self) -> Option<u64> {
        let block = if self.pattern.is_random() {
            self.rng.below(self.blocks)
        } else {
            if self.once && self.next == self.blocks {
                return None;
            }
            let at = self.next % self.blocks;
            self.next += 1;
            at
        };
        Some((self.first + block) * self.block)
    }

    fn is_write(&mut self) -> bool {
        match self.pattern {
            Pattern::Randrw => self.rng.below(2) == 0,
            other => other.is_write(),
        }
    }
}

/// When the requests of a paced queue are due.
struct Pace {
    every: Duration,
    due: Instant,
}

impl Pace {
    fn new(rate: f64, start: Instant) -> Pace {
        Pace { every: Duration::from_secs_f64(1.0 / rate), due: start }
    }

    /// When the next request was due, if that is not in the future.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        (self.due <= now).then(|| {
            let due = self.due;
            self.due += self.every;
            due
        })
    }
}

/// One queue and the thread that drives it.
struct Worker<'a> {
    options: &'a LoadOptions,
    transport: &'a VirtioBlkTransport,
    queue: Queue,
    index: usize,
    places: Places,
    /// Address of this queue's buffers.
    buffers: u64,
    started: Instant,
    pace: Option<Pace>,
}

impl Worker<'_> {
    fn run(mut self) -> Result<Latencies> {
        let notifier = self.transport.get_submission_notifier(self.index);
        let mut latencies = Latencies::default();
        let mut idle: Vec<usize> = (0..self.options.depth).collect();
        loop {
            let is_over = self.submit_all(&mut idle)?;
            if self.queue.avail_notif_needed() {
                notifier.notify().context("cannot notify the device")?;
            }
            let in_flight = self.options.depth - idle.len();
            if is_over && in_flight == 0 {
                return Ok(latencies);
            }
            let next = self.pace.as_ref().filter(|_| !is_over && !idle.is_empty()).map(|pace| pace.due);
            self.wait(next, in_flight)?;
            let now = Instant::now();
            for completion in self.queue.completions() {
                let (slot, submitted) = completion.context;
                ensure!(completion.ret == 0, "the device failed a request: {}", Errno::from_raw(-completion.ret));
                latencies.record(now - submitted);
                idle.push(slot);
            }
        }
    }

    /// Submits what may be; whether nothing is left to submit, ever.
    fn submit_all(&mut self, idle: &mut Vec<usize>) -> Result<bool> {
        while let Some(slot) = idle.last().copied() {
            if !self.may_go_on() {
                return Ok(true);
            }
            let now = Instant::now();
            let begun = match &mut self.pace {
                Some(pace) => pace.take(now),
                None => Some(now),
            };
            let Some(begun) = begun else { return Ok(false) };
            let Some(offset) = self.places.next() else { return Ok(true) };
            idle.pop();
            self.submit(slot, offset, begun)?;
        }
        Ok(false)
    }

    fn may_go_on(&self) -> bool {
        match &self.options.until {
            Until::Elapsed(time) => self.started.elapsed() < *time,
            Until::Covered => true,
            Until::Told(stop) => !stop.is_told(),
        }
    }

    fn submit(&mut self, slot: usize, offset: u64, begun: Instant) -> Result<()> {
        let len = self.options.block;
        let buffer = (self.buffers + (slot * len) as u64) as *mut u8;
        let context = (slot, begun);
        let is_write = self.places.is_write();
        // SAFETY: the buffer lies in the mapped memory that outlives the queues; each slot has its own and
        // is in flight once at most, and nothing here looks at the data.
        let submitted = unsafe {
            if is_write {
                self.queue.write_raw(offset, buffer, len, context)
            } else {
                self.queue.read_raw(offset, buffer, len, context)
            }
        };
        submitted.context("cannot queue a request")
    }

    /// Sleeps until the device has completed something, or the next request is due.
    fn wait(&mut self, next: Option<Instant>, in_flight: usize) -> Result<()> {
        let call = self.transport.get_completion_fd(self.index);
        let stall = Instant::now() + LOAD_STALL;
        self.queue.set_used_notif_enabled(true);
        while !self.queue.completions().has_next() {
            let now = Instant::now();
            if next.is_some_and(|next| next <= now) {
                break;
            }
            if now >= stall && in_flight > 0 {
                bail!("the device completed nothing for {} s: is its daemon still there?", LOAD_STALL.as_secs())
            }
            let limit = next.map_or(stall, |next| next.min(stall)).saturating_duration_since(now);
            let mut fds = [PollFd::new(call.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut fds, Some(TimeSpec::from_duration(limit)), None) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => drop(call.read()),
                Err(e) => return Err(e).context("cannot wait for the device"),
            }
        }
        self.queue.set_used_notif_enabled(false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pattern: Pattern, queues: usize) -> LoadOptions {
        LoadOptions {
            socket: "unused".into(),
            pattern,
            block: 4096,
            depth: 1,
            queues,
            rate: None,
            until: Until::Covered,
            area: None,
        }
    }

    #[test]
    fn sequential_queues_cover_the_area_once() {
        let o = options(Pattern::Write, 3);
        let mut seen = Vec::new();
        for queue in 0..3 {
            let mut places = Places::new(&o, queue, 10);
            seen.extend(std::iter::from_fn(|| places.next()));
        }
        assert_eq!(seen, (0..10).map(|b| b * 4096).collect::<Vec<_>>());
    }

    #[test]
    fn paced_requests_are_due_at_even_distances_however_late_they_go_out() {
        let start = Instant::now();
        let mut pace = Pace::new(1000.0, start);
        assert_eq!(pace.take(start), Some(start));
        assert_eq!(pace.take(start), None);
        let late = start + Duration::from_millis(3);
        let due: Vec<_> = std::iter::from_fn(|| pace.take(late)).map(|due| (due - start).as_millis()).collect();
        assert_eq!(due, [1, 2, 3]);
    }

    #[test]
    fn a_mixed_load_reads_and_writes() {
        let mut places = Places::new(&options(Pattern::Randrw, 1), 0, 7);
        let writes = (0..1000).filter(|_| places.is_write()).count();
        assert!((400..600).contains(&writes), "{writes}");
        assert!(!Places::new(&options(Pattern::Randread, 1), 0, 7).is_write());
    }

    #[test]
    fn random_places_stay_within_the_area() {
        let mut places = Places::new(&options(Pattern::Randread, 2), 1, 7);
        assert!((0..1000).all(|_| places.next().is_some_and(|at| at < 7 * 4096 && at % 4096 == 0)));
    }
}
