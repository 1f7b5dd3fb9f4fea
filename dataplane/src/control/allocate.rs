//! Volumes that need new chunks.

use super::{Control, MetaError};
use crate::asks::{AllocateAsk, Answer};
use levee_core::gateway::AllocError;
use levee_proto::api::*;
use std::rc::Rc;

/// Allocations asked for at the same time.
const ALLOCATIONS: usize = 16;

impl Control {
    pub(super) async fn allocate(self: &Rc<Self>, asks: &async_channel::Receiver<AllocateAsk>) {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let slots = Rc::new(tokio::sync::Semaphore::new(ALLOCATIONS));
                while let Ok(ask) = asks.recv().await {
                    let (this, slots) = (self.clone(), slots.clone());
                    tokio::task::spawn_local(async move {
                        let _slot = slots.acquire().await;
                        let answer = this.allocate_one(&ask).await;
                        let _ = ask.answer.send(answer).await;
                    });
                }
            })
            .await;
    }

    async fn allocate_one(&self, ask: &AllocateAsk) -> Answer<Vec<ChunkInfo>> {
        let request = AllocateChunks { epoch: ask.epoch, indexes: ask.indexes.clone() };
        match self.meta.allocate(&ask.volume, &request).await {
            Ok(allocated) => {
                self.without_chunks.borrow_mut().remove(&ask.volume.caller.volume);
                Ok(allocated.chunks)
            }
            Err(e) => {
                let why = refusal(e);
                if let AllocError::Retry(why) = &why {
                    self.without_chunks.borrow_mut().insert(ask.volume.caller.volume, why.clone());
                }
                Err(why)
            }
        }
    }
}

/// What a failed call means to a gateway.
pub(super) fn refusal(e: MetaError) -> AllocError {
    match e {
        MetaError::Refused(p) if matches!(p.kind, ProblemKind::Fenced | ProblemKind::NotFound) => {
            AllocError::Fenced(p.detail)
        }
        e => AllocError::Retry(e.to_string()),
    }
}
