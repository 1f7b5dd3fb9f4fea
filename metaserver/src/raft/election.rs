//! When a member tries to become the leader.
//!
//! openraft's own timer is off: its delay is drawn once for the life of a process, and a member that was cut off comes back
//! with a higher term and deposes a leader that works. Here a member that has not heard a leader for the lease and a random
//! delay first asks the others whether they have; only if a majority has not, it stands for election. A member that was stopped
//! itself, so that the silence is its own, waits for another lease.

use super::routes::Canvass;
use super::{LogStore, Membership, Network, Raft};
use crate::limits::*;
use openraft::ServerState;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use uuid::Uuid;

/// When a leader was heard last.
#[derive(Clone)]
pub struct Contact(Arc<Mutex<Instant>>);

impl Default for Contact {
    fn default() -> Contact {
        Contact(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Contact {
    pub fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub fn silence(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// Runs as long as consensus does.
pub async fn run(raft: Raft, network: Network, log: LogStore, contact: Contact) {
    let mut looked = Instant::now();
    let mut attempt = Instant::now() + delay();
    loop {
        tokio::time::sleep(ELECTION_LOOK).await;
        let stopped = looked.elapsed() > ELECTION_PAUSE;
        looked = Instant::now();
        let metrics = raft.metrics().borrow().clone();
        if metrics.running_state.is_err() {
            return;
        }
        let own = network.directory.own.id;
        let voter = metrics.membership_config.voter_ids().any(|id| id == own);
        if stopped || (voter && metrics.state == ServerState::Leader) {
            contact.touch();
        }
        let alone = metrics.membership_config.voter_ids().all(|id| id == own);
        let silent = alone || contact.silence() >= LEASE;
        if !voter || metrics.state == ServerState::Leader || !silent {
            attempt = Instant::now() + delay();
            continue;
        }
        if !alone
            && (Instant::now() < attempt || !majority_is_without(&network, &metrics.membership_config, &log).await)
        {
            continue;
        }
        // Whoever wins is heard soon; else the next attempt comes after another delay.
        attempt = Instant::now() + VOTE_WAIT + delay();
        let _ = raft.trigger().elect().await;
        if alone {
            tokio::time::sleep(VOTE_WAIT).await;
        }
    }
}

/// Each attempt draws another one, so that two members do not stand against each other for ever.
fn delay() -> Duration {
    let range = ELECTION_DELAY_MS.end - ELECTION_DELAY_MS.start;
    let drawn = u64::try_from(Uuid::new_v4().as_u128() % u128::from(range)).unwrap_or(0);
    Duration::from_millis(ELECTION_DELAY_MS.start + drawn)
}

/// Whether most members have no leader either, and know no more than this one. One that hears a leader is enough to wait
/// on, and soon to ask again: the old leader itself may take its time.
async fn majority_is_without(network: &Network, membership: &Membership, log: &LogStore) -> bool {
    let own = network.directory.own.id;
    let last = log.last();
    let mut asked = JoinSet::new();
    let others: BTreeMap<u64, String> =
        membership.nodes().filter(|(id, _)| **id != own).map(|(id, node)| (*id, node.addr.clone())).collect();
    for (id, url) in others {
        let peer = network.peer(id, &url);
        asked.spawn(async move { (id, peer.canvass().await) });
    }
    let mut without = BTreeSet::from([own]);
    let configs = membership.membership().get_joint_config();
    let enough = |without: &BTreeSet<u64>| configs.iter().all(|c| without.intersection(c).count() * 2 > c.len());
    // The old leader may not answer: nobody waits for it.
    while let Some(answer) = asked.join_next().await {
        let Ok((id, Some(Canvass { silent, last: theirs }))) = answer else { continue };
        if !silent {
            return false;
        }
        if theirs <= last {
            without.insert(id);
        }
        if enough(&without) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_differ_within_their_range() {
        let drawn: BTreeSet<Duration> = (0..50).map(|_| delay()).collect();
        assert!(drawn.len() > 5);
        let range = Duration::from_millis(ELECTION_DELAY_MS.start)..Duration::from_millis(ELECTION_DELAY_MS.end);
        assert!(drawn.iter().all(|d| range.contains(d)));
    }
}
