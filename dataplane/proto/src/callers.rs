//! Which of a caller's links counts: the newest, and no other is heard any more.
//!
//! A link that breaks may hold requests that its caller has given up. Once a later link of the same caller is served none of
//! them may be carried out: the replication protocol counts on it (`docs/protocol.md`, "Links"). The caller cannot be relied
//! upon to have told the order by a number of its own: its process may have been started anew, with its clock set back,
//! and a number that anybody could choose would shut out the right one for ever. So the server numbers the links:
//!
//! 1. A hello names the caller, and is answered with a *ticket*, larger than any before.
//! 2. The caller names the ticket as the first thing after that. By this the link *enters*: all older ones of the caller end, and
//!    only then what follows is handled. A link that has not the newest ticket any more is refused.
//!
//! Whoever names a ticket was alive when it was given: a process that is dead by then never enters, however late its hello
//! arrives, and its successor, which began later, has a larger one. A caller that gave a link up does not name its ticket any more.
//!
//! A caller is one core of one process. Links of an earlier process of the same node all end, of whichever core they are.

use crate::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// Who calls: one core of one process of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    pub node: NodeId,
    pub core: u16,
    /// Chosen by chance when the process started.
    pub incarnation: [u8; 16],
}

/// A link's place in the order of all that a server was ever offered. It is of no use to another process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A newer link of the caller is here already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// All links that lead to one process. `L` is what its owner knows a link by.
pub struct Callers<L> {
    last: Ticket,
    /// Tickets whose links have not entered, and may still.
    waiting: BTreeSet<Ticket>,
    /// By node: the newest link of each caller to each core that has entered.
    newest: BTreeMap<NodeId, BTreeMap<Ends, Newest<L>>>,
    /// Links that have ended, of whom an older one may still enter.
    ended: BTreeMap<Ticket, (NodeId, Ends)>,
}

/// The caller's process and core, and the core that is called.
type Ends = ([u8; 16], u16, u16);

struct Newest<L> {
    ticket: Ticket,
    /// None once it has ended.
    link: Option<L>,
}

impl<L> Default for Callers<L> {
    fn default() -> Self {
        Callers { last: Ticket(0), waiting: BTreeSet::new(), newest: BTreeMap::new(), ended: BTreeMap::new() }
    }
}

impl<L> Callers<L> {
    /// A hello has arrived that is taken.
    pub fn offer(&mut self) -> Ticket {
        self.last.0 += 1;
        self.waiting.insert(self.last);
        self.last
    }

    /// The link with this ticket, to a core, wants to enter. What is returned has to be ended before anything of it is handled.
    pub fn enter(&mut self, caller: &Caller, core: u16, ticket: Ticket, link: L) -> Result<Vec<L>, Late> {
        if !self.waiting.remove(&ticket) {
            return Err(Late);
        }
        let mine = (caller.incarnation, caller.core, core);
        let of_node = self.newest.entry(caller.node).or_default();
        let rivals = |ends: &Ends| *ends == mine || ends.0 != mine.0;
        if of_node.iter().any(|(ends, newest)| rivals(ends) && newest.ticket > ticket) {
            self.forget();
            return Err(Late);
        }
        let older: Vec<Ends> = of_node.keys().filter(|ends| rivals(ends)).copied().collect();
        let older = older.iter().filter_map(|ends| of_node.remove(ends)).collect::<Vec<_>>();
        of_node.insert(mine, Newest { ticket, link: Some(link) });
        for old in &older {
            self.ended.remove(&old.ticket);
        }
        self.forget();
        Ok(older.into_iter().filter_map(|old| old.link).collect())
    }

    /// The link with this ticket has ended, whether it had entered or not.
    pub fn leave(&mut self, caller: &Caller, core: u16, ticket: Ticket) {
        self.waiting.remove(&ticket);
        let mine = (caller.incarnation, caller.core, core);
        let newest = self.newest.get_mut(&caller.node).and_then(|links| links.get_mut(&mine));
        if let Some(newest) = newest.filter(|newest| newest.ticket == ticket) {
            newest.link = None;
            self.ended.insert(ticket, (caller.node, mine));
        }
        self.forget();
    }

    /// Forgets links that have ended, once no older one can enter any more: what is remembered is bounded by the links that
    /// are open, and those that were within the time that a hello may take.
    fn forget(&mut self) {
        while let Some(first) = self.ended.first_entry() {
            if self.waiting.first().is_some_and(|oldest| oldest < first.key()) {
                return;
            }
            let (node, ends) = first.remove();
            if let Some(links) = self.newest.get_mut(&node) {
                links.remove(&ends);
                if links.is_empty() {
                    self.newest.remove(&node);
                }
            }
        }
    }

    /// Callers that are remembered.
    pub fn len(&self) -> usize {
        self.newest.values().map(BTreeMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }
}

#[cfg(test)]
#[path = "callers_tests.rs"]
mod tests;
