//! How much may be in flight on a link. Client and server run the same computation on the same
//! requests: the client to stay within its grant, the server to catch one that does not.

use levee_proto::BLOCK_SIZE;
use levee_proto::view::MAX_HIDDEN;
use levee_proto::wire::{
    MAX_BLOCKS, MAX_FENCED_DISKS, MAX_LIST, MAX_SUMMARIES, MAX_VERSION_ENTRIES, PRESENCE_LEN, Request,
};

/// Bytes of an entry list per block, and of a replica list per replica: an upper bound.
const ITEM: usize = 32;
/// Bytes of what is told of one replica: an upper bound.
const SUMMARY: usize = 96;
/// Header, fixed fields and bookkeeping of one request and its answer.
const FIXED: usize = 512;

/// What `request` with `data_len` bytes of data, or its largest answer, takes up. The side that is
/// larger by far counts; both are counted, to be safe.
pub(crate) fn cost(request: &Request, data_len: usize) -> usize {
    let lists = match request {
        Request::Write { crcs, .. } => crcs.len() * 4,
        Request::Read { count, .. } | Request::ReadShared { count, .. } => *count as usize * (BLOCK_SIZE + ITEM),
        Request::ReadVersions { .. } => MAX_BLOCKS as usize * BLOCK_SIZE + MAX_VERSION_ENTRIES * ITEM,
        Request::List { max, .. } => (*max as usize).min(MAX_LIST) * ITEM,
        Request::Repair { entries, .. } => entries.len() * ITEM,
        Request::Adopt { replicas, .. } => replicas.len() * ITEM,
        Request::Commit { points, .. } => points.len() * ITEM,
        Request::Seal { replicas, .. } => replicas.len() * ITEM,
        Request::Prune { keep, replicas, .. } => keep.len() * (ITEM + 8 * MAX_HIDDEN) + replicas.len() * ITEM,
        Request::Presence { .. } | Request::PresentData { .. } => PRESENCE_LEN,
        Request::Tally { views, .. } => views.len() * (ITEM + 8 * MAX_HIDDEN) + 2 * PRESENCE_LEN,
        Request::Scan { .. } => MAX_LIST * 4,
        Request::Fence { .. } => 2 * MAX_FENCED_DISKS * ITEM,
        Request::Replicas { max, .. } => (*max as usize).min(MAX_SUMMARIES) * SUMMARY,
        Request::Hello(_) | Request::Enter { .. } | Request::Create { .. } | Request::Ping => 0,
    };
    FIXED + data_len + lists
}

/// A grant, and what is in use of it.
#[derive(Debug, Default)]
pub(crate) struct Credits {
    max_requests: u32,
    max_bytes: usize,
    requests: u32,
    bytes: usize,
}

impl Credits {
    pub fn new(max_requests: u32, max_bytes: u32) -> Credits {
        Credits { max_requests, max_bytes: max_bytes as usize, requests: 0, bytes: 0 }
    }

    /// Takes what a request costs; false if it does not fit. A request that is alone always fits.
    pub fn take(&mut self, cost: usize) -> bool {
        let fits = self.requests == 0 || (self.requests < self.max_requests && self.bytes + cost <= self.max_bytes);
        if fits {
            self.requests += 1;
            self.bytes += cost;
        }
        fits
    }

    /// Gives back what a request took.
    pub fn release(&mut self, cost: usize) {
        self.requests -= 1;
        self.bytes -= cost;
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_bytes_are_bounded_and_a_lone_request_passes() {
        let mut c = Credits::new(2, 100);
        assert!(c.take(1000), "alone");
        assert!(!c.take(1));
        c.release(1000);
        assert!(c.take(50) && c.take(50));
        assert!(!c.take(0), "two are in flight");
        c.release(50);
        assert!(!c.take(51));
        assert!(c.take(50));
        assert_eq!(c.in_flight(), 2);
    }
}
