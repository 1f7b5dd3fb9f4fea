//! Moves of a rebalance that get nowhere make room for others.

use super::View;
use crate::limits::MOVE_STALL;
use levee_meta_state::Command;
use levee_proto::ReplicaId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Since when each move has been under way, as far as this term reaches back.
#[derive(Default)]
pub struct Moves(BTreeMap<ReplicaId, Instant>);

impl Moves {
    pub fn watch(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        let under_way: BTreeSet<ReplicaId> = view.state.moves_under_way().map(|one| one.replica).collect();
        self.0.retain(|replica, _| under_way.contains(replica));
        for replica in under_way {
            self.0.entry(replica).or_insert(view.now);
        }
        let stalled = |since: &Instant| view.now.saturating_duration_since(*since) >= MOVE_STALL;
        let replicas: BTreeSet<ReplicaId> =
            self.0.iter().filter(|(_, since)| stalled(since)).map(|(r, _)| *r).collect();
        if !replicas.is_empty() {
            commands.push(Command::SkipMoves { replicas });
        }
    }
}
