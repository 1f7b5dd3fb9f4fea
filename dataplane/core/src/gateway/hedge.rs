//! Reads that do not wait for a slow copy: when the first does not answer soon, a second is asked, and the first good
//! answer counts.

use super::chunk::Chunk;
use super::member::Slots;
use super::report::count;
use super::session::{Session, Waits};
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use crate::sync::oneshot;
use bytes::Bytes;
use levee_proto::wire::BlockEntry;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// A copy that has not answered a read for so long is late.
pub(super) const LATE: Duration = Duration::from_millis(50);
/// A disk that was late is read last for so long.
const SHUNNED: Duration = Duration::from_secs(5);

type Blocks = Option<(Vec<BlockEntry>, Bytes)>;

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Reads for a guest from `member`, or, when that is late, from another that was not `tried` yet; notes whom it asked.
    pub(super) async fn read_soon(
        &self,
        chunk: &Rc<Chunk>,
        member: usize,
        blocks: &Range<u32>,
        tried: &mut Slots,
    ) -> Blocks {
        let (late, is_late) = oneshot();
        let mut first =
            pin!(self.read_from(chunk, member, blocks.clone(), self.head_view(), false, Waits::Guest(late)));
        let mut is_late = pin!(is_late);
        let early = std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = first.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            match is_late.as_mut().poll(cx) {
                Poll::Ready(Some(())) => Poll::Ready(None),
                // Dropped unused: the answer is there, or about to be.
                _ => Poll::Pending,
            }
        });
        if let Some(answer) = early.await {
            return answer;
        }
        self.shun(&self.session_of(chunk, member));
        let Some(other) = self.readable(chunk, blocks, *tried) else { return first.await };
        *tried |= 1 << other;
        count(&self.0.counters.hedged_reads, 1);
        let mut second = pin!(self.read_from(chunk, other, blocks.clone(), self.head_view(), false, Waits::Guests));
        let mut failed = 0;
        let (mut first_ended, mut second_ended) = (false, false);
        std::future::poll_fn(|cx| {
            let mut look = |ended: &mut bool, answer: Poll<Blocks>| match answer {
                Poll::Ready(Some(good)) => Some(good),
                Poll::Ready(None) => {
                    *ended = true;
                    failed += 1;
                    None
                }
                Poll::Pending => None,
            };
            if !second_ended && let Some(good) = look(&mut second_ended, second.as_mut().poll(cx)) {
                return Poll::Ready(Some(good));
            }
            if !first_ended && let Some(good) = look(&mut first_ended, first.as_mut().poll(cx)) {
                return Poll::Ready(Some(good));
            }
            if failed == 2 { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// The disk is read last for a while.
    fn shun(&self, session: &Session) {
        session.shunned_until.set(self.0.rt.now() + SHUNNED);
    }

    /// Whether the member's disk was late not long ago.
    pub(super) fn is_shunned(&self, disk: levee_proto::DiskId) -> bool {
        let sessions = self.0.sessions.borrow();
        sessions.get(&disk).is_some_and(|s| s.shunned_until.get() > self.0.rt.now())
    }
}
