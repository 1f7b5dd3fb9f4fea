//! Comparing all copies of a volume, by digest and by content.

use super::chunk::Chunk;
use super::locks::{Held, Mode};
use super::reconcile::differences;
use super::session::Waits;
use super::{Cluster, Gateway, Stopped};
use crate::ports::Runtime;
use crate::sync::{join_all, timeout};
use bytes::Bytes;
use levee_proto::api::{MAX_MISMATCHES, VerifyEvent, VerifyMismatch, VerifyReport};
use levee_proto::wire::{BlockEntry, Digest, Reply, Request, Status};
use levee_proto::{BLOCKS_PER_CHUNK, Seq};
use std::rc::Rc;
use std::time::Duration;

/// Guests may wait so long behind a comparison that waits for writes.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Blocks of one copy that a report names.
const MAX_NAMED: usize = 16;
/// How often copies that are still behind are looked at.
const LOOK: Duration = Duration::from_millis(100);

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Compares the copies chunk by chunk: equal digests say that they hold the same versions of the
    /// same blocks with the same checksums, and each copy reads every block back against its checksum.
    /// Waits at most `patience` for copies that are behind. Writes to a chunk wait while it is compared.
    pub async fn verify(&self, patience: Duration, mut tell: impl FnMut(VerifyEvent)) -> Result<VerifyReport, Stopped> {
        let end = self.0.rt.now() + patience;
        self.until_healthy(end, &mut tell).await?;
        let chunks = self.chunks();
        let mut report = VerifyReport {
            volume: self.0.volume.name.clone(),
            copies: self.0.volume.copies,
            chunks: chunks.len() as u32,
            blocks: 0,
            mismatches: vec![],
            more_mismatches: 0,
        };
        for (done, chunk) in chunks.iter().enumerate() {
            tell(VerifyEvent::Progress { done: done as u32, total: chunks.len() as u32 });
            self.verify_chunk(chunk, end, &mut report).await?;
        }
        Ok(report)
    }

    async fn until_healthy(&self, end: Duration, tell: &mut impl FnMut(VerifyEvent)) -> Result<(), Stopped> {
        loop {
            let changed = self.0.changed.listen();
            self.check_stopped()?;
            let health = self.health();
            let behind = health.degraded + health.waiting;
            if behind == 0 || self.0.rt.now() >= end {
                return Ok(());
            }
            tell(VerifyEvent::Waiting { degraded_chunks: behind });
            timeout(&self.0.rt, LOOK, changed).await;
        }
    }

    /// Keeps writes off a chunk when all copies agree on what was written, or when `end` is over; `None` if writes are
    /// still under way then.
    async fn quiesce(&self, chunk: &Rc<Chunk>, end: Duration) -> Result<Option<Held>, Stopped> {
        loop {
            let lock = chunk.locks.acquire(0..BLOCKS_PER_CHUNK, Mode::Exclusive).held();
            let Some(held) = timeout(&self.0.rt, LOCK_PATIENCE, lock).await else {
                // A write waits for copies. Reads that come later need not wait with it.
                self.check_stopped()?;
                if self.0.rt.now() >= end {
                    return Ok(None);
                }
                self.0.rt.sleep(LOCK_PATIENCE).await;
                continue;
            };
            // Writes that are answered may still be on their way to the last copy.
            while chunk.is_healthy() && !chunk.state.borrow().open.is_empty() {
                self.check_stopped()?;
                timeout(&self.0.rt, LOOK / 10, chunk.changed.listen()).await;
            }
            self.check_stopped()?;
            if chunk.is_healthy() || self.0.rt.now() >= end {
                return Ok(Some(held));
            }
            // A copy was lost meanwhile: guests go on while it is caught up.
            drop(held);
            timeout(&self.0.rt, LOOK, chunk.changed.listen()).await;
        }
    }

    async fn verify_chunk(&self, chunk: &Rc<Chunk>, end: Duration, report: &mut VerifyReport) -> Result<(), Stopped> {
        let (members, scans) = loop {
            let held = self.quiesce(chunk, end).await?;
            let members = chunk.members();
            if held.is_none() {
                let busy = || Err("it could not be compared: writes wait for copies".to_string());
                break (members.clone(), members.iter().map(|_| busy()).collect());
            }
            let scans = join_all(members.iter().map(|(i, _)| self.scan(chunk, *i))).await;
            if scans.iter().all(Result::is_ok) || self.0.rt.now() >= end {
                break (members, scans);
            }
            // A copy was lost meanwhile, or had been and nobody had noticed yet: guests go on.
            drop(held);
            self.0.rt.sleep(LOOK).await;
        };
        let agreed = most_common(scans.iter().flatten().map(|s| s.digest));
        let has_agreed = |s: &Result<Scan, String>| s.as_ref().is_ok_and(|s| Some(s.digest) == agreed);
        let model = scans.iter().position(has_agreed).map(|at| members[at].0);
        for ((i, place), scan) in members.iter().zip(&scans) {
            self.note_bad_blocks(chunk, *i, scan.as_ref().map_or(&[], |s| &s.bad)).await;
            let problem = match scan {
                Err(why) => why.clone(),
                Ok(s) if !s.bad.is_empty() => {
                    format!("{} blocks do not match their checksums: {}", s.bad.len(), named(&s.bad))
                }
                Ok(s) if Some(s.digest) == agreed => continue,
                // Digests tell of entries that only some have pruned, too.
                // No write is under way, and all copies that were scanned are current: what they hold is decided.
                Ok(_) if self.is_alike(chunk, *i, model.unwrap_or(*i), |_| true).await => continue,
                Ok(_) => "it differs from the other copies".to_string(),
            };
            let (chunk_index, node, disk) = (chunk.index, place.node, place.disk);
            note(report, VerifyMismatch { chunk_index, node, disk, problem });
        }
        report.blocks += scans.iter().flatten().map(|s| u64::from(s.blocks)).max().unwrap_or(0);
        Ok(())
    }

    /// Whether two members hold the same, but for entries that no live view needs.
    /// `is_settled`: an entry of the other can never become void.
    pub(super) async fn is_alike(
        &self,
        chunk: &Rc<Chunk>,
        member: usize,
        other: usize,
        is_settled: impl Fn(&BlockEntry) -> bool,
    ) -> bool {
        let lists = join_all([member, other].map(|i| self.list(chunk, i, Seq::ZERO))).await;
        let [Some(theirs), Some(ours)] = &lists[..] else { return false };
        differences(theirs, ours, &self.keep(), is_settled).is_empty()
    }

    async fn scan(&self, chunk: &Rc<Chunk>, member: usize) -> Result<Scan, String> {
        let session = self.session_of(chunk, member);
        if !chunk.state.borrow().members[member].live {
            return Err("it cannot be reached".into());
        }
        if !chunk.state.borrow().members[member].is_current() {
            return Err("it is not up to date yet".into());
        }
        let target = self.target(chunk, member);
        let request = Request::Scan { target, block: 0, count: BLOCKS_PER_CHUNK };
        match self.ask(Waits::Nobody, &session, &target, request, Bytes::new()).await {
            Ok((Reply::Scan { digest, blocks, bad, .. }, _)) => Ok(Scan { digest, blocks, bad }),
            Ok((reply, _)) => {
                if matches!(reply, Reply::Error { status: Status::FenceFirst, .. }) {
                    self.distrust(&session, "it was started again");
                }
                Err(format!("it could not be read: {reply:?}"))
            }
            Err(e) => Err(format!("it could not be reached: {}", e.0)),
        }
    }
}

