//! Documents that are almost right: one or more of their values is another one.

use crate::rng::Rng;
use serde_json::{Value, json};

/// Numbers at the ends of what fits somewhere.
pub const NUMBERS: [u64; 14] = [
    0,
    1,
    2,
    127,
    255,
    65_535,
    65_536,
    (1 << 24) - 1,
    u32::MAX as u64,
    1 << 32,
    1 << 53,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// Texts that mean something where they do not belong.
const TEXTS: [&str; 12] = [
    "",
    ".",
    "../../fuzz-escaped",
    "/fuzz-escaped",
    "a/b",
    "%2e%2e%2f",
    "\0",
    "a\nb",
    "\u{feff}\u{202e}",
    "{}",
    "18446744073709551616",
    "00000000-0000-0000-0000-000000000000",
];

pub fn number(rng: &mut Rng) -> u64 {
    *rng.pick(&NUMBERS)
}

pub fn text(rng: &mut Rng) -> String {
    match rng.below(8) {
        0 => "x".repeat(rng.between(100, 5000) as usize),
        _ => (*rng.pick(&TEXTS)).to_string(),
    }
}

pub fn bytes(rng: &mut Rng, most: u64) -> Vec<u8> {
    let length = rng.below(most);
    (0..length).map(|_| rng.next_u64() as u8).collect()
}

/// Changes one value somewhere in the document.
pub fn change(document: &mut Value, rng: &mut Rng) {
    let mut at = rng.below(count(document));
    if let Some(value) = find(document, &mut at) {
        *value = other(value, rng);
    }
}

/// Values in the document, itself and those that hold others counted.
fn count(value: &Value) -> u64 {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum::<u64>(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn find<'a>(value: &'a mut Value, at: &mut u64) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find(item, at)),
        Value::Object(fields) => fields.values_mut().find_map(|field| find(field, at)),
        _ => None,
    }
}

fn other(value: &Value, rng: &mut Rng) -> Value {
    match value {
        _ if rng.chance(10) => {
            rng.pick(&[Value::Null, json!([]), json!({}), json!("x"), json!(-1), json!(1.5)]).clone()
        }
        Value::Number(n) => match (rng.below(3), n.as_u64()) {
            (0, Some(n)) => n.wrapping_add(1).into(),
            (1, Some(n)) => n.wrapping_sub(1).into(),
            _ => number(rng).into(),
        },
        Value::Bool(flag) => (!flag).into(),
        Value::Array(items) if !items.is_empty() => shuffled(items, rng),
        Value::Object(fields) if !fields.is_empty() => {
            let mut fields = fields.clone();
            let gone = fields.keys().nth(rng.below(fields.len() as u64) as usize).cloned().unwrap_or_default();
            fields.remove(&gone);
            Value::Object(fields)
        }
        _ => text(rng).into(),
    }
}

/// One twice, one less, or the other way round.
fn shuffled(items: &[Value], rng: &mut Rng) -> Value {
    let at = rng.below(items.len() as u64) as usize;
    let mut items = items.to_vec();
    match rng.below(3) {
        0 => items.insert(at, items[at].clone()),
        1 => drop(items.remove(at)),
        _ => items.reverse(),
    }
    items.into()
}

/// The text of a document, now and then cut off, or something else.
pub fn spoil(document: &Value, rng: &mut Rng) -> Vec<u8> {
    let mut text = document.to_string().into_bytes();
    match rng.below(20) {
        0 => text.truncate(rng.below(text.len() as u64) as usize),
        1 => text = bytes(rng, 2000),
        2 => text = "[".repeat(rng.between(100, 100_000) as usize).into_bytes(),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_changes_in_one_place_and_the_seed_says_where() {
        let document = json!({ "a": [1, 2, { "b": "c" }], "d": true, "e": null });
        let changed = |seed| {
            let mut copy = document.clone();
            change(&mut copy, &mut Rng::new(seed));
            copy
        };
        let different = (0..100).filter(|seed| changed(*seed) != document).count();
        assert!(different > 90, "{different}");
        assert_eq!(changed(7), changed(7));
        for seed in 0..100 {
            spoil(&document, &mut Rng::new(seed));
        }
    }
}
