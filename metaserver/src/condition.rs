//! What is known about nodes beside whether they are heard of: dead, slow, cut off and restless are told apart.
//!
//! - *Partitioned*: what the meta servers hear and what other nodes see does not agree. Not a reason to give anything up.
//! - *Slow*: half of the other nodes wait long for it, or one of its disks does not answer.
//! - *Flapping*: it went away and came back again and again, and has not stayed for long since.

use crate::limits::{FLAP_REST, FLAP_WINDOW, FLAPS, LINK_PATIENCE, LINK_WORD, SLOW_DISK, SLOW_LINK};
use crate::observe::{Heard, Observed};
use levee_proto::NodeId;
use levee_proto::api::{LinkReport, NodeCondition, NodeState};
use std::time::Instant;

impl Observed {
    /// What is known of a node beside its state, and why: one line for a person.
    pub fn condition(&self, node: NodeId, now: Instant) -> (NodeCondition, Option<String>) {
        if let Some(detail) = self.partition(node, now) {
            return (NodeCondition::Partitioned, Some(detail));
        }
        if self.node_state(node, now) != NodeState::Up {
            return (NodeCondition::Fine, None);
        }
        if let Some(detail) = self.flaps(node, now) {
            return (NodeCondition::Flapping, Some(detail));
        }
        match self.slowness(node, now) {
            Some(detail) => (NodeCondition::Slow, Some(detail)),
            None => (NodeCondition::Fine, None),
        }
    }

    /// What the nodes that are up said lately of their links to this one.
    fn views_of(&self, node: NodeId, now: Instant) -> Vec<(NodeId, &LinkReport)> {
        let fresh = |heard: &Heard| !heard.stopping && now.saturating_duration_since(heard.at) < LINK_WORD;
        let others = self.nodes.iter().filter(|(id, heard)| **id != node && fresh(heard));
        others.filter_map(|(id, heard)| Some((*id, heard.links.get(&node)?))).collect()
    }

    pub fn partition(&self, node: NodeId, now: Instant) -> Option<String> {
        let views = self.views_of(node, now);
        let all = views.len();
        match self.node_state(node, now) {
            _ if self.is_stopped(node) => None,
            // Right after it has died others have heard it more lately than the meta servers.
            NodeState::Down if self.silence(node, now) < self.down_after() + LINK_PATIENCE => None,
            NodeState::Down => {
                let up = views.iter().filter(|(_, link)| link.up).count();
                (up > 0).then(|| {
                    format!(
                        "{up} of {all} other nodes reach it, the meta servers do not: a network between them is cut"
                    )
                })
            }
            NodeState::Up => {
                let up = views.iter().filter(|(from, link)| link.up || !self.is_cut(*from, node, now)).count();
                (all >= 2 && up * 2 < all).then(|| {
                    format!(
                        "the meta servers hear it, but only {up} of {all} other nodes reach it: its data network is cut"
                    )
                })
            }
            NodeState::Unknown => None,
        }
    }

    fn flaps(&self, node: NodeId, now: Instant) -> Option<String> {
        let returns = self.returns.get(&node)?;
        let lately = returns.iter().filter(|at| now.saturating_duration_since(**at) < FLAP_WINDOW).count();
        let rests = returns.back().is_some_and(|last| now.saturating_duration_since(*last) < FLAP_REST);
        (lately >= FLAPS && rests)
            .then(|| format!("it went away and came back {lately} times within {} minutes", FLAP_WINDOW.as_secs() / 60))
    }

