//! The grammar of `levee rebalance`, `levee maintenance` and `levee events`.

use crate::values;
use clap::{Args, Subcommand, ValueEnum};
use levee_proto::api::{EventKind, RebalanceGoal, RebalanceRequest, Severity};
use std::time::Duration;

#[derive(Subcommand)]
pub enum Rebalance {
    /// Show what a rebalance would move, where to, and how long it would take; nothing is changed
    #[command(after_help = "Examples:
  levee rebalance plan
  levee rebalance plan --by load
  levee rebalance plan --tolerance 10 --max-bytes 500G")]
    Plan(Bounds),
    /// Move copies until disks are used alike
    #[command(after_help = "\
Copies are made on the new disk first, a few at a time, as slowly as `--repair-rate` of the meta servers says. It goes on by itself, also under
another leader; `levee rebalance status` shows how far it is.

Examples:
  levee rebalance run
  levee rebalance run --wait
  levee rebalance run --by load         take busy chunks apart that are on the same disks")]
    Run {
        #[command(flatten)]
        bounds: Bounds,
        /// Wait until it is done
        #[arg(long)]
        wait: bool,
        /// How long to wait
        #[arg(long, requires = "wait", value_parser = values::duration, default_value = "24h")]
        timeout: Duration,
    },
    /// Show how the last rebalance does
    Status,
    /// End a rebalance; what was moved stays where it is
    Cancel,
}

#[derive(Args)]
pub struct Bounds {
    /// What is to be made even
    #[arg(long, value_name = "WHAT", default_value = "space")]
    by: By,
    /// How far above the mean a disk may stay, percent [default: 3]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    tolerance: Option<u8>,
    /// Most to move
    #[arg(long, value_name = "SIZE", value_parser = values::whole_blocks)]
    max_bytes: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum By {
    /// The share of each disk that is used
    Space,
    /// What guests ask of each disk
    Load,
}

impl Bounds {
    pub fn request(&self) -> RebalanceRequest {
        let goal = match self.by {
            By::Space => RebalanceGoal::Space,
            By::Load => RebalanceGoal::Load,
        };
        RebalanceRequest { goal, tolerance_percent: self.tolerance, max_bytes: self.max_bytes }
    }
}

#[derive(Subcommand)]
pub enum Maintenance {
    /// Have nothing repaired for a while, because somebody works on the machines
    #[command(after_help = "\
No disk is given up because nothing is heard of it; disks that report a failure are. The window ends by itself.

Examples:
  levee maintenance start --for 2h --node host-3 --reason 'kernel update'
  levee maintenance start --for 30m     the whole cluster: new switches")]
    Start {
        /// How long
        #[arg(long = "for", value_name = "TIME", value_parser = values::duration)]
        duration: Duration,
        /// The node that is worked on [default: the whole cluster]
        #[arg(long, value_parser = values::name)]
        node: Option<String>,
        /// Why, for those who look later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// End it
    Stop {
        /// The node that was worked on [default: the whole cluster]
        #[arg(long, value_parser = values::name)]
        node: Option<String>,
    },
    /// Show the windows that are not over
    Status,
}

#[derive(Args)]
#[command(after_help = "Examples:
  levee events
  levee events --follow
  levee events --kind disk --kind node --severity warning --limit 500
  levee events --json                   one page: events, and where to go on (--after)")]
pub struct Events {
    /// Wait for further events, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Only those after the event with this number
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
    /// Most events, the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub limit: u16,
    /// Only events about this; may be repeated
    #[arg(long, value_parser = kind)]
    pub kind: Vec<EventKind>,
    /// Only events at least as bad
    #[arg(long, value_parser = severity, default_value = "info")]
    pub severity: Severity,
}

fn kind(text: &str) -> Result<EventKind, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "use cluster, member, node, disk, volume, snapshot, repair, rebalance or maintenance".to_string())
}

fn severity(text: &str) -> Result<Severity, String> {
    serde_json::from_value(text.into()).map_err(|_| "use info, warning or error".to_string())
}
