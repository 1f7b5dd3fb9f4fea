//! Background copying is limited for the cluster as a whole: what it may take is divided among the nodes whose
//! gateways have copies to make. Every node is told the same share, so one that begins to copy has its limit already;
//! until the next look the whole may be exceeded by it.

use super::View;
use crate::limits::{MIN_NODE_RATE, RATE_REST};
use levee_meta_state::Command;
use std::time::Instant;

/// When the share was last changed.
#[derive(Default)]
pub struct Shares(Option<Instant>);

impl Shares {
    pub fn share(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        let rested = self.0.is_none_or(|last| view.now.saturating_duration_since(last) >= RATE_REST);
        let busy = view.observed.repairing_nodes(view.now);
        let rate = view.policy.rate.map(|rate| share(rate, busy));
        // A change concerns every node's intent: not at each of many ups and downs.
        if rested && rate != view.state.background_rate() {
            self.0 = Some(view.now);
            commands.push(Command::SetBackgroundRate { rate });
        }
    }
}

fn share(rate: u64, busy: usize) -> u64 {
    (rate / busy.max(1) as u64).max(MIN_NODE_RATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_nodes_share_and_none_is_left_without() {
        assert_eq!([share(10 << 20, 0), share(10 << 20, 1), share(10 << 20, 4)], [10 << 20, 10 << 20, 10 << 18]);
        assert_eq!(share(1, 1000), MIN_NODE_RATE);
    }
}
