//! The ancestors of a clone: what it has not written itself is read from their replicas.
//!
//! Each ancestor is a snapshot, and what a snapshot shows never changes: so it is read without epoch or fence, from whichever
//! sealed replica answers, and what is learned about which blocks an ancestor has stays true. Only where its replicas are
//! changes: when none of those known answers, the meta server is asked again. How replicas are asked: `ask_shared.rs`.

use super::ask_shared::{NoAnswer, Shared};
use super::unread::Unread;
use super::{AllocError, Cluster, Gateway, Stopped};
use crate::bitmap::BlockSet;
use crate::ports::Runtime;
use crate::shared::Source;
use bytes::{Bytes, BytesMut};
use levee_proto::api::{ChunkInfo, OpenedVolume, ParentInfo, ReplicaPlace};
use levee_proto::units::BLOCK_SIZE;
use levee_proto::wire::{BlockEntry, BlockKind, Reply, Request, Status};
use levee_proto::{ChunkId, Version, View, VolumeId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, warn};

/// Most ancestors of a volume: clones of clones.
pub(super) const MAX_ANCESTORS: usize = 32;
/// Most mirrors of one that are read.
const MAX_MIRRORS: usize = 16;
/// The meta server is asked no more often than this whether there are more replicas, only because some are slow.
const LOOK_PAUSE: Duration = Duration::from_secs(30);

/// What is missing would read as zeros.
const INCOMPLETE: &str = "an ancestor's map is not complete";

/// The snapshots that a volume grew from.
pub(super) struct Ancestors {
    /// Nearest first.
    layers: RefCell<Rc<Vec<Layer>>>,
    /// The meta server is being asked where they are.
    asking: Cell<bool>,
    /// When it was asked last.
    asked: Cell<Duration>,
}

/// One ancestor.
pub(super) struct Layer {
    pub volume: VolumeId,
    pub view: View,
    /// Bytes: beyond, it and all before it read as zeros.
    pub size: u64,
    /// By index.
    pub chunks: BTreeMap<u32, Rc<SharedChunk>>,
}

/// A chunk of an ancestor.
pub(super) struct SharedChunk {
    pub id: ChunkId,
    replicas: Vec<Rc<SharedReplica>>,
    /// Which of these is asked first.
    first: Cell<usize>,
    /// The blocks that the ancestor has; `None`: not known yet.
    presence: RefCell<Option<Arc<BlockSet>>>,
}

/// One that can be asked.
#[derive(PartialEq, Eq)]
pub(super) struct SharedReplica {
    pub place: ReplicaPlace,
    pub volume: VolumeId,
    pub chunk: ChunkId,
    pub view: View,
    /// Of a volume that holds the same, what further ancestors have included: what it has no entry of is zeros.
    pub is_mirror: bool,
}

impl Ancestors {
    pub fn new(volume: &OpenedVolume) -> Ancestors {
        let layers = layers(volume.parent.as_ref(), volume.id, &[]);
        Ancestors { layers: RefCell::new(Rc::new(layers)), asking: Cell::new(false), asked: Cell::default() }
    }

    /// Whether the volume has none.
    pub fn is_empty(&self) -> bool {
        self.layers.borrow().is_empty()
    }

    pub fn layers(&self) -> Rc<Vec<Layer>> {
        self.layers.borrow().clone()
    }

    /// The volume needs them no more.
    pub fn forget(&self) {
        self.layers.replace(Rc::default());
    }

    /// Whether any of them may have something in a chunk.
    pub fn have(&self, index: u32) -> bool {
        self.layers.borrow().iter().any(|layer| layer.chunks.contains_key(&index))
    }

    /// The chunks in which any of them may have something.
    pub fn indexes(&self) -> BTreeSet<u32> {
        self.layers.borrow().iter().flat_map(|layer| layer.chunks.keys().copied()).collect()
    }
}

