//! Loading a checkpoint, piece by piece, as far as it is whole.

use super::checkpoint::{DIRECTORY, ENTRIES, FENCES, decode_fences, decode_replicas};
use super::index::{Index, Ledger};
use super::layout::{PieceHeader, ShardGeometry};
use super::limits::*;
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
    /// The replicas that these held: they are there, but empty.
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
    let mut index = Index::default();
    let mut with_entries = BTreeSet::new();
    let (mut good, mut good_small) = (0, 0);
    let mut next = 0;
    for segment in &root.segments {
        let mut window = Window::new(disk, g, *segment);
        let mut offset = BLOCK as u32;
        while next < root.pieces
            && let Some(piece) = find(&mut window, g, root, offset, next).await
        {
            offset = piece.end;
            next = piece.number + 1;
            if take(&mut index, &mut with_entries, &piece, g, ledger).is_some() {
                good += 1;
                good_small += u32::from(piece.number < root.first_entries);
            }
        }
    }
    if good_small < root.first_entries {
        return Err(format!("checkpoint {} has lost its fences or its directory", root.checkpoint));
    }
    let bad_pieces = root.pieces - good;
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

fn take(
    index: &mut Index,
    with_entries: &mut BTreeSet<ChunkId>,
    piece: &Piece,
    g: &ShardGeometry,
    ledger: &mut impl Ledger,
) -> Option<()> {
    match piece.kind {
        FENCES => decode_fences(&piece.payload)?.into_iter().for_each(|(v, e)| index.set_fence(v, e)),
        DIRECTORY | ENTRIES => {
            for r in decode_replicas(&piece.payload, g.blocks())? {
                if piece.kind == ENTRIES {
                    with_entries.insert(r.chunk);
                }
                index.insert(r, ledger);
            }
        }
        _ => return None,
    }
    Some(())
}
