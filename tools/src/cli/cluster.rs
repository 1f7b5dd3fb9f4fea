//! The grammar of `levee cluster`.

use crate::values;
use clap::{Args, Subcommand};
use levee_proto::api::{ChangeLimits, ChangePlacement, Limit, MAX_RESERVE_PERCENT};

#[derive(Subcommand)]
pub enum Cluster {
    /// Show or change how much the cluster may promise, and when it counts as full
    #[command(after_help = "\
Without options, shows the limits and what the cluster holds. Options that are not given stay as they are; what exists stays as it
is, also beyond a new limit.

From --warn on, `levee status`, `levee doctor`, /metrics and the meta server's log say that the cluster fills up. From --full on, new
volumes, clones, snapshots and larger sizes are refused. Deleting, discarding, and writing to what exists go on.

Examples:
  levee cluster limits
  levee cluster limits --over-provision 3.0     volumes may have three times what the disks in service hold, in all copies
  levee cluster limits --over-provision none
  levee cluster limits --warn 70% --full 90%")]
    Limits(Limits),
    /// Show or change how copies of new chunks are placed
    #[command(after_help = "\
Without options, shows it. Options that are not given stay as they are; copies that exist stay where they are.

Copies of a chunk are always on different nodes, in different zones and racks as far as there are some (`levee-stored run --zone --rack`).

Examples:
  levee cluster placement
  levee cluster placement --scatter-width 10    the loss of three nodes at once hits data of few triples only
  levee cluster placement --reserve 10% --local-copy off")]
    Placement(Placement),
}

#[derive(Args)]
pub struct Placement {
    /// With how many other nodes a node shares chunks, at most; 0: no limit
    #[arg(long, value_name = "NODES")]
    scatter_width: Option<u16>,
    /// Share of each disk that new chunks leave to repairs, such as 5%
    #[arg(long, value_name = "PERCENT", value_parser = reserve)]
    reserve: Option<u8>,
    /// Whether one copy goes to the node that serves the volume: on or off
    #[arg(long, value_name = "ON|OFF", value_parser = on_or_off)]
    local_copy: Option<bool>,
}

impl Placement {
    /// What is to be changed; `None`: nothing.
    pub fn change(&self) -> Option<ChangePlacement> {
        let Placement { scatter_width, reserve, local_copy } = *self;
        let change = ChangePlacement { scatter_width, reserve_percent: reserve, local_copy };
        Some(change).filter(|change| *change != ChangePlacement::default())
    }
}

fn reserve(text: &str) -> Result<u8, String> {
    let percent: Option<u8> = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    percent.filter(|p| *p <= MAX_RESERVE_PERCENT).ok_or_else(|| format!("use 0% to {MAX_RESERVE_PERCENT}%"))
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("use on or off".into()),
    }
}

#[derive(Args)]
pub struct Limits {
    /// Most that all volumes together may have, sizes times copies, as a multiple of the disks in service; or none
    #[arg(long, value_name = "RATIO", value_parser = values::ratio)]
    over_provision: Option<Limit>,
    /// Use of the disks from which the cluster warns, such as 80%; or none
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    warn: Option<Limit>,
    /// Use of the disks from which it takes nothing new, such as 95%; or none
    #[arg(long, value_name = "PERCENT", value_parser = values::percent)]
    full: Option<Limit>,
}

impl Limits {
    /// What is to be changed; `None`: nothing.
    pub fn change(&self) -> Option<ChangeLimits> {
        let change = ChangeLimits { over_provision: self.over_provision, warn: self.warn, full: self.full };
        Some(change).filter(|change| *change != ChangeLimits::default())
    }
}