/// A chain of ancestors as layers; what is known of their chunks stays known.
fn layers(parent: Option<&ParentInfo>, reader: VolumeId, known: &[Layer]) -> Vec<Layer> {
    let chain = std::iter::successors(parent, |p| p.parent.as_deref());
    let layer = |(i, p): (usize, &ParentInfo)| {
        let old = known.get(i).filter(|l| l.volume == p.volume && l.view == p.view);
        let chunk = |c: &ChunkInfo| {
            let before = old.and_then(|l| l.chunks.get(&c.index)).filter(|s| s.id == c.chunk);
            let presence = before.and_then(|s| s.presence.borrow().clone());
            let replicas = replicas(p, c);
            // Clones of one parent begin with different copies of it.
            let first = Cell::new((reader.0 as usize + c.chunk.0 as usize) % replicas.len().max(1));
            (c.index, Rc::new(SharedChunk { id: c.chunk, replicas, first, presence: RefCell::new(presence) }))
        };
        Layer { volume: p.volume, view: p.view.clone(), size: p.size, chunks: p.chunks.iter().map(chunk).collect() }
    };
    chain.take(MAX_ANCESTORS).enumerate().map(layer).collect()
}

/// Where a chunk of an ancestor can be read: its own replicas, and those of its mirrors.
fn replicas(of: &ParentInfo, chunk: &ChunkInfo) -> Vec<Rc<SharedReplica>> {
    let all = |volume: VolumeId, view: &View, chunk: &ChunkInfo, is_mirror| {
        let (id, view) = (chunk.chunk, view.clone());
        let replica = move |place: &ReplicaPlace| {
            Rc::new(SharedReplica { place: *place, volume, chunk: id, view: view.clone(), is_mirror })
        };
        chunk.replicas.iter().map(replica).collect::<Vec<_>>()
    };
    let mut replicas = all(of.volume, &of.view, chunk, false);
    for mirror in of.mirrors.iter().take(MAX_MIRRORS).filter(|m| m.view.is_valid()) {
        if let Ok(at) = mirror.chunks.binary_search_by_key(&chunk.index, |c| c.index) {
            replicas.extend(all(mirror.volume, &mirror.view, &mirror.chunks[at], true));
        }
    }
    replicas
}

/// Whether a clone can read its ancestors, as the meta server described them.
pub(super) fn check(volume: &OpenedVolume) -> Result<(), String> {
    let chain = || std::iter::successors(volume.parent.as_ref(), |p| p.parent.as_deref());
    match () {
        () if chain().count() > MAX_ANCESTORS => Err(format!("it has more than {MAX_ANCESTORS} ancestors")),
        () if chain().any(|p| p.geometry != volume.geometry) => Err("an ancestor has another geometry".into()),
        () if !chain().all(|p| p.view.is_valid()) => Err("an ancestor's view is unusable".into()),
        () if chain().any(|p| p.more) => Err(INCOMPLETE.into()),
        () => Ok(()),
    }
}

impl Layer {
    /// How what it shows of a chunk is remembered.
    pub fn source(&self, index: u32) -> Source {
        let version =
            if crate::mutant!("versions share what is remembered") { Version::FIRST } else { self.view.version };
        Source { volume: self.volume, version, index }
    }
}

impl SharedChunk {
    /// Its replicas, in the order in which they are to be asked: one on the reader's node is near.
    pub fn in_order(&self, node: levee_proto::NodeId) -> Vec<Rc<SharedReplica>> {
        let mut all = self.replicas.clone();
        let first = self.first.get() % all.len().max(1);
        all.rotate_left(first);
        all.sort_by_key(|r| r.place.node != node);
        all
    }

    /// The one that was to be asked first does not answer.
    pub fn prefer_next(&self) {
        self.first.set(self.first.get().wrapping_add(1));
    }
}

