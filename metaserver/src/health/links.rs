//! Networks between nodes that are up.

use super::{Doing, View, condition};
use levee_proto::NodeId;
use levee_proto::api::{Condition, ConditionWord, EventKind, MAX_CONDITIONS, NodeCondition, Severity};
use std::collections::BTreeSet;

/// One for each pair, unless one of the two has lost most others: that is told of the node.
pub fn derive(view: &View<'_>, all: &mut Vec<Condition>) {
    let pairs: BTreeSet<(NodeId, NodeId)> = view.observed.cuts.keys().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
    let apart = |id: NodeId| view.condition_of(id).0 == NodeCondition::Partitioned;
    let both_up = |(a, b): &(NodeId, NodeId)| view.is_up(*a) && view.is_up(*b) && !apart(*a) && !apart(*b);
    let told = pairs.into_iter().filter(both_up).filter_map(|(a, b)| one(view, a, b));
    all.extend(told.take(MAX_CONDITIONS));
}

fn one(view: &View<'_>, a: NodeId, b: NodeId) -> Option<Condition> {
    let cut = |from, to| view.observed.is_cut(from, to, view.now);
    let (one, other) = (view.name(a), view.name(b));
    let what = match (cut(a, b), cut(b, a)) {
        (true, true) => format!("nodes {one} and {other} do not reach each other"),
        (true, false) => format!("node {one} does not reach node {other}"),
        (false, true) => format!("node {other} does not reach node {one}"),
        (false, false) => return None,
    };
    let doing =
        "both are up: look at the network between their data addresses; copies on the far side of it are behind";
    let subject = format!("{one}-{other}");
    Some(condition(EventKind::Link, subject, ConditionWord::Cut, Severity::Warning, what).doing(doing))
}
