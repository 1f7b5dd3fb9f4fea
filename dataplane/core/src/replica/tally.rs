//! Telling a gateway how many blocks its volume's views read here, and which of them nobody else reads.

use super::{ReplicaService, ReplyFn};
use crate::ports::{Disk, Runtime};
use crate::store::Tally;
use bytes::Bytes;
use levee_proto::View;
use levee_proto::wire::{Reply, Target};
use std::time::Duration;

/// Between two steps, so that counting never starves guests.
const PAUSE: Duration = Duration::from_micros(1);

impl<D: Disk, R: Runtime> ReplicaService<D, R> {
    pub(super) fn tally(&self, target: Target, views: Vec<View>, reply: ReplyFn) {
        let this = self.clone();
        self.0.rt.spawn(async move {
            let answer = this.count(&target, &views).await;
            reply(answer.unwrap_or_else(|refusal| refusal), Bytes::new());
        });
    }

    /// Admitted anew for each step: its gateway may have been replaced meanwhile, and its replica, too.
    async fn count(&self, target: &Target, views: &[View]) -> Result<Reply, Reply> {
        let mut tally = Tally::new(views);
        while !tally.is_done() {
            let shard = self.admit_read(target, false)?;
            shard.tally(target.chunk, target.replica, &mut tally).map_err(|e| super::store_refusal(&e))?;
            self.0.rt.sleep(PAUSE).await;
        }
        let Tally { stored, alone, entries, data, .. } = tally;
        Ok(Reply::Tally { stored, alone, entries: entries.into(), data: data.into() })
    }
}