impl<R: Runtime, C: Cluster> Gateway<R, C> {
    /// Reads consecutive blocks of one chunk of an ancestor; `None`: it has nothing of the chunk any more, which held no data. Asks one
    /// replica after the other for as long as it takes, and block by block where no replica can read all of them: each may be good
    /// somewhere else. What all that are known have and cannot read is lost.
    pub(super) async fn read_shared(
        &self,
        layer: &Layer,
        index: u32,
        blocks: &Range<u32>,
    ) -> Result<Option<(Vec<BlockEntry>, Bytes)>, Unread> {
        let mut asked_anew = false;
        loop {
            match self.ask_for_blocks(layer, index, blocks).await? {
                Shared::Answer(read) => return Ok(Some(read)),
                Shared::Gone => return Ok(None),
                Shared::Bad { .. } if blocks.len() > 1 => return self.read_shared_singly(layer, index, blocks).await,
                Shared::Bad { everywhere: true } if asked_anew => return Err(Unread::Lost),
                // There may be others by now.
                Shared::Bad { .. } => {
                    asked_anew = true;
                    self.look_for_ancestors().await;
                }
            }
        }
    }

    async fn read_shared_singly(
        &self,
        layer: &Layer,
        index: u32,
        blocks: &Range<u32>,
    ) -> Result<Option<(Vec<BlockEntry>, Bytes)>, Unread> {
        let (mut entries, mut data) = (Vec::with_capacity(blocks.len()), BytesMut::new());
        for block in blocks.clone() {
            let Some((entry, bytes)) = Box::pin(self.read_shared(layer, index, &(block..block + 1))).await? else {
                return Ok(None);
            };
            entries.extend(entry);
            data.extend_from_slice(&bytes);
        }
        Ok(Some((entries, data.freeze())))
    }

    async fn ask_for_blocks(
        &self,
        layer: &Layer,
        index: u32,
        blocks: &Range<u32>,
    ) -> Result<Shared<(Vec<BlockEntry>, Bytes)>, Stopped> {
        let request = |replica: &SharedReplica| Request::ReadShared {
            volume: replica.volume,
            chunk: replica.chunk,
            replica: replica.place.replica,
            disk: replica.place.disk,
            view: replica.view.clone(),
            block: blocks.start,
            count: blocks.end - blocks.start,
        };
        let take = |replica: &SharedReplica, reply: Reply, data: Bytes| match reply {
            Reply::Read { mut entries }
                if super::read::is_answer(&entries, &data, blocks)
                    || crate::mutant!("an ancestor's answer is not checked") =>
            {
                for entry in entries.iter_mut().filter(|e| replica.is_mirror && e.kind == BlockKind::Absent) {
                    entry.kind = BlockKind::Zero;
                }
                Ok((entries, data))
            }
            Reply::Read { .. } => Err(NoAnswer::Other("data does not match its checksum on arrival".into())),
            Reply::Error { status: Status::Corrupt, detail } => Err(NoAnswer::Bad(detail)),
            other => Err(NoAnswer::Other(format!("{other:?}"))),
        };
        self.ask_shared(layer, index, |_| true, request, take).await
    }

    /// The blocks that an ancestor has of a chunk.
    pub(super) async fn presence(&self, layer: &Layer, index: u32) -> Result<Arc<BlockSet>, Stopped> {
        let Some(chunk) = layer.chunks.get(&index) else { return Ok(Arc::default()) };
        if let Some(known) = &*chunk.presence.borrow() {
            return Ok(known.clone());
        }
        let found = match self.0.cluster.shared() {
            Some(shared) => self.presence_through(shared, layer, index).await?,
            None => self.ask_presence(layer, index).await?.unwrap_or_default(),
        };
        *chunk.presence.borrow_mut() = Some(found.clone());
        Ok(found)
    }

    /// Asks the replicas for it; `None`: the ancestor has nothing of the chunk any more.
    pub(super) async fn ask_presence(&self, layer: &Layer, index: u32) -> Result<Option<Arc<BlockSet>>, Stopped> {
        let request = |r: &SharedReplica| Request::Presence {
            volume: r.volume,
            chunk: r.chunk,
            replica: r.place.replica,
            disk: r.place.disk,
            view: r.view.clone(),
        };
        let bits = |reply| match reply {
            Reply::Presence { bits } => Ok(bits),
            other => Err(other),
        };
        Ok(self.ask_bits(layer, index, request, bits).await?.map(Arc::new))
    }

