//! `levee-fuzz`: sends random and mutated messages to the ports of a cluster's daemons.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use levee_perf::faults::interrupt;
use levee_perf::fuzz::{FuzzOptions, Report, admin, front_end, link, raft, run};

/// Starts a cluster of its own and sends random and mutated messages, chosen by a seed, to one kind of its ports.
///
/// Meanwhile a volume that no message names is under verified load. Afterwards every daemon must still run, and that volume
/// is taken over by another node, read back, written again, and its copies are compared.
/// Prints one JSON document on stdout. Exit status: 0 all right, 1 something ended, was lost, wrong or stuck.
#[derive(Parser)]
#[command(name = "levee-fuzz", version)]
struct Cli {
    #[command(subcommand)]
    port: Port,
}

#[derive(Subcommand)]
enum Port {
    /// The port at which daemons reach each other's copies
    Link(Options),
    /// The port at which operators ask a storage daemon
    Admin(Options),
    /// The meta servers, as another one would speak to them; there are three
    Raft(Options),
    /// The socket of a volume, as a front end that is anything but QEMU would use it
    FrontEnd(Options),
}

/// Meta servers that speak to each other.
const GROUP: usize = 3;

#[derive(Args)]
struct Options {
    /// Chooses the messages
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long messages are sent
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u64,
    /// Folder of the cluster; deleted after success
    #[arg(long, default_value = "target/fuzz")]
    dir: PathBuf,
    #[arg(long, default_value_t = 18600, value_name = "PORT")]
    base_port: u16,
    /// Meta servers: 1, 3 or 5
    #[arg(long, default_value_t = 1)]
    metas: usize,
}

impl From<Options> for FuzzOptions {
    fn from(options: Options) -> FuzzOptions {
        FuzzOptions {
            dir: options.dir,
            base_port: options.base_port,
            metas: options.metas,
            seed: options.seed,
            time: Duration::from_secs(options.seconds),
        }
    }
}

fn main() -> ExitCode {
    let report = fuzz(Cli::parse()).and_then(|report| Ok(serde_json::to_string_pretty(&report)?));
    match report {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("levee-fuzz: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(cli: Cli) -> Result<Report> {
    interrupt::install()?;
    match cli.port {
        Port::Link(options) => run(&options.into(), link::LinkPort::open),
        Port::Admin(options) => run(&options.into(), admin::AdminPort::open),
        Port::Raft(options) => run(&FuzzOptions { metas: GROUP, ..options.into() }, raft::RaftPort::open),
        Port::FrontEnd(options) => run(&options.into(), front_end::FrontEndPort::open),
    }
}
