//! The commands that speak to a cluster, one file each.

mod attach;
mod borrow;
mod capacity;
mod diff;
mod disk;
mod doctor;
mod events;
mod family;
mod forecast;
mod gateway;
mod group;
mod image;
mod job;
mod lists;
mod maintenance;
mod meta;
mod node;
mod placement;
mod qemu;
mod qemu_probe;
mod rebalance;
mod redundancy;
mod snapshot;
mod status;
mod top;
mod transfer;
mod usage;
mod verify;
mod volume;

use crate::cli::{Cli, Cluster, Command, Disk, Image, InitCommand, Maintenance, Node, Rebalance, Snapshot, Volume};
use crate::cluster;
use crate::init;
use crate::local;
use crate::output::Output;
use levee_proto::api::{DiskState, StartMaintenance};
use levee_proto::ids::DiskId;

pub async fn run(cli: Cli, out: &Output) -> anyhow::Result<()> {
    let global = &cli.global;
    match &cli.command {
        Command::Up(args) => local::up::up(args, &cluster::local_dir(global), out).await,
        Command::Down(args) => local::down::down(args, &cluster::local_dir(global), out).await,
        Command::Init(args) => match &args.command {
            Some(InitCommand::Check(check)) => init::check::check(check, out).await,
            None => init::write(&args.plan, out),
        },
        Command::Status => status::status(&cluster::connect(global)?, out).await,
        Command::Top(args) => top::top(&cluster::connect(global)?, args, out).await,
        Command::Volume(command) => run_volume(command, &cli, out).await,
        Command::Snapshot(command) => run_snapshot(command, &cli, out).await,
        Command::Image(command) => run_image(command, &cli, out).await,
        Command::Cluster(Cluster::Limits(limits)) => {
            capacity::limits(&cluster::connect(global)?, limits.change().as_ref(), out).await
        }
        Command::Cluster(Cluster::Placement(change)) => {
            placement::placement(&cluster::connect(global)?, change.change().as_ref(), out).await
        }
        Command::Node(command) => run_node(command, &cli, out).await,
        Command::Meta(command) => meta::run(command, &cluster::connect(global)?, out).await,
        Command::Disk(command) => run_disk(command, &cli, out).await,
        Command::Rebalance(command) => run_rebalance(command, &cli, out).await,
        Command::Maintenance(command) => run_maintenance(command, &cli, out).await,
        Command::Events(args) => events::events(&cluster::connect(global)?, args, out).await,
        Command::Doctor => doctor::doctor(&cluster::connect(global)?, out).await,
        Command::Qemu(args) => qemu::qemu(args, &cluster::connect(global)?, out).await,
    }
}

async fn run_disk(command: &Disk, cli: &Cli, out: &Output) -> anyhow::Result<()> {
    let meta = cluster::connect(&cli.global)?;
    let (change, state) = match command {
        Disk::List => return lists::disks(&meta, out).await,
        Disk::Add(args) => return disk::add(&meta, &args.node, &args.disk, out).await,
        Disk::Drain { change, how } => {
            return disk::drain(&meta, DiskId(change.disk.id), change.reason.as_deref(), how, out).await;
        }
        Disk::Remove { disk, force } => return disk::remove(&meta, DiskId(disk.id), *force, out).await,
        Disk::Replace { disk, new, timeout } => {
            return disk::replace(&meta, DiskId(disk.id), new, *timeout, out).await;
        }
        Disk::Weight { disk, weight } => return disk::weight(&meta, DiskId(disk.id), *weight, out).await,
        Disk::Undrain(change) => (change, DiskState::InService),
        Disk::Fail(change) => (change, DiskState::Dead),
    };
    disk::set(&meta, DiskId(change.disk.id), state, change.reason.as_deref(), out).await
}

async fn run_node(command: &Node, cli: &Cli, out: &Output) -> anyhow::Result<()> {
    let meta = cluster::connect(&cli.global)?;
    match command {
        Node::List => lists::nodes(&meta, out).await,
        Node::Show { name } => node::show(&meta, name, out).await,
        Node::Drain(args) => node::drain(&meta, args, out).await,
        Node::Undrain { name } => node::undrain(&meta, name, out).await,
        Node::Remove { name, force } => node::remove(&meta, name, *force, out).await,
    }
}

