//! Which rare branches a campaign took: one that is never taken is not tested.

use crate::campaign::Report;
use std::collections::BTreeMap;

/// After so many seeds, everything should have happened.
const ENOUGH: u64 = 10_000;

/// Every place that counts itself (`reached!`), here and in the code that ships.
pub const PLACES: &[&str] = &[
    "a name was given to another volume",
    "another page of a fence",
    "answer held back",
    "checkpoint written",
    "chunk freed",
    "clone flattened",
    "copies moved one by one",
    "disk: bad sector",
    "disk: bit flipped",
    "disk: write lost",
    "disk: write misdirected",
    "disk: write torn",
    "entry void at a takeover",
    "fence below the fence",
    "group given up",
    "group of snapshots complete",
    "guest replays requests",
    "hold given up",
    "link replaced with requests under way",
    "member came back without what it had",
    "member left a chunk",
    "member lost while it owed writes",
    "merge was overwritten before it began",
    "meta servers went on with an older state",
    "newcomer joined a chunk",
    "node lost for ever",
    "open write sent again",
    "read by a gateway that was replaced",
    "read gave way to a write",
    "reader of an ancestor waited for another",
    "recovery cut a torn tail",
    "recovery found damage",
    "repeated write joined the first",
    "replicas asked for before the fence",
    "request before its fence",
    "request below the fence",
    "request waited for a chunk that was freed",
    "segment compacted",
    "shard failed",
    "slow disk waited for",
    "snapshot cloned",
    "snapshot deleted",
    "snapshot read",
    "snapshot taken",
    "snapshots taken together",
    "stored block is corrupt",
    "stored block is unreadable",
    "takeover compared entries",
    "takeover listed below the commit point",
    "unreadable entry void at a takeover",
    "volume rolled back",
];

/// What was not reached, if there were seeds enough.
pub fn missed(report: &Report) -> Vec<&'static str> {
    let all = PLACES.iter().copied().filter(|name| !report.reached.contains_key(name));
    if report.seeds < ENOUGH { vec![] } else { all.collect() }
}

/// How often each was.
pub fn print(reached: &BTreeMap<&'static str, u64>) {
    for name in PLACES {
        println!("  {:>10}  {name}", reached.get(name).copied().unwrap_or(0));
    }
}
