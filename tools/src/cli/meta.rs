//! The grammar of `levee meta`.

use crate::values;
use clap::{Args, Subcommand};
use std::time::Duration;

#[derive(Subcommand)]
pub enum Meta {
    /// Show the meta servers: who leads, who counts, and what is wrong
    List,
    /// Take a new meta server into the group, and wait until it counts
    #[command(after_help = "\
The new one runs already, with an empty folder:
  levee-metad --id 4 --listen 10.0.0.4:7400 --dir /var/lib/levee/meta --join http://10.0.0.1:7400

It announces itself, so this command is needed only to wait for it, or if it was not told the right --join.

Example:
  levee meta add http://10.0.0.4:7400")]
    Add {
        /// Where it listens: http://HOST:PORT
        #[arg(value_parser = values::url)]
        url: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Take a meta server out of the group; its process ends by itself
    #[command(after_help = "\
Refused if those that are left and answer are no majority.

Example:
  levee meta remove 2")]
    Remove {
        /// Its number: `levee meta list` shows it
        id: u64,
        /// Also if too few of those that are left answer
        #[arg(long)]
        force: bool,
    },
    /// Have another meta server lead, before work on the leader's host
    #[command(after_help = "\
Changes wait for about two seconds meanwhile; what is served goes on.

Example:
  levee meta lead 2")]
    Lead {
        /// Its number: `levee meta list` shows it
        id: u64,
    },
    /// Have a meta server that lost its folder begin anew, and wait until it counts
    #[command(after_help = "\
For a meta server whose disk or machine was replaced. Start it with its number and an empty folder first.

Examples:
  levee meta replace 2
  levee meta replace 2 --url http://10.0.0.9:7400     it is on another machine now")]
    Replace {
        /// Its number
        id: u64,
        /// Where it listens now [default: where it did]
        #[arg(long, value_parser = values::url)]
        url: Option<String>,
        /// Also if too few of the others answer
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        waiting: Waiting,
    },
}

#[derive(Args)]
pub struct Waiting {
    /// How long to wait until it has the log and counts
    #[arg(long, default_value = "10m", value_parser = values::duration)]
    pub timeout: Duration,
}
