//! What each unit of the volume may hold: the specification that reads are checked against.
//!
//! A unit is a linearizable register. Once a write is acknowledged the unit holds exactly its value,
//! unless other writes of the unit overlapped it in time: then it holds one of theirs. While a write is
//! in flight a read may see the old value or the new one, but once the new one was seen the old one
//! must not come back.
//!
//! The rules never refuse what a correct volume may do. Where three or more operations overlap they are
//! a little wider than linearizability; they are exact for one write at a time.

use std::collections::HashMap;

use super::pattern::Found;

/// Value of a unit: unknown, zero, or the number of the write that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(pub u32);

impl Value {
    /// Not written by this run: any content is right.
    pub const UNKNOWN: Value = Value(0);
    pub const ZERO: Value = Value(1);
    /// Number of the first write.
    pub const FIRST: u32 = 2;
}

/// Names an operation in flight.
pub type OperationId = u64;

/// What a write did to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The unit now holds the value.
    Sets(Value),
    /// The unit holds the value or what it held before: a discard that promises nothing.
    MaySet(Value),
}

/// Judgement of one unit of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// An earlier value: an acknowledged write is lost.
    Lost {
        found: Found,
        expected: Vec<Value>,
    },
    /// A value that nobody could have written there.
    Wrong {
        found: Found,
        expected: Vec<Value>,
    },
}

struct WriteInFlight {
    id: OperationId,
    effect: Effect,
    /// Values of writes that completed while this one was in flight.
    rivals: Vec<Value>,
}

impl WriteInFlight {
    fn value(&self) -> Value {
        match self.effect {
            Effect::Sets(value) | Effect::MaySet(value) => value,
        }
    }
}

struct ReadInFlight {
    id: OperationId,
    candidates: Vec<Value>,
    /// A write completed meanwhile: what the read sees says nothing about the present.
    disturbed: bool,
}

/// A unit with operations in flight, or of which more than one value is possible.
#[derive(Default)]
struct Busy {
    possible: Vec<Value>,
    writes: Vec<WriteInFlight>,
    reads: Vec<ReadInFlight>,
}

/// The expected content of a range of units.
pub struct Model {
    settled: Vec<Value>,
    busy: HashMap<u32, Busy>,
}

fn add(values: &mut Vec<Value>, value: Value) {
    if !values.contains(&value) {
        values.push(value);
    }
}

impl Model {
    pub fn new(units: usize, initial: Value) -> Model {
        Model::restore(vec![initial; units])
    }

    pub fn restore(settled: Vec<Value>) -> Model {
        Model { settled, busy: HashMap::new() }
    }

    pub fn units(&self) -> u32 {
        self.settled.len() as u32
    }

    /// The content, for a later run. A unit of which more than one value is possible is unknown.
    pub fn snapshot(&self) -> Vec<Value> {
        let mut values = self.settled.clone();
        for unit in self.busy.keys() {
            values[*unit as usize] = Value::UNKNOWN;
        }
        values
    }

    pub fn writes_in_flight(&self, unit: u32) -> usize {
        self.busy.get(&unit).map_or(0, |b| b.writes.len())
    }

    /// The values that a read of the unit may give now, if no operation starts or ends meanwhile.
    pub fn possible(&self, unit: u32) -> Vec<Value> {
        match self.busy.get(&unit) {
            None => vec![self.settled[unit as usize]],
            Some(busy) => candidates(busy),
        }
    }

    fn busy(&mut self, unit: u32) -> &mut Busy {
        let settled = self.settled[unit as usize];
        self.busy.entry(unit).or_insert_with(|| Busy { possible: vec![settled], ..Busy::default() })
    }

    pub fn begin_write(&mut self, id: OperationId, unit: u32, effect: Effect) {
        let busy = self.busy(unit);
        let write = WriteInFlight { id, effect, rivals: Vec::new() };
        for read in &mut busy.reads {
            add(&mut read.candidates, write.value());
        }
        busy.writes.push(write);
    }

