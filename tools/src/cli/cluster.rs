//! The grammar of `levee cluster`.

use crate::values;
use clap::{Args, Subcommand};
use levee_proto::api::{ChangeLimits, Limit};

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
