//! Asking the replicas of an ancestor's chunk: one, and others beside it when it takes long, until one gives a good answer.
//!
//! A replica that takes long is most often busy, and asking it again, or others and throwing its answer away, makes busy disks busier. So
//! every question stays good until it is answered: the first good answer of any replica counts, however late it comes. No replica is
//! asked while a question to it is open, so there are never more questions open than replicas.

use super::ancestors::{Layer, SharedChunk, SharedReplica};
use super::{Answer, Cluster, Gateway, LinkDown, Stopped};
use crate::ports::Runtime;
use crate::sync::{Receiver, oneshot, timeout};
use bytes::Bytes;
use levee_proto::wire::{Reply, Request};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;
use tracing::{debug, warn};

/// For so long the replicas asked so far may be silent before another is asked as well.
const IMPATIENCE: Duration = Duration::from_millis(100);
/// So many are asked in this way; where all of these are silent, more of them soon would only be more work for busy disks.
const FEW: usize = 3;
/// Before those that gave no good answer are asked again.
const RETRY: Duration = Duration::from_millis(100);
/// A question that was not answered for so long is taken for lost, and is put again.
const LOST: Duration = Duration::from_secs(10);

/// A question under way.
struct Asked {
    replica: Rc<SharedReplica>,
    since: Duration,
    answered: Receiver<Answer>,
}

/// What came of asking.
pub(super) enum Shared<T> {
    Answer(T),
    /// There is no such chunk any more, or the volume was flattened.
    Gone,
    /// In one round nobody gave a good answer, and some that there is something that they cannot read: all, or not.
    Bad {
        everywhere: bool,
    },
}

/// Why an answer was not good.
pub(super) enum NoAnswer {
    /// The replica cannot read what it holds.
    Bad(String),
    Other(String),
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Asks replicas of an ancestor's chunk until one gives a good answer, for as long as it takes, or until it is known that there is something
    /// that some cannot read.
    pub(super) async fn ask_shared<T>(
        &self,
        layer: &Layer,
        index: u32,
        suits: impl Fn(&SharedReplica) -> bool,
        request: impl Fn(&SharedReplica) -> Request,
        take: impl Fn(&SharedReplica, Reply, Bytes) -> Result<T, NoAnswer>,
    ) -> Result<Shared<T>, Stopped> {
        let (mut open, mut said, mut why) = (Vec::new(), false, None);
        loop {
            if !self.is_clone() {
                return Ok(Shared::Gone);
            }
            let Some(chunk) = self.shared_chunk(layer, index) else { return Ok(Shared::Gone) };
            let mut replicas = chunk.in_order(self.0.node);
            replicas.retain(|r| suits(r));
            let (all, mut bad) = (replicas.len(), 0);
            let now = self.0.rt.now();
            open.retain(|a: &Asked| replicas.contains(&a.replica) && a.since + LOST > now);
            replicas.retain(|r| !open.iter().any(|a| a.replica == *r));
            let mut unasked = replicas.into_iter();
            // Those that are not asked are, one after the other. Those that fail are asked again in the next round.
            loop {
                let next = unasked.next();
                let is_asked = next.is_some();
                if let Some(replica) = next {
                    let request = request(&replica);
                    open.push(self.put_question(replica, request));
                }
                let patience = match is_asked {
                    true if open.len() < FEW => IMPATIENCE,
                    false if open.is_empty() => RETRY,
                    _ => self.0.options.answer_timeout,
                };
                let answer = self.first_answer(&mut open, patience).await;
                self.check_stopped()?;
                let Some((of, answer)) = answer else {
                    if !is_asked {
                        break;
                    }
                    chunk.prefer_next();
                    self.look_for_more();
                    continue;
                };
                let answer = answer.map_err(|down| NoAnswer::Other(down.0));
                match answer.and_then(|(reply, data)| take(&of, reply, data)) {
                    Ok(answer) => return Ok(Shared::Answer(answer)),
                    Err(no) => {
                        bad += usize::from(matches!(no, NoAnswer::Bad(_)));
                        let (NoAnswer::Bad(e) | NoAnswer::Other(e)) = no;
                        debug!(chunk = %of.chunk, node = %of.place.node, "an ancestor's copy cannot be read: {e}");
                        why = Some(e);
                        chunk.prefer_next();
                    }
                }
            }
            if bad > 0 {
                return Ok(Shared::Bad { everywhere: bad == all });
            }
            if !std::mem::replace(&mut said, true) {
                let (volume, why) =
                    (&self.0.volume.name, why.as_deref().unwrap_or("they are silent, or none is known"));
                warn!(%volume, chunk = %chunk.id, "no copy of an ancestor's chunk has been read yet: {why}; trying on");
            }
            let this = self.clone();
            self.0.rt.spawn(async move { this.look_for_ancestors().await });
        }
    }

    /// A chunk of an ancestor, with its replicas as they are known now: they may have moved.
    fn shared_chunk(&self, layer: &Layer, index: u32) -> Option<Rc<SharedChunk>> {
        let layers = self.0.ancestors.layers();
        let now = layers.iter().find(|l| l.volume == layer.volume && l.view == layer.view);
        now.unwrap_or(layer).chunks.get(&index).cloned()
    }

    fn put_question(&self, replica: Rc<SharedReplica>, request: Request) -> Asked {
        let place = replica.place;
        let core = self.0.cluster.core_of(place.node, place.disk, replica.chunk);
        let (answer, answered) = oneshot();
        self.0.cluster.call(place.node, core, request, Bytes::new(), Box::new(move |a| answer.send(a)));
        Asked { replica, since: self.0.rt.now(), answered }
    }

    /// Whichever answer comes first, and whose it is; it is taken out. `None`: none came in time, or the gateway stopped.
    async fn first_answer(&self, open: &mut Vec<Asked>, patience: Duration) -> Option<(Rc<SharedReplica>, Answer)> {
        let mut ended = pin!(self.0.ended.listen());
        let first = std::future::poll_fn(|cx| {
            for i in 0..open.len() {
                if let Poll::Ready(answer) = Pin::new(&mut open[i].answered).poll(cx) {
                    let answer = answer.unwrap_or_else(|| Err(LinkDown("it gives no answer".into())));
                    return Poll::Ready(Some((open.remove(i).replica, answer)));
                }
            }
            ended.as_mut().poll(cx).map(|()| None)
        });
        timeout(&self.0.rt, patience, first).await.flatten()
    }
}