    /// The device answered a write. One that failed may have taken effect or not.
    pub fn finish_write(&mut self, id: OperationId, unit: u32, succeeded: bool) {
        let busy = self.busy(unit);
        let Some(at) = busy.writes.iter().position(|w| w.id == id) else { return };
        let write = busy.writes.swap_remove(at);
        let value = write.value();
        let exact = succeeded && matches!(write.effect, Effect::Sets(_));
        let mut possible = if exact { Vec::new() } else { std::mem::take(&mut busy.possible) };
        for v in write.rivals.iter().copied().chain([value]) {
            add(&mut possible, v);
        }
        busy.possible = possible;
        for other in &mut busy.writes {
            add(&mut other.rivals, value);
        }
        for read in &mut busy.reads {
            read.disturbed = true;
        }
        self.settle(unit);
    }

    pub fn begin_read(&mut self, id: OperationId, unit: u32) {
        let busy = self.busy(unit);
        let candidates = candidates(busy);
        busy.reads.push(ReadInFlight { id, candidates, disturbed: false });
    }

    /// The device answered a read without data.
    pub fn drop_read(&mut self, id: OperationId, unit: u32) {
        self.busy(unit).reads.retain(|r| r.id != id);
        self.settle(unit);
    }

    /// Judges what a read found in the unit, and learns from it.
    pub fn finish_read(&mut self, id: OperationId, unit: u32, found: Found) -> Verdict {
        let busy = self.busy(unit);
        let Some(at) = busy.reads.iter().position(|r| r.id == id) else { return Verdict::Right };
        let read = busy.reads.swap_remove(at);
        let value = match found {
            Found::Zero => Some(Value::ZERO),
            Found::Generation(n) => Some(Value(n)),
            Found::Foreign(_) => None,
        };
        let verdict = judge(found, value, &read.candidates);
        match (value, &verdict) {
            (Some(value), Verdict::Right) => learn(busy, &read, value),
            // Counted once; what follows is judged by what is there now.
            (Some(value), _) => busy.possible = vec![value],
            (None, Verdict::Right) => {}
            (None, _) => busy.possible = vec![Value::UNKNOWN],
        }
        self.settle(unit);
        verdict
    }

    /// Moves a unit with nothing in flight and one possible value back to the plain table.
    fn settle(&mut self, unit: u32) {
        if let Some(b) = self.busy.get(&unit)
            && b.writes.is_empty()
            && b.reads.is_empty()
            && b.possible.len() == 1
        {
            self.settled[unit as usize] = b.possible[0];
            self.busy.remove(&unit);
        }
    }
}

fn candidates(busy: &Busy) -> Vec<Value> {
    let mut values = busy.possible.clone();
    for write in &busy.writes {
        add(&mut values, write.value());
    }
    values
}

fn judge(found: Found, value: Option<Value>, candidates: &[Value]) -> Verdict {
    if candidates.contains(&Value::UNKNOWN) || value.is_some_and(|v| candidates.contains(&v)) {
        return Verdict::Right;
    }
    let newest = candidates.iter().max().copied().unwrap_or(Value::UNKNOWN);
    let expected = candidates.to_vec();
    match value {
        // Zero where data should be, data where zeroes should be, or older data than it should be.
        Some(v) if v == Value::ZERO || newest == Value::ZERO || v < newest => Verdict::Lost { found, expected },
        _ => Verdict::Wrong { found, expected },
    }
}

