//! Levee's storage daemon: one per host, thread-per-core on glommio.
//!
//! Each core (`core.rs`) owns its shards of every disk, answers other daemons' requests about the
//! replicas on them, and serves whole volumes: a volume's gateway and its virtqueues live on one core,
//! so a guest's request never changes threads. The control thread (`control/`, tokio) talks to the
//! meta server and the operator.

pub mod args;
mod asks;
mod control;
mod core;
mod device;
mod disks;
mod executor;
mod links;
mod ports;
mod service;
mod stats;
mod volume;
mod watchdog;

pub use crate::control::NotTheNode;
use crate::control::{Cores, Disks, FromCores};
use crate::core::CoreConfig;
use crate::disks::Disk;
use anyhow::{Context, Result, anyhow};
use args::{FormatArgs, RunArgs};
use levee_core::shared::SharedBlocks;
use levee_rdma::Callers;
use tracing_subscriber::EnvFilter;

/// Makes a file or device a Levee disk.
pub fn format(args: &FormatArgs) -> Result<()> {
    disks::format(args)
}

/// Runs the daemon until it is told to stop.
pub fn run(mut args: RunArgs) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    abort_on_panic();
    make_absolute(&mut args)?;
    // Held to the end: whoever takes it next knows that this process is dead.
    let dir = disks::lock_dir(&args.dir)?;
    control::check(&args)?;
    let (disks, known) = disks::open_all(&args.disk, &args.dir)?;
    let shared = SharedBlocks::new(args.shared_cache);
    let (cores, from_cores, threads) = start_cores(&args, &disks, &shared)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(control::run(
        args,
        Disks::new(disks, known, disks::lock::name(&dir)?),
        cores,
        from_cores,
        shared,
    ));
    for thread in threads {
        let _ = thread.join();
    }
    done
}

/// Paths are told to others: virtual machines' owners, operators.
fn make_absolute(args: &mut RunArgs) -> Result<()> {
    for path in args.disk.iter_mut().map(|d| &mut d.path).chain([&mut args.sockets]) {
        *path = std::path::absolute(&*path).with_context(|| format!("'{}' is no path", path.display()))?;
    }
    Ok(())
}

/// Starts an executor per core, and waits until each has recovered its shards.
fn start_cores(
    args: &RunArgs,
    disks: &[Disk],
    shared: &Option<SharedBlocks>,
) -> Result<(Cores, FromCores, Vec<std::thread::JoinHandle<()>>)> {
    let (asks, asked) = asks::channel();
    let (news, heard) = async_channel::bounded(1);
    let (ready, readiness) = async_channel::bounded(args.data.len());
    let (mut senders, mut threads, callers) = (vec![], vec![], Callers::default());
    for (i, listen) in args.data.iter().enumerate() {
        let (sender, commands) = async_channel::bounded(control::QUEUE);
        let config = CoreConfig {
            core: i as u16,
            cores: args.data.len(),
            disks: disks.iter().map(|d| (d.path.clone(), d.superblock().cloned())).collect(),
            listen: *listen,
            commands,
            asks: asks.clone(),
            news: news.clone(),
            callers: callers.clone(),
            shared: shared.clone(),
        };
        let ready = ready.clone();
        let thread = executor::spawn(&format!("core-{i}"), move || core::run(config, ready));
        threads.push(thread.context("cannot start a thread")?);
        senders.push(sender);
    }
    drop(ready);
    for _ in 0..args.data.len() {
        futures_lite::future::block_on(readiness.recv()).map_err(|_| anyhow!("a core ended early"))?;
    }
    Ok((Cores::new(senders), FromCores { asked, news: heard }, threads))
}

/// A core that panicked would leave its volumes hanging: end the process, so that it is started again.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}
