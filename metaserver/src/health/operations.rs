//! What operators have begun and may have forgotten, and how full the cluster is.

use super::{Doing, View, condition};
use crate::capacity;
use levee_proto::api::*;
use levee_proto::units::show_time;

pub fn derive(view: &View<'_>, all: &mut Vec<Condition>) {
    all.extend(filling(view));
    for window in view.state.maintenance(view.now_ms).windows {
        let of = window.node.as_deref().unwrap_or("cluster");
        let left = show_time(window.until_ms.saturating_sub(view.now_ms) / 1000);
        let what = match &window.node {
            Some(node) => format!("node {node} is in maintenance for another {left}: nothing of it is made anew"),
            None => format!("the whole cluster is in maintenance for another {left}: nothing is repaired"),
        };
        let found = condition(EventKind::Maintenance, of, ConditionWord::Open, Severity::Info, what);
        all.push(found.doing("`levee maintenance stop` ends it"));
    }
    let rebalance = view.state.rebalance_status();
    if rebalance.state == RebalanceState::Running {
        let what = format!("a rebalance is running: {} of {} copies moved", rebalance.done, rebalance.moves);
        let found = condition(EventKind::Rebalance, "cluster", ConditionWord::Running, Severity::Info, what);
        all.push(found.doing("`levee rebalance status` shows it"));
    }
}

/// That it fills up is worth knowing; that it takes nothing new is a problem.
fn filling(view: &View<'_>) -> Option<Condition> {
    let info = capacity::info(view.state, view.observed);
    let detail = info.detail?;
    let (what, todo) = detail.rsplit_once(": ").unwrap_or((&detail, ""));
    let (word, severity) = match info.level {
        CapacityLevel::Full => (ConditionWord::Full, Severity::Error),
        _ => (ConditionWord::Filling, Severity::Info),
    };
    Some(condition(EventKind::Capacity, "cluster", word, severity, what).doing(todo))
}
