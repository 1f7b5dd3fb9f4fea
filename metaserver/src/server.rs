//! Starts a member, and stops it.

use crate::api;
use crate::app::{App, RaftWatch};
use crate::args::Args;
use crate::history;
use crate::limits::{CONNECT_WAIT, LEADER_RETRY, STOP_WAIT};
use crate::members;
use crate::raft::{self, Contact, Database, Directory, Identity, LogStore, Machine, Network, Raft, Snapshots};
use crate::repair;
use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use levee_meta_state::Command;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

/// Runs until SIGTERM or SIGINT, or until the member cannot go on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(&args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let own_url = args.told_url().map_or(format!("http://{}", listener.local_addr()?), String::from);
    let peers = args.members(&own_url).map_err(anyhow::Error::msg)?;
    let database = Database::open(&args.dir, args.id, args.level)?;
    database.check_term()?;
    let own = Identity { id: args.id, folder: database.folder(), level: args.level };
    let snapshots = Snapshots::open(&args.dir)?;
    let machine = Machine::load(database.clone(), snapshots.clone(), args.level)?;
    let (replicated, cluster) = (machine.replicated(), machine.cluster());
    let network = Network::new(Directory::new(own, replicated.clone(), peers.clone()))?;
    let log = LogStore::new(database);
    let config = Arc::new(raft::config(args.snapshot_every)?);
    let raft = Raft::new(args.id, config, network.clone(), log.clone(), machine).await;
    let raft = raft.context("cannot start consensus")?;

    let (stop, stopping) = watch::channel(false);
    let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_WAIT).tcp_nodelay(true).build()?;
    let (contact, fatal) = (Contact::default(), watch::Sender::new(None));
    let app = Arc::new(App::new(
        own_url.clone(),
        network,
        contact.clone(),
        args.policy(),
        args.rates(),
        raft.clone(),
        replicated,
        http,
        stopping.clone(),
    ));
    tokio::spawn(raft::elect(raft.clone(), app.network.clone(), log.clone(), contact.clone()));
    tokio::spawn(members::watch_removal(app.clone(), cluster, contact.clone(), fatal.clone()));
    start_group(&app, &args, peers);
    tokio::spawn(members::watch_quorum(app.clone()));
    tokio::spawn(found_cluster(app.clone()));
    tokio::spawn(repair::run(app.clone()));
    tokio::spawn(history::run(app.clone()));
    tracing::info!("member {} serves {own_url}, data in {}", args.id, args.dir.display());
    let failed = fatal.subscribe();
    let gate = raft::Gate::new(raft.clone(), log.clone(), own, contact.clone());
    let local = raft::Local {
        raft: raft.clone(),
        directory: app.directory().clone(),
        replicated: app.replicated.clone(),
        contact,
        barrier: app.barrier.clone(),
        log,
        receiver: raft::Receiver::new(gate.clone(), snapshots, args.level),
        gate,
        refusals: raft::Refusals::new(app.network.clone(), fatal),
    };
    let served = serve(listener, app, local, stop, stopping, failed).await;
    // The log is durable whatever happens here.
    let _ = raft.shutdown().await;
    served
}

/// What makes this member one of a group, and the group work.
fn start_group(app: &Arc<App>, args: &Args, peers: BTreeMap<u64, String>) {
    tokio::spawn(members::run(app.clone()));
    if args.join.is_empty() {
        tokio::spawn(members::found(app.clone(), peers));
    }
    if !args.join.is_empty() || args.told_url().is_some() {
        tokio::spawn(members::announce(app.clone(), args.join.clone(), args.told_url().is_some()));
    }
}

/// While this member leads, sees to it that the cluster has an id.
async fn found_cluster(app: Arc<App>) {
    let mut metrics = app.raft.metrics();
    while metrics.wait_for(|m| m.current_leader == Some(app.id)).await.is_ok() {
        if app.barrier.pass().await.is_ok() {
            if app.replicated.read(|state| state.cluster().is_some()) {
                return;
            }
            let cluster = Uuid::new_v4();
            if app.proposer.propose(Command::Found { cluster }).await.is_ok() {
                tracing::info!("a new cluster begins: {cluster}");
                return;
            }
        }
        sleep(LEADER_RETRY).await;
    }
}

async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    local: raft::Local,
    stop: watch::Sender<bool>,
    mut stopping: watch::Receiver<bool>,
    mut failed: watch::Receiver<Option<String>>,
) -> anyhow::Result<()> {
    let raft = app.raft.clone();
    let router = api::router(app, raft::router(local));
    let listener = listener.tap_io(|socket| {
        // Without it small answers wait for the client's acknowledgement; failing costs only time.
        let _ = socket.set_nodelay(true);
    });
    let mut until = stopping.clone();
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(async move {
            let _ = until.wait_for(|stop| *stop).await;
        });
    let mut server = tokio::spawn(server.into_future());

    let ended = tokio::select! {
        signal = wait_for_signal() => signal,
        failed = watch_raft(raft.metrics()) => failed,
        why = failed.wait_for(Option::is_some) => Err(anyhow::Error::msg(why.ok().and_then(|w| w.clone()).unwrap_or_default())),
        served = &mut server => bail!("the HTTP server has ended: {served:?}"),
    };
    stop.send_replace(true);
    let _ = stopping.wait_for(|stop| *stop).await;
    if tokio::time::timeout(STOP_WAIT, &mut server).await.is_err() {
        server.abort();
    }
    ended
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}

/// Says who leads; returns when consensus cannot go on, such as after a failed write to the disk.
async fn watch_raft(mut metrics: RaftWatch) -> anyhow::Result<()> {
    let mut leader = None;
    loop {
        let (running, now) = {
            let m = metrics.borrow_and_update();
            (m.running_state.clone(), m.current_leader)
        };
        if let Err(fatal) = running {
            bail!("consensus cannot go on, this member must be restarted: {fatal}");
        }
        if now != leader {
            match now {
                Some(id) => tracing::info!("member {id} leads"),
                None => tracing::warn!("no member leads"),
            }
            leader = now;
        }
        metrics.changed().await.context("consensus has ended")?;
    }
}
