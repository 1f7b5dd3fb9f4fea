//! Volumes that want other replica sets for their chunks.
//!
//! A disk that is lost or drained concerns thousands of chunks: what is asked for within a short moment goes out as
//! few requests.

use super::Control;
use super::allocate::refusal;
use crate::asks::{Answer, Attached, ChangeAsk};
use levee_core::gateway::AllocError;
use levee_proto::Epoch;
use levee_proto::api::{ChangeReplicas, ChangedReplicas, ChunkInfo, ReplicaChange};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How long others may join a request.
const GATHER: Duration = Duration::from_millis(5);
/// Requests under way at the same time.
const REQUESTS: usize = 4;
/// Changes in one request: what the meta server takes.
const MAX_CHANGES: usize = 256;

/// Asks that go out as one request.
struct Batch {
    volume: Attached,
    epoch: Epoch,
    asks: Vec<ChangeAsk>,
    indexes: BTreeSet<u32>,
}

impl Control {
    pub(super) async fn change(self: &Rc<Self>, asks: &async_channel::Receiver<ChangeAsk>) {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let slots = Arc::new(tokio::sync::Semaphore::new(REQUESTS));
                while let Ok(first) = asks.recv().await {
                    tokio::time::sleep(GATHER).await;
                    let others = std::iter::from_fn(|| asks.try_recv().ok());
                    for batch in gather(std::iter::once(first).chain(others)) {
                        let Ok(slot) = slots.clone().acquire_owned().await else { return };
                        let this = self.clone();
                        tokio::task::spawn_local(async move {
                            this.change_batch(batch).await;
                            drop(slot);
                        });
                    }
                }
            })
            .await;
    }

    async fn change_batch(&self, batch: Batch) {
        let changes = batch.asks.iter().flat_map(|a| a.changes.clone()).collect();
        let request = ChangeReplicas { epoch: batch.epoch, changes };
        let answer = self.meta.change(&batch.volume, &request).await.map_err(refusal);
        batch.answer(answer).await;
    }
}

/// Puts asks together, in their order: of one volume and epoch, each chunk once, not too many.
fn gather(asks: impl Iterator<Item = ChangeAsk>) -> Vec<Batch> {
    let mut done = vec![];
    let mut open: BTreeMap<(Attached, Epoch), Batch> = BTreeMap::new();
    for ask in asks {
        let key = (ask.volume.clone(), ask.epoch);
        let indexes: BTreeSet<u32> = ask.changes.iter().map(|c| c.index).collect();
        if let Some(batch) = open.get(&key)
            && !batch.takes(&indexes)
        {
            done.extend(open.remove(&key));
        }
        let (volume, epoch) = key.clone();
        let new = || Batch { volume, epoch, asks: vec![], indexes: BTreeSet::new() };
        let batch = open.entry(key).or_insert_with(new);
        batch.indexes.extend(indexes);
        batch.asks.push(ask);
    }
    done.extend(open.into_values());
    done
}

impl Batch {
    fn takes(&self, indexes: &BTreeSet<u32>) -> bool {
        self.indexes.is_disjoint(indexes) && self.indexes.len() + indexes.len() <= MAX_CHANGES
    }

    /// Gives each ask its part of the answer.
    async fn answer(self, answer: Answer<ChangedReplicas>) {
        let answer = answer.and_then(|changed| match self.is_answered_by(&changed.chunks) {
            true => Ok(changed),
            false => Err(AllocError::Retry("the meta server answered for other chunks than it was asked for".into())),
        });
        for ask in self.asks {
            let part = answer.as_ref().map(|changed| part(&ask.changes, changed)).map_err(Clone::clone);
            let _ = ask.answer.send(part).await;
        }
    }

    /// Whether these are the chunks of the changes, in their order; one that all members were to leave may be gone.
    fn is_answered_by(&self, chunks: &[ChunkInfo]) -> bool {
        let mut chunks = chunks.iter().peekable();
        let may_go = |change: &ReplicaChange| change.add == 0 && !change.remove.is_empty();
        let mut changes = self.asks.iter().flat_map(|a| &a.changes);
        changes.all(|change| chunks.next_if(|c| c.index == change.index).is_some() || may_go(change))
            && chunks.next().is_none()
    }
}

