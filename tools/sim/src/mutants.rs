//! Deliberate bugs: each switches off a rule of the protocol or of the store, and the simulator has to notice.
//!
//! They exist only in builds with `--cfg levee_mutants` (`make mutants`); see [`levee_core::probe`].

use crate::campaign::{Plan, campaign};
use anyhow::{Result, bail, ensure};
use levee_core::probe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Every deliberate bug, by name.
pub const MUTANTS: &[&str] = &[
    "a chunk with data is freed",
    "a copy that is away counts as bad",
    "a damaged copy is a witness",
    "a disk is left behind though it is needed",
    "a fence does not wait for a slow disk",
    "a freed chunk is still written to",
    "a lost copy misses nothing",
    "a newcomer counts as filled",
    "a removed copy is still read",
    "a snapshot is written to",
    "a torn tail is taken for whole",
    "acknowledged by one copy too few",
    "adoptions forgotten at a restart",
    "an ancestor's answer is not checked",
    "an unreadable sector is the whole disk's",
    "answers before its group has moved",
    "attested copies not waited for",
    "checkpoint published before it is durable",
    "compaction puts old over new",
    "copies attested unseen",
    "epochs are given out again",
    "every process gets the same epoch",
    "fence answered before it is durable",
    "fences left out of checkpoints",
    "gateways are known by name",
    "later pages of a fence are ignored",
    "log goes on after a failed write",
    "log not synced",
    "lost batches go unnoticed",
    "lower fence accepted",
    "merge without holding the blocks",
    "moved before it is fenced",
    "newcomers alone decide",
    "nothing is told of what disks hold",
    "one holder is enough to adopt",
    "overlaps not ordered",
    "overwritten blocks stay live",
    "read before adopted",
    "reads do not wait for writes",
    "repair merges older epochs",
    "repair undoes newer writes",
    "replay ends with the first segment",
    "replica answered before it is made",
    "requests of older links are handled",
    "retry reads the guest's pages again",
    "sealed while it owes writes",
    "served before enough have adopted",
    "stored checksums ignored",
    "takeover with one answer too few",
    "the order begins with the chunk",
    "the last batch is dropped",
    "the source of a comparison is whole",
    "unfenced epoch served",
    "versions share what is remembered",
    "void entries count",
    "what a copy lost is not compared",
    "what was recovered is not made durable",
    "who stood aside writes over what has passed",
    "write below the fence accepted",
];

/// Those that need executions which random faults do not bring about, and the rule that the model checker then finds
/// broken: `levee-model mutants`, which `make mutants` runs first, fails if it does not.
const FOUND_BY_MODEL: &[(&str, &str)] = &[
    ("requests of older links are handled", "old-links-are-dead"),
    ("the source of a comparison is whole", "owed-is-doubtful"),
];

/// One more than the index of the one that is switched on in all threads.
static SWITCHED: AtomicUsize = AtomicUsize::new(0);

/// Switches one on.
pub fn switch_on(name: &str) -> Result<()> {
    ensure!(probe::MUTABLE, "this build has no mutants to switch on: make mutants builds one that has");
    let Some(index) = MUTANTS.iter().position(|m| *m == name) else {
        bail!("there is no mutant '{name}': one of {MUTANTS:?}");
    };
    SWITCHED.store(index + 1, Ordering::Relaxed);
    prepare();
    Ok(())
}

/// Switches on, in this thread, what is switched on.
pub fn prepare() {
    let index = SWITCHED.load(Ordering::Relaxed);
    probe::set_mutant(index.checked_sub(1).and_then(|i| MUTANTS.get(i)).copied());
}

/// Rounds of seeds: a budget that is the same on every machine, however fast.
const ROUNDS: u32 = 2;

/// Runs each until it is found: all for a few seeds, those that are left for twice as many. Those that are left then
/// have to be found by `tests`: executables of the core's own tests, which tell single executions step by step in a
/// simulated cluster. Whether all were found.
pub fn hunt_all(plan: Plan, only: &str, tests: &[PathBuf]) -> Result<bool> {
    ensure!(probe::MUTABLE, "this build has no mutants: make mutants builds one that has");
    // What they break is not news.
    std::panic::set_hook(Box::new(|_| {}));
    let begun = Instant::now();
    let mut left: Vec<&str> = MUTANTS.iter().copied().filter(|m| m.contains(only)).collect();
    let (all, mut plan) = (left.len(), plan);
    for _ in 0..ROUNDS {
        for name in std::mem::take(&mut left) {
            let limit = plan.limit.map(|limit| limit.saturating_sub(begun.elapsed()));
            if !hunt(name, Plan { limit, ..plan })? {
                left.push(name);
            }
        }
        plan = Plan { from: plan.from + plan.seeds, seeds: plan.seeds * 2, ..plan };
    }
    let mut survivors = 0;
    for name in &left {
        if let Some((_, rule)) = FOUND_BY_MODEL.iter().find(|(of, _)| of == name) {
            println!("{name:<46}      model  {rule}");
            continue;
        }
        match found_by(name, tests)? {
            Some(test) => println!("{name:<46}      test   {test}"),
            None => {
                survivors += 1;
                println!("{name:<46} SURVIVED {} seeds and all tests", plan.from);
            }
        }
    }
    println!("{} deliberate bugs, {} not found, {:.0} s", all, survivors, begun.elapsed().as_secs_f64());
    Ok(survivors == 0)
}

/// A test that fails with this one switched on.
fn found_by(name: &str, tests: &[PathBuf]) -> Result<Option<String>> {
    for test in tests {
        // Some bugs make a test wait for ever.
        let mut command = std::process::Command::new("timeout");
        command.arg("60").arg(test);
        // Campaigns have had their turn above.
        command.args([
            "--skip",
            "crashes_of",
            "--skip",
            "five_nodes",
            "--skip",
            "whatever_happens",
            "--skip",
            "campaign",
        ]);
        let output = command.env("LEVEE_MUTANT", name).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            let failed = text.lines().find_map(|line| line.strip_suffix(" ... FAILED")?.strip_prefix("test "));
            return Ok(Some(failed.unwrap_or("a test that did not end").to_string()));
        }
    }
    Ok(None)
}

/// Whether it is found.
fn hunt(name: &str, plan: Plan) -> Result<bool> {
    switch_on(name)?;
    let report = campaign(plan, prepare, |_, _: Duration| {});
    let Some((seed, failure)) = report.failures.first_key_value() else { return Ok(false) };
    println!("{name:<46} {:>5} seeds  {} (seed {seed})", plan.from + report.seeds, failure.check);
    Ok(true)
}
