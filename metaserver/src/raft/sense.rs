//! What a message of another member may say.
//!
//! openraft believes what it is told, stores it, and fails an assertion later, at every start if it comes to that. So nothing
//! reaches it that contradicts itself, what is committed, or what the same leader has said before, and no number that leaves no
//! room behind it. Who speaks is another question: whether the sender is a member of the group is not asked here, because one
//! that was away for long has to follow, and to vote for, members that were taken in meanwhile.

use super::positions::Positions;
use super::{Entry, LogId, Meta, Types, entry_level};
use levee_meta_state::Command;
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest};
use openraft::{BasicNode, EntryPayload, Membership, Vote};
use std::fmt;

/// How far a term may be ahead of the one that this member knows: elections of half a year, one a second.
pub const MAX_TERM_JUMP: u64 = 1 << 24;
/// No term gets there, unless a member that knows none yet is told so.
pub const MAX_TERM: u64 = 1 << 62;
/// No entry of the log gets there.
const MAX_INDEX: u64 = 1 << 62;
/// Milliseconds since 1970 that a batch may say: they end in the year 2248.
const MAX_CLOCK_MS: u64 = 1 << 43;
/// Members in a group, voters and learners.
const MAX_MEMBERS: usize = 64;
/// Memberships in force at a time; a change has two.
const MAX_JOINT: usize = 3;
/// Bytes of a member's address.
const MAX_ADDRESS: usize = 1024;
/// Bytes of a snapshot's name.
const MAX_SNAPSHOT_NAME: usize = 100;

/// Why a message is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It makes no sense.
    Senseless(String),
    /// It is of a level that this member does not know.
    Level(u32),
    /// This member ends, or cannot store what it was sent.
    Unable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Refusal::Senseless(why) => write!(f, "it makes no sense: {why}"),
            Refusal::Level(level) => write!(f, "it is of level {level}, which this levee-metad does not know"),
            Refusal::Unable(why) => f.write_str(why),
        }
    }
}

pub type Verdict = Result<(), Refusal>;

fn require(sense: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if sense { Ok(()) } else { Err(Refusal::Senseless(otherwise())) }
}

/// Where this member stands when the message arrives.
#[derive(Clone, Debug)]
pub struct Standing {
    pub own: u64,
    /// The newest level that it knows.
    pub level: u32,
    pub vote: Vote<u64>,
    pub committed: Option<LogId>,
    /// Up to where the leader of this vote has said that the log is its own.
    pub agreed: Option<LogId>,
    pub log: Positions,
}

impl Standing {
    /// An entry up to here is not another one, whatever is said.
    fn settled(&self, vote: &Vote<u64>) -> Option<u64> {
        let index = |id: Option<LogId>| id.map(|id| id.index);
        index(self.agreed_with(vote)).max(index(self.committed))
    }

    fn agreed_with(&self, vote: &Vote<u64>) -> Option<LogId> {
        self.agreed.filter(|_| vote.leader_id == self.vote.leader_id)
    }

    /// A message that only counts if it is of a leader, or would-be leader, with this vote.
    fn check_vote(&self, vote: &Vote<u64>, committed: bool) -> Verdict {
        require(vote.committed == committed, || {
            format!("a vote that is {}of a leader", if committed { "not " } else { "" })
        })?;
        require(vote.leader_id.node_id != self.own, || "it is said in this member's own name".into())?;
        require(vote.leader_id.node_id > 0 && vote.leader_id.term > 0, || format!("nobody has the vote {vote}"))?;
        let fresh = self.vote == Vote::default() && self.log.last().is_none();
        check_term(vote.leader_id.term, if fresh { None } else { Some(self.vote.leader_id.term) })
    }

    pub fn check_vote_request(&self, rpc: &VoteRequest<u64>) -> Verdict {
        self.check_vote(&rpc.vote, false)?;
        let Some(last) = rpc.last_log_id else { return Ok(()) };
        check_id(last)?;
        require(last.leader_id.term < rpc.vote.leader_id.term, || {
            format!("the term {} of a candidate whose log is of term {}", rpc.vote.leader_id.term, last.leader_id.term)
        })
    }

