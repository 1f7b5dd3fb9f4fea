//! The background task of a shard: zeroed segments ahead of need, checkpoints, compaction.
//!
//! It does one thing at a time, so checkpoints and compaction never meet.

use super::checkpoint::{self, Outcome};
use super::compact;
use super::limits::*;
use super::shard::Inner;
use super::state::State;
use crate::ports::{Disk, Runtime};
use crate::sync::timeout;
use std::rc::Rc;
use std::time::Duration;

#[derive(Debug, PartialEq, Eq)]
enum Action {
    Zero(u32),
    Checkpoint,
    Compact(u32),
    /// The checkpoint before was given up: its segments are free now.
    FreeOld,
    /// Nothing can be done now, but somebody waits for space: look again soon.
    WaitForSpace,
    Idle,
    Stop,
}

/// Runs until the shard stops or fails.
pub async fn run<D: Disk, R: Runtime>(inner: Rc<Inner<D, R>>) {
    loop {
        let changed = inner.background.listen();
        let (action, unblocked) = {
            let s = &mut *inner.state.borrow_mut();
            (decide(s, inner.rt.now()), s.may_open())
        };
        if unblocked {
            // The log may be waiting for a segment that has just become free.
            inner.work.notify();
        }
        let result = match action {
            Action::Zero(segment) => inner.zero(segment).await,
            Action::Checkpoint => run_checkpoint(&inner).await,
            Action::Compact(segment) => {
                compact::empty(&inner, segment).await;
                Ok(())
            }
            Action::WaitForSpace => {
                let pause = Duration::from_millis(SHORT_OF_SPACE_POLL_MS);
                timeout(&inner.rt, pause, changed).await;
                Ok(())
            }
            Action::FreeOld => Ok(()),
            Action::Idle => {
                idle(&inner, changed).await;
                Ok(())
            }
            Action::Stop => return,
        };
        if let Err(e) = result {
            return inner.fail("background writes", &e);
        }
    }
}

/// Waits for a change, or until it is worth looking for room below the disk again.
async fn idle<D: Disk, R: Runtime>(inner: &Inner<D, R>, changed: impl Future<Output = ()>) {
    let is_starved = inner.state.borrow().segments.is_starved();
    match is_starved {
        true => _ = timeout(&inner.rt, Duration::from_millis(NO_SPACE_PAUSE_MS), changed).await,
        false => changed.await,
    }
}

fn decide(s: &mut State, now: Duration) -> Action {
    if s.failed.is_some() || s.stopping {
        return Action::Stop;
    }
    s.segments.reclaim_released();
    if s.checkpoint.requested > s.checkpoint.served {
        return Action::Checkpoint;
    }
    if s.wants_ready()
        && s.may_zero(now)
        && let Some(segment) = s.segments.take_unused()
    {
        return Action::Zero(segment);
    }
    if s.checkpoint_due() && !s.checkpoint.no_room {
        return Action::Checkpoint;
    }
    if !s.is_low() {
        return Action::Idle;
    }
    if s.segments.drop_retained() { Action::FreeOld } else { make_space(s) }
}

/// Emptied segments become free with a checkpoint. One is worth its cost when it frees several, or
/// when nothing else can be done.
fn make_space(s: &State) -> Action {
    let dead = s.segments.dead();
    let enough = if s.is_stalled() { s.checkpoint_need() } else { 2 * s.checkpoint_need() + s.segments.move_reserve() };
    if dead >= enough {
        return Action::Checkpoint;
    }
    let full = s.segments.blocks() * COMPACT_BELOW_PERCENT / 100;
    match s.segments.emptiest().filter(|e| s.segments.live(*e) < full) {
        // The open segment may be filled by others, so compaction needs one of its own.
        Some(segment) if s.moves_may_open() => Action::Compact(segment),
        _ if dead > 0 => Action::Checkpoint,
        _ if s.is_stalled() || !s.moves.is_empty() => Action::WaitForSpace,
        _ => Action::Idle,
    }
}

async fn run_checkpoint<D: Disk, R: Runtime>(inner: &Inner<D, R>) -> std::io::Result<()> {
    let asked = inner.state.borrow().checkpoint.requested;
    let outcome = checkpoint::write(inner).await?;
    {
        let s = &mut *inner.state.borrow_mut();
        s.checkpoint.served = asked;
        s.checkpoint.no_room = outcome == Outcome::NoRoom;
    }
    inner.work.notify();
    inner.checkpoints.notify();
    if outcome == Outcome::NoRoom {
        tracing::warn!(shard = inner.geometry.shard, "no room for a checkpoint: delete or discard data");
        inner.rt.sleep(Duration::from_millis(SHORT_OF_SPACE_POLL_MS)).await;
    }
    Ok(())
}
