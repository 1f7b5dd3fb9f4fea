//! Going on when most members are lost for good: one member's log becomes a group of one.
//!
//! Works on the folder of a member that does not run. What other members have promised is ignored: changes that only they hold are
//! lost, and if they still run, or are started again with their old folders, there are two groups. So nothing is done without a
//! confirmation that names the cluster.
//!
//! The log gains two entries: a membership with this member alone, in a term above all that it has seen, and the command by which a new
//! generation begins, for daemons may have seen what is lost (`state/src/recovery.rs`). Everything before counts as committed from then on. Others are
//! added again as new ones.

use crate::args::parse_url;
use crate::clock::now_ms;
use crate::raft::{Batch, Database, Machine, Membership, Replay, Snapshots};
use anyhow::{Context, bail, ensure};
use clap::Parser;
use levee_meta_state::{Command, LEVEL};
use std::path::PathBuf;

/// Have one meta server go on alone when most of the group are lost for good.
///
/// For when no majority will ever come back. The other members must be gone: started again with their old folders, they would be a
/// second group. Afterwards start this member, and add others with `levee-metad --join`.
#[derive(Debug, Parser)]
#[command(name = "levee-metad recover", bin_name = "levee-metad recover", max_term_width = 100)]
pub struct Args {
    /// Folder of the member, which must not run
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,

    /// Its number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,

    /// Where it will be reached
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub url: String,

    /// The first eight digits of the cluster's id: do it; without it, only say what would be done
    #[arg(long, value_name = "DIGITS")]
    pub confirm: Option<String>,
}

/// Says what would be done, or does it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let dir = args.dir.display();
    ensure!(args.dir.join("meta.redb").is_file(), "{dir} is no folder of a meta server: there is no meta.redb");
    let database = Database::open(&args.dir, args.id, LEVEL)?;
    let machine = Machine::load(database.clone(), Snapshots::open(&args.dir)?, LEVEL)?;
    let replay = machine.replay()?;
    let Some(cluster) = replay.state.cluster() else {
        bail!("{dir} belongs to no cluster: there is nothing to recover")
    };
    let digits: String = cluster.simple().to_string().chars().take(8).collect();
    describe(args, &replay, &digits);
    match &args.confirm {
        None => {
            println!("\nNothing was changed. To do it, say this again with --confirm {digits}");
            Ok(())
        }
        Some(given) if given.eq_ignore_ascii_case(&digits) => {
            let at_ms = now_ms();
            let batch = Batch { level: LEVEL, at_ms, commands: vec![Command::Recover { at_ms }] };
            database.begin_alone(args.id, &args.url, batch).context("the log could not be changed")?;
            println!(
                "\nDone. Start this member with --id {} and without --peers, then add others with --join.\n\
                 Volumes wait until every node has told what it holds: `levee doctor` says which are missing.",
                args.id
            );
            Ok(())
        }
        Some(given) => {
            bail!("--confirm {given} does not name this cluster, whose id begins with {digits}: nothing was changed")
        }
    }
}

fn describe(args: &Args, replay: &Replay, digits: &str) {
    let names = |membership: &Membership| {
        let names = membership.nodes().map(|(id, node)| format!("{id} ({})", node.addr)).collect::<Vec<_>>();
        names.join(", ")
    };
    let [nodes, disks, volumes] = replay.state.counts();
    println!("Meta server {} in {}, cluster {digits}...:", args.id, args.dir.display());
    println!("  its log ends with entry {} of term {}", replay.last.index, replay.last.leader_id.term);
    println!("  with all of it applied there are {nodes} nodes, {disks} disks and {volumes} volumes");
    println!("  the group is {}", names(&replay.membership));
    println!("It would become a group of its own at {}:", args.url);
    println!(
        "  changes that only the others hold are lost, volumes to which they gave new chunks are held until you decide;"
    );
    println!("  all volumes are taken over anew when every node has told what it holds;");
    println!("  the others must never be started again with their present folders: there would be two groups.");
}