    fn slowness(&self, node: NodeId, now: Instant) -> Option<String> {
        let oldest = self.nodes.get(&node)?.disks.values().max_by_key(|usage| usage.load.oldest_io_us)?;
        if u128::from(oldest.load.oldest_io_us) >= SLOW_DISK.as_micros() {
            let seconds = oldest.load.oldest_io_us / 1_000_000;
            return Some(format!("disk {} has not answered for {seconds} s", oldest.disk));
        }
        let mut latencies: Vec<u64> =
            self.views_of(node, now).iter().filter(|(_, link)| link.up).map(|(_, link)| link.latency_us).collect();
        latencies.sort_unstable();
        let median = *latencies.get(latencies.len() / 2)?;
        (latencies.len() >= 2 && u128::from(median) >= SLOW_LINK.as_micros())
            .then(|| format!("other nodes wait {} ms for it", median / 1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::DiskId;
    use levee_proto::api::{DiskLoad, DiskUsage, Heartbeat};
    use std::time::Duration;
    use uuid::Uuid;

    const DOWN: Duration = Duration::from_secs(3);

    fn beat(links: &[(u32, bool, u64)]) -> Heartbeat {
        let link = |(node, up, latency_us): &(u32, bool, u64)| LinkReport {
            node: NodeId(*node),
            up: *up,
            latency_us: *latency_us,
        };
        let links = links.iter().map(link).collect();
        let (volumes, deleted, locks) = (vec![], vec![], vec![]);
        Heartbeat {
            incarnation: Uuid::nil(),
            disks: vec![],
            volumes,
            part: None,
            deleted,
            links,
            locks,
            stopping: false,
        }
    }

    fn word(observed: &Observed, node: u32, now: Instant) -> (NodeCondition, String) {
        let (condition, detail) = observed.condition(NodeId(node), now);
        (condition, detail.unwrap_or_default())
    }

    #[test]
    fn a_node_that_others_reach_is_cut_off_and_one_that_nobody_reaches_is_dead() {
        let start = Instant::now();
        let mut observed = Observed::new(1, start, DOWN);
        let now = start + DOWN * 2;
        observed.heartbeat(NodeId(1), beat(&[(3, true, 100), (4, false, 0)]), now);
        observed.heartbeat(NodeId(2), beat(&[(3, true, 100), (4, false, 0)]), now);
        assert_eq!(observed.node_state(NodeId(3), now), NodeState::Down);
        let (condition, detail) = word(&observed, 3, now);
        assert!(condition == NodeCondition::Partitioned && detail.contains("2 of 2 other nodes"), "{detail}");
        assert_eq!(word(&observed, 4, now).0, NodeCondition::Fine, "down, and that is all");
        observed.heartbeat(NodeId(4), beat(&[]), now);
        assert_eq!(word(&observed, 4, now).0, NodeCondition::Fine, "it has just come");
        let mut now = now;
        for _ in 0..4 {
            for node in [1, 2, 4] {
                observed.heartbeat(NodeId(node), beat(&[(4, false, 0)]), now);
            }
            now += LINK_PATIENCE / 3;
        }
        let (condition, detail) = word(&observed, 4, now);
        assert!(condition == NodeCondition::Partitioned && detail.contains("only 0 of 2"), "{detail}");
        // Old words do not count.
        let later = now + LINK_WORD;
        assert_eq!(word(&observed, 3, later).0, NodeCondition::Fine);
    }

    #[test]
    fn a_slow_node_is_told_by_half_of_the_others_or_by_its_disks() {
        let now = Instant::now();
        let mut observed = Observed::new(1, now, DOWN);
        let slow = SLOW_LINK.as_micros() as u64;
        observed.heartbeat(NodeId(9), beat(&[]), now);
        let disk = |oldest_io_us| DiskUsage {
            disk: DiskId(1),
            used: 0,
            failed: None,
            load: DiskLoad { oldest_io_us, ..Default::default() },
        };
        observed.heartbeat(NodeId(3), Heartbeat { disks: vec![disk(0)], ..beat(&[]) }, now);
        for (node, latency) in [(1, 10), (2, slow), (4, 10)] {
            observed.heartbeat(NodeId(node), beat(&[(3, true, latency)]), now);
        }
        assert_eq!(word(&observed, 3, now).0, NodeCondition::Fine, "one of three waits");
        observed.heartbeat(NodeId(4), beat(&[(3, true, slow)]), now);
        assert_eq!(word(&observed, 3, now).0, NodeCondition::Slow);
        observed.heartbeat(NodeId(4), beat(&[(3, true, 10)]), now);
        observed.heartbeat(NodeId(3), Heartbeat { disks: vec![disk(9_000_000)], ..beat(&[]) }, now);
        assert!(word(&observed, 3, now).1.contains("not answered for 9 s"));
        assert!(observed.look(now).contains(&NodeId(3)));
    }

    #[test]
    fn a_node_that_comes_and_goes_is_not_used_until_it_has_stayed() {
        let start = Instant::now();
        let mut observed = Observed::new(1, start, DOWN);
        let mut now = start;
        for _ in 0..=FLAPS {
            observed.heartbeat(NodeId(1), beat(&[]), now);
            now += DOWN;
        }
        observed.heartbeat(NodeId(1), beat(&[]), now - DOWN / 2);
        assert_eq!(word(&observed, 1, now).0, NodeCondition::Flapping);
        let later = now + FLAP_REST;
        let mut at = now - DOWN / 2;
        while at < later {
            at += DOWN / 2;
            observed.heartbeat(NodeId(1), beat(&[]), at);
        }
        assert_eq!(word(&observed, 1, later).0, NodeCondition::Fine, "it has stayed");
    }
}
