//! Flow control of what nobody waits for: copying and scrubbing.
//!
//! While guests do nothing, many steps run at once, as fast as the disks go. While they work, few and small steps run at a
//! time, and after each one as long again, twice, is left to them: whatever is the bottleneck, background work takes a
//! bounded share of it. The pause is bounded, too: with steps of 1 ms it makes about 80 MB/s, with steps of 10 ms still 13,
//! as a volume that is not repaired for days is worse than a slow one. On top comes the rate that the meta server gives out, so that many gateways
//! together do not become a storm.
//!
//! While a replica set is being changed, each write waits for the slowest of the members that stay, one of which may just have been
//! filled: for that moment nothing is copied, so that a disk that others are still copied to does not hold guests up. The moment is
//! bounded: repair goes on while no meta server answers.

use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::{Event, timeout};
use std::cell::Cell;
use std::time::Duration;

/// Steps at a time while no guest works.
const MAX_STEPS: u32 = 16;
/// And while one does.
const BUSY_STEPS: u32 = 2;
/// Nothing is copied for so long at most while a replica set is being changed; and what is being copied then is waited for so long.
const MAX_STILL: Duration = Duration::from_millis(250);
const SETTLE: Duration = Duration::from_millis(100);
/// Blocks in one step, at most: while no guest works, and while one does. A few short of a megabyte: what one step copies is one
/// batch of the newcomer's log, and with its header's two blocks a segment of 2^n MiB then holds 2^n of them. With whole
/// megabytes the last place of each segment stays empty, a quarter of the disk where segments have 4 MiB.
const IDLE_BLOCKS: u32 = 252;
const BUSY_BLOCKS: u32 = 32;
const _: () = assert!(IDLE_BLOCKS <= levee_proto::wire::MAX_BLOCKS);
/// While guests work, they are left alone for so many times as long as a step took.
const REST: u32 = 2;
/// Never longer than this: work that takes for ever has no use.
const MAX_REST: Duration = Duration::from_millis(10);
/// After a guest's request it counts as working for so long: also one that asks now and then is not to find sixteen
/// megabytes before it in a disk's queue.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// The state of one gateway's background work.
#[derive(Default)]
pub(super) struct Background {
    /// Guests' requests so far.
    pub guest_requests: Cell<u64>,
    seen: Cell<u64>,
    busy_until: Cell<Duration>,
    running: Cell<u32>,
    /// Bytes per second; none: as fast as it goes.
    rate: Cell<Option<u64>>,
    /// When the rate allows the next step.
    next: Cell<Duration>,
    /// Until then no step begins.
    still_until: Cell<Duration>,
    freed: Event,
}

/// No step begins while it lives, within bounds.
pub(super) struct Still<'a>(&'a Background);

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.0.still_until.set(Duration::ZERO);
        self.0.freed.notify();
    }
}

/// A step under way.
pub(super) struct Step<'a> {
    background: &'a Background,
    begun: Duration,
    /// Most blocks to move.
    pub blocks: u32,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let running = &self.background.running;
        running.set(running.get() - 1);
        self.background.freed.notify();
    }
}

impl Background {
    /// A guest asks for something.
    pub fn guest(&self) {
        self.guest_requests.set(self.guest_requests.get() + 1);
    }

    fn is_busy(&self, now: Duration) -> bool {
        let requests = self.guest_requests.get();
        if self.seen.replace(requests) != requests {
            self.busy_until.set(now + BUSY_FOR);
        }
        now < self.busy_until.get()
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Bytes per second that background work of this volume may move; none: no limit.
    pub fn set_background_rate(&self, rate: Option<u64>) {
        self.0.background.rate.set(rate.filter(|r| *r > 0));
    }

    /// Has background work make way for a moment, if a guest works.
    pub(super) async fn hold_still(&self) -> Option<Still<'_>> {
        let (b, now) = (&self.0.background, self.0.rt.now());
        if !b.is_busy(now) {
            return None;
        }
        b.still_until.set(now + MAX_STILL);
        let still = Still(b);
        while b.running.get() > 0 && self.0.rt.now() < now + SETTLE {
            self.0.rt.sleep(Duration::from_millis(1)).await;
        }
        Some(still)
    }

    /// Waits until a step may be made.
    pub(super) async fn begin_step(&self) -> Step<'_> {
        let b = &self.0.background;
        loop {
            let freed = b.freed.listen();
            let now = self.0.rt.now();
            let still = b.still_until.get().saturating_sub(now);
            if !still.is_zero() {
                timeout(&self.0.rt, still, freed).await;
                continue;
            }
            let is_busy = b.is_busy(now);
            let most = if is_busy { BUSY_STEPS } else { MAX_STEPS };
            if b.running.get() < most {
                b.running.set(b.running.get() + 1);
                return Step { background: b, begun: now, blocks: if is_busy { BUSY_BLOCKS } else { IDLE_BLOCKS } };
            }
            freed.await;
        }
    }

    /// A step has moved so many bytes: leaves guests, and others, their share before the next one.
    pub(super) async fn end_step(&self, step: Step<'_>, bytes: u64) {
        let b = &self.0.background;
        let now = self.0.rt.now();
        let mut rest = Duration::ZERO;
        if b.is_busy(now) {
            rest = ((now - step.begun) * REST).min(MAX_REST);
        }
        if let Some(rate) = b.rate.get() {
            let takes = Duration::from_nanos((u128::from(bytes) * 1_000_000_000 / u128::from(rate)) as u64);
            b.next.set(b.next.get().max(now) + takes);
            rest = rest.max(b.next.get() - now);
        }
        if !rest.is_zero() {
            self.0.rt.sleep(rest).await;
        }
    }
}