/// What concerns these chunks, and why some changes were refused if any of these was.
fn part(changes: &[ReplicaChange], all: &ChangedReplicas) -> ChangedReplicas {
    let of = |chunk: &ChunkInfo| changes.iter().find(|change| change.index == chunk.index);
    let chunks: Vec<_> = all.chunks.iter().filter(|chunk| of(chunk).is_some()).cloned().collect();
    let unchanged = chunks.iter().any(|chunk| of(chunk).is_some_and(|change| chunk.config == change.config));
    ChangedReplicas { chunks, refused: all.refused.clone().filter(|_| unchanged) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::api::AttachmentId;
    use levee_proto::{ChunkId, ConfigNo, ReplicaId, VolumeId};

    type Answered = async_channel::Receiver<Answer<ChangedReplicas>>;

    fn attached(name: &str) -> Attached {
        let caller = AttachmentId { volume: VolumeId(name.len() as u64), attachment: 7 };
        Attached { name: name.into(), caller }
    }

    fn ask(volume: &str, epoch: u32, indexes: impl IntoIterator<Item = u32>) -> (ChangeAsk, Answered) {
        let (answer, answered) = async_channel::bounded(1);
        let change = |index| ReplicaChange { index, config: ConfigNo(1), remove: vec![], add: 1 };
        let changes = indexes.into_iter().map(change).collect();
        (ChangeAsk { volume: attached(volume), epoch: Epoch(epoch), changes, answer }, answered)
    }

    fn chunk(index: u32, config: u32) -> ChunkInfo {
        ChunkInfo { index, chunk: ChunkId(u64::from(index)), config: ConfigNo(config), replicas: vec![] }
    }

    fn indexes(batch: &Batch) -> Vec<u32> {
        batch.asks.iter().flat_map(|a| a.changes.iter().map(|c| c.index)).collect()
    }

    #[test]
    fn asks_of_one_volume_go_together() {
        let asks = [ask("a", 1, [1, 2]), ask("b", 1, [1]), ask("a", 1, [3]), ask("a", 2, [4])];
        let batches = gather(asks.into_iter().map(|(a, _)| a));
        let seen: Vec<_> = batches.iter().map(|b| (&*b.volume.name, b.epoch.0, indexes(b))).collect();
        assert_eq!(seen, [("a", 1, vec![1, 2, 3]), ("a", 2, vec![4]), ("b", 1, vec![1])]);
    }

    #[test]
    fn a_request_names_each_chunk_once_and_not_too_many() {
        let asks = [ask("a", 1, [1]), ask("a", 1, [1, 2]), ask("a", 1, 3..258), ask("a", 1, 258..500)];
        let batches = gather(asks.into_iter().map(|(a, _)| a));
        assert_eq!(batches.iter().map(|b| indexes(b).len()).collect::<Vec<_>>(), [1, 2, 255, 242]);
        assert!(batches.iter().all(|b| indexes(b).len() <= MAX_CHANGES));
    }

    #[test]
    fn everybody_gets_his_part_of_the_answer() {
        let ((a, to_a), (b, to_b)) = (ask("v", 1, [7, 9]), ask("v", 1, [8]));
        let batch = gather([a, b].into_iter()).remove(0);
        let refused = Some("no disk has room".to_string());
        let chunks = vec![chunk(7, 2), chunk(9, 1), chunk(8, 2)];
        let answer = ChangedReplicas { chunks, refused: refused.clone() };
        futures_lite::future::block_on(batch.answer(Ok(answer)));
        let got = |from: &Answered| from.try_recv().unwrap().unwrap();
        assert_eq!(got(&to_a), ChangedReplicas { chunks: vec![chunk(7, 2), chunk(9, 1)], refused });
        assert_eq!(got(&to_b), ChangedReplicas { chunks: vec![chunk(8, 2)], refused: None });
    }

    #[test]
    fn a_chunk_that_was_freed_is_missing_in_the_answer() {
        let ((mut a, to_a), (b, to_b)) = (ask("v", 1, [7, 9]), ask("v", 1, [8]));
        a.changes[0] = ReplicaChange { remove: vec![ReplicaId(1)], add: 0, ..a.changes[0].clone() };
        let batch = gather([a, b].into_iter()).remove(0);
        let answer = ChangedReplicas { chunks: vec![chunk(9, 2), chunk(8, 2)], refused: None };
        futures_lite::future::block_on(batch.answer(Ok(answer)));
        let got = |from: &Answered| from.try_recv().unwrap().unwrap().chunks;
        assert_eq!((got(&to_a), got(&to_b)), (vec![chunk(9, 2)], vec![chunk(8, 2)]));
    }

    #[test]
    fn an_answer_for_other_chunks_is_none() {
        for wrong in [vec![chunk(7, 2)], vec![chunk(9, 2), chunk(7, 2), chunk(8, 2)]] {
            let ((a, to_a), (b, to_b)) = (ask("v", 1, [7, 9]), ask("v", 1, [8]));
            let batch = gather([a, b].into_iter()).remove(0);
            futures_lite::future::block_on(batch.answer(Ok(ChangedReplicas { chunks: wrong, refused: None })));
            for from in [to_a, to_b] {
                assert!(
                    matches!(from.try_recv().unwrap(), Err(AllocError::Retry(why)) if why.contains("other chunks"))
                );
            }
        }
    }
}
