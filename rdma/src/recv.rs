//! Bytes on their way in: read into large reused buffers, frames sliced out without copying.
//!
//! A buffer is returned to use once no slice of it is alive. While consumers hold on to data, the link
//! goes through up to [`KEPT_SLABS`] buffers before it lets the oldest go. A frame that does not fit the
//! rest of its buffer is moved to a fresh one as soon as its header is known, a frame larger than
//! a buffer gets memory of its own size.

use crate::frame::Frame;
use crate::limits::{KEPT_SLABS, MIN_ROOM, SLAB_SIZE};
use bytes::{Buf, Bytes, BytesMut};
use levee_proto::wire::{FrameHeader, HEADER_LEN, Malformed};
use std::collections::VecDeque;

pub(crate) struct RecvBuffer {
    /// Received bytes, `filled` of them, then room for more. Its memory is initialised throughout.
    buf: BytesMut,
    filled: usize,
    /// Whether `buf` is a slab of [`SLAB_SIZE`] and can be used again.
    is_slab: bool,
    /// Slabs that were used up, oldest first. Slices of them may be alive.
    used: VecDeque<BytesMut>,
    /// The largest frame accepted.
    max_frame: usize,
    /// Bytes that the frame at the front needs, once its header is known.
    needed: usize,
}

impl RecvBuffer {
    pub fn new(max_frame: usize) -> RecvBuffer {
        RecvBuffer {
            buf: BytesMut::new(),
            filled: 0,
            is_slab: false,
            used: VecDeque::new(),
            max_frame,
            needed: HEADER_LEN,
        }
    }

    /// Changes the size of the largest frame accepted.
    pub fn set_max_frame(&mut self, max_frame: usize) {
        self.max_frame = max_frame;
    }

    /// Whether part of a frame is here.
    pub fn is_partial(&self) -> bool {
        self.filled > 0
    }

    /// Where the next bytes go; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        if self.filled == 0 {
            self.rewind();
            if self.buf.len() < MIN_ROOM {
                self.change(SLAB_SIZE);
            }
        } else if self.buf.len() < self.needed || self.buf.len() == self.filled {
            self.change(self.needed.max(self.filled + 1));
        }
        &mut self.buf[self.filled..]
    }

    /// Notes that `n` bytes were put into [`RecvBuffer::room`].
    pub fn advance(&mut self, n: usize) {
        self.filled += n;
    }

    /// The next whole frame.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        self.needed = HEADER_LEN;
        if self.filled < HEADER_LEN {
            return Ok(None);
        }
        let header = FrameHeader::parse(&self.buf[..HEADER_LEN])?;
        let meta_len = header.meta_len.get() as usize;
        let total = HEADER_LEN + meta_len + header.data_len.get() as usize;
        if total > self.max_frame {
            return Err(Malformed("frame too large"));
        }
        if self.filled < total {
            self.needed = total;
            return Ok(None);
        }
        let (meta, data) = self.take(meta_len, total);
        header.check_meta(&meta)?;
        Ok(Some(Frame { header, meta, data }))
    }

    fn take(&mut self, meta_len: usize, total: usize) -> (Bytes, Bytes) {
        self.filled -= total;
        self.buf.advance(HEADER_LEN);
        if total == HEADER_LEN {
            return (Bytes::new(), Bytes::new());
        }
        let mut meta = self.buf.split_to(total - HEADER_LEN).freeze();
        let data = meta.split_off(meta_len);
        (meta, data)
    }

    /// Starts at the front of the slab again if nobody holds a slice of it: warm memory, and little of it.
    fn rewind(&mut self) {
        if self.is_slab && self.buf.len() < SLAB_SIZE {
            reuse(&mut self.buf);
        }
    }

    /// Goes on in another buffer, with at least `len` bytes; what has arrived moves along.
    fn change(&mut self, len: usize) {
        let fresh = if len > SLAB_SIZE { BytesMut::zeroed(len) } else { self.slab() };
        let old = std::mem::replace(&mut self.buf, fresh);
        self.buf[..self.filled].copy_from_slice(&old[..self.filled]);
        if self.is_slab {
            self.used.push_back(old);
        }
        if self.used.len() > KEPT_SLABS {
            self.used.pop_front();
        }
        self.is_slab = len <= SLAB_SIZE;
    }

    /// A slab: the oldest used one if its slices are gone, else a new one.
    fn slab(&mut self) -> BytesMut {
        if let Some(oldest) = self.used.front_mut()
            && reuse(oldest)
            && let Some(slab) = self.used.pop_front()
        {
            return slab;
        }
        BytesMut::zeroed(SLAB_SIZE)
    }
}

/// Makes a whole slab out of what is left of one, unless slices of it are alive. Its content is lost.
fn reuse(slab: &mut BytesMut) -> bool {
    let len = slab.len();
    slab.clear();
    let whole = slab.try_reclaim(SLAB_SIZE);
    // SAFETY: the allocation was zeroed when it was made and try_reclaim never makes another, so every
    // byte within the capacity is initialised. `len` was the length just before `clear`.
    unsafe { slab.set_len(if whole { SLAB_SIZE } else { len }) };
    whole
}

#[cfg(test)]
#[path = "recv_tests.rs"]
mod tests;