    /// Answers up to where the log is the leader's when the message was taken; none if it will not be.
    pub fn check_append(&self, rpc: &AppendEntriesRequest<Types>) -> Result<Option<LogId>, Refusal> {
        self.check_vote(&rpc.vote, true)?;
        if rpc.vote < self.vote {
            return Ok(None);
        }
        check_order(rpc)?;
        rpc.entries.iter().try_for_each(|entry| check_payload(entry, self.level))?;
        let settled = self.settled(&rpc.vote);
        let is_settled = |id: &LogId| Some(id.index) <= settled;
        let said = rpc.entries.iter().map(|entry| entry.log_id).chain(rpc.prev_log_id);
        said.filter(is_settled).try_for_each(|id| self.check_same(id))?;
        if rpc.prev_log_id.is_some_and(|prev| !is_settled(&prev) && self.log.get(prev.index) != Some(prev)) {
            // It is answered that the log ends before.
            return Ok(None);
        }
        let end = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let agreed = self.agreed_with(&rpc.vote).max(end);
        if let (Some(committed), Some(agreed)) = (rpc.leader_commit, agreed) {
            self.check_commit(rpc, committed, agreed)?;
        }
        Ok(agreed)
    }

    fn check_same(&self, said: LogId) -> Verdict {
        let own = self.log.get(said.index).filter(|own| *own != said);
        require(own.is_none(), || {
            format!("entry {} is said to be {said}, and {} is what was agreed on", said.index, shown(own))
        })
    }

    /// openraft takes the lesser of two ids, terms first: it must not meet two whose indexes say the opposite. Behind what
    /// the leader agrees with, the log may be another's.
    fn check_commit(&self, rpc: &AppendEntriesRequest<Types>, committed: LogId, agreed: LogId) -> Verdict {
        check_id(committed)?;
        require(committed.leader_id <= rpc.vote.leader_id, || {
            format!("{committed} is said to be committed by the leader {}, who is older", rpc.vote.leader_id)
        })?;
        if committed.index > agreed.index {
            return require(committed.leader_id >= agreed.leader_id, || {
                format!("{committed} is said to be committed, behind {agreed}, which is of a later term")
            });
        }
        let given = rpc.entries.iter().map(|entry| entry.log_id).find(|id| id.index == committed.index);
        match given.or_else(|| self.log.get(committed.index)) {
            Some(known) => {
                require(known == committed, || format!("{committed} is said to be committed, and it is {known}"))
            }
            // It is not kept any more.
            None => require(Some(committed) <= self.committed, || {
                format!("{committed} is said to be committed, and is older than {}", shown(self.committed))
            }),
        }
    }

    /// All that a piece of a snapshot says, but for the data.
    pub fn check_snapshot(&self, rpc: &InstallSnapshotRequest<Types>) -> Verdict {
        self.check_vote(&rpc.vote, true)?;
        let last = check_meta(&rpc.meta)?;
        require(last.leader_id <= rpc.vote.leader_id, || {
            format!("a snapshot up to {last}, which is later than its leader {}", rpc.vote.leader_id)
        })?;
        let Some(committed) = self.committed else { return Ok(()) };
        let own = self.log.get(last.index).filter(|_| last.index <= committed.index);
        match own {
            Some(_) => self.check_same(last),
            None => require((last.index > committed.index) == (last > committed), || {
                format!("a snapshot up to {last}, and {committed} is committed")
            }),
        }
    }
}

/// An answer that says that another leads: `own` is who asked, with this vote.
pub fn check_higher(answer: &Vote<u64>, own: u64, asked: &Vote<u64>) -> Verdict {
    check_term(answer.leader_id.term, Some(asked.leader_id.term))?;
    require(answer > asked, || format!("the vote {answer} is said to be higher than {asked}"))?;
    require(answer.leader_id.node_id != own, || {
        format!("it remembers the vote {answer} of this member, which does not: was an old copy of a folder put back?")
    })
}

fn shown(id: Option<LogId>) -> String {
    id.map_or("nothing".into(), |id| id.to_string())
}

