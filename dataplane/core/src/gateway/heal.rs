//! Bad copies: finding out which blocks, and which versions of them, are bad, so that just those are sent again from
//! another member.

use super::chunk::{Chunk, Stage};
use super::report::count;
use super::session::Waits;
use super::{Cluster, Gateway};
use crate::ports::Runtime;
use bytes::Bytes;
use levee_proto::wire::{BlockEntry, MAX_LIST, Reply, Request};
use levee_proto::{BLOCKS_PER_CHUNK, Seq, Version, View};
use std::ops::Range;
use std::rc::Rc;
use tracing::warn;

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// A member could not read something of a range: notes what. The others can still be had from it. `version`: the only
    /// one that was to be read.
    pub(super) async fn find_bad_blocks(
        &self,
        chunk: &Rc<Chunk>,
        member: usize,
        blocks: Range<u32>,
        version: Option<Version>,
        reconcile: bool,
    ) {
        if blocks.len() == 1 {
            return match version {
                Some(version) => self.note_bad(chunk, member, blocks.start, version),
                None => self.find_bad_versions(chunk, member, blocks.start, reconcile).await,
            };
        }
        let view = version.map_or_else(|| self.head_view(), View::only);
        for block in blocks.filter(|_| chunk.state.borrow().members[member].is_known()) {
            Box::pin(self.read_from(chunk, member, block..block + 1, view.clone(), reconcile, Waits::Guests)).await;
        }
    }

    /// Reads every version that a member has of a block.
    async fn find_bad_versions(&self, chunk: &Rc<Chunk>, member: usize, block: u32, reconcile: bool) {
        for e in self.versions_of(chunk, member, block).await.unwrap_or_default() {
            let view = View::only(e.version);
            Box::pin(self.read_from(chunk, member, block..block + 1, view, reconcile, Waits::Guests)).await;
        }
    }

    /// The entries that a member has of a block, the newest version first. `None`: it does not say.
    pub(super) async fn versions_of(&self, chunk: &Rc<Chunk>, member: usize, block: u32) -> Option<Vec<BlockEntry>> {
        let session = self.session_of(chunk, member);
        let target = self.target(chunk, member);
        let (from_version, max) = (Version::MAX, MAX_LIST as u32);
        let request = Request::List { target, from: block, from_version, max, above: Seq::ZERO };
        match self.ask(Waits::Guests, &session, &target, request, Bytes::new()).await {
            Ok((Reply::List { entries, .. }, _)) => {
                Some(entries.into_iter().take_while(|e| e.block == block).collect())
            }
            _ => None,
        }
    }

    /// A version of a block is bad at a member.
    fn note_bad(&self, chunk: &Rc<Chunk>, member: usize, block: u32, version: Version) {
        count(&self.0.counters.bad_blocks, 1);
        if chunk.stage() == Stage::InDoubt {
            *chunk.unreadable.borrow_mut().entry((block, version)).or_default() |= 1 << member;
        }
        if chunk.mark_corrupt(member, block, version) {
            self.session_of(chunk, member).changed.notify();
        }
    }

    /// What is bad is sent again from another copy.
    pub(super) async fn note_bad_blocks(&self, chunk: &Rc<Chunk>, member: usize, bad: &[u32]) {
        let mut noted = 0;
        for block in bad.iter().copied().filter(|b| *b < BLOCKS_PER_CHUNK) {
            match self.head() {
                Version::FIRST => self.note_bad(chunk, member, block, Version::FIRST),
                _ => self.find_bad_versions(chunk, member, block, !chunk.has_adopted(member)).await,
            }
            noted += 1;
        }
        if noted > 0 {
            warn!(volume = %self.0.volume.name, chunk = %chunk.id, "{noted} bad blocks of a copy are replaced");
        }
    }
}
