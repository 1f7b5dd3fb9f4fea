//! The lists of marks are those that stand in the code.

use levee_sim::{coverage::PLACES, mutants::MUTANTS};
use std::collections::BTreeSet;
use std::path::Path;

/// Names in `macro!("…")` anywhere below a folder.
fn marks(dir: &Path, opening: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            marks(&path, opening, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            found.extend(text.split(opening).skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_string())));
        }
    }
}

fn in_sources(opening: &str) -> BTreeSet<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    marks(&here.join("src"), opening, &mut found);
    marks(&here.join("../../dataplane/core/src"), opening, &mut found);
    found
}

#[test]
fn every_mutant_is_listed() {
    let listed: BTreeSet<String> = MUTANTS.iter().map(|m| m.to_string()).collect();
    assert_eq!(in_sources("mutant!(\""), listed);
    assert!(MUTANTS.len() == listed.len() && MUTANTS.len() >= 20);
}

#[test]
fn every_rare_branch_is_listed() {
    let listed: BTreeSet<String> = PLACES.iter().map(|p| p.to_string()).collect();
    assert_eq!(in_sources("reached!(\""), listed);
}
