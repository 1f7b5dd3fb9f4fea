//! `levee-torture`: verified random load on a vhost-user-blk socket.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use levee_perf::torture::{Control, Options, run};
use levee_proto::units::parse_size;

/// Verified load on a vhost-user-blk socket. Random reads, writes, discards and zeroes run over the start
/// of the volume, WHICH THEY OVERWRITE; every read is checked, and at the end everything is read back.
/// The load survives daemons that are killed and started again on the same socket.
///
/// Prints one JSON document. Exit status: 0 all right, 1 something was lost, wrong, failed or stuck.
#[derive(Parser)]
#[command(name = "levee-torture", version)]
struct Args {
    /// Socket of the volume, as `levee volume attach` prints it
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Seconds of load; 0 only reads back what --state describes
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    time: f64,
    /// Chooses places, sizes and operations
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Requests in flight
    #[arg(long, default_value_t = 16)]
    qd: usize,
    #[arg(long, default_value_t = 1)]
    queues: usize,
    /// How much of the volume is used, from its start
    #[arg(long, default_value = "256M", value_parser = parse_size, value_name = "SIZE")]
    size_limit: u64,
    /// Bytes of one checked unit: 4096, or 512 for requests smaller than a block
    #[arg(long, default_value_t = 4096, value_name = "BYTES")]
    unit: usize,
    /// The volume is new: what was not written must read as zeroes
    #[arg(long)]
    fresh: bool,
    /// Discarded blocks may keep their data (by default they must read as zeroes)
    #[arg(long)]
    discard_may_keep: bool,
    /// Expected content: read at the start if the file exists, written at the end
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Give up when nothing completes for so long
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    stall_limit: f64,
}

fn main() -> ExitCode {
    match torture(Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("levee-torture: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn torture(args: Args) -> Result<bool> {
    let options = Options {
        socket: args.socket,
        time: Duration::try_from_secs_f64(args.time)?,
        seed: args.seed,
        depth: args.qd,
        queues: args.queues,
        size_limit: args.size_limit,
        unit: args.unit,
        fresh: args.fresh,
        discard_may_keep: args.discard_may_keep,
        state: args.state,
        stall_limit: Duration::try_from_secs_f64(args.stall_limit)?,
    };
    let report = run(&options, &Control::default())?;
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(report.ok())
}