fn learn(busy: &mut Busy, read: &ReadInFlight, value: Value) {
    if read.disturbed {
        return;
    }
    let in_flight = busy.writes.iter().any(|w| w.value() == value);
    if in_flight || busy.possible.contains(&value) {
        busy.possible = vec![value];
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::Foreign;
    use super::*;

    fn read(m: &mut Model, value: Value) -> Verdict {
        m.begin_read(999, 0);
        m.finish_read(999, 0, found(value))
    }

    fn found(value: Value) -> Found {
        if value == Value::ZERO { Found::Zero } else { Found::Generation(value.0) }
    }

    fn write(m: &mut Model, id: OperationId, value: u32) {
        m.begin_write(id, 0, Effect::Sets(Value(value)));
        m.finish_write(id, 0, true);
    }

    #[test]
    fn an_acknowledged_write_is_the_only_value() {
        let mut m = Model::new(1, Value::ZERO);
        assert_eq!(read(&mut m, Value::ZERO), Verdict::Right);
        write(&mut m, 1, 5);
        assert_eq!(read(&mut m, Value(5)), Verdict::Right);
        assert!(matches!(read(&mut m, Value::ZERO), Verdict::Lost { .. }));
        write(&mut m, 2, 6);
        assert!(matches!(read(&mut m, Value(5)), Verdict::Lost { .. }));
        write(&mut m, 3, 7);
        m.begin_read(9, 0);
        let garbage = Found::Foreign(Foreign::Unstamped);
        assert!(matches!(m.finish_read(9, 0, garbage), Verdict::Wrong { .. }));
    }

    #[test]
    fn in_flight_either_value_but_never_backwards() {
        let mut m = Model::new(1, Value::ZERO);
        m.begin_write(1, 0, Effect::Sets(Value(5)));
        assert_eq!(read(&mut m, Value::ZERO), Verdict::Right);
        assert_eq!(read(&mut m, Value(5)), Verdict::Right);
        assert!(matches!(read(&mut m, Value::ZERO), Verdict::Lost { .. }), "the old value came back");
    }

    #[test]
    fn a_read_that_spans_a_write_may_see_either() {
        for seen in [Value::ZERO, Value(5)] {
            let mut m = Model::new(1, Value::ZERO);
            m.begin_read(7, 0);
            write(&mut m, 1, 5);
            assert_eq!(m.finish_read(7, 0, found(seen)), Verdict::Right);
            assert_eq!(m.possible(0), [Value(5)]);
        }
    }

    #[test]
    fn overlapping_writes_leave_one_of_them() {
        for last in [5, 6] {
            let mut m = Model::new(1, Value::ZERO);
            m.begin_write(1, 0, Effect::Sets(Value(5)));
            m.begin_write(2, 0, Effect::Sets(Value(6)));
            m.finish_write(2, 0, true);
            m.finish_write(1, 0, true);
            let mut p = m.possible(0);
            p.sort();
            assert_eq!(p, [Value(5), Value(6)]);
            assert_eq!(m.snapshot(), [Value::UNKNOWN]);
            assert_eq!(read(&mut m, Value(last)), Verdict::Right);
            assert_eq!(m.possible(0), [Value(last)], "what was seen is settled");
            assert_eq!(m.snapshot(), [Value(last)]);
        }
    }

    #[test]
    fn a_failed_write_may_have_happened() {
        let mut m = Model::new(1, Value::ZERO);
        m.begin_write(1, 0, Effect::Sets(Value(5)));
        m.finish_write(1, 0, false);
        assert_eq!(m.possible(0), [Value::ZERO, Value(5)]);
        assert_eq!(read(&mut m, Value::ZERO), Verdict::Right);
        assert!(read(&mut m, Value(5)) != Verdict::Right);
    }

    #[test]
    fn a_discard_without_promise_keeps_or_zeroes() {
        let mut m = Model::new(1, Value::ZERO);
        write(&mut m, 1, 5);
        m.begin_write(2, 0, Effect::MaySet(Value::ZERO));
        m.finish_write(2, 0, true);
        assert_eq!(m.possible(0), [Value(5), Value::ZERO]);
    }

    #[test]
    fn unknown_content_is_anything_until_written() {
        let mut m = Model::new(1, Value::UNKNOWN);
        m.begin_read(1, 0);
        assert_eq!(m.finish_read(1, 0, Found::Foreign(Foreign::OtherRun)), Verdict::Right);
        write(&mut m, 2, 5);
        assert!(read(&mut m, Value::ZERO) != Verdict::Right);
    }

    #[test]
    fn a_mistake_is_counted_once() {
        let mut m = Model::new(1, Value::ZERO);
        write(&mut m, 1, 5);
        assert!(read(&mut m, Value::ZERO) != Verdict::Right);
        assert_eq!(read(&mut m, Value::ZERO), Verdict::Right);
    }
}
