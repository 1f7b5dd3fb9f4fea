//! `levee-sim`: runs simulations.

use anyhow::{Result, bail};
use clap::Parser;
use levee_sim::campaign::{Plan, campaign, run_caught};
use levee_sim::{coverage, mutants};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates whole clusters under faults, each from one seed.
#[derive(Parser)]
#[command(name = "levee-sim", version)]
struct Args {
    /// Run this seed alone, and say how it went
    #[arg(long)]
    seed: Option<u64>,
    /// Run so many seeds
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads [default: one per core]
    #[arg(long)]
    jobs: Option<usize>,
    /// Go on after failures, and list them
    #[arg(long)]
    keep_going: bool,
    /// Show what happens (with --seed), and what the code says about it (twice)
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Switch deliberate bugs on, one by one, and see whether they are found; needs a build for that: make mutants
    Mutants {
        /// Seeds for each in the first round; twice as many in the next
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// Seconds after which what is left is left to the tests
        #[arg(long, default_value_t = 900)]
        limit: u64,
        /// Only those whose names contain this
        #[arg(long, default_value = "")]
        only: String,
        /// Executables of the core's own tests, built in the same way: what is left has to be found by them
        tests: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) => {
            eprintln!("levee-sim: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    if let Some(Command::Mutants { seeds, limit, only, tests }) = &args.command {
        let limit = Some(Duration::from_secs(*limit));
        return mutants::hunt_all(Plan { from: args.from, seeds: *seeds, jobs, limit, keep_going: false }, only, tests);
    }
    if let Ok(name) = std::env::var("LEVEE_MUTANT") {
        mutants::switch_on(&name)?;
    }
    match (args.seed, args.seeds) {
        (Some(seed), None) => Ok(one(seed, args.verbose)),
        (None, Some(seeds)) => {
            Ok(many(Plan { from: args.from, seeds, jobs, limit: None, keep_going: args.keep_going }))
        }
        _ => bail!("say what to run: --seed N, or --seeds COUNT"),
    }
}

fn one(seed: u64, verbose: u8) -> bool {
    if verbose > 0 {
        let level = if verbose > 1 { "debug" } else { "levee_sim=info" };
        let filter = tracing_subscriber::EnvFilter::new(level);
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    let outcome = run_caught(seed, true);
    if let Some(failure) = &outcome.failure {
        if verbose == 0 {
            outcome.events.iter().for_each(|event| println!("{event}"));
        }
        println!("seed {seed} failed: {}: {}", failure.check, failure.what);
        return false;
    }
    let seconds = outcome.time.as_secs_f64();
    println!(
        "seed {seed} passed: {} requests, {seconds:.1} s simulated, {} steps, trace {:016x}",
        outcome.answered, outcome.polls, outcome.trace
    );
    true
}

fn many(plan: Plan) -> bool {
    let report = campaign(
        plan,
        || {},
        |seeds, took| {
            let rate = seeds as f64 * 60.0 / took.as_secs_f64();
            eprintln!("{seeds} of {} seeds, {rate:.0} a minute", plan.seeds);
        },
    );
    println!("{} seeds, {} requests, {:.0} seeds a minute", report.seeds, report.answered, report.rate());
    coverage::print(&report.reached);
    let missed = coverage::missed(&report);
    missed.iter().for_each(|name| println!("never reached: {name}"));
    for (seed, failure) in &report.failures {
        println!("seed {seed} failed: {}: {}", failure.check, failure.what);
    }
    if let Some((seed, _)) = report.failures.first_key_value() {
        println!("to have it again: levee-sim --seed {seed} --verbose");
    }
    report.failures.is_empty() && missed.is_empty()
}
