//! The commands that speak to a cluster, one file each.

mod attach;
mod borrow;
mod capacity;
mod diff;
mod disk;
mod doctor;
mod family;
mod gateway;
mod image;
mod lists;
mod meta;
mod qemu;
mod qemu_probe;
mod redundancy;
mod snapshot;
mod status;
mod transfer;
mod usage;
mod verify;
mod volume;

use crate::cli::{Cli, Cluster, Command, Disk, Image, InitCommand, Node, Snapshot, Volume};
use crate::cluster;
use crate::init;
use crate::local;
use crate::output::Output;
use levee_proto::api::DiskState;
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
        Command::Volume(command) => run_volume(command, &cli, out).await,
        Command::Snapshot(command) => run_snapshot(command, &cli, out).await,
        Command::Image(command) => run_image(command, &cli, out).await,
        Command::Cluster(Cluster::Limits(limits)) => {
            capacity::limits(&cluster::connect(global)?, limits.change().as_ref(), out).await
        }
        Command::Meta(command) => meta::run(command, &cluster::connect(global)?, out).await,
        Command::Node(Node::List) => lists::nodes(&cluster::connect(global)?, out).await,
        Command::Disk(command) => run_disk(command, &cli, out).await,
        Command::Doctor => doctor::doctor(&cluster::connect(global)?, out).await,
        Command::Qemu(args) => qemu::qemu(args, &cluster::connect(global)?, out).await,
    }
}

async fn run_disk(command: &Disk, cli: &Cli, out: &Output) -> anyhow::Result<()> {
    let meta = cluster::connect(&cli.global)?;
    let (change, state) = match command {
        Disk::List => return lists::disks(&meta, out).await,
        Disk::Drain(change) => (change, DiskState::Draining),
        Disk::Undrain(change) => (change, DiskState::InService),
        Disk::Fail(change) => (change, DiskState::Dead),
    };
    disk::set(&meta, DiskId(change.id), state, change.reason.as_deref(), out).await
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
        Volume::Flatten { name, timeout } => family::flatten(&meta, name, *timeout, out).await,
        Volume::Attach { name, node, timeout } => attach::attach(&meta, name, node.as_deref(), *timeout, out).await,
        Volume::Detach { name } => volume::detach(&meta, name, out).await,
        Volume::Import { source, volume, overwrite, place } => {
            transfer::import(&meta, source, volume, *overwrite, place, out).await
        }
        Volume::Export { volume, target, place } => transfer::export(&meta, volume, target, place, out).await,
        Volume::Verify { name, timeout } => verify::verify(&meta, name, *timeout, out).await,
    }
}
