//! `levee-bench`: load on a vhost-user-blk socket, and comparisons.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use levee_perf::api::{self, ApiOptions};
use levee_perf::failover::{self, FailoverOptions};
use levee_perf::load::{self, LoadOptions, Pattern, Until};
use levee_perf::moves::{self, MoveOptions};
use levee_perf::repair::{self, RepairOptions};
use levee_perf::snapshots::{self, SnapshotOptions};
use levee_perf::suite::{self, SYSTEMS, SuiteOptions};
use levee_proto::units::parse_size;

/// Measures a vhost-user-blk device.
#[derive(Parser)]
#[command(
    name = "levee-bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  levee-bench --socket vol.sock --rw randread --qd 32
  levee-bench --socket vol.sock --rw write --bs 128K --qd 8    OVERWRITES the volume
  levee-bench suite --time 5                                   compare with the raw disk and its peers
  levee-bench repair --size 2G                                 give a disk up, and see how fast its copies are made anew
  levee-bench failover --rounds 100                            take the meta servers' leader away again and again
  levee-bench moves                                            fill a new node, empty another, take a disk out
  levee-bench api                                              create volumes as fast as a meta server takes them
  levee-bench snapshots                                        take and delete a thousand snapshots beside a load"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    load: Load,
}

#[derive(Subcommand)]
enum Command {
    /// Compare Levee with the raw disk and qemu-storage-daemon, in one run on one file system
    Suite(Suite),
    /// Compare repair with copying files, and guests' latency with and without it, in one run on one file system
    Repair(Repair),
    /// Measure what snapshots and clones take, and what they cost guests, in one run
    Snapshots(Snapshots),
    /// Measure how many volumes a second a meta server creates, one by one and in batches
    Api(Api),
    /// Kill, stop and cut off the meta servers' leader, and measure how long changes wait
    Failover(Failover),
    /// Fill a new node, empty another, take a disk out, all beside verified load
    Moves(Moves),
}

#[derive(clap::Args)]
struct Moves {
    /// Of the volume, all of it written; the folder needs eight times that
    #[arg(long, default_value = "4G", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Requests of the load in flight
    #[arg(long, default_value_t = 2)]
    depth: usize,
    /// Folder for the cluster
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    #[arg(long, default_value_t = 18900, value_name = "PORT")]
    base_port: u16,
    /// Where the figures go, as JSON
    #[arg(long, default_value = "target/bench/moves.json", value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct Failover {
    /// How often the leader is taken away
    #[arg(long, default_value_t = 30)]
    rounds: u32,
    /// Clients that create and delete volumes
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Folder for the cluster
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    #[arg(long, default_value_t = 18900, value_name = "PORT")]
    base_port: u16,
    /// Where the figures go, as JSON
    #[arg(long, default_value = "target/bench/failover.json", value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct Api {
    /// Meta servers: 1, 3 or 5
    #[arg(long, default_value_t = 3)]
    members: u16,
    /// Clients that create volumes one by one
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Volumes created one by one
    #[arg(long, default_value_t = 20_000)]
    singles: u64,
    /// Volumes created in batches
    #[arg(long, default_value_t = 100_000)]
    batched: u64,
    /// Volumes of one batch
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Folder for the meta server
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Of the first meta server; the others listen behind it
    #[arg(long, default_value_t = 18900)]
    port: u16,
    /// Where the figures go, as JSON
    #[arg(long, default_value = "target/bench/api.json", value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct Suite {
    /// Seconds for each point
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    time: f64,
    /// Folder for the files and the cluster; needs about 30 GiB
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    #[arg(long, default_value_t = 18600, value_name = "PORT")]
    base_port: u16,
    /// Which systems take part
    #[arg(long, value_delimiter = ',', value_parser = SYSTEMS, default_values_t = SYSTEMS.map(String::from))]
    systems: Vec<String>,
    /// Where the figures go, as JSON
    #[arg(long, default_value = "target/bench/latest.json", value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct Repair {
    /// Of the volume, all of it written; the folder needs five times that
    #[arg(long, default_value = "2G", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Storage nodes; the disk of one is given up
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Seconds of the load without a repair
    #[arg(long, default_value_t = 15.0, value_name = "SECONDS")]
    time: f64,
    /// Which parts are done
    #[arg(long, value_delimiter = ',', value_parser = PARTS, default_values_t = PARTS.map(String::from))]
    parts: Vec<String>,
    /// Folder for the files and the clusters
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    #[arg(long, default_value_t = 18700, value_name = "PORT")]
    base_port: u16,
    /// Where the figures go, as JSON
    #[arg(long, default_value = "target/bench/repair.json", value_name = "FILE")]
    out: PathBuf,
}

#[derive(clap::Args)]
struct Snapshots {
    /// Of each of the two volumes, all of them written; the folder needs ten times that
    #[arg(long, default_value = "512M", value_parser = parse_size, value_name = "SIZE")]
    size: u64,
    /// Snapshots of one of them
    #[arg(long, default_value_t = 1000)]
    count: u32,
    /// Clones of one snapshot
    #[arg(long, default_value_t = 10_000)]
    clones: u32,
    /// Seconds of each measurement without anything else
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    time: f64,
    /// Folder for the cluster
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    #[arg(long, default_value_t = 18800, value_name = "PORT")]
    base_port: u16,
    /// Where the figures go, as JSON
    #[arg(long, default_value = "target/bench/snapshots.json", value_name = "FILE")]
    out: PathBuf,
}