    /// The blocks that an ancestor shows data in. Not remembered: nothing but counting needs it.
    pub(super) async fn present_data(&self, layer: &Layer, index: u32) -> Result<BlockSet, Stopped> {
        let request = |r: &SharedReplica| Request::PresentData {
            volume: r.volume,
            chunk: r.chunk,
            replica: r.place.replica,
            disk: r.place.disk,
            view: r.view.clone(),
        };
        let bits = |reply| match reply {
            Reply::PresentData { bits } => Ok(bits),
            other => Err(other),
        };
        Ok(self.ask_bits(layer, index, request, bits).await?.unwrap_or_default())
    }

    /// Asks for a bit per block, of the ancestor's own replicas: a mirror does not tell what the ancestor has itself.
    async fn ask_bits(
        &self,
        layer: &Layer,
        index: u32,
        request: impl Fn(&SharedReplica) -> Request,
        bits: impl Fn(Reply) -> Result<Bytes, Reply>,
    ) -> Result<Option<BlockSet>, Stopped> {
        let take = |_: &SharedReplica, reply: Reply, _| {
            let bits = bits(reply).map_err(|other| NoAnswer::Other(format!("{other:?}")))?;
            BlockSet::from_bits(&bits).ok_or_else(|| NoAnswer::Other("a bitmap of another length".into()))
        };
        match self.ask_shared(layer, index, |replica| !replica.is_mirror, request, take).await? {
            Shared::Answer(bits) => Ok(Some(bits)),
            // Nothing is read for it, so nothing can be bad.
            Shared::Gone | Shared::Bad { .. } => Ok(None),
        }
    }

    /// Replicas are slow: there may be more of them by now.
    pub(super) fn look_for_more(&self) {
        if self.0.rt.now().saturating_sub(self.0.ancestors.asked.get()) >= LOOK_PAUSE {
            let this = self.clone();
            self.0.rt.spawn(async move { this.look_for_ancestors().await });
        }
    }

    /// Asks the meta server where the ancestors' replicas are, unless that is going on.
    pub(super) async fn look_for_ancestors(&self) {
        let ancestors = &self.0.ancestors;
        if ancestors.asking.replace(true) {
            return;
        }
        ancestors.asked.set(self.0.rt.now());
        let answer = self.0.cluster.parent().await;
        ancestors.asking.set(false);
        match answer {
            Ok(Some(parent)) if std::iter::successors(Some(&parent), |p| p.parent.as_deref()).any(|p| p.more) => {
                warn!(volume = %self.0.volume.name, "{INCOMPLETE}: not followed");
            }
            Ok(Some(parent)) => {
                let known = ancestors.layers();
                let found = layers(Some(&parent), self.0.volume.id, &known);
                let is_same = |(a, b): (&Layer, &Layer)| a.volume == b.volume && a.view == b.view;
                if found.len() == known.len() && found.iter().zip(known.iter()).all(is_same) {
                    ancestors.layers.replace(Rc::new(found));
                } else if !known.is_empty() {
                    warn!(volume = %self.0.volume.name, "the meta server names other ancestors than at the open: not followed");
                }
            }
            // It was flattened; whoever did it holds everything.
            Ok(None) => debug!(volume = %self.0.volume.name, "the meta server knows of no ancestors"),
            Err(AllocError::Fenced(why)) => self.stop(&why),
            Err(AllocError::Retry(why)) => debug!(volume = %self.0.volume.name, "where are the ancestors: {why}"),
        }
    }
}

/// Blocks of a range of which an ancestor of this size has an end: those before it.
pub(super) fn within(size: u64, at: u64, blocks: &Range<u32>) -> Range<u32> {
    let count = size.saturating_sub(at).div_ceil(BLOCK_SIZE as u64).min(blocks.len() as u64) as u32;
    blocks.start..blocks.start + count
}
