//! What happened in the cluster, as the meta servers remember it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    Cluster,
    Member,
    Node,
    Disk,
    Volume,
    Snapshot,
    Repair,
    Rebalance,
    Maintenance,
    /// Two nodes, and the network between them.
    Link,
    /// How full the cluster is.
    Capacity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Info,
    /// Something works with less than it should have.
    Warning,
    /// Something does not work, or may be lost.
    Error,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts all events of the cluster, from 1 on.
    pub seq: u64,
    /// Milliseconds since 1970, by the clock of the meta server that led then.
    pub at_ms: u64,
    pub kind: EventKind,
    pub severity: Severity,
    /// What it happened to: the name of a volume or node, the number of a disk or member.
    pub subject: String,
    /// One line for a person.
    pub text: String,
}

/// Events in order, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// The `after` of the page that follows.
    pub next: u64,
    /// The oldest that is still known: what lies before is forgotten.
    pub oldest: u64,
    /// The newest one; 0: there was none.
    pub newest: u64,
}
