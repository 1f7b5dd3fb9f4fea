//! The grammar of `levee init`.

use crate::init::{NodeSpec, PlaceSpec};
use crate::limits::MAX_DISK_SHARES;
use crate::values;
use clap::{Args, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Writes a folder for each host, to be copied to its /etc/levee, and STEPS.md, which says what to do with them. A host may be a meta
server and a node at once. Nothing but files in --out is written: disks are formatted by whoever follows the steps.

Examples:
  levee init --meta 10.0.0.1,10.0.0.2,10.0.0.3 --out cluster \\
    --node host-1=10.0.0.1:/dev/nvme1n1 --node host-2=10.0.0.2:/dev/nvme1n1,/dev/nvme2n1 --node host-3=10.0.0.3:/dev/nvme1n1
  levee init check                      on a host, with its files in /etc/levee: is it ready?"
)]
pub struct Init {
    #[command(flatten)]
    pub plan: InitPlan,
    #[command(subcommand)]
    pub command: Option<InitCommand>,
}

#[derive(Args)]
pub struct InitPlan {
    /// Addresses of the hosts that run a meta server: 1, 3 or 5
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',', required = true)]
    pub meta: Vec<IpAddr>,
    /// A storage node: its name, its address, and its disks if it has any (`,class=hdd` or `,class=ssd` behind one says what
    /// it is); repeat for each
    #[arg(long, value_name = "NAME=ADDRESS[:DISK,...]", required = true)]
    pub node: Vec<NodeSpec>,
    /// Zone of a node, such as its building or power supply; repeat for each
    #[arg(long, value_name = "NODE=ZONE")]
    pub zone: Vec<PlaceSpec>,
    /// Rack of a node; repeat for each
    #[arg(long, value_name = "NODE=RACK")]
    pub rack: Vec<PlaceSpec>,
    /// New folder for what is written
    #[arg(long, value_name = "DIR", required = true)]
    pub out: Option<PathBuf>,
    /// Cores of each storage daemon; fixed once its disks are formatted
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_DISK_SHARES)))]
    pub cores: u16,
    /// Size of disks that are files, such as 100G; not for block devices
    #[arg(long, value_name = "SIZE", value_parser = values::whole_blocks)]
    pub disk_size: Option<u64>,
    /// Port of the meta servers
    #[arg(long, value_name = "P", default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1024..))]
    pub meta_port: u16,
    /// Port of the storage daemons' admin endpoints; their cores have those after it
    #[arg(long, value_name = "P", default_value_t = 7500, value_parser = clap::value_parser!(u16).range(1024..))]
    pub node_port: u16,
}

#[derive(Subcommand)]
pub enum InitCommand {
    /// Find out what this host lacks for the configuration that it has; changes nothing
    #[command(after_help = "\
Looks at levee-metad.toml and levee-stored.toml, whichever is there: limits, kernel, io_uring, disks, ports, and whether the other
hosts can be reached. Run it as root, so that it may look at disks.

Exit status: 0 ready, 1 something is missing.

Examples:
  levee init check
  levee init check --config cluster/host-1 --json")]
    Check(InitCheck),
}

#[derive(Args)]
pub struct InitCheck {
    /// Folder with the configuration of this host
    #[arg(long, value_name = "DIR", default_value = "/etc/levee")]
    pub config: PathBuf,
    /// How long another host may take to answer
    #[arg(long, value_parser = values::duration, default_value = "3s")]
    pub timeout: Duration,
}
