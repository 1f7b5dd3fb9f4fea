//! Blocks that the disk could not read not long ago.
//!
//! A drive tries for seconds before it says that it cannot read a sector, and whoever asked may be told earlier that this copy
//! does not answer, and ask again: each time the drive would be busy for seconds. So for a while the answer is known. Nothing
//! of this is durable: the next try may succeed, and this may be the only copy.

use super::index::Slot;
use super::limits::*;
use levee_proto::Seq;
use std::collections::BTreeMap;
use std::time::Duration;

/// By location: whose data it was, and until when it is not tried again.
#[derive(Default)]
pub struct Unreadable(BTreeMap<u32, (Seq, Duration)>);

impl Unreadable {
    /// What is stored at a location could not be read.
    pub fn note(&mut self, location: u32, seq: Seq, now: Duration) {
        if self.0.len() >= MAX_UNREADABLE {
            self.0.retain(|_, (_, until)| *until > now);
        }
        if self.0.len() < MAX_UNREADABLE {
            self.0.insert(location, (seq, now + Duration::from_millis(UNREADABLE_REST_MS)));
        }
    }

    /// Whether it is known that an entry's data cannot be read. A location may have been written anew.
    pub fn knows(&self, slot: &Slot, now: Duration) -> bool {
        let known = |location| self.0.get(&location);
        slot.place.location().and_then(known).is_some_and(|(seq, until)| *seq == slot.seq() && *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::index::Place;
    use super::*;
    use levee_proto::Version;

    #[test]
    fn it_is_forgotten_after_a_while_and_when_the_place_is_written() {
        let slot = |seq| Slot::new(Version(1), Seq(seq), 0, Place(7));
        let (mut known, rest) = (Unreadable::default(), Duration::from_millis(UNREADABLE_REST_MS));
        known.note(7, Seq(1), Duration::ZERO);
        assert!(known.knows(&slot(1), Duration::ZERO) && !known.knows(&slot(2), Duration::ZERO));
        assert!(!known.knows(&slot(1), rest));
        for location in 0..2 * MAX_UNREADABLE as u32 {
            known.note(location, Seq(1), rest);
        }
        assert_eq!(known.0.len(), MAX_UNREADABLE);
    }
}
