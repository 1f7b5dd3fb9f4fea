//! What the sectors of a volume may hold: each is a linearizable register.
//!
//! Requests take from their beginning to their end, so those that overlap in time may take effect in either order; but a gateway
//! orders writes as they come, whatever they have to wait for, so that what a dead guest has left never lands after what came
//! later. What a gateway's end cut short took effect before the next one served the sector, or never will.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a sector, the smallest thing that a guest writes.
pub const SECTOR: usize = 512;
/// Stamp of a sector that was never written, or zeroed.
pub const ZERO: u64 = 0;

/// A request that has begun: when, and through which gateway. Gateways are numbered from 1, in order of their epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub at: u64,
    pub gateway: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value {
    stamp: u64,
    begun: Begun,
    /// When it was acknowledged, or seen: it took effect before.
    settled: Option<u64>,
}

const NEVER: Value = Value { stamp: ZERO, begun: Begun { at: 0, gateway: 0 }, settled: Some(0) };

impl Value {
    /// Whether it certainly took effect, if ever, before that request did.
    fn is_before(&self, later: Begun) -> bool {
        self.settled.is_some_and(|at| at < later.at) || self.begun.gateway < later.gateway
    }

    /// Whether it came before that write in the order of one gateway.
    fn precedes(&self, write: Begun) -> bool {
        self.begun.gateway == write.gateway && self.begun.at < write.at
    }
}

/// How many values that are no longer possible are remembered of a sector, for reads that were under way then. One write may end as
/// many at once as gateways that were replaced have left undecided.
const PAST: usize = 64;

/// One sector.
#[derive(Clone)]
struct Register {
    /// What a read that begins now may return.
    possible: Vec<Value>,
    /// What was possible, until when: newest last.
    past: Vec<(Value, u64)>,
}

impl Register {
    fn never() -> Register {
        Register { possible: vec![NEVER], past: vec![] }
    }

    /// Takes values out; those of which `later` says so were overwritten by something that is concurrent to reads under
    /// way, which may still return them.
    fn retain(&mut self, clock: u64, keep: impl Fn(&Value) -> bool, later: impl Fn(&Value) -> bool) {
        let gone = self.possible.extract_if(.., |v| !keep(v)).filter(|v| later(v));
        self.past.extend(gone.map(|v| (v, clock)));
        let excess = self.past.len().saturating_sub(PAST);
        self.past.drain(..excess);
    }
}

/// The content that is possible.
#[derive(Clone, Default)]
pub struct Registers {
    sectors: BTreeMap<u64, Register>,
    clock: u64,
}

impl Registers {
    /// What may be there now, as a beginning: of a volume that begins with it, or of a snapshot. Whatever is seen, or overwritten,
    /// settles it.
    pub fn frozen(&self) -> Registers {
        let begun = Begun { at: 0, gateway: 0 };
        let freeze = |r: &Register| Register {
            possible: r.possible.iter().map(|v| Value { begun, ..*v }).collect(),
            past: vec![],
        };
        Registers { sectors: self.sectors.iter().map(|(s, r)| (*s, freeze(r))).collect(), clock: 1 }
    }

    /// Something that was begun before it was frozen, and may have been made before, or not.
    pub fn may_hold(&mut self, sectors: Range<u64>, stamp: u64) {
        let value = Value { stamp, begun: Begun { at: 0, gateway: 0 }, settled: None };
        for s in sectors {
            self.sectors.entry(s).or_insert_with(Register::never).possible.push(value);
        }
    }

    /// A request begins.
    pub fn begin(&mut self, gateway: u64) -> Begun {
        self.clock += 1;
        Begun { at: self.clock, gateway }
    }

    /// It is a write: from now on it may be seen.
    pub fn write(&mut self, sectors: Range<u64>, begun: Begun, stamp: u64) {
        for s in sectors {
            let register = self.sectors.entry(s).or_insert_with(Register::never);
            register.possible.push(Value { stamp, begun, settled: None });
        }
    }

