//! `levee-faults`: does faults to a cluster under verified load.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use levee_perf::faults::{FaultOptions, Kind, interrupt, kind, run};
use levee_proto::units::parse_size;

/// Starts a cluster of its own, puts volumes under verified load, and does a random fault, or two at
/// once, to it in each round.
///
/// After most rounds the cluster must become whole by itself, all copies are compared and everything is
/// read back; at the end the whole cluster is stopped and started, and everything is read back again.
/// Prints a table and progress on stderr, one JSON document on stdout.
/// Exit status: 0 all right, 1 something was lost, wrong, failed or stuck.
#[derive(Parser)]
#[command(name = "levee-faults", version)]
struct Args {
    /// How many rounds
    #[arg(long, default_value_t = 50, value_name = "N")]
    rounds: u32,
    /// Chooses faults, pauses and load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kinds of faults [default: all]
    #[arg(long, value_delimiter = ',', value_enum, value_name = "KIND")]
    kinds: Vec<Kind>,
    /// Folder of the cluster; deleted after success
    #[arg(long, default_value = "target/faults")]
    dir: PathBuf,
    #[arg(long, default_value_t = 18400, value_name = "PORT")]
    base_port: u16,
    /// Storage nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Meta servers: 1, 3 or 5
    #[arg(long, default_value_t = 3)]
    metas: usize,
    /// How long a node may be silent before copies of its data are made elsewhere
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    repair_after: u64,
    /// Volumes under load, each served by another node
    #[arg(long, default_value_t = 3)]
    volumes: usize,
    #[arg(long, default_value = "256M", value_parser = parse_size, value_name = "SIZE")]
    volume_size: u64,
    /// How much of each volume is under load
    #[arg(long, default_value = "64M", value_parser = parse_size, value_name = "SIZE")]
    size_limit: u64,
    /// Requests in flight on each volume
    #[arg(long, default_value_t = 8)]
    qd: usize,
    #[arg(long, default_value_t = 2)]
    queues: usize,
    /// Keep the cluster's folder after success as well
    #[arg(long)]
    keep: bool,
    /// Give up when nothing completes on a volume for so long
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    stall_limit: f64,
}

fn main() -> ExitCode {
    match faults(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("levee-faults: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn faults(args: Args) -> Result<bool> {
    interrupt::install()?;
    let report = run(&FaultOptions {
        dir: args.dir,
        base_port: args.base_port,
        rounds: args.rounds,
        seed: args.seed,
        kinds: if args.kinds.is_empty() { kind::all() } else { args.kinds.into_iter().collect() },
        nodes: args.nodes,
        metas: args.metas,
        repair_after: Duration::from_secs(args.repair_after),
        volumes: args.volumes,
        volume_size: args.volume_size,
        size_limit: args.size_limit,
        depth: args.qd,
        queues: args.queues,
        keep: args.keep,
        stall_limit: Duration::try_from_secs_f64(args.stall_limit)?,
        progress: |line| eprintln!("{line}"),
    })?;
    eprintln!("\n{}", report.show());
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(report.ok)
}
