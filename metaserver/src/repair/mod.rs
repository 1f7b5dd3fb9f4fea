//! The leader's part in keeping copies whole.
//!
//! Once a second it looks at what daemons report and proposes what follows from it: disks that count as lost
//! ([`disks`]), volumes that nobody uses and that are opened to repair them ([`volumes`]), and what background
//! copying may take ([`rate`]). It cleans up behind commands that died ([`jobs`]), and tells what has begun and ended ([`health`]). Gateways do the work. Each part decides by a function of the state and the
//! observations; nothing here is remembered beyond a term, so a new leader starts its waits anew.

mod disks;
mod jobs;
mod moves;
mod rate;
mod scrubs;
mod volumes;

pub use disks::one_line;

use crate::app::App;
use crate::capacity;
use crate::clock::now_ms;
use crate::health::{self, Teller};
use crate::limits::{MAX_BATCH, REPAIR_TICK};
use crate::members;
use crate::observe::Observed;
use levee_meta_state::{Command, State};
use levee_proto::api::CapacityLevel;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What operators decide about nodes that are away.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// A node that was not heard for this long is down.
    pub down_after: Duration,
    /// How long nothing must be heard of a disk until it counts as lost.
    pub after: Duration,
    /// Bytes per second for background copying in the whole cluster; none: no limit.
    pub rate: Option<u64>,
}

/// What a decision is made from.
struct View<'a> {
    state: &'a State,
    observed: &'a Observed,
    policy: Policy,
    now: Instant,
    /// Milliseconds since 1970.
    now_ms: u64,
}

/// What is remembered from one look to the next, within a term.
#[derive(Default)]
struct Memory {
    term: u64,
    disks: disks::Absences,
    volumes: volumes::Repairs,
    rate: rate::Shares,
    moves: moves::Moves,
    jobs: jobs::Jobs,
    teller: Teller,
    /// How full the cluster was said to be last.
    level: CapacityLevel,
}

/// Runs as long as the member.
pub async fn run(app: Arc<App>) {
    let mut memory = Memory::default();
    let mut stopping = app.stopping.clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(REPAIR_TICK) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        let term = app.term();
        if memory.term != term {
            memory = Memory { term, ..Memory::default() };
        }
        if app.leader() == Some(app.id) && app.replicated.read(|state| state.cluster().is_some()) {
            let commands = look(&app, &mut memory);
            propose(&app, commands).await;
        }
    }
}

/// What should be changed now.
fn look(app: &App, memory: &mut Memory) -> Vec<Command> {
    let mut commands = Vec::new();
    tell_level(app, &mut memory.level);
    let now_ms = now_ms();
    let held = app.observed(|observed, now| {
        app.replicated.read(|state| {
            observed.excuse(state.node_ids().filter(|node| state.node_is_maintained(*node, now_ms)));
            observed.look(now);
            let observed = &*observed;
            let view = View { state, observed, policy: app.policy, now, now_ms };
            let held = memory.disks.judge(&view, &mut commands);
            memory.volumes.tend(&view, &mut commands);
            memory.rate.share(&view, &mut commands);
            memory.moves.watch(&view, &mut commands);
            memory.jobs.tend(&view, &mut commands);
            held
        })
    });
    app.hold_repair(held);
    let members = members::status(app);
    health::with_view(app, |view| memory.teller.tell(view, &members, &mut commands));
    commands.truncate(MAX_BATCH);
    commands
}

/// Says so once when the cluster fills up, or does not any more.
fn tell_level(app: &App, last: &mut CapacityLevel) {
    let info = app.observed(|observed, _| app.replicated.read(|state| capacity::info(state, observed)));
    if info.level == std::mem::replace(last, info.level) {
        return;
    }
    match info.detail {
        Some(detail) => tracing::warn!("{detail}"),
        None => tracing::info!("the cluster has room again: {} of {} bytes are used", info.used, info.reported),
    }
}

async fn propose(app: &Arc<App>, commands: Vec<Command>) {
    let mut proposals = JoinSet::new();
    for command in commands {
        tell(app, &command);
        let proposer = app.proposer.clone();
        proposals.spawn(async move { (proposer.propose(command.clone()).await, command) });
    }
    while let Some(done) = proposals.join_next().await {
        // What was refused was overtaken by something else, what got lost is due again at the next look.
        if let Ok((Err(problem), command)) = done {
            tracing::debug!("{command:?} is refused: {problem}");
        }
    }
}

fn tell(app: &App, command: &Command) {
    let name = |id| app.replicated.read(|state| state.volume(id).map(|v| v.name.clone())).unwrap_or_default();
    match command {
        Command::SetDisk { disk, state: to, reason, .. } => {
            tracing::warn!("disk {disk} is now {to:?}: {}", reason.as_deref().unwrap_or("it is heard of again"));
        }
        Command::AttachRepair { volume, node } => {
            tracing::info!(
                "volume '{}', which nobody uses, is opened on node {node} to put it in order",
                name(*volume)
            );
        }
        Command::DetachRepair { volume, .. } => tracing::info!("the repair of volume '{}' ends", name(*volume)),
        Command::SetBackgroundRate { rate } => tracing::debug!("background rate of each node: {rate:?}"),
        _ => {}
    }
}
