//! Makes reads linearizable, many at a time.
//!
//! A read may be answered from the leader's memory once a majority confirmed, after the read arrived,
//! that it still is the leader; and from another member's once that has applied what the leader's log held
//! then (the read index). One confirmation serves all reads that wait when it starts.

use crate::limits::{COMMIT_WAIT, LEADER_RETRY, LEADER_WAIT, MAX_QUEUE};
use crate::proposer::unavailable;
use crate::raft::{Network, Raft, Replicated};
use levee_proto::api::Problem;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

type Reply = oneshot::Sender<Result<u64, Problem>>;

#[derive(Clone)]
pub struct Barrier {
    queue: mpsc::Sender<Reply>,
}

impl Barrier {
    pub fn start(raft: Raft, network: Network, replicated: Replicated) -> Barrier {
        let (queue, waiting) = mpsc::channel(MAX_QUEUE);
        let confirmer = Arc::new(Confirmer { raft, network, replicated });
        tokio::spawn(confirm(confirmer, waiting));
        Barrier { queue }
    }

    /// Returns once the state shows every change that was answered before the call, with the log index of the newest.
    pub async fn pass(&self) -> Result<u64, Problem> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(reply).map_err(|_| unavailable("too many requests are waiting"))?;
        answer.await.map_err(|_| unavailable("this member is stopping"))?
    }
}

async fn confirm(confirmer: Arc<Confirmer>, mut waiting: mpsc::Receiver<Reply>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MAX_QUEUE).await > 0 {
        let result = match timeout(COMMIT_WAIT, confirmer.index()).await {
            Ok(result) => result,
            Err(_) => Err(unavailable("a majority of the meta servers does not answer")),
        };
        for reply in batch.drain(..) {
            let _ = reply.send(result.clone());
        }
    }
}

struct Confirmer {
    raft: Raft,
    network: Network,
    replicated: Replicated,
}

impl Confirmer {
    async fn index(&self) -> Result<u64, Problem> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let leader = self.raft.metrics().borrow().current_leader;
            let index = match leader {
                Some(id) if id == self.network.directory.own.id => self.as_leader().await?,
                Some(leader) => self.as_follower(leader).await,
                None => None,
            };
            if let Some(index) = index {
                self.replicated.reach(index).await;
                return Ok(index);
            }
            if Instant::now() >= deadline {
                return Err(unavailable("the meta servers are choosing a leader, or too few of them answer"));
            }
            sleep(LEADER_RETRY).await;
        }
    }

    async fn as_leader(&self) -> Result<Option<u64>, Problem> {
        match self.raft.ensure_linearizable().await {
            Ok(index) => Ok(Some(index.map_or(0, |id| id.index))),
            Err(error) => {
                tracing::debug!("a read could not be confirmed: {error}");
                Err(unavailable("the meta servers are choosing a leader, or too few of them answer"))
            }
        }
    }

    /// None if that one does not know: it may not lead any more.
    async fn as_follower(&self, leader: u64) -> Option<u64> {
        let mut metrics = self.raft.metrics();
        let peer = self.network.peer(leader, "");
        tokio::select! {
            index = peer.read_index() => index,
            // The old leader may never answer.
            _ = metrics.wait_for(|m| m.current_leader != Some(leader)) => None,
        }
    }
}
