//! Volumes that nobody uses, in their turn to be scrubbed: no gateway reads their copies back, and clones read them.
//!
//! Each has one minute in a period, which follows from its id alone: nothing has to be remembered from one leader to the next, and
//! the turns of many are spread. One that is in use then is scrubbed by its own gateway; one whose turn nobody tended waits for the next.

use super::View;
use crate::limits::{MAX_SCRUBS, MAX_SCRUBS_DUE, SCRUB_PERIOD_MINUTES};
use levee_proto::VolumeId;
use std::collections::{BTreeSet, VecDeque};

/// Multiples of it are spread evenly over all 64 bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The turns that this leader tends.
#[derive(Default)]
pub struct Scrubs {
    /// The last minute that was looked at.
    minute: Option<u64>,
    due: VecDeque<VolumeId>,
    /// Opened for it, by this leader.
    running: BTreeSet<VolumeId>,
}

impl Scrubs {
    /// Whether a volume was opened to be scrubbed.
    pub fn is_running(&self, id: VolumeId) -> bool {
        self.running.contains(&id)
    }

    /// Those that are not attached any more were scrubbed, or somebody uses them.
    pub fn keep_running(&mut self, is_attached: impl Fn(VolumeId) -> bool) {
        self.running.retain(|id| is_attached(*id));
    }

    /// Volumes to be opened now.
    pub fn begin(&mut self, view: &View<'_>, may_begin: impl Fn(VolumeId) -> bool) -> Vec<VolumeId> {
        let minute = view.now_ms / 60_000;
        if self.minute.replace(minute) != Some(minute) {
            let turn = minute % SCRUB_PERIOD_MINUTES;
            self.due.extend(view.state.unused_volumes().filter(|id| turn_of(*id) == turn));
            self.due.truncate(MAX_SCRUBS_DUE);
        }
        let mut begun = vec![];
        while self.running.len() < MAX_SCRUBS
            && let Some(id) = self.due.pop_front()
        {
            if may_begin(id) {
                self.running.insert(id);
                begun.push(id);
            }
        }
        begun
    }
}

/// The minute of the period in which it is a volume's turn.
fn turn_of(id: VolumeId) -> u64 {
    ((id.0.wrapping_mul(SPREAD) >> 32) * SCRUB_PERIOD_MINUTES) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_over_the_period() {
        let mut by_day = [0; 7];
        for id in 1..=7000 {
            by_day[(turn_of(VolumeId(id)) / (24 * 60)) as usize] += 1;
        }
        assert!(by_day.iter().all(|n| (900..1100).contains(n)), "{by_day:?}");
    }
}