/// `known`: the newest term that this member has heard of, if it was ever in a group.
pub fn check_term(term: u64, known: Option<u64>) -> Verdict {
    let limit = known.map_or(MAX_TERM, |known| known.saturating_add(MAX_TERM_JUMP).min(MAX_TERM));
    require(term <= limit, || match known {
        Some(known) => format!(
            "term {term} is too far from {known}, the newest that this member knows. If it was away for so long that this is \
             true, empty its folder and have the others replace it (`levee meta replace`)"
        ),
        None => format!("no group gets to term {term}"),
    })
}

fn check_id(id: LogId) -> Verdict {
    require(id.index < MAX_INDEX, || format!("no log has an entry {}", id.index))
}

/// The entries follow each other, in index and term, and none is later than the leader.
fn check_order(rpc: &AppendEntriesRequest<Types>) -> Verdict {
    let mut before = rpc.prev_log_id;
    before.map_or(Ok(()), check_id)?;
    for entry in &rpc.entries {
        let id = entry.log_id;
        check_id(id)?;
        let next = before.map_or(0, |before| before.index + 1);
        require(id.index == next && before.is_none_or(|before| before.leader_id <= id.leader_id), || {
            format!("entry {id} does not follow {}", shown(before))
        })?;
        before = Some(id);
    }
    require(before.is_none_or(|last| last.leader_id <= rpc.vote.leader_id), || {
        format!("entry {} is later than its leader {}", shown(before), rpc.vote.leader_id)
    })
}

fn check_payload(entry: &Entry, known: u32) -> Verdict {
    match &entry.payload {
        EntryPayload::Blank => Ok(()),
        EntryPayload::Membership(membership) => check_membership(membership),
        EntryPayload::Normal(_) if entry_level(entry) > known => Err(Refusal::Level(entry_level(entry))),
        EntryPayload::Normal(batch) => {
            require(batch.at_ms < MAX_CLOCK_MS, || format!("{} ms since 1970 is no time of ours", batch.at_ms))?;
            let needed = batch.commands.iter().map(Command::level).max().unwrap_or(0);
            if needed <= known { Ok(()) } else { Err(Refusal::Level(needed)) }
        }
    }
}

fn check_membership(membership: &Membership<u64, BasicNode>) -> Verdict {
    let configs = membership.get_joint_config();
    let voters = (1..=MAX_JOINT).contains(&configs.len()) && configs.iter().all(|voters| !voters.is_empty());
    require(voters, || "a group without voters".into())?;
    let count = membership.nodes().count();
    require(count <= MAX_MEMBERS, || format!("a group of {count} members: at most {MAX_MEMBERS} are allowed"))?;
    let unknown = membership.voter_ids().find(|id| membership.get_node(id).is_none());
    require(unknown.is_none(), || format!("the voter {} is no member", unknown.unwrap_or(0)))?;
    let plain = |addr: &str| addr.len() <= MAX_ADDRESS && !addr.chars().any(char::is_control);
    let odd = membership.nodes().find(|(id, node)| **id == 0 || !plain(&node.addr));
    require(odd.is_none(), || format!("the member {} cannot be", odd.map_or(0, |(id, _)| *id)))
}

/// Answers up to where the snapshot reaches.
fn check_meta(meta: &Meta) -> Result<LogId, Refusal> {
    require(is_snapshot_name(&meta.snapshot_id), || {
        let name: String = meta.snapshot_id.chars().take(40).collect();
        format!("no snapshot is called '{}'", name.escape_debug())
    })?;
    let Some(last) = meta.last_log_id else { return Err(Refusal::Senseless("a snapshot of nothing".into())) };
    check_id(last)?;
    check_membership(meta.last_membership.membership())?;
    let said = *meta.last_membership.log_id();
    require(said.is_some_and(|said| said.index <= last.index && said <= last), || {
        format!("a snapshot up to {last} with the membership of {}", shown(said))
    })?;
    Ok(last)
}

/// Whether it can name a file in the folder of snapshots.
pub fn is_snapshot_name(name: &str) -> bool {
    (1..=MAX_SNAPSHOT_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
#[path = "sense_tests.rs"]
mod tests;
