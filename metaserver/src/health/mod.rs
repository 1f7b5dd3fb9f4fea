//! How the cluster does. Every state that an operator should know of is derived here, once, from what is decided and what is
//! reported: `levee status`, `doctor` and the lists, events, metrics and the dashboard all show what comes out.
//!
//! Two forms: the [status](words) of each node, disk and volume in a few words, and the [conditions](derive) that somebody has to
//! know of, each with what is done about it. One cause gives one condition: what follows from it is told with it.

mod copies;
mod links;
mod members;
mod nodes;
mod operations;
mod tell;
#[cfg(test)]
mod tests;
mod volumes;
pub mod words;

pub use tell::Teller;

use crate::app::App;
use crate::clock::now_ms;
use crate::observe::Observed;
use crate::repair::Policy;
use levee_meta_state::State;
use levee_proto::NodeId;
use levee_proto::api::*;
use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Instant;

/// What it is derived from.
pub struct View<'a> {
    pub state: &'a State,
    pub observed: &'a Observed,
    pub policy: Policy,
    pub now: Instant,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Why disks that should count as lost do not, if so.
    pub held: Option<&'a str>,
    /// Copies on each node's disks, once somebody has asked.
    copies: OnceCell<BTreeMap<NodeId, u64>>,
    /// What is known of nodes beside their states: each takes a look at all others.
    nodes: OnceCell<BTreeMap<NodeId, (NodeCondition, Option<String>)>>,
}

impl<'a> View<'a> {
    fn new(state: &'a State, observed: &'a Observed, policy: Policy, now: Instant, held: Option<&'a str>) -> View<'a> {
        View { state, observed, policy, now, now_ms: now_ms(), held, copies: OnceCell::new(), nodes: OnceCell::new() }
    }

    /// What is known of the node beside its state.
    fn condition_of(&self, node: NodeId) -> &(NodeCondition, Option<String>) {
        let all = self.nodes.get_or_init(|| {
            let of = |id| (id, self.observed.condition(id, self.now));
            self.state.node_ids().map(of).collect()
        });
        all.get(&node).unwrap_or(&(NodeCondition::Fine, None))
    }

    /// Copies on all of the node's disks.
    fn held_by(&self, node: NodeId) -> u64 {
        let copies = self.copies.get_or_init(|| {
            let mut copies = BTreeMap::new();
            self.state.disks().for_each(|(_, disk)| *copies.entry(disk.node).or_default() += disk.live());
            copies
        });
        copies.get(&node).copied().unwrap_or(0)
    }

    /// The node's name, or its number if it is unknown.
    fn name(&self, node: NodeId) -> String {
        self.state.node(node).map_or_else(|| format!("node {node}"), |n| n.name.clone())
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.observed.node_state(node, self.now) == NodeState::Up
    }

    /// Whether nothing is heard of it, and not only because this leader is new.
    fn is_down(&self, node: NodeId) -> bool {
        self.observed.node_state(node, self.now) == NodeState::Down
    }

    /// Whether it was stopped in good order. An earlier leader may have heard it.
    fn is_stopped(&self, node: NodeId) -> bool {
        let key = || ConditionKey { kind: EventKind::Node, subject: self.name(node), word: ConditionWord::Stopped };
        self.observed.is_stopped(node) || (!self.observed.is_heard(node) && self.state.told_since(&key()).is_some())
    }

    fn is_maintained(&self, node: NodeId) -> bool {
        self.state.node_is_maintained(node, self.now_ms)
    }
}

/// Looks at the cluster as this member sees it, which leads.
pub fn with_view<T>(app: &App, look: impl FnOnce(&View<'_>) -> T) -> T {
    let held = app.repair_held();
    app.observed(|observed, now| {
        app.replicated.read(|state| look(&View::new(state, observed, app.policy, now, held.as_deref())))
    })
}

/// Everything together.
pub fn health(view: &View<'_>, members: &Members) -> Health {
    let conditions = derive(view, members);
    let healthy = conditions.iter().all(|c| c.severity == Severity::Info);
    Health { healthy, summary: summary(view), conditions }
}

/// All conditions, the worst first.
pub fn derive(view: &View<'_>, members: &Members) -> Vec<Condition> {
    let mut all = Vec::new();
    members::derive(members, &mut all);
    nodes::derive(view, &mut all);
    links::derive(view, &mut all);
    nodes::derive_disks(view, &mut all);
    copies::derive(view, &mut all);
    volumes::derive(view, &mut all);
    operations::derive(view, &mut all);
    for condition in &mut all {
        condition.since_ms = view.state.told_since(&condition.key());
    }
    all.sort_by_key(|condition| Reverse(condition.severity));
    all
}

/// One, of which it is not known yet since when.
fn condition(
    kind: EventKind,
    subject: impl ToString,
    word: ConditionWord,
    severity: Severity,
    text: impl Into<String>,
) -> Condition {
    Condition {
        kind,
        subject: subject.to_string(),
        word,
        severity,
        since_ms: None,
        text: text.into(),
        doing: Vec::new(),
    }
}

/// Adds what is done about it.
trait Doing {
    fn doing(self, line: impl Into<String>) -> Self;
}

impl Doing for Condition {
    fn doing(mut self, line: impl Into<String>) -> Condition {
        self.doing.push(line.into());
        self
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

fn copies_of(count: u64) -> String {
    counted(count, "copy", "copies")
}

fn summary(view: &View<'_>) -> String {
    let nodes: Vec<NodeId> = view.state.node_ids().collect();
    let up = nodes.iter().filter(|id| view.is_up(**id)).count();
    let disks: Vec<_> = view.state.disks().collect();
    let serving = disks.iter().filter(|(id, disk)| words::is_serving(view, *id, disk)).count();
    let [_, _, volumes] = view.state.counts();
    let used = |id| view.state.volume(id).is_some_and(|v| v.user().is_some());
    let attached = view.state.attachments().filter(|(_, id)| used(*id)).count();
    format!(
        "{up} of {} nodes up, {serving} of {} disks in service, {}, {attached} attached",
        nodes.len(),
        disks.len(),
        counted(volumes as u64, "volume", "volumes"),
    )
}

/// Completes what is shown of nodes, disks and volumes with what this leader has heard.
impl View<'_> {
    pub fn fill_node(&self, node: &mut NodeInfo) {
        self.observed.fill_node(node, self.now);
        node.status = words::node(self, node.id);
    }

    pub fn fill_disk(&self, disk: &mut DiskInfo) {
        self.observed.fill_disk(disk);
        disk.status = self.state.disk(disk.id).map(|known| words::disk(self, disk.id, known)).unwrap_or_default();
    }

    pub fn fill_volume(&self, volume: &mut VolumeInfo) {
        self.observed.fill_volume(self.state, volume);
        volume.status = words::volume(self, volume);
    }
}
