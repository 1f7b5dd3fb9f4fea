//! Leaving disks behind that do not answer in time.
//!
//! A disk that is slow is left behind only for the sake of guests, and where they are better off without it: when a chunk would have
//! too few copies left, it is waited for. That its daemon is there at all, the link finds out, and one of which nothing
//! completes any more is given up by its daemon.

use super::chunk::{Chunk, Stage};
use super::report::count;
use super::session::Session;
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::timeout;
use std::rc::Rc;
use std::time::Duration;
use tracing::warn;

/// A request that no guest waits for, or that is made of a disk that cannot be done without, may take so many times the usual answer
/// time: longer than a daemon lets one operation of a disk take before it gives the disk up.
const PATIENCE: u32 = 40;
/// How often it is looked at whether a late disk can still not be done without.
const SPARED: Duration = Duration::from_millis(250);
/// How often outstanding requests are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(25);
/// The longest sleep of the watchdog while no request is outstanding.
const IDLE_LOOK: Duration = Duration::from_secs(5);
/// The watchdog may wake so much later than it wanted to: beyond that, it was this process that was held up, and the time
/// does not count against daemons.
const WATCH_SLACK: Duration = Duration::from_millis(100);

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Leaves daemons behind that do not answer in time.
    pub(super) fn spawn_watchdog(&self) {
        let this = self.clone();
        self.0.rt.spawn(async move {
            while !this.is_stopped() {
                let begun = this.0.rt.now();
                this.0.rt.sleep(WATCH_INTERVAL).await;
                let late = (this.0.rt.now() - begun).saturating_sub(WATCH_INTERVAL);
                let sessions: Vec<_> = this.0.sessions.borrow().values().cloned().collect();
                if sessions.iter().all(|s| s.is_idle()) {
                    let woken = this.0.woken.listen();
                    this.0.idle.set(true);
                    timeout(&this.0.rt, IDLE_LOOK, woken).await;
                    let now = this.0.rt.now();
                    this.0.sessions.borrow().values().for_each(|s| s.excuse_until(now));
                    continue;
                }
                if late > WATCH_SLACK {
                    sessions.iter().for_each(|s| s.excuse(late));
                }
                let now = this.0.rt.now();
                sessions.iter().for_each(|s| s.tell_late(now));
                for session in sessions.iter().filter(|s| this.is_too_late(s, now)) {
                    this.evict(session, now);
                }
            }
        });
    }

    /// Whether a disk takes so long to answer that it is better left behind.
    fn is_too_late(&self, session: &Session, now: Duration) -> bool {
        let limit = self.0.options.answer_timeout;
        if !session.is_overdue(now, limit, true) || session.spared_until.get() > now {
            return session.is_overdue(now, limit * PATIENCE, false);
        }
        if !self.is_needed(session) || crate::mutant!("a disk is left behind though it is needed") {
            return true;
        }
        session.spared_until.set(now + SPARED);
        if session.complain() {
            crate::reached!("slow disk waited for");
            let (volume, node, disk) = (&self.0.volume.name, session.node, session.disk);
            warn!(%volume, %node, %disk, "no answer in time; it is waited for, as other copies are too few");
        }
        session.is_overdue(now, limit * PATIENCE, false)
    }

    /// It did not answer in time.
    fn evict(&self, session: &Rc<Session>, now: Duration) {
        if session.is_up() {
            session.strike(now);
            count(&self.0.counters.evictions, 1);
        }
        self.lose(session, "no answer in time");
    }

    /// Whether a chunk cannot do without the disk.
    pub(super) fn is_needed(&self, session: &Session) -> bool {
        let needs = |c: &Rc<Chunk>| {
            let Some(i) = c.member_on(session.disk) else { return false };
            match c.stage() {
                Stage::InDoubt => !self.has_quorum_without(c, Some(i)),
                _ => c.needs(i, self.min_copies()),
            }
        };
        self.chunks().iter().any(needs)
    }
}
