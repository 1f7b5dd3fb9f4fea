//! Makes reads linearizable, many at a time.
//!
//! A read may be answered from the leader's memory once a majority confirmed, after the read arrived,
//! that it still is the leader. One confirmation serves all reads that wait when it starts.

use crate::limits::{COMMIT_WAIT, MAX_QUEUE};
use crate::proposer::unavailable;
use crate::raft::Raft;
use levee_proto::api::Problem;
use tokio::sync::{mpsc, oneshot};

type Reply = oneshot::Sender<Result<(), Problem>>;

#[derive(Clone)]
pub struct Barrier {
    queue: mpsc::Sender<Reply>,
}

impl Barrier {
    pub fn start(raft: Raft) -> Barrier {
        let (queue, waiting) = mpsc::channel(MAX_QUEUE);
        tokio::spawn(confirm(raft, waiting));
        Barrier { queue }
    }

    /// Returns once the state shows every change that was answered before the call.
    pub async fn pass(&self) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(reply).map_err(|_| unavailable("too many requests are waiting"))?;
        answer.await.map_err(|_| unavailable("this member is stopping"))?
    }
}

async fn confirm(raft: Raft, mut waiting: mpsc::Receiver<Reply>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, MAX_QUEUE).await > 0 {
        let result = match tokio::time::timeout(COMMIT_WAIT, raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!("a read could not be confirmed: {error}");
                Err(unavailable("the meta servers are choosing a leader, or too few of them answer"))
            }
            Err(_) => Err(unavailable("a majority of the meta servers does not answer")),
        };
        for reply in batch.drain(..) {
            let _ = reply.send(result.clone());
        }
    }
}
