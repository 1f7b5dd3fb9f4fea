//! Loading a checkpoint, piece by piece, as far as it is whole.

use super::checkpoint::{DIRECTORY, ENTRIES, FENCES, Part, SEALS, decode_fences, decode_replicas, decode_seals};
use super::index::{Index, Ledger};
use super::layout::{PieceHeader, ShardGeometry};
use super::limits::*;
use super::record::Seal;
use super::root::Root;
use super::walk::Window;
use crate::ports::Disk;
use levee_proto::ChunkId;
use std::collections::BTreeSet;

/// What a checkpoint gave.
pub struct Checkpoint {
    pub index: Index,
    /// Pieces that are missing.
    pub bad_pieces: u32,
    /// The replicas that these held: they are there, but lack entries.
    pub incomplete: BTreeSet<ChunkId>,
}

/// A piece whose CRC holds.
struct Piece {
    number: u32,
    kind: u16,
    payload: Vec<u8>,
    end: u32,
}

/// Loads the checkpoint of `root`; the reason if it is of no use.
pub async fn load<D: Disk>(
    disk: &D,
    g: &ShardGeometry,
    root: &Root,
    ledger: &mut impl Ledger,
) -> Result<Checkpoint, String> {
    let mut loader = Loader { index: Index::default(), with_entries: BTreeSet::new(), open: None, seals: Vec::new() };
    let (mut good, mut good_small) = (0, 0);
    let mut next = 0;
    for segment in &root.segments {
        let mut window = Window::new(disk, g, *segment);
        let mut offset = BLOCK as u32;
        while next < root.pieces
            && let Some(piece) = find(&mut window, g, root, offset, next).await
        {
            if piece.number > next {
                loader.open = None;
            }
            offset = piece.end;
            next = piece.number + 1;
            if loader.take(&piece, g, ledger).is_some() {
                good += 1;
                good_small += u32::from(piece.number < root.first_entries);
            } else {
                loader.open = None;
            }
        }
    }
    if good_small < root.first_entries {
        return Err(format!("checkpoint {} has lost its fences or its directory", root.checkpoint));
    }
    let bad_pieces = root.pieces - good;
    let Loader { mut index, with_entries, seals, .. } = loader;
    seals.iter().for_each(|s| index.seal(s));
    let chunks = index.replicas().map(|r| r.chunk);
    let incomplete = chunks.filter(|c| bad_pieces > 0 && !with_entries.contains(c)).collect();
    Ok(Checkpoint { index, bad_pieces, incomplete })
}

/// The first whole piece at or after `from` whose number is at least `next`.
async fn find<D: Disk>(
    window: &mut Window<'_, D>,
    g: &ShardGeometry,
    root: &Root,
    from: u32,
    next: u32,
) -> Option<Piece> {
    let mut offset = from;
    while offset + BLOCK as u32 <= g.segment_size {
        let room = (g.segment_size - offset) as usize;
        let header = PieceHeader::peek(g, root.checkpoint, window.get(offset, BLOCK).await, room)
            .filter(|h| (next..root.pieces).contains(&h.number.get()));
        if let Some(h) = header
            && let Some(payload) = h.payload(window.get(offset, h.len()).await)
        {
            let end = offset + h.len() as u32;
            return Some(Piece { number: h.number.get(), kind: h.kind.get(), payload: payload.to_vec(), end });
        }
        offset += BLOCK as u32;
    }
    None
}

/// The checkpoint as far as it has been read.
struct Loader {
    index: Index,
    /// Replicas all of whose entries were there.
    with_entries: BTreeSet<ChunkId>,
    /// A replica of which more is to follow.
    open: Option<ChunkId>,
    /// They hold for replicas as they are in the end.
    seals: Vec<Seal>,
}

impl Loader {
    fn take(&mut self, piece: &Piece, g: &ShardGeometry, ledger: &mut impl Ledger) -> Option<()> {
        match piece.kind {
            FENCES => decode_fences(&piece.payload)?.into_iter().for_each(|(v, f)| self.index.set_fence(v, f)),
            SEALS => self.seals.extend(decode_seals(&piece.payload)?),
            DIRECTORY => {
                for part in decode_replicas(&piece.payload, g.blocks())? {
                    self.index.insert(part.replica, ledger);
                }
            }
            ENTRIES => {
                let parts = decode_replicas(&piece.payload, g.blocks())?;
                parts.into_iter().for_each(|part| self.entries(part, ledger));
            }
            _ => return None,
        }
        Some(())
    }

    fn entries(&mut self, part: Part, ledger: &mut impl Ledger) {
        let chunk = part.replica.chunk;
        let mut whole = !part.continues || self.open == Some(chunk);
        if part.continues {
            whole &= self.index.extend(&part.replica, ledger);
        } else {
            self.index.insert(part.replica, ledger);
        }
        self.open = Some(chunk).filter(|_| whole && part.more_follows);
        if whole && !part.more_follows {
            self.with_entries.insert(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::encode_part;
    use super::super::index::{Place, Replica, Slot};
    use super::super::record::NewReplica;
    use super::*;
    use levee_proto::{BLOCKS_PER_CHUNK, ConfigNo, Epoch, ReplicaId, Seq, Version, VolumeId};

    struct Unheard;

    impl Ledger for Unheard {
        fn change(&mut self, _old: Place, _new: Place) {}
    }

    fn replica(chunk: ChunkId) -> Replica {
        let new =
            NewReplica { volume: VolumeId(1), chunk, replica: ReplicaId(5), config: ConfigNo(1), adopted: Epoch(1) };
        Replica::new(&new, 8)
    }

    /// The parts of a replica with two and a half times as many entries as there are blocks.
    fn parts(r: &mut Replica) -> Vec<Part> {
        for version in 1..=3 {
            for block in (0..BLOCKS_PER_CHUNK).filter(|b| version < 3 || b % 2 == 0) {
                let slot = Slot::new(Version(version), Seq(u64::from(version)), 0, Place::ZERO);
                r.chains.put(block, slot.version, slot, &mut Unheard);
            }
        }
        let (mut parts, mut after) = (Vec::new(), None);
        loop {
            let mut bytes = Vec::new();
            after = encode_part(r, after, &mut bytes);
            parts.extend(decode_replicas(&bytes, 1000).expect("well-formed"));
            if after.is_none() {
                return parts;
            }
        }
    }

    /// A replica is whole only with all of its parts.
    #[test]
    fn parts_of_a_replica_make_it_whole_together() {
        let chunk = ChunkId(3);
        for missing in [None, Some(0), Some(1), Some(2)] {
            let mut r = replica(chunk);
            let parts = parts(&mut r);
            assert_eq!(parts.len(), 3);
            let mut loader =
                Loader { index: Index::default(), with_entries: BTreeSet::new(), open: None, seals: Vec::new() };
            loader.index.insert(replica(chunk), &mut Unheard);
            for (i, part) in parts.into_iter().enumerate() {
                match missing == Some(i) {
                    true => loader.open = None,
                    false => loader.entries(part, &mut Unheard),
                }
            }
            assert_eq!(loader.with_entries.contains(&chunk), missing.is_none(), "{missing:?}");
            let found = loader.index.get(chunk).expect("there").meta();
            assert_eq!(found == r.meta(), missing.is_none(), "{missing:?}");
        }
    }
}
