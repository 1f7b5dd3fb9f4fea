//! Replicas that nothing needs any more are deleted, as soon as the disk that they are on is there.

use super::Control;
use levee_proto::api::{MAX_PAGE, ReplicaRef};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Notify;

/// Before what could not be deleted is tried again.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Deletes {
    /// Still to be deleted.
    due: RefCell<BTreeSet<ReplicaRef>>,
    /// Gone, and not reported yet.
    done: RefCell<BTreeSet<ReplicaRef>>,
    more: Notify,
}

impl Deletes {
    /// What the meta server wants to be deleted now.
    pub fn want(&self, replicas: &[ReplicaRef]) {
        let due: BTreeSet<_> = replicas.iter().filter(|r| !self.done.borrow().contains(r)).copied().collect();
        *self.due.borrow_mut() = due;
        self.more.notify_one();
    }

    /// What is gone, as much as fits a report.
    pub fn done(&self) -> Vec<ReplicaRef> {
        self.done.borrow().iter().take(MAX_PAGE).copied().collect()
    }

    /// The meta server has heard of them.
    pub fn reported(&self, replicas: &[ReplicaRef]) {
        let mut done = self.done.borrow_mut();
        done.retain(|r| !replicas.contains(r));
    }

    fn delete(&self, gone: Vec<ReplicaRef>) {
        let mut due = self.due.borrow_mut();
        due.retain(|r| !gone.contains(r));
        self.done.borrow_mut().extend(gone);
    }
}

impl Control {
    pub(super) async fn carry_out_deletes(&self) {
        loop {
            let due: Vec<_> = self.deletes.due.borrow().iter().take(MAX_PAGE).copied().collect();
            if due.is_empty() {
                self.deletes.more.notified().await;
                continue;
            }
            let gone = self.cores.delete(&due).await;
            let all = gone.len() == due.len();
            self.deletes.delete(gone);
            if !all {
                // Of a disk that has failed nobody knows what is on it: it may come back.
                let _ = tokio::time::timeout(RETRY, self.deletes.more.notified()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::{ChunkId, DiskId, ReplicaId};

    fn replica(n: u64) -> ReplicaRef {
        ReplicaRef { disk: DiskId(1), chunk: ChunkId(n), replica: ReplicaId(n) }
    }

    #[test]
    fn what_is_gone_is_reported_until_it_is_heard() {
        let deletes = Deletes::default();
        deletes.want(&[replica(1), replica(2)]);
        deletes.delete(vec![replica(1)]);
        assert_eq!(deletes.done(), [replica(1)]);
        // The meta server has not heard yet and asks again.
        deletes.want(&[replica(1), replica(2)]);
        assert_eq!(deletes.due.borrow().iter().copied().collect::<Vec<_>>(), [replica(2)]);
        deletes.reported(&[replica(1)]);
        assert_eq!(deletes.done(), []);
    }
}