async fn run_rebalance(command: &Rebalance, cli: &Cli, out: &Output) -> anyhow::Result<()> {
    let meta = cluster::connect(&cli.global)?;
    match command {
        Rebalance::Plan(bounds) => rebalance::plan(&meta, &bounds.request(), out).await,
        Rebalance::Run { bounds, wait, timeout } => {
            rebalance::run(&meta, &bounds.request(), wait.then_some(*timeout), out).await
        }
        Rebalance::Status => rebalance::status(&meta, out).await,
        Rebalance::Cancel => rebalance::cancel(&meta, out).await,
    }
}

async fn run_maintenance(command: &Maintenance, cli: &Cli, out: &Output) -> anyhow::Result<()> {
    let meta = cluster::connect(&cli.global)?;
    match command {
        Maintenance::Start { duration, node, reason } => {
            let request =
                StartMaintenance { node: node.clone(), seconds: duration.as_secs().max(1), reason: reason.clone() };
            maintenance::start(&meta, &request, out).await
        }
        Maintenance::Stop { node } => maintenance::stop(&meta, node.as_deref(), out).await,
        Maintenance::Status => maintenance::status(&meta, out).await,
    }
}

async fn run_snapshot(command: &Snapshot, cli: &Cli, out: &Output) -> anyhow::Result<()> {
    let meta = cluster::connect(&cli.global)?;
    match command {
        Snapshot::Create { names, timeout } => snapshot::create(&meta, names, *timeout, out).await,
        Snapshot::List { volume, measure } => snapshot::list(&meta, volume.as_deref(), measure.wait(), out).await,
        Snapshot::Delete { names } => snapshot::delete(&meta, names, out).await,
        Snapshot::Diff { from, to, timeout } => diff::diff(&meta, from, to, *timeout, out).await,
        Snapshot::Rollback { name } => snapshot::rollback(&meta, name, out).await,
    }
}

async fn run_image(command: &Image, cli: &Cli, out: &Output) -> anyhow::Result<()> {
    let meta = cluster::connect(&cli.global)?;
    match command {
        Image::Import(args) => image::import(&meta, args, out).await,
        Image::Export { name, target, place } => image::export(&meta, name, target, place, out).await,
        Image::List => image::list(&meta, out).await,
        Image::Delete { name } => image::delete(&meta, name, out).await,
    }
}

async fn run_volume(command: &Volume, cli: &Cli, out: &Output) -> anyhow::Result<()> {
    let meta = cluster::connect(&cli.global)?;
    match command {
        Volume::Create(args) => match &args.from {
            Some(from) => family::create(&meta, args, from, out).await,
            None => volume::create(&meta, args, out).await,
        },
        Volume::List => volume::list(&meta, out).await,
        Volume::Show { name, measure } => volume::show(&meta, name, measure.wait(), out).await,
        Volume::Delete { names, count, first } => family::delete(&meta, names, *count, *first, out).await,
        Volume::Resize { name, size, allow_shrink } => family::resize(&meta, name, *size, *allow_shrink, out).await,
        Volume::RecoverEpochs { name } => volume::recover_epochs(&meta, name, out).await,
        Volume::Flatten { name, timeout } => family::flatten(&meta, name, *timeout, out).await,
        Volume::AcceptLoss { name } => volume::accept_loss(&meta, name, out).await,
        Volume::Attach { name, node, timeout } => attach::attach(&meta, name, node.as_deref(), *timeout, out).await,
        Volume::Detach { name, force } => volume::detach(&meta, name, *force, out).await,
        Volume::Import { source, volume, overwrite, place } => {
            transfer::import(&meta, source, volume, *overwrite, place, out).await
        }
        Volume::Export { volume, target, place } => transfer::export(&meta, volume, target, place, out).await,
        Volume::Verify { name, timeout } => verify::verify(&meta, name, *timeout, out).await,
    }
}
