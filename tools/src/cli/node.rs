//! The grammar of `levee node` and `levee disk`.

use crate::values;
use clap::{Args, Subcommand, ValueEnum};
use levee_proto::api::{DiskClass, MAX_WEIGHT};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Subcommand)]
pub enum Node {
    /// List all nodes
    #[command(after_help = "Example:
  levee node list")]
    List,
    /// Show a node: its disks, what it holds and serves, and what is the matter with it
    #[command(after_help = "Example:
  levee node show host-3")]
    Show {
        #[arg(value_parser = values::name)]
        name: String,
    },
    /// Put everything on a node's disks elsewhere, before it is taken out
    #[command(after_help = "\
Copies are made elsewhere first: no volume has fewer than before. The node takes no new copies and no new volumes; volumes that
it serves stay there until they are detached.

Examples:
  levee node drain host-3 --dry-run     what would be moved, and where to
  levee node drain host-3 --reason 'new mainboard'
  levee node drain host-3 --wait        until it is empty; Ctrl-C ends the wait, not the work")]
    Drain(Drain),
    /// Put a node back into service
    #[command(after_help = "Example:
  levee node undrain host-3")]
    Undrain {
        #[arg(value_parser = values::name)]
        name: String,
    },
    /// Take a node out of the cluster for good
    #[command(after_help = "\
It must be empty (`levee node drain`) and serve nothing. Its daemon is to be stopped; it is not let in again with the disks that it
has. With --force what a node that is down holds is given up, and made anew elsewhere; the node leaves when that is done.

Examples:
  levee node remove host-3
  levee node remove host-3 --force      its machine burnt down")]
    Remove {
        #[arg(value_parser = values::name)]
        name: String,
        /// Also if it holds copies: they count as lost
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args)]
pub struct Drain {
    #[arg(value_parser = values::name)]
    pub name: String,
    /// Why, for those who look later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    #[command(flatten)]
    pub how: How,
}

/// How something is emptied.
#[derive(Args)]
pub struct How {
    /// Only say what would be moved, where to, and whether it finds place
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until it is empty
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// How long to wait
    #[arg(long, requires = "wait", value_parser = values::duration, default_value = "24h")]
    pub timeout: Duration,
}

#[derive(Subcommand)]
pub enum Disk {
    /// List all disks
    #[command(after_help = "Example:
  levee disk list")]
    List,
    /// Give a node one more disk while it runs
    #[command(after_help = "\
The node's daemon opens the disk, and takes it again at its next starts. `levee rebalance run` moves copies onto it.

Examples:
  levee disk add host-3 /dev/nvme2n1 --format          what is on it is lost; it must look empty
  levee disk add host-3 /srv/levee/disk-2 --format --size 100G
  levee disk add host-3 /dev/nvme2n1                   it was formatted with `levee-stored format`")]
    Add(Add),
    /// Put everything on a disk elsewhere, before it is taken out
    #[command(after_help = "\
Copies are made elsewhere first: no volume has fewer than before. `levee disk list` shows how many are left.

Examples:
  levee disk drain 3
  levee disk drain 3 --dry-run
  levee disk drain 3 --reason 'SMART says it will fail' --wait")]
    Drain {
        #[command(flatten)]
        change: DiskChange,
        #[command(flatten)]
        how: How,
    },
    /// Put a disk back into service, whatever it was taken out for
    #[command(after_help = "Example:
  levee disk undrain 3")]
    Undrain(DiskChange),
    /// Give a disk up: everything on it counts as lost, and is made anew from the other copies
    #[command(after_help = "\
Disks that report a failure, and those of a node that is not heard of for long, are given up without this.

Example:
  levee disk fail 3")]
    Fail(DiskChange),
    /// Take a disk out of the cluster for good
    #[command(after_help = "\
It must be empty (`levee disk drain`). Its daemon lets go of it, if it runs. With --force what it holds is given up, and made anew elsewhere;
the disk leaves when that is done.

Examples:
  levee disk remove 3
  levee disk remove 3 --force")]
    Remove {
        #[command(flatten)]
        disk: DiskNumber,
        /// Also if it holds copies: they count as lost
        #[arg(long)]
        force: bool,
    },
    /// Put a new disk in the place of another one
    #[command(after_help = "\
Adds the new disk to the same node, empties the old one (or gives it up, if it has failed), waits until nothing is left on it, and takes it
out of the cluster. If it is interrupted, the same command goes on; so do `levee disk drain` and `levee disk remove`.

Examples:
  levee disk replace 3 /dev/nvme4n1 --format
  levee disk replace 3 /srv/levee/disk-9 --format --size 100G")]
    Replace {
        #[command(flatten)]
        disk: DiskNumber,
        #[command(flatten)]
        new: NewDisk,
        /// How long to wait until the old one is empty
        #[arg(long, value_parser = values::duration, default_value = "24h")]
        timeout: Duration,
    },
    /// Say what share of the data a disk is to hold: 100 as its size says, 0 nothing new
    #[command(after_help = "\
New copies are placed by it; `levee rebalance run` moves those that exist.

Example:
  levee disk weight 3 50")]
    Weight {
        #[command(flatten)]
        disk: DiskNumber,
        #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_WEIGHT)))]
        weight: u32,
    },
}

#[derive(Args)]
pub struct Add {
    /// Name of the node
    #[arg(value_parser = values::name)]
    pub node: String,
    #[command(flatten)]
    pub disk: NewDisk,
}

#[derive(Args)]
pub struct NewDisk {
    /// File or block device on the node's host
    pub path: PathBuf,
    /// Make it a Levee disk first: it must be empty
    #[arg(long)]
    pub format: bool,
    /// Also a block device that holds something: it is lost
    #[arg(long, requires = "format")]
    pub force: bool,
    /// Size of a file that is to be made
    #[arg(long, requires = "format", value_parser = values::whole_blocks)]
    pub size: Option<u64>,
    /// What it is made of [default: found out]
    #[arg(long)]
    pub class: Option<Class>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Class {
    Ssd,
    Hdd,
}

impl From<Class> for DiskClass {
    fn from(class: Class) -> DiskClass {
        match class {
            Class::Ssd => DiskClass::Ssd,
            Class::Hdd => DiskClass::Hdd,
        }
    }
}

#[derive(Args)]
pub struct DiskNumber {
    /// Number of the disk, as `levee disk list` shows it
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u32).range(1..))]
    pub id: u32,
}

#[derive(Args)]
pub struct DiskChange {
    #[command(flatten)]
    pub disk: DiskNumber,
    /// Why, for those who look later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}
