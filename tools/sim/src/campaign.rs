//! Many seeds, over all cores.

use crate::run::{Outcome, run};
use crate::world::Failure;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Seeds to be run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub from: u64,
    pub seeds: u64,
    pub jobs: usize,
    /// Not to be exceeded by much; seeds that were not run then do not count.
    pub limit: Option<Duration>,
    /// A failure does not end it.
    pub keep_going: bool,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Report {
    pub seeds: u64,
    pub answered: u64,
    /// By seed.
    pub failures: BTreeMap<u64, Failure>,
    pub reached: BTreeMap<&'static str, u64>,
    pub took: Duration,
}

/// Runs a seed, and takes a panic for a failure.
pub fn run_caught(seed: u64, logging: bool) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| run(seed, logging)));
    result.unwrap_or_else(|panic| Outcome {
        seed,
        failure: Some(Failure { check: "panic", what: message(&*panic) }),
        trace: 0,
        answered: 0,
        polls: 0,
        time: Duration::ZERO,
        reached: BTreeMap::new(),
        events: vec![],
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it says nothing").to_string()
}

/// Runs the plan until a seed fails. `tell` hears now and then how many seeds were run.
pub fn campaign(plan: Plan, prepare: impl Fn() + Sync, mut tell: impl FnMut(u64, Duration)) -> Report {
    let begun = Instant::now();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let report = Mutex::new(Report::default());
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        for _ in 0..plan.jobs.max(1) {
            let done = done.clone();
            let (next, stop, report, prepare) = (&next, &stop, &report, &prepare);
            scope.spawn(move || {
                prepare();
                while !stop.load(Ordering::Relaxed) && plan.limit.is_none_or(|limit| begun.elapsed() < limit) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= plan.seeds {
                        break;
                    }
                    let outcome = run_caught(plan.from + n, false);
                    let report = &mut *report.lock().unwrap_or_else(PoisonError::into_inner);
                    stop.fetch_or(outcome.failure.is_some() && !plan.keep_going, Ordering::Relaxed);
                    report.take(outcome);
                }
                drop(done);
            });
        }
        drop(done);
        while ended.recv_timeout(Duration::from_secs(10)) == Err(mpsc::RecvTimeoutError::Timeout) {
            tell(report.lock().unwrap_or_else(PoisonError::into_inner).seeds, begun.elapsed());
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.took = begun.elapsed();
    report
}

impl Report {
    fn take(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.answered += outcome.answered;
        for (name, count) in outcome.reached {
            *self.reached.entry(name).or_default() += count;
        }
        if let Some(failure) = outcome.failure {
            self.failures.insert(outcome.seed, failure);
        }
    }

    /// Seeds per minute.
    pub fn rate(&self) -> f64 {
        self.seeds as f64 * 60.0 / self.took.as_secs_f64().max(0.001)
    }
}
