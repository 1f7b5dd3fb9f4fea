//! Which of two processes is a node, when both say that they are.
//!
//! A daemon that registers under the name of a node that is alive is either the node's next process, whose predecessor has died just now, or
//! a stranger: a copied configuration is enough. A process that holds a lock which the other held shows that the other is dead;
//! locks are told apart by the host's boot and by the file, so that a disk or a folder that was copied, or that two
//! hosts can reach, shows nothing. Of two processes one of which has none of the node's disks the one with a disk
//! is the node. Everybody else has to wait until nothing is heard of the node any more.

use crate::limits::STRANGER_WORD;
use crate::observe::{Heard, Observed};
use levee_meta_state::State;
use levee_proto::api::{NodeState, Problem, ProblemKind, RegisterNode};
use levee_proto::{DiskId, NodeId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The node's disks that come with a process.
pub fn brought(state: &State, node: NodeId, request: &RegisterNode) -> BTreeSet<DiskId> {
    let at_hand = request.disks.iter().map(|disk| disk.uuid).filter(|uuid| !request.missing.contains(uuid));
    state.disks_among(node, at_hand)
}

/// Refuses a process that would take a node over from one that may be alive; the node, if it is known that there are two.
pub fn check(
    state: &State,
    observed: &Observed,
    request: &RegisterNode,
    now: Instant,
) -> Result<(), (Problem, Option<NodeId>)> {
    let known = state.node_named(&request.name).and_then(|id| Some((id, state.node(id)?)));
    let Some((id, node)) = known.filter(|(_, node)| node.incarnation != request.incarnation) else { return Ok(()) };
    let brings = brought(state, id, request);
    match observed.node_state(id, now) {
        NodeState::Down => Ok(()),
        NodeState::Unknown if !brings.is_empty() => Ok(()),
        NodeState::Unknown => {
            let detail = format!("whether node '{}' is alive is not known yet: try again in a moment", request.name);
            Err((Problem::new(ProblemKind::Unavailable, detail), None))
        }
        NodeState::Up if observed.nodes.get(&id).is_none_or(|heard| follows(heard, &request.locks, &brings)) => Ok(()),
        NodeState::Up => {
            let detail = format!(
                "node '{}' is alive, and is another daemon than this one (its admin endpoint is {}): give each node a \
                 name of its own, or stop the other one first",
                request.name, node.admin_url
            );
            Err((Problem::new(ProblemKind::Fenced, detail), Some(id)))
        }
    }
}

/// Whether a process with these locks and disks takes the place of one that was heard of.
fn follows(heard: &Heard, locks: &[String], brings: &BTreeSet<DiskId>) -> bool {
    if locks.iter().any(|lock| heard.locks.contains(lock)) {
        return true;
    }
    // One that names no locks is of an older version: its disks have to do.
    let unnamed = locks.is_empty() || heard.locks.is_empty();
    !brings.is_empty() && (unnamed || heard.holds.is_empty())
}

/// A process that was refused, because the node is another.
pub(crate) struct Stranger {
    at: Instant,
    admin_url: String,
}

impl Observed {
    /// Notes that a stranger was refused; whether it is news.
    pub fn refused(&mut self, node: NodeId, request: &RegisterNode, now: Instant) -> bool {
        let stranger = Stranger { at: now, admin_url: request.admin_url.clone() };
        let before = self.strangers.insert(node, stranger);
        before.is_none_or(|before| now.saturating_duration_since(before.at) >= STRANGER_WORD)
    }

    /// Who else says lately that it is this node: one line for a person.
    pub fn stranger(&self, node: NodeId, now: Instant) -> Option<String> {
        let stranger = self.strangers.get(&node)?;
        let ago: Duration = now.saturating_duration_since(stranger.at);
        (ago < STRANGER_WORD).then(|| told(&stranger.admin_url))
    }
}

/// What is said of a stranger.
pub fn told(admin_url: &str) -> String {
    format!("a second daemon with this name ({admin_url}) was refused: give it a name of its own")
}
