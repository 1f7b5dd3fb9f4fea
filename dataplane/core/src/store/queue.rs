//! Requests that wait for a batch, and how a batch is filled from them.

use super::layout::BATCH_HEADER_LEN;
use super::limits::*;
use super::record::Record;
use super::tickets::{Subject, Ticket, Tickets, Write};
use bytes::Bytes;
use levee_proto::wire::BlockKind;
use std::collections::VecDeque;

/// One record to be written. A request may have several.
pub struct Item {
    pub record: Record,
    /// Its data blocks.
    pub data: Bytes,
    /// Blocks that it may add to the live ones.
    pub growth: u32,
    /// The request is done with this one.
    pub last: bool,
}

/// Requests in the order of their calls. Bounded by the callers: each has credits.
#[derive(Default)]
pub struct Queue {
    items: VecDeque<Item>,
    growth: u64,
    tickets: Tickets,
}

impl Queue {
    /// Enqueues the records of one request.
    pub fn push(&mut self, items: impl IntoIterator<Item = Item>) -> Ticket {
        for item in items {
            self.growth += u64::from(item.growth);
            self.items.push_back(item);
        }
        let last = self.items.back_mut().expect("a request has records");
        last.last = true;
        let subject = last.record.subject();
        self.tickets.issue(subject)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Blocks that the queued and the written but not yet applied requests may add.
    pub fn growth(&self) -> u64 {
        self.growth
    }

    /// The growth of an item is now in the count of live blocks.
    pub fn settle(&mut self, growth: u32) {
        self.growth -= u64::from(growth);
    }

    pub fn tickets(&self) -> Tickets {
        self.tickets.clone()
    }
}

/// Records that are written together.
#[derive(Default)]
pub struct Batch {
    pub items: Vec<Item>,
    /// Requests that are done with this batch, per queue.
    pub foreground_done: u64,
    pub moves_done: u64,
    record_len: usize,
    data_len: usize,
}

enum Fit {
    Whole,
    /// The first so many blocks of a write.
    Part(u32),
    No,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn record_len(&self) -> usize {
        self.record_len
    }

    pub fn data_len(&self) -> usize {
        self.data_len
    }

    /// Bytes before the data.
    pub fn header_len(&self) -> usize {
        header_len(self.record_len)
    }

    /// Takes what fits into `room` bytes off the queue.
    pub fn fill(&mut self, queue: &mut Queue, room: usize) -> u64 {
        let mut done = 0;
        while let Some(front) = queue.items.front_mut() {
            let (item, stop) = match self.fit(&front.record, room) {
                Fit::Whole => (queue.items.pop_front().expect("there is a front"), false),
                Fit::Part(blocks) => (split(front, blocks), true),
                Fit::No => break,
            };
            self.record_len += item.record.encoded_len();
            self.data_len += item.data.len();
            done += u64::from(item.last);
            self.items.push(item);
            if stop {
                break;
            }
        }
        done
    }

    fn fit(&self, record: &Record, room: usize) -> Fit {
        let records = self.record_len + record.encoded_len();
        let header = header_len(records);
        if header > MAX_BATCH_HEADER || header + self.data_len > room {
            return Fit::No;
        }
        let blocks = (room - header).min(MAX_BATCH_DATA).saturating_sub(self.data_len) / BLOCK;
        if record.data_blocks() as usize <= blocks {
            return Fit::Whole;
        }
        match record {
            // Blocks are registers of their own, so a write may be cut; this leaves no hole at the
            // end of a segment.
            Record::Write { kind: BlockKind::Data, .. } if blocks > 0 => Fit::Part(blocks as u32),
            _ => Fit::No,
        }
    }
}

fn header_len(records: usize) -> usize {
    (BATCH_HEADER_LEN + records).next_multiple_of(BLOCK)
}

impl Record {
    fn subject(&self) -> Subject {
        match *self {
            Record::Write { chunk, version, seq, block, count, .. } => {
                Subject::Write(Write { chunk, version, seq, block, count })
            }
            Record::Repair { chunk, .. } | Record::Delete { chunk, .. } | Record::Prune { chunk, .. } => {
                Subject::Change(chunk)
            }
            Record::Create { ref new, .. } => Subject::Change(new.chunk),
            _ => Subject::Other,
        }
    }
}

/// Cuts the first `blocks` blocks off a write of data.
fn split(item: &mut Item, blocks: u32) -> Item {
    let Record::Write { chunk, kind, version, seq, block, count, crcs } = &mut item.record else {
        unreachable!("only writes are cut")
    };
    let (first, first_crcs) = (*block, crcs.split_to(blocks as usize));
    *block += blocks;
    *count -= blocks;
    let record = Record::Write {
        chunk: *chunk,
        kind: *kind,
        version: *version,
        seq: *seq,
        block: first,
        count: blocks,
        crcs: first_crcs,
    };
    let growth = item.growth.min(blocks);
    item.growth -= growth;
    Item { record, data: item.data.split_to(blocks as usize * BLOCK), growth, last: false }
}
