//! What is done beside serving guests: replicas that leave disks, and how fast anything is copied.

use super::Control;
use crate::core::Command;
use crate::volume::Leaving;
use levee_proto::api::{EvacuateDisk, Intent, VolumeReport};
use std::cell::RefCell;
use std::sync::Arc;

/// The least that a volume may copy, bytes per second: a limit slows repair down, it does not stop it.
const MIN_RATE: u64 = 64 << 10;

/// What the cores were told last.
#[derive(Default)]
pub(super) struct Background {
    leaving: RefCell<Arc<Leaving>>,
    /// For the whole node, as the meta server wants it, bytes per second.
    node_rate: RefCell<Option<u64>>,
    /// What that leaves for each volume.
    volume_rate: RefCell<Option<u64>>,
}

impl Control {
    /// Passes on which replicas are to be put elsewhere, and keeps the limit for [`Control::share_background_rate`].
    pub(super) async fn follow_background(&self, intent: &Intent) {
        *self.background.node_rate.borrow_mut() = intent.background_rate;
        let disks = intent.evacuate.iter().map(|EvacuateDisk { disk, state }| (*disk, *state)).collect();
        let wanted = Leaving { disks, replicas: intent.moves_by_volume() };
        if **self.background.leaving.borrow() == wanted {
            return;
        }
        let wanted = Arc::new(wanted);
        *self.background.leaving.borrow_mut() = wanted.clone();
        self.cores.tell_all(|| Command::Leave(wanted.clone())).await;
    }

    /// Divides the node's limit among the volumes that have something to copy.
    pub(super) async fn share_background_rate(&self, volumes: &[VolumeReport]) {
        let copying = volumes.iter().filter(|v| v.degraded_chunks > 0 || v.leaving_replicas > 0).count();
        let rate = self.background.node_rate.borrow().map(|rate| share(rate, copying));
        if *self.background.volume_rate.borrow() == rate {
            return;
        }
        *self.background.volume_rate.borrow_mut() = rate;
        self.cores.tell_all(|| Command::BackgroundRate(rate)).await;
    }
}

fn share(rate: u64, volumes: usize) -> u64 {
    (rate / volumes.max(1) as u64).max(MIN_RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_divided_and_never_stops_repair() {
        assert_eq!(share(100 << 20, 0), 100 << 20);
        assert_eq!(share(100 << 20, 4), 25 << 20);
        assert_eq!(share(0, 3), MIN_RATE);
    }
}
