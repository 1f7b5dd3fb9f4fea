//! Frames on their way out: a batch is encoded once and sent by gathering, block data uncopied.

use crate::limits::{KEPT_HEADS, MAX_PIECES};
use bytes::Bytes;
use levee_proto::wire::{FrameHeader, HEADER_LEN, MAX_DATA, MAX_META, Status};
use std::io::IoSlice;
use zerocopy::IntoBytes;

/// A frame that arrived: its header and message are checked against their checksums.
pub(crate) struct Frame {
    pub header: FrameHeader,
    pub meta: Bytes,
    pub data: Bytes,
}

/// The message or its data exceeds what a frame may hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// What identifies a frame.
#[derive(Clone, Copy)]
pub(crate) struct Label {
    pub kind: u16,
    pub id: u64,
    pub status: Status,
}

/// Encoded headers and messages up to `head_end`, then the data of the last of them.
struct Part {
    head_end: usize,
    data: Bytes,
}

/// Frames to send together, and how far that has got.
///
/// Headers and messages of all frames share one buffer. Frames without data merge into one piece, so
/// that a batch of acknowledgements is a single piece of memory.
#[derive(Default)]
pub(crate) struct Batch {
    heads: Vec<u8>,
    parts: Vec<Part>,
    bytes: usize,
    /// Parts that are sent whole, and how many bytes of the next one.
    done: usize,
    offset: usize,
}

impl Batch {
    /// Adds a frame; nothing is added if it is too large.
    pub fn push(&mut self, label: Label, encode: impl FnOnce(&mut Vec<u8>), data: Bytes) -> Result<(), TooLarge> {
        let start = self.heads.len();
        self.heads.resize(start + HEADER_LEN, 0);
        encode(&mut self.heads);
        let meta = &self.heads[start + HEADER_LEN..];
        if meta.len() > MAX_META || data.len() > MAX_DATA {
            self.heads.truncate(start);
            return Err(TooLarge);
        }
        let header = FrameHeader::new(label.kind, label.id, label.status, meta, data.len());
        self.heads[start..start + HEADER_LEN].copy_from_slice(header.as_bytes());
        self.bytes += self.heads.len() - start + data.len();
        self.add_part(data);
        Ok(())
    }

    fn add_part(&mut self, data: Bytes) {
        let head_end = self.heads.len();
        match self.parts.last_mut() {
            Some(last) if last.data.is_empty() => *last = Part { head_end, data },
            _ => self.parts.push(Part { head_end, data }),
        }
    }

    /// Size of the whole batch.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether everything was sent.
    pub fn is_sent(&self) -> bool {
        self.done == self.parts.len()
    }

    fn head(&self, part: usize) -> &[u8] {
        let start = if part == 0 { 0 } else { self.parts[part - 1].head_end };
        &self.heads[start..self.parts[part].head_end]
    }

    /// The next pieces to send; as many as `pieces` holds. Returns how many there are.
    pub fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>; MAX_PIECES]) -> usize {
        let mut n = 0;
        let mut skip = self.offset;
        for part in self.done..self.parts.len() {
            for piece in [self.head(part), &self.parts[part].data[..]] {
                let rest = &piece[skip.min(piece.len())..];
                skip -= piece.len() - rest.len();
                if !rest.is_empty() {
                    pieces[n] = IoSlice::new(rest);
                    n += 1;
                }
                if n == MAX_PIECES {
                    return n;
                }
            }
        }
        n
    }

    /// The first piece still to be sent.
    pub fn first_piece(&self) -> &[u8] {
        if self.is_sent() {
            return &[];
        }
        let head = self.head(self.done);
        if self.offset < head.len() {
            &head[self.offset..]
        } else {
            &self.parts[self.done].data[self.offset - head.len()..]
        }
    }

    /// Notes that `n` more bytes were sent.
    pub fn advance(&mut self, n: usize) {
        self.offset += n;
        while !self.is_sent() {
            let len = self.head(self.done).len() + self.parts[self.done].data.len();
            if self.offset < len {
                return;
            }
            self.offset -= len;
            self.done += 1;
        }
        debug_assert_eq!(self.offset, 0);
    }

    /// Empties the batch; its memory serves the next one.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.heads.shrink_to(KEPT_HEADS);
        self.parts.clear();
        (self.bytes, self.done, self.offset) = (0, 0, 0);
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
