//! Events that only the leader sees: nodes that come and go, and their condition.

use super::View;
use levee_meta_state::{Command, Note};
use levee_proto::NodeId;
use levee_proto::api::{EventKind, NodeCondition, NodeState, Severity};
use std::collections::BTreeMap;

/// What was told last of each node. A new leader tells nothing of what it finds, only of what changes.
#[derive(Default)]
pub struct Watch(BTreeMap<NodeId, (NodeState, NodeCondition)>);

impl Watch {
    pub fn tell(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        self.0.retain(|id, _| view.state.node(*id).is_some());
        let mut notes = Vec::new();
        for id in view.state.node_ids() {
            let state = view.observed.node_state(id, view.now);
            let (condition, detail) = view.observed.condition(id, view.now);
            // Nothing is known right after a change of leader.
            if state == NodeState::Unknown {
                continue;
            }
            if let Some(before) = self.0.insert(id, (state, condition)) {
                let name = view.state.node(id).map(|node| node.name.clone()).unwrap_or_default();
                notes.extend(changes(before, (state, condition), detail).map(|(severity, text)| Note {
                    kind: EventKind::Node,
                    severity,
                    subject: name.clone(),
                    text,
                }));
            }
        }
        if !notes.is_empty() && view.state.level() >= 2 {
            notes.truncate(levee_meta_state::limits::MAX_NOTES);
            commands.push(Command::Note(notes));
        }
    }
}

fn changes(
    before: (NodeState, NodeCondition),
    now: (NodeState, NodeCondition),
    detail: Option<String>,
) -> impl Iterator<Item = (Severity, String)> {
    let state = (before.0 != now.0).then(|| match now.0 {
        NodeState::Up => (Severity::Info, "is up".to_string()),
        _ => (Severity::Warning, "is down: nothing is heard of it".to_string()),
    });
    let condition = (before.1 != now.1).then(|| match (now.1, detail) {
        (NodeCondition::Fine, _) => (Severity::Info, "is in good condition again".to_string()),
        (bad, detail) => (Severity::Warning, format!("is {}: {}", word(bad), detail.unwrap_or_default())),
    });
    state.into_iter().chain(condition)
}

fn word(condition: NodeCondition) -> &'static str {
    match condition {
        NodeCondition::Fine => "fine",
        NodeCondition::Slow => "slow",
        NodeCondition::Partitioned => "partitioned",
        NodeCondition::Flapping => "flapping",
    }
}