/// A report has an end, however much is wrong.
fn note(report: &mut VerifyReport, mismatch: VerifyMismatch) {
    match report.mismatches.len() < MAX_MISMATCHES {
        true => report.mismatches.push(mismatch),
        false => report.more_mismatches += 1,
    }
}

/// The first of these blocks.
fn named(blocks: &[u32]) -> String {
    let shown = &blocks[..blocks.len().min(MAX_NAMED)];
    let more = if shown.len() < blocks.len() { " and others" } else { "" };
    format!("{shown:?}{more}")
}

struct Scan {
    digest: Digest,
    blocks: u32,
    bad: Vec<u32>,
}

fn most_common(digests: impl Iterator<Item = Digest>) -> Option<Digest> {
    let all: Vec<Digest> = digests.collect();
    all.iter().copied().max_by_key(|d| all.iter().filter(|o| *o == d).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::{DiskId, NodeId};

    #[test]
    fn a_report_has_an_end() {
        let mut report = VerifyReport {
            volume: "v".into(),
            copies: 3,
            chunks: 9,
            blocks: 0,
            mismatches: vec![],
            more_mismatches: 0,
        };
        for chunk_index in 0..MAX_MISMATCHES as u32 + 7 {
            let problem = format!("{} are bad", named(&(0..BLOCKS_PER_CHUNK).collect::<Vec<_>>()));
            note(&mut report, VerifyMismatch { chunk_index, node: NodeId(1), disk: DiskId(1), problem });
        }
        assert_eq!((report.mismatches.len(), report.more_mismatches), (MAX_MISMATCHES, 7));
        assert!(report.mismatches.iter().all(|m| m.problem.len() < 200), "{:?}", report.mismatches[0]);
        assert_eq!(named(&[3, 4]), "[3, 4]");
    }
}