/// Parts of `levee-bench repair`.
const PARTS: [&str; 2] = ["idle", "load"];

#[derive(clap::Args)]
struct Load {
    /// Socket of the volume, as `levee volume attach` prints it
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What to do; writes OVERWRITE the volume
    #[arg(long, value_enum, default_value = "randread")]
    rw: Pattern,
    /// Size of a request
    #[arg(long, default_value = "4K", value_parser = parse_size, value_name = "SIZE")]
    bs: u64,
    /// Requests in flight on each queue
    #[arg(long, default_value_t = 1)]
    qd: usize,
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// Requests per second, timed from when they were due [default: as many as are answered]
    #[arg(long, value_name = "IOPS")]
    rate: Option<f64>,
    /// Seconds
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    time: f64,
    /// How much of the volume is used, from its start [default: all]
    #[arg(long, value_parser = parse_size, value_name = "SIZE")]
    size: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match bench(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("levee-bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: Args) -> Result<()> {
    match args.command {
        Some(Command::Suite(suite)) => compare(suite),
        Some(Command::Repair(options)) => measure_repair(options),
        Some(Command::Snapshots(options)) => measure_snapshots(options),
        Some(Command::Api(options)) => measure_api(options),
        Some(Command::Failover(options)) => measure_failover(options),
        Some(Command::Moves(options)) => measure_moves(options),
        None => measure(args.load),
    }
}

fn compare(suite: Suite) -> Result<()> {
    let table = suite::run(&SuiteOptions {
        dir: suite.dir,
        base_port: suite.base_port,
        systems: SYSTEMS.into_iter().filter(|s| suite.systems.iter().any(|wanted| wanted == s)).collect(),
        time: Duration::try_from_secs_f64(suite.time)?,
        out: suite.out.clone(),
        progress: say,
    })?;
    show(&table, &suite.out);
    Ok(())
}

fn measure_repair(options: Repair) -> Result<()> {
    let has = |part| options.parts.iter().any(|wanted| wanted == part);
    let table = repair::run(&RepairOptions {
        idle: has("idle"),
        foreground: has("load"),
        dir: options.dir,
        base_port: options.base_port,
        nodes: options.nodes,
        size: options.size,
        time: Duration::try_from_secs_f64(options.time)?,
        out: options.out.clone(),
        progress: say,
    })?;
    show(&table, &options.out);
    Ok(())
}

fn measure_snapshots(options: Snapshots) -> Result<()> {
    let table = snapshots::run(&SnapshotOptions {
        dir: options.dir,
        base_port: options.base_port,
        size: options.size,
        count: options.count,
        clones: options.clones,
        time: Duration::try_from_secs_f64(options.time)?,
        out: options.out.clone(),
        progress: say,
    })?;
    show(&table, &options.out);
    Ok(())
}

fn measure_api(options: Api) -> Result<()> {
    let figures = api::run(&ApiOptions {
        members: options.members,
        clients: options.clients.into(),
        singles: options.singles,
        batched: options.batched,
        batch: options.batch,
        dir: options.dir,
        port: options.port,
        out: options.out.clone(),
    })?;
    show(&figures.table(), &options.out);
    Ok(())
}

fn measure_failover(options: Failover) -> Result<()> {
    let report = failover::run(&FailoverOptions {
        dir: options.dir,
        base_port: options.base_port,
        rounds: options.rounds,
        clients: options.clients,
        out: options.out.clone(),
        progress: say,
    })?;
    show(&report.table(), &options.out);
    anyhow::ensure!(report.ok(), "acknowledged changes were lost, or the guest's data are wrong");
    Ok(())
}

fn measure_moves(options: Moves) -> Result<()> {
    let table = moves::run(&MoveOptions {
        dir: options.dir,
        base_port: options.base_port,
        size: options.size,
        depth: options.depth,
        out: options.out.clone(),
        progress: say,
    })?;
    show(&table, &options.out);
    Ok(())
}

fn say(line: &str) {
    eprintln!("{line}");
}

fn show(table: &str, figures: &Path) {
    print!("{table}");
    println!("figures: {}", figures.display());
}

fn measure(load: Load) -> Result<()> {
    let report = load::run(&LoadOptions {
        socket: load.socket.context("--socket is missing: name the volume's socket")?,
        pattern: load.rw,
        block: usize::try_from(load.bs)?,
        depth: load.qd,
        queues: load.queues,
        rate: load.rate,
        until: Until::Elapsed(Duration::try_from_secs_f64(load.time)?),
        area: load.size,
    })?;
    if load.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let l = report.latency_us;
    println!(
        "{} bs={} qd={} queues={}: {:.0} IOPS, {:.1} MiB/s; latency us: mean {:.0}, p50 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
        report.rw,
        report.bs,
        report.qd,
        report.queues,
        report.iops,
        report.mib_per_s,
        l.mean,
        l.p50,
        l.p99,
        l.p999,
        l.max
    );
    Ok(())
}
