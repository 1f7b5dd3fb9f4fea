//! `levee-killer`: kills daemons of a cluster under verified load.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use levee_perf::killer::{KillOptions, run};
use levee_proto::units::parse_size;

/// Starts a cluster of its own, puts a volume under verified load, and kills daemons at random moments:
/// the gateway, replicas, two at once, meta servers. Each is started again after a random pause.
///
/// At the end everything is read back, all copies are compared, the whole cluster is stopped and started,
/// and everything is read back again. Prints one JSON document on stdout, progress on stderr.
/// Exit status: 0 all right, 1 something was lost, wrong, failed or stuck.
#[derive(Parser)]
#[command(name = "levee-killer", version)]
struct Args {
    /// How many times to kill
    #[arg(long, default_value_t = 50, value_name = "N")]
    kills: u32,
    /// Chooses victims, pauses and load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of the cluster; deleted after success
    #[arg(long, default_value = "target/kill")]
    dir: PathBuf,
    #[arg(long, default_value_t = 18400, value_name = "PORT")]
    base_port: u16,
    #[arg(long, default_value = "4G", value_parser = parse_size, value_name = "SIZE")]
    volume_size: u64,
    /// How much of the volume is under load
    #[arg(long, default_value = "256M", value_parser = parse_size, value_name = "SIZE")]
    size_limit: u64,
    /// Requests in flight
    #[arg(long, default_value_t = 16)]
    qd: usize,
    #[arg(long, default_value_t = 2)]
    queues: usize,
    /// Bytes of one checked unit: 4096, or 512 for requests smaller than a block
    #[arg(long, default_value_t = 4096, value_name = "BYTES")]
    unit: usize,
    /// Do not kill meta servers
    #[arg(long)]
    spare_metas: bool,
    /// Keep the cluster's folder after success as well
    #[arg(long)]
    keep: bool,
    /// Give up when nothing completes for so long
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    stall_limit: f64,
}

fn main() -> ExitCode {
    match kill(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("levee-killer: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn kill(args: Args) -> Result<bool> {
    let mut report = run(&KillOptions {
        dir: args.dir,
        base_port: args.base_port,
        kills: args.kills,
        seed: args.seed,
        volume_size: args.volume_size,
        size_limit: args.size_limit,
        depth: args.qd,
        queues: args.queues,
        unit: args.unit,
        metas: !args.spare_metas,
        keep: args.keep,
        stall_limit: Duration::try_from_secs_f64(args.stall_limit)?,
        progress: |line| eprintln!("{line}"),
    })?;
    let ok = report.ok();
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(ok)
}
