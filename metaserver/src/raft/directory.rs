//! Where the other members are, and what was heard of them.
//!
//! A member is looked for where the group's membership says, and where `--peers` says if that fails: after a move of all
//! members the membership is out of date, after a move of one member `--peers` is.

use super::{LogId, Replicated};
use openraft::{LeaderId, Vote};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What this member tells others of itself.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub id: u64,
    pub folder: Uuid,
    /// The newest level that it knows.
    pub level: u32,
}

/// What another member has told.
#[derive(Clone, Debug)]
pub struct Seen {
    pub folder: Uuid,
    pub level: u32,
    pub at: Instant,
}

/// Knows where the members are.
#[derive(Clone)]
pub struct Directory {
    pub own: Identity,
    replicated: Replicated,
    peers: Arc<BTreeMap<u64, String>>,
    notes: Arc<Mutex<BTreeMap<u64, Note>>>,
    /// Until when this member, which leads, says nothing to the others.
    hushed: Arc<Mutex<Option<Instant>>>,
    started: Instant,
}

#[derive(Default)]
struct Note {
    seen: Option<Seen>,
    /// How often an address did not work: says which one is next.
    failures: usize,
    /// What was said of it last, not to repeat it.
    trouble: Option<String>,
    /// What it has said that it holds, and to which leader.
    holds: Option<(LeaderId<u64>, LogId)>,
}

impl Directory {
    pub fn new(own: Identity, replicated: Replicated, peers: BTreeMap<u64, String>) -> Directory {
        Directory {
            own,
            replicated,
            peers: Arc::new(peers),
            notes: Arc::default(),
            hushed: Arc::default(),
            started: Instant::now(),
        }
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<u64, Note>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the member is; `otherwise` if nothing else is known.
    pub fn url(&self, id: u64, otherwise: Option<&str>) -> Option<String> {
        let membership = self.replicated.membership();
        let recorded = membership.membership().get_node(&id).map(|node| node.addr.as_str()).or(otherwise);
        let given = self.peers.get(&id).map(String::as_str).filter(|url| Some(*url) != recorded);
        let urls: Vec<&str> = recorded.into_iter().chain(given).collect();
        let turn = self.notes().get(&id).map_or(0, |note| note.failures);
        urls.get(turn % urls.len().max(1)).map(|url| url.to_string())
    }

    /// The address did not work.
    pub fn failed(&self, id: u64) {
        self.notes().entry(id).or_default().failures += 1;
    }

    /// Anybody may call himself a member: only those that are one are remembered.
    pub fn heard(&self, id: u64, folder: Uuid, level: u32) {
        let member = self.replicated.membership().membership().get_node(&id).is_some();
        if !member && !self.peers.contains_key(&id) {
            return;
        }
        let seen = Seen { folder, level, at: Instant::now() };
        self.notes().entry(id).or_default().seen = Some(seen);
    }

    pub fn seen(&self, id: u64) -> Option<Seen> {
        self.notes().get(&id).and_then(|note| note.seen.clone())
    }

    /// Whether it was heard within the last while; this member always is.
    pub fn is_alive(&self, id: u64, within: Duration) -> bool {
        id == self.own.id || self.seen(id).is_some_and(|seen| seen.at.elapsed() < within)
    }

    /// For how long nothing was heard of it, as far as this process can know.
    pub fn silence(&self, id: u64) -> Duration {
        self.seen(id).map_or(self.started, |seen| seen.at).elapsed()
    }

    /// Says nothing to the others for at most so long.
    pub fn hush(&self, most: Duration) {
        *self.hushed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + most);
    }

    /// Speaks again.
    pub fn speak(&self) {
        *self.hushed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn is_hushed(&self) -> bool {
        self.hushed.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    /// The folder that the member's promises are in, if it is known.
    pub fn pinned(&self, id: u64) -> Option<Uuid> {
        self.replicated.read(|state| state.member_folder(id))
    }

    /// Remembers what is wrong with a member, and says so once.
    pub fn trouble(&self, id: u64, trouble: Option<String>) {
        let mut notes = self.notes();
        if trouble.is_none() && !notes.contains_key(&id) {
            return;
        }
        let note = notes.entry(id).or_default();
        if note.trouble != trouble {
            if let Some(trouble) = &trouble {
                tracing::error!("{trouble}");
            }
            note.trouble = trouble;
        }
    }

    pub fn trouble_of(&self, id: u64) -> Option<String> {
        self.notes().get(&id).and_then(|note| note.trouble.clone())
    }

    /// All other members that are known, and where they may be.
    pub fn others(&self) -> BTreeMap<u64, String> {
        let membership = self.replicated.membership();
        let ids = membership.membership().nodes().map(|(id, _)| *id).chain(self.peers.keys().copied());
        ids.filter(|id| *id != self.own.id).filter_map(|id| Some((id, self.url(id, None)?))).collect()
    }

    /// A member has told the leader of this vote that it holds the log up to here.
    pub fn holds(&self, id: u64, vote: &Vote<u64>, upto: LogId) {
        let mut notes = self.notes();
        let note = notes.entry(id).or_default();
        note.holds = note.holds.filter(|(leader, _)| *leader == vote.leader_id).max(Some((vote.leader_id, upto)));
    }

    /// The member begins with an empty folder: what it held before counts no more.
    pub fn begins_anew(&self, id: u64) {
        let mut notes = self.notes();
        let note = notes.entry(id).or_default();
        (note.holds, note.trouble) = (None, None);
    }

    /// Whether it has told that leader that it holds this entry.
    pub fn held(&self, id: u64, vote: &Vote<u64>, entry: LogId) -> bool {
        let holds = self.notes().get(&id).and_then(|note| note.holds);
        holds.is_some_and(|(leader, upto)| leader == vote.leader_id && upto.index >= entry.index)
    }

    /// What is wrong with a member that has this folder, if something is.
    pub fn stranger(&self, id: u64, folder: Uuid) -> Option<String> {
        let pinned = self.pinned(id)?;
        (pinned != folder).then(|| {
            format!(
                "meta server {id} has lost its folder, and with it what it had promised, so it does not count: \
                 `levee meta replace {id}` has it begin anew"
            )
        })
    }
}