    /// A write was acknowledged: nothing before it may be seen by who begins now.
    pub fn acknowledge(&mut self, sectors: Range<u64>, begun: Begun) -> Result<(), String> {
        self.clock += 1;
        let clock = self.clock;
        for s in sectors {
            let register = self.sectors.entry(s).or_insert_with(Register::never);
            register.retain(clock, |v| v.begun == begun || !(v.is_before(begun) || v.precedes(begun)), |_| true);
            let possible = &mut register.possible;
            let mine = possible.iter_mut().find(|v| v.begun == begun);
            let is_there = mine.map(|v| v.settled = Some(clock)).is_some();
            let later = possible.iter().any(|v| v.begun.at > begun.at || v.settled.is_some_and(|at| at > begun.at));
            if !is_there && !later {
                return Err(format!("sector {s}: {begun:?} was acknowledged, but {possible:x?} was seen"));
            }
        }
        Ok(())
    }

    /// A read returned `stamp`: of what was before it, that is what remains.
    pub fn saw(&mut self, sector: u64, begun: Begun, stamp: u64) -> Result<(), String> {
        self.clock += 1;
        let clock = self.clock;
        let Some(register) = self.sectors.get_mut(&sector) else {
            return match stamp {
                ZERO => Ok(()),
                _ => Err(format!("sector {sector} holds {stamp:#x}, but was never written")),
            };
        };
        let newest = register.possible.iter().filter(|v| v.stamp == stamp).map(|v| v.begun.at).max();
        let Some(newest) = newest else {
            if register.past.iter().any(|(v, until)| v.stamp == stamp && *until > begun.at) {
                return Ok(());
            }
            let possible = &register.possible;
            return Err(format!(
                "sector {sector} holds {stamp:#x} for {begun:x?}, but only {possible:x?} may be there"
            ));
        };
        // With several writes of one content, it is not known which was seen.
        let oldest = register.possible.iter().filter(|v| v.stamp == stamp).map(|v| v.begun).min_by_key(|b| b.at);
        let is_over = |v: &Value| v.is_before(begun) || oldest.is_some_and(|seen| v.precedes(seen));
        register.retain(clock, |v| v.stamp == stamp || !is_over(v), |v| v.begun.at < newest);
        let mut seen = register.possible.iter_mut().filter(|v| v.stamp == stamp);
        if let (Some(only), None) = (seen.next(), seen.next()) {
            only.settled.get_or_insert(clock);
        }
        Ok(())
    }

    /// Everything that was ever written.
    pub fn sectors(&self) -> Vec<u64> {
        self.sectors.keys().copied().collect()
    }
}

/// Fills sectors, from number `first` on, with `stamp`: each tells where it belongs.
pub fn fill(bytes: &mut [u8], first: u64, stamp: u64) {
    for (sector, number) in bytes.chunks_mut(SECTOR).zip(first..) {
        let mark = if stamp == ZERO { 0 } else { number };
        for words in sector.chunks_exact_mut(16) {
            words[..8].copy_from_slice(&stamp.to_le_bytes());
            words[8..].copy_from_slice(&mark.to_le_bytes());
        }
    }
}

