//! What the blocks of a volume may hold: each is a linearizable register.

use levee_proto::BLOCK_SIZE;
use std::collections::BTreeMap;

/// Stamp of a block that was never written, or zeroed.
pub const ZERO: u64 = 0;

#[derive(Default)]
struct Block {
    /// What a read may return now. Exactly one value unless writes were cut short.
    possible: Vec<u64>,
}

/// The expected content.
#[derive(Default)]
pub struct Model(BTreeMap<u32, Block>);

impl Model {
    fn block(&mut self, block: u32) -> &mut Block {
        self.0.entry(block).or_insert_with(|| Block { possible: vec![ZERO] })
    }

    /// A write begins: from now on it may be seen.
    pub fn begin(&mut self, block: u32, stamp: u64) {
        self.block(block).possible.push(stamp);
    }

    /// A write was acknowledged: only it may be seen.
    pub fn acknowledge(&mut self, block: u32, stamp: u64) {
        self.block(block).possible = vec![stamp];
    }

    /// A read, after which nothing else was begun, returned `stamp`: it stays.
    pub fn saw(&mut self, block: u32, stamp: u64) {
        let block_state = self.block(block);
        assert!(
            block_state.possible.contains(&stamp),
            "block {block} holds {stamp}, but only {:?} may be there",
            block_state.possible
        );
        block_state.possible = vec![stamp];
    }

    pub fn blocks(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }
}

/// A block full of `stamp`.
pub fn content(stamp: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(BLOCK_SIZE / 8)
}

/// The stamp of a block, which must be whole.
pub fn stamp_of(block: &[u8]) -> u64 {
    let stamp = u64::from_le_bytes(block[..8].try_into().unwrap());
    assert_eq!(block, content(stamp), "a block is torn");
    stamp
}
