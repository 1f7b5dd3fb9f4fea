//! How the cluster does: every state that wants a word, derived in one place from which all outputs are made.
//!
//! | method and path | request | answer |
//! | --- | --- | --- |
//! | `GET /v1/health` | | [`Health`] |

use super::{EventKind, Severity};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most conditions of one kind that are named one by one.
pub const MAX_CONDITIONS: usize = 100;

/// How the cluster does, as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Nothing is worse than [`Severity::Info`].
    pub healthy: bool,
    /// Nodes, disks and volumes in one line for a person.
    pub summary: String,
    /// The worst first.
    pub conditions: Vec<Condition>,
}

/// Something is in a state that an operator should know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Condition {
    pub kind: EventKind,
    /// What is in it: the name of a volume or node, the number of a disk or member, `NODE-NODE` for a link, or `cluster`.
    pub subject: String,
    pub word: ConditionWord,
    /// [`Severity::Info`]: under way or worth knowing, and no problem.
    pub severity: Severity,
    /// Since when, milliseconds since 1970, if that is known.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// What it is: one line for a person.
    pub text: String,
    /// What is done about it, by whom, or what to do.
    pub doing: Vec<String>,
}

/// What names a condition: it begins, and ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConditionKey {
    pub kind: EventKind,
    pub subject: String,
    pub word: ConditionWord,
}

impl Condition {
    pub fn key(&self) -> ConditionKey {
        ConditionKey { kind: self.kind, subject: self.subject.clone(), word: self.word }
    }
}

macro_rules! words {
    ($($(#[$doc:meta])* $word:ident),* $(,)?) => {
        /// The states that are told apart.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum ConditionWord {
            $($(#[$doc])* $word,)*
        }

        impl ConditionWord {
            /// All of them.
            pub const ALL: &[ConditionWord] = &[$(ConditionWord::$word,)*];
        }
    };
}

words! {
    /// Node: nothing is heard of it. Volume: its gateway's node is.
    Down,
    /// Node: its daemon was stopped in good order.
    Stopped,
    /// Node: the meta servers and other nodes do not agree on whether it is there.
    Partitioned,
    /// Node: others wait long for it, or one of its disks does not answer.
    Slow,
    /// Node: it went away and came back several times.
    Flapping,
    /// Node: a second daemon with its name was turned away.
    Doubled,
    /// Node: volumes wait for it to tell what it holds.
    Awaited,
    /// Node, disk: it is being emptied.
    Draining,
    /// Node, disk: it was emptied, and can be taken out.
    Drained,
    /// Link: two nodes that are up do not reach each other.
    Cut,
    /// Disk: its daemon cannot use it.
    Failed,
    /// Disk: it counts as lost.
    Dead,
    /// Disk, cluster: nothing new is put there. Volume: writes wait for space.
    Full,
    /// Cluster: it fills up.
    Filling,
    /// Volume: it cannot be served.
    Unserved,
    /// Volume: it is being opened.
    Opening,
    /// Volume: its guest's requests have waited for more than a second.
    Stalled,
    /// Volume: parts of it cannot be written, or read, until more copies can be reached.
    Waiting,
    /// Volume: parts of it can be read on no copy.
    Lost,
    /// Volume: parts of its map were lost with meta servers. Repair: disks that should count as lost do not.
    Held,
    /// Volume: an import into it is under way, or was never finished.
    Unfinished,
    /// Volume: nobody uses it, and its copies are being made whole.
    Repairing,
    /// Repair: chunks have fewer copies than they should.
    Degraded,
    /// Repair: copies on disks that are dead or drained are being put elsewhere.
    Leaving,
    /// Repair: there is no place for copies.
    NoPlace,
    /// Disk: copies on it that the meta servers do not know.
    Unknown,
    /// Members: none leads.
    Leaderless,
    /// Member: it does not answer.
    Silent,
    /// Member: it lacks much of the log.
    Behind,
    /// Member: it has lost its folder, or is too old.
    Unfit,
    /// Member: it is being given the log.
    Learning,
    /// Maintenance: a window is open.
    Open,
    /// Rebalance: it is under way.
    Running,
}

impl ConditionWord {
    /// As in JSON.
    pub fn name(self) -> String {
        let mut name = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart_by_name() {
        let mut names: Vec<_> = ConditionWord::ALL.iter().map(|w| w.name()).collect();
        assert!(ConditionWord::ALL.iter().all(|w| serde_json::to_value(w).unwrap() == w.name()));
        assert!(names.contains(&"no-place".to_string()));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ConditionWord::ALL.len());
    }
}