/// The stamp of a sector; the reason if it is torn, or belongs elsewhere.
pub fn stamp_of(sector: &[u8], number: u64) -> Result<u64, String> {
    let stamp = u64::from_le_bytes(sector[..8].try_into().expect("8 bytes"));
    let mark = u64::from_le_bytes(sector[8..16].try_into().expect("8 bytes"));
    if sector.chunks_exact(16).any(|words| words != &sector[..16]) {
        return Err(format!("sector {number} is torn: it begins with {stamp:#x}"));
    }
    match mark == if stamp == ZERO { 0 } else { number } {
        true => Ok(stamp),
        false => Err(format!("sector {number} holds {stamp:#x} of sector {mark}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledged_write_hides_what_was_before() {
        let mut r = Registers::default();
        let a = r.begin(1);
        r.write(0..1, a, 7);
        let early = r.begin(1);
        r.saw(0, early, ZERO).unwrap();
        r.acknowledge(0..1, a).unwrap();
        let late = r.begin(1);
        assert!(r.saw(0, late, ZERO).is_err());
        r.saw(0, late, 7).unwrap();
    }

    #[test]
    fn concurrent_writes_take_effect_in_some_order_and_stay_there() {
        let mut r = Registers::default();
        let (a, b) = (r.begin(1), r.begin(1));
        r.write(0..1, a, 7);
        r.write(0..1, b, 8);
        for seen in [7, 8] {
            let read = r.begin(1);
            r.saw(0, read, seen).unwrap();
        }
        let read = r.begin(1);
        assert!(r.saw(0, read, 7).is_err(), "8 was after 7");
    }

    #[test]
    fn a_gateway_takes_writes_in_their_order() {
        for settle in [
            |r: &mut Registers, b| r.acknowledge(0..1, b),
            |r: &mut Registers, _| {
                let read = r.begin(1);
                r.saw(0, read, 8)
            },
        ] {
            let mut r = Registers::default();
            let (a, b) = (r.begin(1), r.begin(1));
            r.write(0..1, a, 7);
            r.write(0..1, b, 8);
            settle(&mut r, b).unwrap();
            let read = r.begin(1);
            assert!(r.clone().saw(0, read, 7).is_err(), "7 came before 8, and nobody waits for it");
            r.acknowledge(0..1, a).unwrap();
            r.saw(0, read, 8).unwrap();
        }
    }

    #[test]
    fn what_a_takeover_did_not_find_never_comes_back() {
        let mut r = Registers::default();
        let a = r.begin(1);
        r.write(0..1, a, 7);
        let read = r.begin(2);
        r.saw(0, read, ZERO).unwrap();
        let again = r.begin(2);
        assert!(r.saw(0, again, 7).is_err());
        assert!(r.acknowledge(0..1, a).is_err(), "nor is it acknowledged");
    }

    #[test]
    fn a_read_under_way_may_return_what_was_overwritten_meanwhile() {
        let mut r = Registers::default();
        let (read, a) = (r.begin(1), r.begin(1));
        r.write(0..1, a, 7);
        r.acknowledge(0..1, a).unwrap();
        r.saw(0, read, ZERO).unwrap();
        let late = r.begin(1);
        assert!(r.saw(0, late, ZERO).is_err());
    }

    #[test]
    fn what_was_frozen_is_settled_by_who_sees_it() {
        let mut r = Registers::default();
        let a = r.begin(7);
        r.write(0..1, a, 7);
        for seen in [7, ZERO] {
            let mut frozen = r.frozen();
            frozen.may_hold(0..1, 8);
            let read = frozen.begin(1);
            frozen.saw(0, read, seen).unwrap();
            let again = frozen.begin(1);
            assert!(frozen.saw(0, again, 8).is_err());
            frozen.saw(0, again, seen).unwrap();
        }
        r.acknowledge(0..1, a).unwrap();
        let mut frozen = r.frozen();
        let read = frozen.begin(1);
        assert!(frozen.saw(0, read, ZERO).is_err());
    }

    #[test]
    fn sectors_tell_where_they_belong() {
        let mut bytes = vec![1; 2 * SECTOR];
        fill(&mut bytes, 5, 9);
        assert_eq!((stamp_of(&bytes[..SECTOR], 5), stamp_of(&bytes[SECTOR..], 6)), (Ok(9), Ok(9)));
        assert!(stamp_of(&bytes[..SECTOR], 6).is_err());
        bytes[100] ^= 1;
        assert!(stamp_of(&bytes[..SECTOR], 5).is_err());
        assert_eq!(stamp_of(&[0; SECTOR], 5), Ok(ZERO));
    }
}
