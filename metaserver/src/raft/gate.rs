//! The way in for other members' messages: one at a time, and only if they make sense.
//!
//! A message is compared with where this member stands, and must meet openraft there: so the next one waits until openraft has
//! dealt with it, as it would inside. See `sense` for what is refused.

use super::sense::{Refusal, Standing};
use super::snapshots::SnapshotFile;
use super::{Contact, Identity, LogId, LogStore, Raft, Types};
use openraft::error::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest, VoteResponse};
use openraft::{LeaderId, Snapshot, Vote};
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};

/// A handle to it.
#[derive(Clone)]
pub struct Gate {
    raft: Raft,
    log: LogStore,
    own: Identity,
    contact: Contact,
    turn: Arc<Mutex<Agreed>>,
}

/// Up to where a leader has said that the log is its own.
type Agreed = Option<(LeaderId<u64>, LogId)>;

type Answer<T> = Result<Result<T, RaftError<u64>>, Refusal>;

impl Gate {
    pub fn new(raft: Raft, log: LogStore, own: Identity, contact: Contact) -> Gate {
        Gate { raft, log, own, contact, turn: Arc::default() }
    }

    async fn standing(&self, agreed: &Agreed) -> Result<Standing, Refusal> {
        let core = self.raft.with_raft_state(|state| (*state.vote_ref(), state.committed)).await;
        let (vote, committed) = core.map_err(|fatal| Refusal::Unable(format!("this member is ending: {fatal}")))?;
        let agreed = agreed.filter(|(leader, _)| *leader == vote.leader_id).map(|(_, id)| id);
        let (own, level, log) = (self.own.id, self.own.level, self.log.positions());
        Ok(Standing { own, level, vote, committed, agreed, log })
    }

    async fn enter(&self) -> Result<(MutexGuard<'_, Agreed>, Standing), Refusal> {
        let turn = self.turn.lock().await;
        let standing = self.standing(&turn).await?;
        Ok((turn, standing))
    }

    pub async fn append(&self, rpc: AppendEntriesRequest<Types>) -> Answer<AppendEntriesResponse<u64>> {
        let (mut turn, standing) = self.enter().await?;
        // Before the answer is there: who asked may not wait for it.
        if let Some(agreed) = standing.check_append(&rpc)? {
            *turn = Some((rpc.vote.leader_id, agreed));
        }
        let leads = rpc.vote >= standing.vote;
        if leads {
            self.contact.touch();
        }
        let answer = self.raft.append_entries(rpc).await;
        if leads {
            // A slow disk is not a silent leader.
            self.contact.touch();
        }
        Ok(answer)
    }

    pub async fn vote(&self, rpc: VoteRequest<u64>) -> Answer<VoteResponse<u64>> {
        let (_turn, standing) = self.enter().await?;
        standing.check_vote_request(&rpc)?;
        Ok(self.raft.vote(rpc).await)
    }

    /// Whether a piece of a snapshot may be taken; answers this member's vote if it is not of a leader any more.
    pub async fn check_snapshot(&self, rpc: &InstallSnapshotRequest<Types>) -> Result<Option<Vote<u64>>, Refusal> {
        let (_turn, standing) = self.enter().await?;
        standing.check_snapshot(rpc)?;
        if rpc.vote < standing.vote {
            return Ok(Some(standing.vote));
        }
        self.contact.touch();
        Ok(None)
    }

    /// Takes a snapshot that was received and checked whole; answers this member's vote.
    pub async fn install(&self, last: InstallSnapshotRequest<Types>, file: SnapshotFile) -> Result<Vote<u64>, Refusal> {
        let (_turn, standing) = self.enter().await?;
        // Much may have happened while it was checked.
        standing.check_snapshot(&last)?;
        let snapshot = Snapshot { meta: last.meta, snapshot: Box::new(file) };
        let installed = self.raft.install_full_snapshot(last.vote, snapshot).await;
        self.contact.touch();
        installed.map(|answer| answer.vote).map_err(|fatal| Refusal::Unable(format!("this member is ending: {fatal}")))
    }
}
