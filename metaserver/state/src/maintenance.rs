//! Windows of time in which nothing is repaired.
//!
//! They end by themselves, by the clock of whoever leads: a window is only ever a reason to wait, so a clock that is wrong
//! makes repair early or late and breaks nothing.

use crate::command::{Answer, Outcome, invalid, validate_reason};
use crate::state::State;
use levee_proto::NodeId;
use levee_proto::api::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Stands for the whole cluster: nodes are numbered from 1 on.
const CLUSTER: NodeId = NodeId(0);

/// By node.
pub(crate) type Windows = BTreeMap<NodeId, Window>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub since_ms: u64,
    pub until_ms: u64,
    pub reason: Option<String>,
}

pub(crate) fn validate_maintenance(request: &StartMaintenance) -> Result<(), Problem> {
    if !(1..=MAX_MAINTENANCE_S).contains(&request.seconds) {
        return Err(invalid(format!(
            "a maintenance window of {} seconds: 1 to {MAX_MAINTENANCE_S} are allowed",
            request.seconds
        )));
    }
    request.reason.as_deref().map_or(Ok(()), validate_reason)
}

impl State {
    fn window_key(&self, node: Option<&str>) -> Result<NodeId, Problem> {
        node.map_or(Ok(CLUSTER), |name| self.node_id(name))
    }

    fn window_name(&self, key: NodeId) -> Option<String> {
        (key != CLUSTER).then(|| self.node_name(key))
    }

    pub(crate) fn start_maintenance(&mut self, request: &StartMaintenance) -> Outcome {
        let key = self.window_key(request.node.as_deref())?;
        let now = self.clock_ms();
        self.tables.maintenance.retain(|_, window| window.until_ms > now);
        let since_ms = self.tables.maintenance.get(&key).map_or(now, |window| window.since_ms);
        let until_ms = now.saturating_add(request.seconds * 1000);
        self.tables.maintenance.insert(key, Window { since_ms, until_ms, reason: request.reason.clone() });
        let subject = request.node.clone().unwrap_or_else(|| "cluster".into());
        let why = request.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = format!("nothing is repaired for the next {} s, for maintenance{why}", request.seconds);
        self.tell(EventKind::Maintenance, subject, text);
        Ok(Answer::Done)
    }

    /// Ending what is not there is no change.
    pub(crate) fn end_maintenance(&mut self, node: Option<&str>) -> Outcome {
        let key = self.window_key(node)?;
        if self.tables.maintenance.remove(&key).is_some_and(|window| window.until_ms > self.clock_ms()) {
            let subject = node.unwrap_or("cluster").to_string();
            self.tell(EventKind::Maintenance, subject, "maintenance is over: repair goes on");
        }
        Ok(Answer::Done)
    }

    /// The windows that are not over at this time.
    pub fn maintenance(&self, now_ms: u64) -> MaintenanceInfo {
        let open = self.tables.maintenance.iter().filter(|(_, window)| window.until_ms > now_ms);
        let window = |(key, window): (&NodeId, &Window)| MaintenanceWindow {
            node: self.window_name(*key),
            since_ms: window.since_ms,
            until_ms: window.until_ms,
            reason: window.reason.clone(),
        };
        MaintenanceInfo { windows: open.map(window).collect() }
    }

    /// Whether the whole cluster is in maintenance.
    pub fn is_maintained(&self, now_ms: u64) -> bool {
        self.tables.maintenance.get(&CLUSTER).is_some_and(|window| window.until_ms > now_ms)
    }

    /// Whether the node is, by itself or with the whole cluster.
    pub fn node_is_maintained(&self, node: NodeId, now_ms: u64) -> bool {
        let own = self.tables.maintenance.get(&node).is_some_and(|window| window.until_ms > now_ms);
        own || self.is_maintained(now_ms)
    }
}
