//! What is remembered on one shelf, and what is forgotten when it is full: S3-FIFO.
//!
//! What is new stands in a short queue. At its end, what was read again since moves to the long queue; what was not is forgotten, and
//! only its name is noted for a while. What comes back within that while goes to the long queue at once, where each
//! time that something was read (at most three are counted) earns it another round. So what is read just once, by whoever
//! copies a whole image, passes through the short queue and leaves the rest alone; and being read again costs a
//! counter, not a place in a list.

use super::{Content, Key};
use levee_proto::units::BLOCK_SIZE;
use std::collections::{HashMap, HashSet, VecDeque};

/// Of a block beside its content, bytes: its places in the table, in a queue, and among the names of the forgotten.
const OVERHEAD: u64 = 160;
/// The short queue's share of the capacity.
const YOUNG_SHARE: u64 = 10;
/// Rounds in the long queue that can be earned at a time.
const MAX_READS: u8 = 3;

/// Blocks that are remembered.
pub(super) struct Kept {
    capacity: u64,
    /// Each is in one of the queues.
    entries: HashMap<Key, Entry>,
    young: Queue,
    old: Queue,
    forgotten: Forgotten,
}

struct Entry {
    content: Content,
    /// Since it came into its queue, or to its head.
    reads: u8,
}

#[derive(Default)]
struct Queue {
    keys: VecDeque<Key>,
    bytes: u64,
}

/// Names of what was forgotten last.
struct Forgotten {
    max: usize,
    order: VecDeque<Key>,
    names: HashSet<Key>,
}

impl Kept {
    /// Room for so many bytes.
    pub fn new(capacity: u64) -> Kept {
        let blocks = (capacity / (BLOCK_SIZE as u64 + OVERHEAD)) as usize;
        Kept {
            capacity,
            // A table that grows while it is locked would have all cores wait.
            entries: HashMap::with_capacity(blocks),
            young: Queue::default(),
            old: Queue::default(),
            forgotten: Forgotten { max: blocks, order: VecDeque::new(), names: HashSet::new() },
        }
    }

    pub fn bytes(&self) -> u64 {
        self.young.bytes + self.old.bytes
    }

    pub fn get(&mut self, key: &Key) -> Option<Content> {
        let entry = self.entries.get_mut(key)?;
        entry.reads = (entry.reads + 1).min(MAX_READS);
        Some(entry.content.clone())
    }

    /// What is known already stays as it is: it never changes.
    pub fn put(&mut self, key: Key, content: Content) {
        if self.entries.contains_key(&key) || cost(&content) > self.capacity {
            return;
        }
        let queue = if self.forgotten.take(&key) { &mut self.old } else { &mut self.young };
        queue.push(key, cost(&content));
        self.entries.insert(key, Entry { content, reads: 0 });
        while self.bytes() > self.capacity {
            self.make_room();
        }
    }

    /// Each step forgets something, ages something, or shortens the short queue.
    fn make_room(&mut self) {
        if self.young.bytes > self.capacity / YOUNG_SHARE || self.old.keys.is_empty() {
            self.leave_young();
        } else {
            self.leave_old();
        }
    }

    fn leave_young(&mut self) {
        let Some(key) = self.young.keys.pop_front() else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let bytes = cost(&entry.content);
        self.young.bytes -= bytes;
        if std::mem::take(&mut entry.reads) > 0 {
            self.old.push(key, bytes);
        } else {
            self.entries.remove(&key);
            self.forgotten.note(key);
        }
    }

    fn leave_old(&mut self) {
        let Some(key) = self.old.keys.pop_front() else { return };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match entry.reads.checked_sub(1) {
            Some(left) => {
                entry.reads = left;
                self.old.keys.push_back(key);
            }
            None => {
                self.old.bytes -= cost(&entry.content);
                self.entries.remove(&key);
            }
        }
    }
}

impl Queue {
    fn push(&mut self, key: Key, bytes: u64) {
        self.keys.push_back(key);
        self.bytes += bytes;
    }
}

impl Forgotten {
    fn note(&mut self, key: Key) {
        if self.names.insert(key) {
            self.order.push_back(key);
        }
        while self.order.len() > self.max {
            let oldest = self.order.pop_front();
            oldest.map(|key| self.names.remove(&key));
        }
    }

    /// Whether it was noted; it is not any more. (Its place in the order runs out by itself.)
    fn take(&mut self, key: &Key) -> bool {
        self.names.remove(key)
    }
}

fn cost(content: &Content) -> u64 {
    content.bytes() + OVERHEAD
}
