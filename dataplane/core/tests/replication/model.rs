//! What the sectors of a volume may hold: each is a linearizable register.
//!
//! Requests take from their beginning to their end, so those that overlap in time may take effect in either order. What a
//! gateway's end cut short took effect before the next one served the sector, or never will.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a sector, the smallest thing that a guest writes.
pub const SECTOR: usize = 512;
/// Stamp of a sector that was never written, or zeroed.
pub const ZERO: u64 = 0;

/// A request that has begun: when, and through which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub at: u64,
    pub gateway: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value {
    stamp: u64,
    begun: Begun,
    /// When it was acknowledged.
    done: Option<u64>,
}

const NEVER: Value = Value { stamp: ZERO, begun: Begun { at: 0, gateway: 0 }, done: Some(0) };

impl Value {
    /// Whether it certainly took effect, if ever, before that request did.
    fn is_before(&self, later: Begun) -> bool {
        self.done.is_some_and(|done| done < later.at) || self.begun.gateway < later.gateway
    }
}

/// The expected content.
#[derive(Default)]
pub struct Model {
    /// What a read may return now.
    sectors: BTreeMap<u64, Vec<Value>>,
    clock: u64,
}

impl Model {
    /// A request begins. Gateways are numbered from 1.
    pub fn begin(&mut self, gateway: u64) -> Begun {
        self.clock += 1;
        Begun { at: self.clock, gateway }
    }

    /// It is a write: from now on it may be seen.
    pub fn write(&mut self, sectors: Range<u64>, begun: Begun, stamp: u64) {
        for s in sectors {
            self.sectors.entry(s).or_insert_with(|| vec![NEVER]).push(Value { stamp, begun, done: None });
        }
    }

    /// A write was acknowledged: nothing before it may be seen.
    pub fn acknowledge(&mut self, sectors: Range<u64>, begun: Begun) {
        self.clock += 1;
        for s in sectors {
            let possible = self.sectors.get_mut(&s).expect("begun");
            possible.retain(|v| v.begun == begun || !v.is_before(begun));
            let mine = possible.iter_mut().find(|v| v.begun == begun);
            let is_there = mine.map(|v| v.done = Some(self.clock)).is_some();
            let later = possible.iter().any(|v| v.begun.at > begun.at || v.done.is_some_and(|done| done > begun.at));
            assert!(is_there || later, "sector {s}: {begun:?} was acknowledged, but {possible:?} was seen");
        }
    }

    /// A read returned `stamp`: of what was before it, that is what remains.
    pub fn saw(&mut self, sector: u64, begun: Begun, stamp: u64) {
        let Some(possible) = self.sectors.get_mut(&sector) else {
            return assert_eq!(stamp, ZERO, "sector {sector} was never written");
        };
        assert!(
            possible.iter().any(|v| v.stamp == stamp),
            "sector {sector} holds {stamp} for {begun:?}, but only {possible:?} may be there"
        );
        possible.retain(|v| v.stamp == stamp || !v.is_before(begun));
    }

    /// Everything that was ever written.
    pub fn sectors(&self) -> Vec<u64> {
        self.sectors.keys().copied().collect()
    }
}

/// `len` bytes full of `stamp`.
pub fn content(stamp: u64, len: usize) -> Vec<u8> {
    stamp.to_le_bytes().repeat(len / 8)
}

/// The stamp of a sector or block, which must be whole.
pub fn stamp_of(bytes: &[u8]) -> u64 {
    let stamp = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert_eq!(bytes, content(stamp, bytes.len()), "torn");
    stamp
}
