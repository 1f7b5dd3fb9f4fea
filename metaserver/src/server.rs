//! Starts a member, and stops it.

use crate::api;
use crate::app::{App, RaftWatch};
use crate::args::Args;
use crate::history;
use crate::limits::{CONNECT_WAIT, LEADER_RETRY, STOP_WAIT};
use crate::raft::{self, Database, LogStore, Machine, Network, Raft};
use crate::repair;
use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use levee_meta_state::Command;
use openraft::BasicNode;
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
    let own_url = format!("http://{}", listener.local_addr()?);
    let members = args.members(&own_url).map_err(anyhow::Error::msg)?;
    let database = Database::open(&args.dir, args.id)?;
    let machine = Machine::load(database.clone())?;
    let replicated = machine.replicated();
    let raft = Raft::new(
        args.id,
        Arc::new(raft::config(args.snapshot_every)?),
        Network::new(members.clone())?,
        LogStore::new(database),
        machine,
    )
    .await
    .context("cannot start consensus")?;
    found_group(&raft, args.id, &members).await?;

    let (stop, stopping) = watch::channel(false);
    let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_WAIT).tcp_nodelay(true).build()?;
    let app = Arc::new(App::new(
        args.id,
        members,
        args.policy(),
        args.rates(),
        raft.clone(),
        replicated,
        http,
        stopping.clone(),
    ));
    tokio::spawn(found_cluster(app.clone()));
    tokio::spawn(repair::run(app.clone()));
    tokio::spawn(history::run(app.clone()));
    tracing::info!("member {} serves {own_url}, data in {}", args.id, args.dir.display());
    let served = serve(listener, app, stop, stopping).await;
    // The log is durable whatever happens here.
    let _ = raft.shutdown().await;
    served
}

/// The member with the lowest id writes the first entry of a new group's log. Elsewhere, and at any
/// later start, the log says who is in the group.
async fn found_group(raft: &Raft, id: u64, members: &BTreeMap<u64, String>) -> anyhow::Result<()> {
    if raft.is_initialized().await? {
        let recorded: Vec<u64> = raft.metrics().borrow().membership_config.nodes().map(|(id, _)| *id).collect();
        if !recorded.is_empty() && !recorded.iter().eq(members.keys()) {
            tracing::warn!(
                "--peers names members {:?}, the group has {recorded:?}",
                members.keys().collect::<Vec<_>>()
            );
        }
        return Ok(());
    }
    if members.keys().next() == Some(&id) {
        let nodes: BTreeMap<u64, BasicNode> = members.iter().map(|(id, url)| (*id, BasicNode::new(url))).collect();
        raft.initialize(nodes).await.context("cannot set up the group")?;
    }
    Ok(())
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
    stop: watch::Sender<bool>,
    mut stopping: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let (raft, id) = (app.raft.clone(), app.id);
    let router = api::router(app, raft::router(raft.clone(), id));
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
